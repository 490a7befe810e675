"""uvicorn, as this index needs it: reason phrases, deadlines, a quiet shutdown, the ready line.

The only room that knows uvicorn. It must not know what is served.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Literal, cast

import uvicorn
from starlette.types import ASGIApp

from pypiserver_ng.server.accepting import Acceptor
from pypiserver_ng.server.answers import Answers
from pypiserver_ng.server.certificate import Certificate
from pypiserver_ng.server.counting import Counting, Uncounted
from pypiserver_ng.server.cycle import status_line
from pypiserver_ng.server.protocol import SPARE_CONNECTIONS, Patience, Protocol
from pypiserver_ng.server.recall import RecallingProtocol

__all__ = ["Certificate", "Patience", "open_socket", "reachable_address", "serve", "serving", "status_line"]

_log = logging.getLogger(__name__)

#: Seconds that requests in flight get after SIGTERM; closing the index comes on top.
_GRACE_SECONDS = 24
_BACKLOG = 2048
#: Descriptors for everything but connections and the files they ask for; a hundred large answers from memory at most.
_OWN_DESCRIPTORS = 224
_MOST_DESCRIPTORS = 65_536
#: Browsers that came by TLS come back by it, for a year.
_STRICT_TRANSPORT = ("strict-transport-security", "max-age=31536000")
#: How often the certificate's files are looked at.
_CERTIFICATE_SECONDS = 0.5


def open_socket(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 picks a free one. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    dual_stack = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual_stack)


def reachable_address(listening: socket.socket) -> str:
    """``host:port`` for a URL that works on this machine."""
    host, port = listening.getsockname()[:2]
    # An unspecified address is where a server listens, not where a client goes.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(
    app: ASGIApp,
    listening: socket.socket,
    counting: Counting | None = None,
    *,
    access_log: bool,
    on_ready: Callable[[], None],
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
    certificate: Certificate | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return; with a certificate, by TLS only."""
    most = _count_connections(_raise_descriptor_limit())
    counting = counting or Uncounted()
    config = _configure(app, patience, most, counting, lifespan="on", access_log=access_log, grace=_GRACE_SECONDS)
    if certificate is not None:
        config.headers.append(_STRICT_TRANSPORT)
    _Server(config, on_ready, most, counting, certificate).run(sockets=[listening])


@asynccontextmanager
async def serving(app: ASGIApp, listening: socket.socket) -> AsyncIterator[None]:
    """Serve for the length of a block, beside what else runs on this event loop; signals are not taken."""
    most = _count_connections(_raise_descriptor_limit())
    started = asyncio.Event()
    counting = Uncounted()
    config = _configure(app, Patience(), most, counting, lifespan="off", access_log=False, grace=1)
    server = _Guest(config, started.set, most, counting)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await started.wait()
        yield
    finally:
        server.should_exit = True
        await task


def _configure(
    app: ASGIApp,
    patience: Patience,
    most: int,
    counting: Counting,
    *,
    lifespan: Literal["on", "off"],
    access_log: bool,
    grace: int,
) -> uvicorn.Config:
    protocol = partial(
        RecallingProtocol, patience=patience, most_connections=most, counting=counting, answers=Answers()
    )
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        loop="auto",
        lifespan=lifespan,
        log_config=None,
        access_log=access_log,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )


def _raise_descriptor_limit() -> int:
    """How many descriptors this process may have open: as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no limit, the system has another that it does not tell.
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _count_connections(descriptors: int) -> int:
    """Connections that so many descriptors allow: each may need another one for a file."""
    return max((descriptors - _OWN_DESCRIPTORS) // 2, 1)


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        most_connections: int,
        counting: Counting,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._most_connections = most_connections
        self._counting = counting
        self._certificate = certificate
        self._watching: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        # An event loop's own server keeps the context that it began with.
        shared = sockets if self._counting.is_one_of_several or self._certificate else []
        await super().startup([] if shared else sockets)
        if self.started:
            self.servers += [self._share(listening) for listening in shared]
            self._watching.append(asyncio.create_task(self._sweep()))
            if self._certificate:
                self._watching.append(asyncio.create_task(_keep_fresh(self._certificate)))
            # What is here now stays: whoever looks for garbage later, with everybody waiting, need not look at it.
            gc.collect()
            gc.freeze()
            self._counting.start()
            self._on_ready()

    def _share(self, listening: socket.socket) -> asyncio.Server:
        config, state = self.config, self.server_state
        make = partial(config.http_protocol_class, config, state, self.lifespan.state)  # type: ignore[call-arg]
        certificate = self._certificate

        def choose_context() -> ssl.SSLContext | None:
            return certificate.context if certificate else None

        acceptor = Acceptor(listening, make, self._counting.has_its_share, self._has_room, choose_context)
        return cast("asyncio.Server", acceptor)

    def _has_room(self, opening: int) -> bool:
        # Without TLS a connection is made at once, and says itself that there are too many.
        return opening + len(self.server_state.connections) <= self._most_connections + SPARE_CONNECTIONS

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for watching in self._watching:
            watching.cancel()

    async def _sweep(self) -> None:
        was_full = False
        while True:
            await asyncio.sleep(1)
            connections = list(self.server_state.connections)
            for connection in connections:
                assert isinstance(connection, Protocol)
                connection.sweep()
            self._counting.refresh()
            is_full = len(connections) >= self._most_connections
            if is_full and not was_full:
                _log.warning("%d connections: more are refused; see the limit of open files", len(connections))
            was_full = is_full

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises the signal again when it is done, which turns a clean stop into exit code -15.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


async def _keep_fresh(certificate: Certificate) -> None:
    while True:
        await asyncio.to_thread(certificate.refresh)
        await asyncio.sleep(_CERTIFICATE_SECONDS)


class _Guest(_Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
