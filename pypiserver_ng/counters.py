"""What is counted of a running server: numbers that its processes share and any of them can add up.

One row of 64-bit numbers for every process that serves, in memory that all of them inherited. A process writes its own
row only, from its event loop, without a lock and without a call of the system; whoever takes the place of one that died
continues its row, so that nothing that was counted goes back. It must not know who counts, nor who asks.
"""

import mmap
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Those that have numbers of their own; what clients make up is counted together.
METHODS = ("GET", "HEAD", "POST", "other")
#: What this program answers; the rest is counted by class.
_STATUSES = (
    *(200, 206, 302, 304, 307, 308),
    *(400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 414, 416, 431),
    *(500, 502, 503, 507),
)
_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
STATUSES = (*map(str, _STATUSES), *_CLASSES)

# The numbers of a row. Those before the answers tell how a process is; the answers come twice.
_IS_SERVING, _CONNECTIONS, _RESIDENT, _CPU = range(4)
_ANSWERS = 4
_KINDS = len(METHODS) * len(STATUSES)
_WIDTH = _ANSWERS + 2 * _KINDS
_BYTES = 8
#: 512 KiB, of which the system gives what is used.
_FAILURES = 1 << 16

_METHOD = {method: number * len(STATUSES) for number, method in enumerate(METHODS)}
_STATUS = {status: number for number, status in enumerate(_STATUSES)}
#: Of what is asked all the time, found in one step.
_COMMON = {
    (method, status): _ANSWERS + first + number
    for method, first in _METHOD.items()
    for status, number in _STATUS.items()
}


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums of all rows."""

    #: Processes that serve now.
    workers: int
    connections: int
    #: Bytes of memory.
    resident: int
    #: Of processes that have ended as well.
    cpu_seconds: float
    #: By method and status, those from memory included; what never happened is left out.
    answers: dict[tuple[str, str], int] = field(default_factory=dict)
    answers_from_memory: int = 0


class Board:
    """The rows of all processes of one server. Has to be made before the first of them is forked."""

    def __init__(self, seats: int = 1) -> None:
        self.seats = seats
        #: When the server started, in seconds since the epoch.
        self.started = time.time()
        self._numbers = memoryview(mmap.mmap(-1, (seats * _WIDTH + 1) * _BYTES)).cast("Q")
        #: One number beside the rows, for what all have to agree on at once.
        self.shared = self._numbers[-1:]
        #: Memory in which failures of callers are counted; begins with 16 random bytes that no caller knows.
        self.failures = memoryview(mmap.mmap(-1, _FAILURES * _BYTES)).cast("Q")
        self.failures[:2] = memoryview(secrets.token_bytes(16)).cast("Q")

    def row(self, seat: int) -> memoryview:
        return self._numbers[seat * _WIDTH : (seat + 1) * _WIDTH]

    def vacate(self, seat: int) -> None:
        """The process that had the seat has ended: what it did remains, what it was does not."""
        row = self.row(seat)
        for number in (_IS_SERVING, _CONNECTIONS, _RESIDENT):
            row[number] = 0

    def count_least_connections(self) -> int:
        """How many the process has that has the fewest."""
        rows = map(self.row, range(self.seats))
        return min((row[_CONNECTIONS] for row in rows if row[_IS_SERVING]), default=0)

    def add_up(self) -> Totals:
        sums = [sum(column) for column in zip(*(self.row(seat) for seat in range(self.seats)), strict=True)]
        asked, recalled = sums[_ANSWERS : _ANSWERS + _KINDS], sums[_ANSWERS + _KINDS :]
        answers = {kind: one + other for kind, one, other in zip(_kinds(), asked, recalled, strict=True) if one + other}
        return Totals(
            workers=sums[_IS_SERVING],
            connections=sums[_CONNECTIONS],
            resident=sums[_RESIDENT],
            cpu_seconds=sums[_CPU] / 1e9,
            answers=answers,
            answers_from_memory=sum(recalled),
        )


class Counters:
    """One process's row. Used on the event loop only."""

    def __init__(self, board: Board, seat: int = 0) -> None:
        self.board = board
        #: For who counts so often that a call is too much: see `cell_from_memory`.
        self.cells = board.row(seat)
        #: Of those that had the seat before.
        self._past_cpu = self.cells[_CPU]

    @property
    def is_one_of_several(self) -> bool:
        return self.board.seats > 1

    def has_its_share(self, opening: int) -> bool:
        """Whether another process has fewer connections; `opening` are not noted yet.

        Small differences between many do not matter.
        """
        least = self.board.count_least_connections()
        return self.cells[_CONNECTIONS] + opening > least + least // 8

    def start(self) -> None:
        """From now on the process serves."""
        self.cells[_IS_SERVING] = 1
        self.refresh()

    def count_answer(self, method: str, status: int) -> None:
        """One answer that is being sent, also to what was no request: then the method is empty."""
        cell = _COMMON.get((method, status))
        self.cells[_find_cell(method, status) if cell is None else cell] += 1

    def cell_from_memory(self, method: str, status: int) -> int:
        """The cell to raise by one for each such answer that was given without asking the application."""
        return _find_cell(method, status) + _KINDS

    def note_connections(self, number: int) -> None:
        """How many are open now."""
        self.cells[_CONNECTIONS] = number

    def refresh(self) -> None:
        """Note what costs a call of the system to learn: about once a second, and before somebody asks."""
        self.cells[_RESIDENT] = _measure_resident()
        self.cells[_CPU] = self._past_cpu + time.process_time_ns()


def _find_cell(method: str, status: int) -> int:
    number = _STATUS.get(status)
    if number is None:
        number = len(_STATUSES) + min(max(status // 100, 1), len(_CLASSES)) - 1
    return _ANSWERS + _METHOD.get(method, _METHOD["other"]) + number


def _kinds() -> Iterator[tuple[str, str]]:
    return ((method, status) for method in METHODS for status in STATUSES)


def _measure_resident() -> int:
    """0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
