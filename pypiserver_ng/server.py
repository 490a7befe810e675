"""uvicorn, as this index needs it: reason phrases, a quiet shutdown, the ready line.

The only room that knows uvicorn. It must not know what is served.
"""

import asyncio
import re
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

#: Seconds that requests in flight get after SIGTERM; closing the index comes on top.
_GRACE_SECONDS = 24
_KEEP_ALIVE_SECONDS = 30
_BACKLOG = 2048
_LONGEST_REASON = 400
#: Bytes of a request line and its headers.
_LONGEST_HEAD = 64 * 1024
_HEAD_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 36\r\nconnection: close\r\n\r\nthe head of the request is too long\n"
)

# RFC 9112, 4: a reason phrase holds tabs, spaces and visible characters; some clients read it as ASCII only.
_NOT_A_REASON = re.compile(r"[^\x20-\x7e]")


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


def serve(app: ASGIApp, listening: socket.socket, *, access_log: bool, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=access_log,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    _Server(config, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises the signal again when it is done, which turns a clean stop into exit code -15.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


class Cycle(RequestResponseCycle):
    """One request and its response, with the reason phrase that the response carries as `reason`."""

    async def send(self, message: Any) -> None:
        if self.transport.is_closing():
            # Pipelined requests of a client that left are not told of it.
            self.disconnected = True
        reason = message.get("reason")
        if not reason or self.response_started:
            await super().send(message)
            return
        transport = self.transport
        self.transport = _FirstLine(transport, status_line(message["status"], reason))  # type: ignore[assignment]
        try:
            await super().send(message)
        finally:
            self.transport = transport


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit on the head of a request, which its parser lacks."""

    _reading_head = False
    _head = 0

    def on_message_begin(self) -> None:
        self._reading_head = True
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._reading_head:
            return
        self._head += len(data)
        if self._head > _LONGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_HEAD_TOO_LONG)
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn names its cycle class in the middle of a long method; this is the hook it leaves.
        cycle.__class__ = Cycle
        super()._start_asgi_task(cycle, app)


class _FirstLine:
    """Stands in for a transport while the head of a response is written, and replaces its status line."""

    def __init__(self, transport: asyncio.Transport, line: bytes) -> None:
        self._transport = transport
        self._line = line

    def write(self, data: bytes) -> None:
        self._transport.write(self._line + data.partition(b"\r\n")[2])


def status_line(status: int, reason: str) -> bytes:
    """An HTTP/1.1 status line; what a reason phrase cannot hold becomes ``?``."""
    return f"HTTP/1.1 {status} {_NOT_A_REASON.sub('?', reason)[:_LONGEST_REASON]}\r\n".encode("ascii")
