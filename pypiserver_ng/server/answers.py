"""Answers that a connection gives again without asking the application: the same request bytes, the same answer.

The contract has two sides. The start of a response may carry ``remember``: a function that tells at any later moment,
without waiting and without raising, whether the same request would get the same answer now, whoever sends it. A
response without one is never remembered. A connection keeps it under the bytes of its request, credentials and all,
if those were one whole GET or HEAD on a plain connection that stays open, and asks that function each time. The date
is the only part of an answer that changes meanwhile.

It must not know what is served, nor why it changes.
"""

from collections.abc import Callable
from dataclasses import dataclass

#: Whether the answer is still what it was.
Holds = Callable[[], bool]
#: The header lines that every answer begins with.
Lead = list[tuple[bytes, bytes]]

#: Bytes of a request that is remembered.
LONGEST_REQUEST = 4 * 1024
#: Bytes that all of it may take; the bodies of large pages are shared with who rendered them, and count all the same.
_MOST_BYTES = 12 * 1024 * 1024
#: What an entry costs beside its bytes.
_OVERHEAD = 1024
#: A body up to here is written together with its head; copying a larger one costs more than a second write.
_LONGEST_JOINED = 32 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """What the access log says of a request."""

    method: str
    target: str
    version: str
    status: int


class Answer:
    """The bytes of one response, but for the lines that change with time."""

    __slots__ = ("_after", "_before", "body", "cell", "head", "holds", "lead", "line", "weight")

    def __init__(self, before: bytes, after: bytes, body: bytes, line: Line, cell: int, holds: Holds) -> None:
        """`before` and `after` surround the header lines of the lead; `cell` is where it is counted."""
        joined = len(body) <= _LONGEST_JOINED
        self._before = before
        self._after = after + body if joined else after
        #: What follows the head in a write of its own.
        self.body = b"" if joined else body
        self.line = line
        self.cell = cell
        self.holds = holds
        self.weight = len(before) + 2 * len(self._after) + len(self.body)
        #: The lead that `head` was made with.
        self.lead: Lead | None = None
        self.head = b""

    def renew(self, lead: Lead) -> None:
        """Make the head for another lead; afterwards it is written as it is until the lead changes."""
        self.head = self._before + encode(lead) + self._after
        self.lead = lead


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
        self._answers[request] = answer
        self._weight += self._cost(request, answer)
        while self._weight > self._most:
            self.drop(next(iter(self._answers)))

    def drop(self, request: bytes) -> None:
        if answer := self._answers.pop(request, None):
            self._weight -= self._cost(request, answer)

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
