"""One request and its response: uvicorn's cycle with reason phrases, and with ends that the client gets to read.

It must not know what is served.
"""

import asyncio
import contextlib
import os
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from pypiserver_ng.server.counting import Counting

_LONGEST_REASON = 400
#: A message between start and end of a response, for applications that find its name among the extensions of their
#: scope: a part of the body lies in a file and may be sent without being read.
SENDFILE = "pypiserver_ng.sendfile"

# RFC 9112, 4: a reason phrase holds tabs, spaces and visible characters; some clients read it as ASCII only.
_NOT_A_REASON = re.compile(r"[^\x20-\x7e]")


class Cycle(RequestResponseCycle):
    """One request and its response, with the reason phrase that the response carries as `reason`."""

    #: The connection is to be closed after the response, once the client had time to read it.
    ends_connection = False
    counting: Counting

    async def send(self, message: Any) -> None:
        if message["type"] == SENDFILE:
            self._send_file(message)
            return
        if self.flow.write_paused:
            await self.flow.drain()
        if self.transport.is_closing():
            # Pipelined requests of a client that left are not told of it.
            self.disconnected = True
        if self.response_started:
            await super().send(message)
        else:
            await self._send_start(message)

    def _send_file(self, message: Any) -> None:
        """Sets `sent` to how many bytes of the body the system took at once from the open `file`.

        None where it takes nothing now, or something has to go before: then the body goes on by its messages, which
        wait for the client.
        """
        may_go = self.response_started and not (self.response_complete or self.chunked_encoding or self.disconnected)
        if not may_go or self.scope["method"] == "HEAD" or self.transport.is_closing():
            return
        count = min(message["count"], self.expected_content_length)
        message["sent"] = send_at_once(self.transport, message["file"], message["offset"], count)
        self.expected_content_length -= message["sent"]

    async def _send_start(self, message: Any) -> None:
        if self.waiting_for_100_continue:
            # Whether the body follows a final answer is up to the client: what comes next cannot be told apart.
            self.keep_alive = False
        if not self.disconnected:
            self.counting.count_answer(self.scope["method"], message["status"])
        reason = message.get("reason")
        if reason:
            transport = self.transport
            self.transport = _FirstLine(transport, status_line(message["status"], reason))  # type: ignore[assignment]
            try:
                await super().send(message)
            finally:
                self.transport = transport
        else:
            await super().send(message)
        if self.more_body and not self.keep_alive:
            # uvicorn would close at once, in the middle of the body.
            self.keep_alive, self.ends_connection = True, True


def send_at_once(transport: asyncio.Transport, file: int, offset: int, count: int) -> int:
    """How many bytes of an open file the system sent by itself; none where it takes nothing now."""
    # What the transport still holds has to go first.
    if not transport.get_write_buffer_size():
        with contextlib.suppress(OSError):
            # The socket never waits; a connection that broke is for the transport to find out.
            return os.sendfile(transport.get_extra_info("socket").fileno(), file, offset, count)
    return 0


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
