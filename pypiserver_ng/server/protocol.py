"""One connection: uvicorn's protocol with limits, deadlines, and refusals that the client gets to read.

It must not know what is served. Deadlines cost no timers: `sweep` is called once a second for every connection.
"""

import asyncio
import fcntl
import http
import sys
import termios
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pypiserver_ng.server.counting import Counting
from pypiserver_ng.server.cycle import SENDFILE, Cycle
from pypiserver_ng.server.head import check_head, read_authority

#: Bytes of a request target.
_LONGEST_TARGET = 8 * 1024
#: Bytes of a head, and of whatever else brings a request no further: trailers, chunk extensions, empty lines.
_LONGEST_HEAD = 64 * 1024
#: Bytes parsed at once. A read of 256 KiB may hold 14,000 requests; those of one piece are queued, no more.
_PIECE = 16 * 1024
#: Bytes that are read and dropped after a refusal.
_MOST_DROPPED = 16 * 1024 * 1024
#: Connections beyond the most that are answered and waited for; further ones are answered and closed.
SPARE_CONNECTIONS = 32

_EXTENSIONS: dict[str, dict[object, object]] = {SENDFILE: {}}

_REFUSALS = {
    400: "this is not a valid HTTP request",
    408: "the request did not arrive in time",
    414: "the target of the request is too long",
    431: "the head of the request is too long",
    503: "too many connections: try again later",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long clients are waited for, in seconds."""

    #: For a whole head, from its first byte; on a new connection from its start.
    head: float = 10
    #: For the next bytes of a body.
    body: float = 30
    #: For a next request on the same connection.
    idle: float = 30
    #: For a client that takes nothing of what is being sent.
    reader: float = 60
    #: For the rest of a body whose request was answered before its end.
    rest: float = 10
    #: For a client to read a last answer and close.
    farewell: float = 5


class Protocol(HttpToolsProtocol):
    """One connection and its requests."""

    cycle: "Cycle"

    def __init__(
        self, *args: Any, patience: Patience, most_connections: int, counting: Counting, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._counting = counting
        self._patience = patience
        self._most_connections = most_connections
        #: When the head that is being read began; None while none is.
        self._head_began: float | None = self.loop.time()
        #: Nothing of a next request has come since the last one was complete.
        self._is_between = False
        self._heard = self._answered = self.loop.time()
        #: Bytes since a request last came a step further.
        self._unparsed = 0
        #: What follows the requests that are queued.
        self._held = b""
        self._fault = 400
        #: The parser is told of a head that it has read before.
        self._has_head = False
        #: Whatever comes is dropped.
        self._is_deaf = False
        self._dropped = 0
        self._said_farewell: float | None = None
        self._parting: float | None = None
        self._unsent = (0, 0)
        self._taken = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._counting.note_connections(len(self.connections))
        surplus = len(self.connections) - self._most_connections
        if surplus > 0:
            self._refuse(503)
        if surplus > SPARE_CONNECTIONS:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._counting.note_connections(len(self.connections))

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        if self._is_deaf:
            self._dropped += len(data)
            if self._dropped > _MOST_DROPPED and self._said_farewell is not None:
                self.transport.close()
            return
        if self._is_between:
            self._is_between = False
            self._head_began = self._heard
        self._parse(data)

    def is_idle(self) -> bool:
        """Whether the next byte begins a request, all before it were answered, and the client takes answers."""
        if self._is_deaf or self.flow.write_paused or self.transport.is_closing():
            return False
        cycle = cast("Cycle | None", self.cycle)
        return not self._unparsed if cycle is None else self._is_between and cycle.response_complete

    def _parse(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            count = self._feed(data[start : start + _PIECE])
            start += count
            self._unparsed += count
            if self._unparsed > _LONGEST_HEAD and not self._is_deaf:
                self._refuse(431)
            if self._is_deaf:
                return
            if self.pipeline:
                self._held = data[start:]
                return

    def _feed(self, piece: bytes) -> int:
        """How many bytes the parser took: it stops behind a request that asks for another protocol."""
        try:
            self.parser.feed_data(piece)
        except HttpParserUpgrade as stop:
            # RFC 9110, 7.8: "A server MAY ignore a received Upgrade header field". What follows is HTTP as before.
            count: int = stop.args[0]
            if framing := self._find_framing():
                self._read_body(framing)
            return count
        except HttpParserError:
            # The parser gave up, by itself or because of a fault that was found while it called.
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(self._fault)
        return len(piece)

    def _find_framing(self) -> list[tuple[bytes, bytes]]:
        return [header for header in self.headers if header[0] in {b"content-length", b"transfer-encoding"}]

    def _read_body(self, framing: Sequence[tuple[bytes, bytes]]) -> None:
        """Have the body read of a request for another protocol: the parser would take it for further requests."""
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        # The request has its own already.
        self._has_head, self.url, self.headers = True, b"", []
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % header for header in framing) + b"\r\n")
        self._has_head = False

    # What the parser finds.

    def on_message_begin(self) -> None:
        if self._has_head:
            return
        if self._head_began is None:
            self._head_began = self._heard
        self._is_between = False
        self._unparsed = 0
        super().on_message_begin()
        if self.scheme == "http" and sys.platform == "linux":
            self.scope["extensions"] = _EXTENSIONS

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _LONGEST_TARGET:
            self._fault = 414
            raise ValueError("the target is too long")

    def on_headers_complete(self) -> None:
        if self._has_head:
            return
        check_head(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        if not self.url.startswith((b"/", b"*")):
            self._take_host(read_authority(self.url))
        super().on_headers_complete()
        self._head_began = None
        self._unparsed = 0
        # Whatever else comes as a header stands behind the body, where nobody on the way looked at it.
        self.headers = self.headers.copy()

    def _take_host(self, authority: bytes) -> None:
        """RFC 9112, 3.2.2: the host of the target counts, whatever the header says."""
        self.headers[:] = [header for header in self.headers if header[0] != b"host"]
        self.headers.append((b"host", authority))

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._find_framing():
            # So the parser says, but there is a body to come.
            return
        self._is_between = True
        super().on_message_complete()

    # What becomes of a request.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn names its cycle class in the middle of a long method; this is the hook it leaves.
        cycle.__class__ = Cycle
        cycle.counting = self._counting  # type: ignore[attr-defined]
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        # As uvicorn's, but for its timer: `sweep` closes connections that stay idle.
        self.server_state.total_requests += 1
        self._answered = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if not self.pipeline:
                held, self._held = self._held, b""
                self._parse(held)
        elif self.cycle.ends_connection:
            self._say_farewell()
        self.flow.resume_reading()

    def _refuse(self, status: int) -> None:
        """Answer something that is no request, or not in time, and hear nothing more on this connection."""
        self._is_deaf = True
        self._held = b""
        cycle = cast("Cycle | None", self.cycle)
        is_in_body = self._head_began is None and not self._is_between
        if cycle is None or cycle.response_complete:
            if cycle is None or not is_in_body:
                self._answer(status)
            self._say_farewell()
        elif not is_in_body:
            # Earlier requests are to be answered first, and then it is enough.
            cycle.ends_connection = True
        elif self.pipeline:
            self.transport.close()
        else:
            if not cycle.response_started:
                self._answer(status)
            cycle.disconnected = True
            cycle.message_event.set()
            self._say_farewell()

    def _answer(self, status: int) -> None:
        self._counting.count_answer("", status)
        text = f"{_REFUSALS[status]}\n".encode()
        head = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *head)]
        self.transport.write(
            b"HTTP/1.1 %d %b\r\n" % (status, http.HTTPStatus(status).phrase.encode()) + b"".join(lines) + b"\r\n" + text
        )

    def _say_farewell(self) -> None:
        """Half-close. To close while bytes are coming resets the connection, and the client may lose the answer."""
        self._is_deaf = True
        self._said_farewell = self.loop.time()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def shutdown(self) -> None:
        # Only the client's own end of TLS may be missing, and many never send it.
        is_over = self.scheme == "https" and self._has_taken_all()
        if self._said_farewell is not None:
            self.transport.close()
        else:
            super().shutdown()
        if is_over and self.transport.is_closing():
            self.transport.abort()

    # What does not happen.

    def sweep(self) -> None:
        """Give up what takes too long; to be called about once a second."""
        now = self.loop.time()
        patience = self._patience
        if self._has_stuck_reader(now):
            self.transport.abort()
        elif self.transport.is_closing():
            if self.scheme == "https":
                self._sweep_parting(now)
        elif self._said_farewell is not None:
            if now - self._said_farewell > patience.farewell:
                self.transport.close()
        elif self.flow.read_paused:
            # A client can do nothing while nobody reads: its time begins afterwards.
            self._heard = now
            if self._head_began is not None:
                self._head_began = now
        elif self._head_began is not None:
            if now - self._head_began > patience.head:
                self._refuse(408)
        else:
            self._sweep_request(now)

    def _sweep_parting(self, now: float) -> None:
        """With TLS a connection that was closed waits for the client's own end of it."""
        if not self._has_taken_all():
            self._parting = None
        elif self._parting is None:
            self._parting = now
        elif now - self._parting > self._patience.farewell:
            self.transport.abort()

    def _has_taken_all(self) -> bool:
        return not self.transport.get_write_buffer_size() and not _count_unacknowledged(self.transport)

    def _sweep_request(self, now: float) -> None:
        cycle = self.cycle
        # Without a cycle, every request of this connection was answered from memory.
        is_answered = cast("Cycle | None", cycle) is None or cycle.response_complete
        if self._is_between:
            if is_answered and now - max(self._heard, self._answered) > self._patience.idle:
                self.transport.close()
        elif cycle.response_complete:
            if now - self._answered > self._patience.rest:
                self._say_farewell()
        elif cycle.waiting_for_100_continue:
            self._heard = now
        elif now - self._heard > self._patience.body:
            self._refuse(408)

    def _has_stuck_reader(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if not size:
            self._unsent = (0, 0)
            return False
        unsent = (size, _count_unacknowledged(self.transport))
        if unsent != self._unsent:
            self._unsent, self._taken = unsent, now
        return now - self._taken > self._patience.reader


def _count_unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes in the system's buffer: megabytes leave it at a slow line before there is room for new ones."""
    try:
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(answer, sys.byteorder)


class _Flow(FlowControl):
    """Reads nothing while requests are queued; uvicorn's reads on after each answer, and the queue grows."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline:
            super().resume_reading()
