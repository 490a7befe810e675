"""Answers that a connection gives again without asking the application: the same request bytes, the same answer.

The contract has two sides. The start of a response may carry ``remember``: a function that tells at any later moment,
without waiting and without raising, whether the same request would get the same answer now, whoever sends it. A
response without one is never remembered. A connection keeps it under the bytes of its request, credentials and all,
if those were one whole GET or HEAD on a connection that stays open, and asks that function each time. The date
is the only part of an answer that changes meanwhile.

It must not know what is served, nor why it changes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

#: Whether the answer is still what it was.
Holds = Callable[[], bool]
#: The header lines that every answer begins with.
Lead = list[tuple[bytes, bytes]]

#: Bytes of a request that is remembered.
LONGEST_REQUEST = 4 * 1024
#: Bytes that all of it may take.
_MOST_BYTES = 12 * 1024 * 1024
#: What an entry costs beside its bytes.
_OVERHEAD = 1024
#: What is longer lies in a file in memory: the system then sends its pages, and copies nothing.
_LONGEST_COPIED = 64 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """What the access log says of a request."""

    method: str
    target: str
    version: str
    status: int


class Answer:
    """The bytes of one response, but for the lines that change with time."""

    __slots__ = ("_after", "_before", "cell", "content", "file", "holds", "lead", "line", "size", "weight")

    def __init__(self, before: bytes, after: bytes, line: Line, cell: int, holds: Holds) -> None:
        """`before` and `after` surround the header lines of the lead; `cell` is where it is counted."""
        self._before = before
        self._after = after
        self.line = line
        self.cell = cell
        self.holds = holds
        self.weight = 2 * (len(before) + len(after))
        #: The lead that what follows was made with.
        self.lead: Lead | None = None
        #: All bytes as they are written, or where they lie if there are many.
        self.content = b""
        self.file = -1
        self.size = 0

    def renew(self, lead: Lead) -> None:
        """Make the answer for another lead; afterwards it is sent as it is until the lead changes."""
        content = self._before + encode(lead) + self._after
        self.close()
        if len(content) > _LONGEST_COPIED:
            # What was sent of the last one may still be on its way: its pages must not change.
            self.file = _create_file(content)
        if self.file < 0:
            self.content = content
        self.size = len(content)
        self.lead = lead

    def rest(self, sent: int) -> bytes:
        """What follows so many bytes of an answer that lies in a file."""
        return os.pread(self.file, self.size - sent, sent)

    def close(self) -> None:
        """Give the file back."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def _create_file(content: bytes) -> int:
    """A file in memory; -1 where there cannot be one."""
    try:
        file = os.memfd_create("answer")
    except (AttributeError, OSError):
        return -1
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(file, view) :]
    except OSError:
        os.close(file)
        return -1
    return file


class Answers:
    """What was answered lately, by the bytes of the request."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._answers: dict[bytes, Answer] = {}
        self._most = most_bytes
        self._weight = 0
        #: The answer to these bytes, if it is remembered; whether it still holds is the caller's to ask.
        self.find = self._answers.get

    def keep(self, request: bytes, answer: Answer) -> None:
        # First in, first out: what is dropped while it is still asked for comes back with the next request, and no
        # hit has to be noted.
        self.drop(request)
        cost = self._cost(request, answer)
        if cost > self._most:
            # All others would have to go, and it with them.
            return
        self._answers[request] = answer
        self._weight += cost
        while self._weight > self._most:
            self.drop(next(iter(self._answers)))

    def drop(self, request: bytes) -> None:
        if answer := self._answers.pop(request, None):
            self._weight -= self._cost(request, answer)
            answer.close()

    def _cost(self, request: bytes, answer: Answer) -> int:
        return len(request) + answer.weight + _OVERHEAD


def encode(lead: Lead) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in lead])


def is_whole_request(data: bytes) -> bool:
    """Whether the bytes look like one head of a GET or HEAD and nothing else; the parser knows whether they are."""
    return (
        len(data) <= LONGEST_REQUEST
        and data.startswith((b"GET ", b"HEAD "))
        and data.find(b"\r\n\r\n") == len(data) - len(b"\r\n\r\n")
    )
