"""The number of the last change, shared by every process that uses one state directory.

A reader compares one integer to learn whether anything changed: no query, no thread. The file is
only a signal; the catalog holds the truth. The processes of one server share the number in memory as well.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BYTES = 8
#: How long a glance believes in the file, in seconds: to read it costs as much as half of an answer from memory.
_GLANCE_SECONDS = 0.001


class SharedSerial:
    """A 64-bit counter in a file, and in memory for the processes of one server: what is higher counts.

    `value` may be read at any time from any thread, `is_still` from that of the event loop.
    """

    def __init__(self, path: Path, cell: memoryview | None = None) -> None:
        """`cell` is one number that the processes of one server share; by itself, a process needs none."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(self._fd).st_size < _BYTES:
            os.ftruncate(self._fd, _BYTES)
        # A lock of a file keeps other processes out, no thread.
        self._threads = threading.Lock()
        #: What this server knows to be committed, should the file not take it.
        self._cell = memoryview(bytearray(_BYTES)).cast("Q") if cell is None else cell
        #: The number as the file had it when it was last read, should it not be read again.
        self._in_file = 0
        #: What the last glance saw, and when (monotonic).
        self._glanced = -1
        self._looked = 0.0

    @property
    def value(self) -> int:
        try:
            # Costs less than a microsecond more than a mapping, and survives that somebody cuts the file short.
            in_file = self._in_file = self._read()
        except OSError:
            # A disk that died: what is in memory can still be answered.
            in_file = self._in_file
        in_memory = self._cell[0]
        return in_file if in_file > in_memory else in_memory  # noqa: FURB136 - called for every request

    def is_still(self, serial: int) -> bool:
        """As a comparison with `value`, for a fifth of its price.

        What a process of this server changed shows at once; what others did, as commands, within a millisecond.
        """
        if self._cell[0] > serial:
            return False
        now = time.monotonic()
        if self._glanced != serial or now - self._looked > _GLANCE_SECONDS:
            self._glanced, self._looked = self.value, now
        return self._glanced == serial

    def advance(self, serial: int) -> None:
        """Raise the counter to `serial` after its transaction was committed; it never goes back.

        The locks keep a slower writer from setting an older number over a newer one. Raises OSError: then the
        processes of this server know of the change, and others learn of it when they next compare.
        """
        with self._threads:
            try:
                with self._file_locked():
                    self._cell[0] = max(self._cell[0], serial)
                    if serial > self._read():
                        self._write(serial)
            except OSError:
                # Not even a lock, perhaps. Memory takes the number all the same.
                self._cell[0] = max(self._cell[0], serial)
                raise

    def restart(self, serial: int) -> None:
        """Set the counter to the catalog's own number, also backwards: the catalog may have been rebuilt.

        To be called while nobody else can commit. Raises OSError.
        """
        with self._threads, self._file_locked():
            self._cell[0] = serial
            self._write(serial)

    def close(self) -> None:
        os.close(self._fd)

    @contextmanager
    def _file_locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _read(self) -> int:
        return int.from_bytes(os.pread(self._fd, _BYTES, 0), "little")

    def _write(self, serial: int) -> None:
        os.pwrite(self._fd, serial.to_bytes(_BYTES, "little"), 0)
