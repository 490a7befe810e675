"""The composition root: a configuration becomes an application. The only place that names concrete rooms.

A request passes, from outside: `Forwarded` (who asks, as a trusted proxy says), Starlette's exception handling
(failures become answers by one table), the router (hot routes first, the bare root last).
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from pypiserver_ng.archive.inspector import Inspector
from pypiserver_ng.attestations import AttestationVerifier
from pypiserver_ng.auth import Access, Authenticator, Gate, PasswordFile, Throttle, TokenBook
from pypiserver_ng.auth.exchange import LIFETIME, Exchange, Minted, Verified
from pypiserver_ng.auth.tokens import make_token
from pypiserver_ng.config import Config
from pypiserver_ng.counters import Board, Counters
from pypiserver_ng.index import Index
from pypiserver_ng.index.advisories import AdvisoryWatch
from pypiserver_ng.index.curation import Curator
from pypiserver_ng.index.following import Flights
from pypiserver_ng.index.reading import Reader
from pypiserver_ng.index.store import Store, open_store
from pypiserver_ng.index.threads import Threads
from pypiserver_ng.model import Action, Right, Token
from pypiserver_ng.policy import NO_ADVISORIES, Policy
from pypiserver_ng.storage import Cache
from pypiserver_ng.storage.audit import AuditLog
from pypiserver_ng.upstream.addresses import Upstream
from pypiserver_ng.upstream.pip_index import find_pip_index
from pypiserver_ng.web import files, http, integrity, legacy_json, oidc, ops, simple, site, upload, why, xmlrpc
from pypiserver_ng.web.accel import Accel
from pypiserver_ng.web.auditing import Refusals
from pypiserver_ng.web.failures import TellFailure, failure_handlers
from pypiserver_ng.web.forwarded import Forwarded
from pypiserver_ng.web.templating import Templates

if TYPE_CHECKING:
    # What fetches from upstreams is imported where it is made: an index that fetches nothing does without it.
    from pypiserver_ng.index.bringing import Bringer
    from pypiserver_ng.index.mirror import Mirror

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


@asynccontextmanager
async def open_index(config: Config) -> AsyncIterator[Index]:
    """An index for a command's questions: it answers from what is known, and reads and watches nothing.

    Raises OSError, and Failure with one line for the person who asks.
    """
    store = open_store(config.packages, config.state_dir, is_server=False)
    try:
        index, _ = compose_index(config, store)
        try:
            yield index
        finally:
            await index.stop()
    finally:
        store.close()


@asynccontextmanager
async def open_bringer(config: Config) -> "AsyncIterator[tuple[Bringer, Callable[[], ASGIApp]]]":
    """For a command that brings files of upstreams; and what makes the index that a resolver may ask meanwhile.

    Cache mode must be on. Raises OSError, and Failure with one line for the person who asks.
    """
    from pypiserver_ng.index.bringing import Bringer  # noqa: PLC0415

    store = open_store(config.packages, config.state_dir, is_server=False)
    try:
        index, _ = compose_index(config, store)
        with closing(Inspector()) as inspector:
            bringer = Bringer(index, store, Reader(store.directory, store.metadata, inspector, started=0.0))
            try:
                # Everybody may read in it: only who knows its prefix finds it.
                yield (
                    bringer,
                    partial(compose_asgi, config, index, Gate(frozenset({Action.UPDATE}), Authenticator(None))),
                )
            finally:
                await index.run(bringer.stop)
                await index.stop()
    finally:
        store.close()


def compose_index(config: Config, store: Store) -> tuple[Index, AdvisoryWatch | None]:
    """Raises OSError and Invalid."""
    upstreams = choose_upstreams(config)
    watch = AdvisoryWatch(config.osv) if config.osv else None
    policy = choose_policy(config, upstreams, watch)
    inspector = Inspector()
    index = Index(
        store,
        policy,
        upstreams,
        AttestationVerifier(config.publishers),
        inspector,
        open_mirror(config, upstreams, inspector) if policy.needs_cache else None,
        overwrite=config.overwrite,
        private_pages=config.needs_credentials(Right.LIST),
    )
    return index, watch


def create_app(config: Config, counters: Counters | None = None) -> Application:
    """Open everything that can fail early, and wire it.

    `counters` are those of the process that serves it. Raises OSError, ValueError (the password file), and Failure
    with one line for the person who starts it.
    """
    cell = counters.board.shared if counters else None
    store = open_store(config.packages, config.state_dir, is_server=True, cell=cell)
    index, watch = compose_index(config, store)
    passwords = PasswordFile(config.passwords) if config.passwords else None
    failures = (counters.board if counters else Board()).failures
    audit = AuditLog(config.state_dir)
    tokens = TokenBook(store.catalog.tokens, partial(note_use, audit))
    authenticator = Authenticator(passwords, tokens, Throttle(failures))
    gate = Gate(config.authenticate, authenticator, Access(config.grants), conceal=config.conceal)
    refusals = Refusals(
        audit, authenticator.recognize, lambda user: passwords is not None and user in passwords.current.entries
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(store.close)
            stack.callback(audit.close)
            stack.callback(authenticator.close)
            watching = asyncio.create_task(authenticator.watch())
            stack.callback(watching.cancel)
            if watch is not None:
                following = asyncio.create_task(watch.run(index.heed))
                stack.callback(following.cancel)
            stack.push_async_callback(index.stop)
            await index.start()
            yield

    exchange = open_exchange(config, index, store, tokens)
    return Application(compose_asgi(config, index, gate, counters, lifespan, refusals.note, exchange), index)


def note_use(audit: AuditLog, token: Token, address: str | None) -> None:
    audit.note("use", outcome="done", user=token.user, address=address)


def compose_asgi(
    config: Config,
    index: Index,
    gate: Gate,
    counters: Counters | None = None,
    lifespan: Lifespan[Starlette] | None = None,
    tell: TellFailure | None = None,
    exchange: Exchange | None = None,
) -> Starlette:
    """Every surface of the index."""
    people = choose_site(config, index, gate)
    routes = choose_routes(config, index, gate, people, counters, oidc.routes(exchange, tell))
    # Clients ask the host for these, whatever path they know the index by.
    outside = anchor(oidc.routes(exchange, tell)) if config.server_base_url else []
    asgi = Starlette(
        routes=[*under_prefix(config.server_base_url, anchor(routes)), *outside],
        middleware=[Middleware(Forwarded, trusted=config.trusted_proxy)],
        exception_handlers=failure_handlers(people.render_failure, tell),
        lifespan=lifespan,
    )
    asgi.router.redirect_slashes = False
    return asgi


def choose_upstreams(config: Config) -> list[Upstream]:
    """The configured upstreams, else the index that pip on this machine uses; none when the fallback is off."""
    if config.disable_fallback:
        return []
    if config.upstreams:
        return [Upstream(one.url, one.name, one.on_error) for one in config.upstreams]
    found = find_pip_index()
    if found and found.startswith(("http://", "https://")):
        return [Upstream(found)]
    _log.warning("pip on this machine names no index that clients could reach: projects that are not here are 404")
    return []


def choose_policy(config: Config, upstreams: Sequence[Upstream], watch: AdvisoryWatch | None) -> Policy:
    return Policy(
        reserve=config.reserve,
        fallback=bool(upstreams),
        upstreams=[upstream.name for upstream in upstreams],
        mode=config.fallback_mode,
        merge=config.merge,
        cooldown=config.cooldown,
        rules=config.rules,
        advisories=watch.advisories if watch else NO_ADVISORIES,
    )


def open_mirror(config: Config, upstreams: Sequence[Upstream], inspector: Inspector) -> "Mirror":
    """Raises OSError."""
    from pypiserver_ng.index.mirror import Mirror  # noqa: PLC0415
    from pypiserver_ng.index.mirror.downloads import Downloads  # noqa: PLC0415
    from pypiserver_ng.index.mirror.pages import Pages  # noqa: PLC0415
    from pypiserver_ng.index.mirror.sidecars import Sidecars  # noqa: PLC0415
    from pypiserver_ng.upstream.client import UpstreamClient  # noqa: PLC0415

    cache = Cache(config.state_dir, config.cache_size)
    client = UpstreamClient()
    flights = Flights()
    threads = Threads(16, "mirror")
    pages = Pages(cache, client, Threads(4, "pages"), flights, offline=config.offline)
    downloads = Downloads(cache, client, threads)
    sidecars = Sidecars(cache, client, inspector, threads)
    return Mirror(cache, pages, downloads, sidecars, client, threads, flights, upstreams, offline=config.offline)


def open_exchange(config: Config, index: Index, store: Store, tokens: TokenBook) -> Exchange | None:
    """What makes identity tokens tokens of this index; None where nobody is trusted to issue them."""
    if not config.publishers:
        return None
    from pypiserver_ng.auth.oidc import Verifier  # noqa: PLC0415

    async def spend(key: str, expires: datetime) -> bool:
        return await index.change(store.catalog.identities.spend, key, expires, datetime.now(UTC))

    async def mint(verified: Verified, address: str | None) -> Minted:
        projects, now = verified.publisher.projects, datetime.now(UTC)
        token, text = make_token(verified.user, projects, frozenset({Action.UPDATE}), now, LIFETIME)
        await index.change(store.catalog.tokens.add, token, verified.user, address)
        return Minted(text, now + LIFETIME)

    async def burn(text: str, address: str | None) -> bool:
        token = await tokens.look_up(text)
        if token is None or not token.is_of_nobody:
            return False
        await index.change(store.catalog.tokens.burn, token, address)
        return True

    return Exchange(config.publishers, Verifier(config.publishers).verify, spend, mint, burn)


def choose_routes(
    config: Config,
    index: Index,
    gate: Gate,
    people: site.Site,
    counters: Counters | None,
    minting: Sequence[BaseRoute],
) -> list[BaseRoute]:
    """Every route of the index. Order matters: pages first, because they are asked most; the bare root last."""
    private_pages = config.needs_credentials(Right.LIST)
    private_files = config.needs_credentials(Right.DOWNLOAD)
    ages = files.Ages(config.cache_control, overwrite=config.overwrite, private=private_files)
    accel = Accel(config.accel_redirect, [*config.packages, config.state_dir / "cache" / "files"])
    return [
        *simple.routes(index, gate),
        *files.routes(index, gate, ages, accel),
        *merge_methods(site.routes(people), upload.routes(index, gate, config.max_upload_size)),
        *ops.routes(index, counters or Counters(Board()), config.health_endpoint),
        *why.routes(people),
        *xmlrpc.routes(index, gate),
        *legacy_json.routes(index, gate, private=private_pages),
        *integrity.routes(index, gate, private=private_pages),
        *minting,
        *simple.root_routes(),
    ]


def choose_site(config: Config, index: Index, gate: Gate) -> site.Site:
    uploads = "credentials" if config.needs_credentials(Right.UPLOAD) else "open"
    return site.Site(
        index=index,
        gate=gate,
        templates=Templates(),
        uploads=uploads,
        has_passwords=config.passwords is not None,
        private=config.needs_credentials(Right.LIST),
        welcome=config.welcome.read_text(encoding="utf-8") if config.welcome else None,
        guarded=config.needs_credentials(Right.LIST) or config.needs_credentials(Right.DOWNLOAD),
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
