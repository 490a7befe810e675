"""Pages for people: home, project, search. Their look is in `templates/`; nothing here knows HTML."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng import __version__, pages
from pypiserver_ng.auth import Gate
from pypiserver_ng.client_config import CLIENTS, Server, configure_client, find_host
from pypiserver_ng.errors import Denied, TooMany, Unauthenticated, Unavailable
from pypiserver_ng.index import Index
from pypiserver_ng.metadata import CoreMetadata
from pypiserver_ng.model import File, Identity, Listed, Project, Right
from pypiserver_ng.pages import file_url
from pypiserver_ng.policy import describe_status
from pypiserver_ng.web import http
from pypiserver_ng.web.forwarded import base_url
from pypiserver_ng.web.legacy_json import choose_version, representative
from pypiserver_ng.web.templating import Templates, render_description, render_welcome

_RECENT = 20
_MOST_RESULTS = 200
_MOST_RENDERING = 4
_SCHEMES = ("http://", "https://", "mailto:")


@dataclass(frozen=True, slots=True)
class Site:
    """What the pages for people need to know of the server."""

    index: Index
    gate: Gate
    templates: Templates
    #: "open" or "credentials".
    uploads: str
    #: Otherwise tokens are the only credentials.
    has_passwords: bool
    private: bool
    #: Text of the user's own home page.
    welcome: str | None
    #: Whether listing or downloading needs credentials.
    guarded: bool = False

    async def find_lister(self, scope: Scope) -> Identity | None:
        """Who asks, if there is anything that may be listed for them."""
        try:
            return await http.authorize(scope, self.gate, Right.LIST)
        except (Unauthenticated, Denied, TooMany, Unavailable):
            return None

    async def send(self, scope: Scope, send: Send, content: bytes) -> None:
        headers: http.Headers = [*http.SECURITY, (b"cache-control", pages.cache_control(private=self.private))]
        await http.send_validated(scope, send, content, b"text/html; charset=utf-8", headers)

    def render_failure(self, scope: Scope, status: int, title: str, message: str) -> bytes:
        """What a browser sees instead of one line of text."""
        here = {"base": self.context(scope)["base"], "version": __version__}
        return self.templates.render("error.html", **here, status=status, title=title, message=message)

    def context(self, scope: Scope) -> dict[str, Any]:
        """What every page knows: the way back to the root, and this server's URL as the reader sees it."""
        url = base_url(scope)
        return {
            "base": http.way_to_root(scope) or "./",
            "version": __version__,
            "url": url,
            "simple_url": f"{url}simple/",
            "host": find_host(url),
            "plain_http": scope["scheme"] == "http",
        }


class Home:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = self._site
        projects, files = await site.index.counts()
        if site.welcome is not None:
            url = base_url(scope)
            values = {
                "URL": url,
                "VERSION": __version__,
                "NUMPKGS": str(files),
                "PACKAGES": f"{url}packages/",
                "SIMPLE": f"{url}simple/",
            }
            welcome = site.welcome
            await site.send(scope, send, render_welcome(welcome, values))
            return
        lister = await site.find_lister(scope)
        sight = site.gate.sight(lister) if lister else None
        upstreams = site.index.upstreams
        context = site.context(scope) | {
            "projects": projects,
            "files": files,
            "may_list": lister is not None,
            "sees_all": lister is not None and sight is None,
            "recent": [_hit(found) for found in await site.index.recent(_RECENT, sight)] if lister else [],
            "uploads": site.uploads,
            "has_passwords": site.has_passwords,
            # Clients are redirected to the first only.
            "fallbacks": [upstream.public_url for upstream in upstreams[: None if site.index.has_mirror else 1]],
            "has_mirror": site.index.has_mirror,
            "reserved": list(site.index.policy.reserve),
            "clients": _describe_clients(Server(base_url(scope), site.uploads, site.guarded)),
        }
        await site.send(scope, send, await site.index.run(lambda: site.templates.render("home.html", **context)))


