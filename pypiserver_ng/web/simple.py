"""`/simple/` and `/simple/<project>/`: the simple repository API. Ready bytes from the index, nothing built here."""

from collections.abc import Callable

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth import Gate
from pypiserver_ng.index import Index
from pypiserver_ng.index.pagecache import Key
from pypiserver_ng.model import Body, Elsewhere, NormalizedName, Right, Sight
from pypiserver_ng.web import http
from pypiserver_ng.web.failures import is_turned_away
from pypiserver_ng.web.forwarded import trustworthy_url


class ProjectDetail:
    """GET /simple/<project>/. An ASGI endpoint: on a hit no Request, no Response, no thread."""

    def __init__(self, index: Index, gate: Gate) -> None:
        self._index = index
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accept = http.header(scope, b"accept")
        accept_encoding = http.header(scope, b"accept-encoding")
        authorization = http.header(scope, b"authorization")
        name = http.read_name(scope)
        if await is_turned_away(scope, send, self._gate, Right.LIST, name):
            return
        identity = http.authorize_now(scope, self._gate, Right.LIST, name)
        if identity is None:
            identity = await http.authorize(scope, self._gate, Right.LIST, name)
        media_type = http.negotiate(accept, scope["query_string"])
        if media_type is None:
            raise http.not_acceptable()
        key = (media_type, http.choose_coding(accept_encoding))
        asked: str = scope["path_params"]["project"]
        refresh = self._index.has_mirror and b"no-cache" in (http.header(scope, b"cache-control") or b"").lower()
        if asked != name:
            await http.redirect(scope, send, f"simple/{name}/")
            return
        sees_all_versions = identity.token is None or identity.token.until_version is None
        body = self._index.peek_project_page(name, key) if sees_all_versions and not refresh else None
        if body is None:
            sight = None if sees_all_versions else self._gate.sight(identity)
            await self._answer(scope, send, name, key, sight, refresh=refresh)
        else:
            await http.send_page(scope, send, body, self._remember(name, key, body, authorization))

    def _remember(
        self, name: NormalizedName, key: Key, body: Body, authorization: bytes | None
    ) -> Callable[[], bool] | None:
        """Tells later whether the same request would get the same page, by the same questions that led to it."""
        is_page = self._index.remember_project_page(name, key, body)
        may_ask = self._gate.remember(Right.LIST, authorization)
        return is_page if may_ask is None else lambda: may_ask() and is_page()

    async def _answer(
        self, scope: Scope, send: Send, name: NormalizedName, key: Key, sight: Sight | None, *, refresh: bool
    ) -> None:
        answer = await self._index.project_page(name, key, trustworthy_url(scope), refresh=refresh, sight=sight)
        if isinstance(answer, Elsewhere):
            await http.send_redirect(scope, send, answer.url.encode())
        else:
            await http.send_page(scope, send, answer)


class ProjectList:
    """GET /simple/."""

    def __init__(self, index: Index, gate: Gate) -> None:
        self._index = index
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity = await http.authorize(scope, self._gate, Right.LIST)
        media_type = http.negotiate(http.header(scope, b"accept"), scope["query_string"])
        if media_type is None:
            raise http.not_acceptable()
        coding = http.choose_coding(http.header(scope, b"accept-encoding"))
        await http.send_page(scope, send, await self._index.root_page((media_type, coding), self._gate.sight(identity)))


class ToNormalForm:
    """Redirects the spellings of a project's page to the one that answers: normalized, with a slash."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await http.redirect(scope, send, f"simple/{http.read_name(scope)}/")


class ToList:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await http.redirect(scope, send, "simple/")


def routes(index: Index, gate: Gate) -> list[BaseRoute]:
    return [
        Route("/simple/{project}/", ProjectDetail(index, gate), methods=["GET"]),
        Route("/simple/", ProjectList(index, gate), methods=["GET"]),
        Route("/simple/{project}", ToNormalForm(), methods=["GET"]),
        Route("/simple", ToList(), methods=["GET"]),
        # pipenv puts a slash behind a URL that ends in one.
        Route("/simple//{project}/", ToNormalForm(), methods=["GET"]),
        # pypiserver listed every file there, and home pages link to it.
        Route("/packages/", ToList(), methods=["GET"]),
        Route("/packages", ToList(), methods=["GET"]),
    ]


def root_routes() -> list[BaseRoute]:
    """`/<project>` and `/<project>/`, so that the bare root works as an index URL; these come last."""
    return [
        Route("/{project}/", ToNormalForm(), methods=["GET"]),
        Route("/{project}", ToNormalForm(), methods=["GET"]),
    ]
