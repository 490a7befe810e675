"""The hot path: a connection that answers from memory what it answered before. See `answers` for the contract.

A pure optimisation of `protocol`: whatever is not exactly one idle connection's one known request takes the ordinary
path, and so does every connection on which a client asked for another protocol.
"""

import asyncio
from typing import Any

from uvicorn.protocols.utils import get_path_with_query_string

from pypiserver_ng.server.answers import LONGEST_REQUEST, Answer, Answers, Holds, Line, encode, is_whole_request
from pypiserver_ng.server.cycle import Cycle, send_at_once
from pypiserver_ng.server.protocol import Protocol

#: Headers by which a proxy says for whom it speaks.
_CLAIMS = {b"x-forwarded-for", b"forwarded"}


class RecallingProtocol(Protocol):
    """One connection; `answers` is shared by all of the process."""

    def __init__(self, *args: Any, answers: Answers, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answers = answers
        self._find = answers.find
        self._cells = self._counting.cells
        #: Nobody asked for another protocol.
        self._is_plain = True
        self._sends_files = False
        #: Requests that began in what was received last.
        self._begun = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # With TLS the system has nothing that it could send as it lies there.
        self._sends_files = self.scheme == "http"

    def data_received(self, data: bytes) -> None:
        # Pieces of a large body are not looked up: that reads all of their bytes.
        answer = self._find(data) if len(data) <= LONGEST_REQUEST else None
        if answer is not None and self._is_plain and self.is_idle() and self._repeat(answer, data):
            return
        is_candidate = self._is_plain and is_whole_request(data) and self.is_idle()
        self._begun = 0
        super().data_received(data)
        if is_candidate and self._begun == 1 and self._is_between and self._is_plain:
            # A request that the parser read to its end; the task that asks the application has not begun yet.
            self.cycle.__class__ = _RecordedCycle
            self.cycle.request = data  # type: ignore[attr-defined]
            self.cycle.keep = self._keep  # type: ignore[attr-defined]

    def on_message_begin(self) -> None:
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            # What follows may be of another protocol.
            self._is_plain = False
        super().on_headers_complete()

    def _repeat(self, answer: Answer, request: bytes) -> bool:
        """Answer from memory; False where the application has to be asked."""
        if not answer.holds():
            self._answers.drop(request)
            return False
        lead = self.server_state.default_headers
        if answer.lead is not lead:
            answer.renew(lead)
        if self.access_log:
            self._log(answer.line)
        self._cells[answer.cell] += 1
        if answer.file < 0:
            self.transport.write(answer.content)
        else:
            sent = send_at_once(self.transport, answer.file, 0, answer.size) if self._sends_files else 0
            if sent < answer.size:
                self.transport.write(answer.rest(sent))
        self._answered = self.loop.time()
        if self._head_began is not None:
            # The first request of its connection.
            self._head_began, self._is_between = None, True
        return True

    def _log(self, line: Line) -> None:
        client = ":".join(map(str, self.client or ()))
        self.access_logger.info('%s - "%s %s HTTP/%s" %d', client, line.method, line.target, line.version, line.status)

    def _keep(self, request: bytes, line: Line, written: list[bytes], holds: Holds) -> None:
        head, *body = written
        before, lead, after = head.partition(encode(self.server_state.default_headers))
        # The date may have changed while the answer was written.
        if lead:
            cell = self._counting.cell_from_memory(line.method, line.status)
            self._answers.keep(request, Answer(before, after + b"".join(body), line, cell, holds))


class _RecordedCycle(Cycle):
    """The answer to one request that may be remembered."""

    request: bytes
    keep: Any
    holds: Holds | None = None

    async def send(self, message: Any) -> None:
        if not self.response_started and (holds := message.get("remember")) and self._is_of_its_connection():
            self.holds = holds
            self.status = message["status"]
            self.transport = self.recorder = _Recorder(self.transport)  # type: ignore[assignment]
        await super().send(message)
        if self.holds is not None and self.response_complete and self.keep_alive and not self.ends_connection:
            scope = self.scope
            line = Line(scope["method"], get_path_with_query_string(scope), scope["http_version"], self.status)
            self.keep(self.request, line, self.recorder.written, self.holds)

    def _is_of_its_connection(self) -> bool:
        """False where a proxy may speak for another client, now or when the same bytes come again: the log names that.

        Who may is the application's to know, so whoever claims it is asked for each time.
        """
        return not self.access_log or all(name not in _CLAIMS for name, _ in self.scope["headers"])


class _Recorder:
    """Stands in for a transport, and keeps what is written."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()
