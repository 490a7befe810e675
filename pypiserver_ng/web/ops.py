"""What operators and orchestrators ask: is it alive, is it ready, how does it do."""

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.counters import Counters
from pypiserver_ng.index import Index
from pypiserver_ng.web import http
from pypiserver_ng.web.metrics import Metrics


class Health:
    """GET /health: the process answers. Never needs credentials."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await http.send_text(send, 200, "Ok", [(b"cache-control", b"no-store")])


class Ready:
    """GET /-/ready: the index answers."""

    def __init__(self, index: Index) -> None:
        self._index = index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._index.check()
        await http.send_text(send, 200, "ready\n", [(b"cache-control", b"no-store")])


class NoIcon:
    """Browsers ask for it at every page; without this the name would be taken for a project."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await http.send_text(send, 404, "there is no icon\n", [(b"cache-control", b"max-age=86400")])


class Robots:
    """Nothing of a private index belongs into a search engine."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await http.send_text(send, 200, "User-agent: *\nDisallow: /\n", [(b"cache-control", b"max-age=86400")])


def routes(index: Index, counters: Counters, health_endpoint: str) -> list[BaseRoute]:
    return [
        Route(health_endpoint, Health(), methods=["GET"]),
        Route("/-/ready", Ready(index), methods=["GET"]),
        Route("/-/metrics", Metrics(index, counters), methods=["GET"]),
        Route("/favicon.ico", NoIcon(), methods=["GET"]),
        Route("/robots.txt", Robots(), methods=["GET"]),
    ]
