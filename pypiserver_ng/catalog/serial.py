"""The number of the last change, shared by every process that uses one state directory.

A reader compares one integer in memory to learn whether anything changed: no query, no thread. The file is
only a signal; the catalog holds the truth.
"""

import fcntl
import mmap
import os
from pathlib import Path
from struct import Struct

_FORMAT = Struct("<Q")


class SharedSerial:
    """A memory-mapped 64-bit counter. `value` may be read at any time from any thread."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(self._fd).st_size < _FORMAT.size:
            os.ftruncate(self._fd, _FORMAT.size)
        self._map = mmap.mmap(self._fd, _FORMAT.size)

    @property
    def value(self) -> int:
        value: int = _FORMAT.unpack_from(self._map)[0]
        return value

    def advance(self, serial: int) -> None:
        """Raise the counter to `serial` after its transaction was committed; it never goes back.

        The lock keeps a slower writer from setting an older number over a newer one.
        """
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            if serial > self.value:
                _FORMAT.pack_into(self._map, 0, serial)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def restart(self, serial: int) -> None:
        """Set the counter to the catalog's own number, also backwards: the catalog may have been rebuilt."""
        _FORMAT.pack_into(self._map, 0, serial)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)
