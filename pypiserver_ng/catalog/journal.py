"""Events in a file of lines beside the database, so that they outlive it.

Only ever appended to, by any process, after the transaction that recorded the events and before its answer. The
database numbers events; a line whose number is not higher than the last one's is not written again.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pypiserver_ng.catalog.events import Event, decode_event, decode_number, encode_event
from pypiserver_ng.catalog.soundness import sync_directory

_log = logging.getLogger(__name__)

#: Bytes at the end that are searched for the last line; one with provenance may be long.
_TAIL = 1 << 16


class Journal:
    """One file of JSON lines, readable by people."""

    def __init__(self, path: Path) -> None:
        self._path = path
        is_new = not path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if is_new:
            sync_directory(path.parent)
        #: Size of the file and number of its last event, when this process last looked.
        self._known = (0, 0)

    def close(self) -> None:
        os.close(self._fd)

    def last(self) -> int:
        """The number of the last event, or 0. A line that was cut off by a crash is removed first."""
        with self._locked():
            return self._last()

    def append(
        self,
        ours: Sequence[Event],
        newest: Callable[[], int],
        missing: Callable[[int], Sequence[Event]],
        *,
        must_last: bool,
    ) -> None:
        """Write down what the database has after the last number that is here.

        `ours` was committed just now, `newest` is the database's own last number and `missing` tells what it has
        after one. With `must_last` the bytes are on the disk when this returns. Raises OSError: then they may not be.
        """
        with self._locked():
            last = self._last()
            # Where ours come next nothing else is missing, and the database need not be asked.
            new = ours if ours and ours[0].id == last + 1 else self._find_missing(last, newest(), missing)
            if new:
                size = os.fstat(self._fd).st_size
                content = b"".join(encode_event(event) + b"\n" for event in new)
                self._write(content, size)
                self._known = (size + len(content), max(self._known[1], new[-1].id))
        if must_last:
            # Outside the lock: whoever waits for the disk keeps nobody from writing.
            os.fsync(self._fd)

    def _find_missing(self, last: int, known: int, missing: Callable[[int], Sequence[Event]]) -> Sequence[Event]:
        if last > known:
            _log.error(
                "%s has events after number %d that the catalog does not know: the next start takes them up",
                self._path,
                known,
            )
            last = max((number for number in self._numbers() if number <= known), default=0)
        return missing(last)

    def read(self) -> Iterator[Event]:
        """Every event, in order; lines that are none are named in the log and left out."""
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield decode_event(line)
                except ValueError as fault:
                    _log.warning("line %d of %s is left out: %s", number, self._path, fault)

    def _write(self, content: bytes, size: int) -> None:
        try:
            written = os.write(self._fd, content)
            if written < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.ftruncate(self._fd, size)
            raise

    def _last(self) -> int:
        size = os.fstat(self._fd).st_size
        if size == self._known[0]:
            return self._known[1]
        end = self._repair(size)
        numbers = _read_numbers(self._tail(end)) or self._numbers()
        number = max(numbers, default=0)
        self._known = (end, number)
        return number

    def _numbers(self) -> list[int]:
        """Of every line that has one."""
        with self._path.open("rb") as lines:
            return _read_numbers(lines)

    def _repair(self, size: int) -> int:
        """Cut off what follows the last line end; returns the size then."""
        tail = os.pread(self._fd, _TAIL, max(size - _TAIL, 0))
        if not tail or tail.endswith(b"\n"):
            return size
        end = self._path.read_bytes().rfind(b"\n") + 1
        _log.warning("the last line of %s was cut off; it was never acknowledged", self._path)
        os.ftruncate(self._fd, end)
        return end

    def _tail(self, size: int) -> list[bytes]:
        """The last whole lines."""
        start = max(size - _TAIL, 0)
        lines = os.pread(self._fd, size - start, start).splitlines()
        return lines if start == 0 else lines[1:]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)


def _read_numbers(lines: Iterable[bytes]) -> list[int]:
    numbers = []
    for line in lines:
        with suppress(ValueError):
            numbers.append(decode_number(line))
    return numbers
