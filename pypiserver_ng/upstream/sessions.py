"""Connections to other indexes: kept alive, bounded in number and time, never with cookies, never unverified."""

import asyncio
import ssl
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any

import aiohttp

from pypiserver_ng import __version__
from pypiserver_ng.upstream.faults import Trail
from pypiserver_ng.upstream.guard import Guard

#: Seconds for which an idle connection is kept.
_KEEP_ALIVE = 30


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    #: The name's lookup, the connection and TLS.
    connect: float = 5
    #: From the request to the whole head of the answer.
    head: float = 10
    #: A page from beginning to end, redirects included.
    page: float = 60
    #: Between two pieces of a file.
    idle: float = 30
    #: For a connection, where a host has as many as it may have.
    queue: float = 15


class Purpose(Enum):
    """Pages do not wait for files. The value is how many connections one host may have."""

    PAGES = 12
    FILES = 16


class Deadline:
    """Moves one request's timer along: queue, connection, head."""

    def __init__(self, timer: asyncio.Timeout, timeouts: Timeouts, trail: Trail) -> None:
        self._timer = timer
        self._timeouts = timeouts
        self._trail = trail
        # Our own crowd is not the upstream's fault.
        trail.is_connected = True
        trail.waiting = f"has no connection left for us after {timeouts.queue:g} s"

    def connect(self) -> None:
        self._trail.is_connected = False
        self._begin(self._timeouts.connect, "cannot be reached: no connection within")

    def ask(self) -> None:
        self._trail.is_connected = True
        self._begin(self._timeouts.head, "did not begin to answer within")

    def _begin(self, seconds: float, waiting: str) -> None:
        self._trail.waiting = f"{waiting} {seconds:g} s"
        self._timer.reschedule(asyncio.get_running_loop().time() + seconds)


class Sessions:
    """Sessions by upstream, purpose and way. One event loop; made when they are needed."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._guards: dict[str, Guard] = {}
        self._sessions: dict[tuple[str, Purpose, bool], aiohttp.ClientSession] = {}
        self._context: ssl.SSLContext | None = None
        self._opening = asyncio.Lock()

    def guard(self, host: str) -> Guard:
        """What keeps the upstream on this host from sending us where it may not."""
        return self._guards.setdefault(host, Guard(host))

    async def get(self, host: str, purpose: Purpose, *, proxied: bool) -> aiohttp.ClientSession:
        """For the upstream on this host; what is connected directly passes its guard."""
        key = (host, purpose, proxied)
        if key not in self._sessions:
            context = await self._get_context()
            # Somebody else may have been as quick.
            if key not in self._sessions:
                self._sessions[key] = self._open(purpose, context, None if proxied else self.guard(host))
        return self._sessions[key]

    async def close(self) -> None:
        sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            await session.close()

    async def _get_context(self) -> ssl.SSLContext:
        async with self._opening:
            if self._context is None:
                # Reads the machine's certificates, which takes a while.
                self._context = await asyncio.to_thread(ssl.create_default_context)
                self._context.set_alpn_protocols(["http/1.1"])
            return self._context

    def _open(self, purpose: Purpose, context: ssl.SSLContext, guard: Guard | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=guard,
            ssl=context,
            limit=0,
            limit_per_host=purpose.value,
            keepalive_timeout=_KEEP_ALIVE,
        )
        idle = self._timeouts.idle if purpose is Purpose.FILES else None
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"pypiserver-ng/{__version__}"},
            timeout=aiohttp.ClientTimeout(sock_read=idle),
            auto_decompress=False,
            trust_env=False,
            trace_configs=[_make_trace()],
        )


def _make_trace() -> aiohttp.TraceConfig:
    """Tells each request's deadline what its connection does."""

    async def connect(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: Any) -> None:
        context.trace_request_ctx.connect()

    async def ask(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: Any) -> None:
        context.trace_request_ctx.ask()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(connect)
    trace.on_connection_create_end.append(ask)
    trace.on_connection_reuseconn.append(ask)
    return trace