class ProjectSite:
    """GET /project/<project>/ and /project/<project>/<version>/."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rendering = asyncio.Semaphore(_MOST_RENDERING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = self._site
        name = http.read_name(scope)
        identity = await http.authorize(scope, site.gate, Right.LIST, name)
        wanted: str | None = scope["path_params"].get("version")
        if name != scope["path_params"]["project"]:
            await http.redirect(scope, send, f"project/{name}/" + (f"{wanted}/" if wanted else ""))
            return
        project = await site.index.project(name, site.gate.sight(identity))
        version = choose_version(project, wanted)
        metadata = await site.index.core_metadata(representative(project, version))
        context = site.context(scope)

        def render() -> bytes:
            return site.templates.render("project.html", **context, **_describe(project, version, metadata, context))

        # A hostile README may take its renderer ten seconds; that must not take all threads.
        async with self._rendering:
            content = await site.index.run(render)
        await site.send(scope, send, content)


class Search:
    """GET /-/search?q=TERMS; without terms, all projects."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = self._site
        identity = await http.authorize(scope, site.gate, Right.LIST)
        asked = http.query_value(scope, "q")[:200].strip()
        found, total = await site.index.search(asked.split()[:10], _MOST_RESULTS, site.gate.sight(identity))
        context = site.context(scope) | {
            "q": asked,
            "results": [_hit(project) for project in found],
            "total": total,
            "truncated": total > _MOST_RESULTS,
        }
        await site.send(scope, send, await site.index.run(lambda: site.templates.render("search.html", **context)))


class Stylesheet:
    def __init__(self, site: Site) -> None:
        self._content = site.templates.stylesheet()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: http.Headers = [(b"cache-control", b"public, max-age=3600")]
        await http.send_bytes(send, 200, self._content, b"text/css; charset=utf-8", headers)


class ToSite:
    """Adds the slash that a page for people ends with."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version: str | None = scope["path_params"].get("version")
        target = f"project/{http.read_name(scope)}/"
        await http.redirect(scope, send, target + (f"{quote(version, safe='')}/" if version else ""))


def _describe_clients(server: Server) -> list[dict[str, str]]:
    return [{"name": name, "what": CLIENTS[name], "text": configure_client(name, server)} for name in CLIENTS]


def _hit(found: Any) -> dict[str, Any]:
    return {
        "name": found.name,
        "display_name": found.display_name,
        "version": found.version,
        "summary": found.summary,
        "when": found.upload_time,
    }


def _describe(project: Project, version: str, metadata: CoreMetadata | None, context: dict[str, Any]) -> dict[str, Any]:
    base: str = context["base"]
    found = metadata or CoreMetadata(project.display_name, version)
    status = pages.describe_status(project)
    description = render_description(found.description, found.description_content_type) if found.description else None
    return {
        "project": {"name": project.name, "display_name": project.display_name},
        "release": {
            "version": version,
            "summary": found.summary,
            "requires_python": found.requires_python,
            "description": description,
            "author": found.author or found.author_email,
            "license": found.license_expression or found.license,
            "keywords": found.keywords,
            "classifiers": list(found.classifiers),
            "project_urls": _links(found),
            "requires_dist": list(found.requires_dist),
        },
        "versions": _versions(project, version, base),
        "files": [_file(file, base) for file in project.files if file.version == version],
        "status": describe_status(project.name, project.status, project.status_reason) if status else None,
        "shadow": _describe_origin(project),
    }


def _describe_origin(project: Project) -> str:
    kinds = {isinstance(file, File) for file in project.files}
    if kinds == {True}:
        return "Served from here only: upstream versions of this project are not offered."
    if kinds == {True, False}:
        return "Files that are here and files of an upstream are offered together."
    return "Served from an upstream, and kept here."


def _links(found: CoreMetadata) -> list[tuple[str, str]]:
    links = [*found.project_urls]
    if found.home_page:
        links.append(("Homepage", found.home_page))
    return [(label, url) for label, url in links if url.lower().startswith(_SCHEMES)]


def _versions(project: Project, current: str, base: str) -> list[dict[str, Any]]:
    files: dict[str, list[Listed]] = {}
    for file in project.files:
        files.setdefault(file.version, []).append(file)
    return [
        {
            "version": version,
            "url": f"{base}project/{project.name}/" + (f"{quote(version, safe='')}/" if version else ""),
            "current": version == current,
            "yanked": all(file.yanked for file in group),
            "when": min((file.upload_time for file in group if file.upload_time), default=None),
        }
        for version, group in reversed(files.items())
    ]


def _file(file: Listed, base: str) -> dict[str, Any]:
    return {
        "filename": file.filename,
        "url": file_url(file, base) + (f"#sha256={file.sha256}" if file.sha256 else ""),
        "size": file.size,
        "sha256": file.sha256,
        "when": file.upload_time,
        "requires_python": file.requires_python,
        "kind": file.kind.value,
        "yanked": file.yanked,
        "yanked_reason": file.yanked_reason,
    }


def routes(site: Site) -> list[BaseRoute]:
    project = ProjectSite(site)
    pages: Sequence[tuple[str, Any]] = (
        ("/", Home(site)),
        ("/project/{project}/", project),
        ("/project/{project}", ToSite()),
        ("/project/{project}/{version}/", project),
        ("/project/{project}/{version}", ToSite()),
        ("/-/search", Search(site)),
        ("/-/style.css", Stylesheet(site)),
    )
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in pages]
