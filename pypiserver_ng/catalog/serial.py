"""The number of the last change, shared by every process that uses one state directory.

A reader compares one integer to learn whether anything changed: no query, no thread. The file is
only a signal; the catalog holds the truth. The processes of one server share the number in memory as well.
"""

import fcntl
import os
import threading
import time
from pathlib import Path
from struct import Struct

_FORMAT = Struct("<Q")
#: How long a glance believes in the file, in seconds: to read it costs as much as half of an answer from memory.
_GLANCE_SECONDS = 0.001


class SharedSerial:
    """A 64-bit counter in a file. `value` may be read at any time from any thread."""

    def __init__(self, path: Path, cell: memoryview | None = None) -> None:
        """`cell` is one number that the processes of one server share; by itself, a process needs none."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(self._fd).st_size < _FORMAT.size:
            os.ftruncate(self._fd, _FORMAT.size)
        # A lock of a file keeps other processes out, no thread.
        self._threads = threading.Lock()
        #: What this process knows to be committed, should the file not take it.
        self._own = 0
        #: The number as the file had it at the last look, and the bytes that were found then.
        self._seen = 0
        self._raw = b""
        self._cell = memoryview(bytearray(_FORMAT.size)).cast("Q") if cell is None else cell
        #: When a glance last read the file (monotonic).
        self._looked = 0.0

    @property
    def value(self) -> int:
        try:
            # Costs less than a microsecond more than a mapping, and survives that somebody cuts the file short.
            raw = os.pread(self._fd, _FORMAT.size, 0)
        except OSError:
            # A disk that died: what is in memory can still be answered.
            raw = self._raw
        if raw != self._raw:
            self._seen, self._raw = _decode(raw), raw
        return self._seen if self._seen > self._own else self._own  # noqa: FURB136 - called for every request

    def is_still(self, serial: int) -> bool:
        """As a comparison with `value`, for a fifth of its price.

        What a process of this server changed shows at once; what others did, as commands, within a millisecond.
        """
        if self._cell[0] > serial or self._own > serial:
            return False
        now = time.monotonic()
        if now - self._looked > _GLANCE_SECONDS:
            self._looked = now
            return self.value == serial
        return self._seen <= serial

    def advance(self, serial: int) -> None:
        """Raise the counter to `serial` after its transaction was committed; it never goes back.

        The locks keep a slower writer from setting an older number over a newer one. Raises OSError: then this
        process knows of the change, and others learn of it when they next compare.
        """
        with self._threads:
            self._own = max(self._own, serial)
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                self._cell[0] = max(self._cell[0], serial)
                if serial > _decode(os.pread(self._fd, _FORMAT.size, 0)):
                    os.pwrite(self._fd, _FORMAT.pack(serial), 0)
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def restart(self, serial: int) -> None:
        """Set the counter to the catalog's own number, also backwards: the catalog may have been rebuilt."""
        self._own = self._cell[0] = serial
        os.pwrite(self._fd, _FORMAT.pack(serial), 0)

    def close(self) -> None:
        os.close(self._fd)


def _decode(raw: bytes) -> int:
    number: int = _FORMAT.unpack(raw.ljust(_FORMAT.size, b"\0"))[0]
    return number
