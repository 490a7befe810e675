"""`/-/why/<project>[/<version>]`: which rule decided, what is hidden, and until when; for people and for programs."""

from collections import Counter
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng import pages
from pypiserver_ng.index.explanation import Explanation, describe_explanation
from pypiserver_ng.model import Right
from pypiserver_ng.web import http
from pypiserver_ng.web.site import Site

_TYPES = ("application/json", "text/html")
#: Files that a page for people names; JSON has all.
_MOST_FILES = 500


class Why:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = self._site
        name = http.read_name(scope)
        identity = await http.authorize(scope, site.gate, Right.LIST, name)
        media_type = http.choose_type(http.header(scope, b"accept"), _TYPES)
        if media_type is None:
            raise http.not_acceptable(_TYPES)
        version: str | None = scope["path_params"].get("version")
        explanation = await site.index.explain(name)
        if (sight := site.gate.sight(identity)) is not None:
            explanation = explanation.seen_by(sight)
        if version is not None:
            explanation = explanation.of_version(version)
        context = site.context(scope)

        def render() -> bytes:
            if media_type == "application/json":
                return msgspec.json.encode(describe_explanation(explanation))
            return site.templates.render("why.html", **context, release=version, **_for_people(explanation))

        content = await site.index.run(render)
        headers: http.Headers = [
            *(http.SECURITY if media_type == "text/html" else []),
            (b"cache-control", pages.cache_control(private=site.private)),
            (b"vary", b"Accept"),
        ]
        charset = "; charset=utf-8" if media_type == "text/html" else ""
        await http.send_validated(scope, send, content, (media_type + charset).encode(), headers)


def _for_people(explanation: Explanation) -> dict[str, Any]:
    hidden = [file for file in explanation.files if not file.is_offered]
    offered = [file for file in explanation.files if file.is_offered]
    return {
        "name": explanation.project,
        "decision": explanation.decision,
        "upstream": explanation.upstream,
        "note": explanation.note,
        "hidden": hidden[:_MOST_FILES],
        "hidden_total": len(hidden),
        "rules": Counter(file.rule for file in hidden).most_common(),
        "offered": offered[:_MOST_FILES],
        "offered_total": len(offered),
    }


def routes(site: Site) -> list[BaseRoute]:
    endpoint = Why(site)
    return [
        Route("/-/why/{project}", endpoint, methods=["GET"]),
        Route("/-/why/{project}/{version}", endpoint, methods=["GET"]),
    ]
