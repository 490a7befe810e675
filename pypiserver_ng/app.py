"""The composition root: a configuration becomes an application. The only place that names concrete rooms.

A request passes, from outside: `Forwarded` (who asks, as a trusted proxy says), Starlette's exception handling
(failures become answers by one table), the router (hot routes first, the bare root last).
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.auth import Authenticator, Gate, PasswordFile
from pypiserver_ng.config import Config
from pypiserver_ng.index import Index
from pypiserver_ng.index.curation import Curator
from pypiserver_ng.index.reading import Reader
from pypiserver_ng.index.store import open_store
from pypiserver_ng.model import Action
from pypiserver_ng.policy import Policy
from pypiserver_ng.upstream import Upstream
from pypiserver_ng.upstream.pip_index import find_pip_index
from pypiserver_ng.web import files, http, integrity, legacy_json, ops, simple, site, upload, xmlrpc
from pypiserver_ng.web.forwarded import Forwarded
from pypiserver_ng.web.templating import Templates

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Application:
    """The ASGI application and the index it serves."""

    asgi: Starlette
    index: Index


@contextmanager
def open_curator(config: Config) -> Iterator[Curator]:
    """The index's files and facts for a command that works beside a running server, or without one.

    Raises OSError, and Invalid when the catalog cannot be used.
    """
    store = open_store(config.packages, config.state_dir, is_server=False)
    try:
        with closing(Inspector()) as inspector:
            reader = Reader(store.directory, store.metadata, inspector, started=0.0)
            yield Curator(store, reader)
    finally:
        store.close()


def create_app(config: Config) -> Application:
    """Open everything that can fail early, and wire it.

    Raises OSError, ValueError (the password file), and Failure with one line for the person who starts it.
    """
    store = open_store(config.packages, config.state_dir, is_server=True)
    upstreams = choose_upstreams(config)
    authenticator = Authenticator(PasswordFile(config.passwords)) if config.passwords else None
    gate = Gate(config.authenticate, authenticator)
    index = Index(
        store,
        Policy(reserve=config.reserve, fallback=bool(upstreams)),
        upstreams,
        AttestationVerifier(config.publishers),
        Inspector(),
        overwrite=config.overwrite,
        private_pages=Action.LIST in config.authenticate,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(store.close)
            if authenticator is not None:
                stack.callback(authenticator.close)
                watching = asyncio.create_task(authenticator.watch())
                stack.callback(watching.cancel)
            stack.push_async_callback(index.stop)
            await index.start()
            yield

    people = choose_site(config, index, gate)
    asgi = Starlette(
        routes=under_prefix(config.server_base_url, anchor(choose_routes(config, index, gate, people))),
        middleware=[Middleware(Forwarded, trusted=config.trusted_proxy)],
        exception_handlers=http.failure_handlers(people.render_failure),
        lifespan=lifespan,
    )
    asgi.router.redirect_slashes = False
    return Application(asgi, index)


def choose_upstreams(config: Config) -> list[Upstream]:
    """The configured fallbacks, else the index that pip on this machine uses; none when the fallback is off."""
    if config.disable_fallback:
        return []
    urls = list(config.fallback_url)
    if not urls and (found := find_pip_index()):
        urls = [found]
    usable = [Upstream(url) for url in urls if url.startswith(("http://", "https://"))]
    if not usable:
        _log.warning("pip on this machine names no index that clients could reach: projects that are not here are 404")
    return usable


def choose_routes(config: Config, index: Index, gate: Gate, people: site.Site) -> list[BaseRoute]:
    """Every route of the index. Order matters: pages first, because they are asked most; the bare root last."""
    private_pages = Action.LIST in config.authenticate
    private_files = Action.DOWNLOAD in config.authenticate
    cache_control = files.make_cache_control(config.cache_control, overwrite=config.overwrite, private=private_files)
    return [
        *simple.routes(index, gate),
        *files.routes(index, gate, cache_control),
        *merge_methods(site.routes(people), upload.routes(index, gate, config.max_upload_size)),
        *ops.routes(index, config.health_endpoint),
        *xmlrpc.routes(index, gate),
        *legacy_json.routes(index, gate, private=private_pages),
        *integrity.routes(index, gate, private=private_pages),
        *simple.root_routes(),
    ]


def choose_site(config: Config, index: Index, gate: Gate) -> site.Site:
    uploads = "open" if Action.UPDATE not in config.authenticate else "credentials" if config.passwords else "refused"
    return site.Site(
        index=index,
        gate=gate,
        templates=Templates(),
        uploads=uploads,
        private=Action.LIST in config.authenticate,
        welcome=config.welcome.read_text(encoding="utf-8") if config.welcome else None,
    )


class _ByMethod:
    """One path, two surfaces: people read `/`, tools post to it."""

    def __init__(self, reading: Any, posting: Any) -> None:
        self._reading = reading
        self._posting = posting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._posting if scope["method"] == "POST" else self._reading
        await endpoint(scope, receive, send)


def merge_methods(reading: Sequence[BaseRoute], posting: Sequence[BaseRoute]) -> list[BaseRoute]:
    """One route for each path, so that a method nobody knows is 405 with all that are allowed."""
    by_path = {route.path: route for route in reading if isinstance(route, Route)}
    merged: list[BaseRoute] = []
    for route in posting:
        assert isinstance(route, Route)
        if (read := by_path.pop(route.path, None)) is not None:
            route = Route(route.path, _ByMethod(read.endpoint, route.endpoint), methods=["GET", "POST"])
        merged.append(route)
    return [*merged, *by_path.values()]


def anchor(routes: Sequence[BaseRoute]) -> Sequence[BaseRoute]:
    r"""The same routes with patterns that end in ``\Z``: Starlette's ``$`` also fits before a newline at the end."""
    for route in routes:
        assert isinstance(route, Route)
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")
    return routes


def under_prefix(prefix: str, routes: Sequence[BaseRoute]) -> Sequence[BaseRoute]:
    """Everything below the prefix, and nothing beside it."""
    if not prefix:
        return routes
    return [Route(prefix, _AddSlash(), methods=["GET"]), Mount(prefix, routes=routes)]


class _AddSlash:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        last: str = scope["path"].rpartition("/")[2]
        await http.send_redirect(scope, send, f"{last}/".encode())
