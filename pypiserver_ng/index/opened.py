"""A distribution's bytes on their way to a client, wherever they are."""

import os
from typing import Protocol

from pypiserver_ng.index.threads import Threads
from pypiserver_ng.model import File, Listed
from pypiserver_ng.storage import Directory, mtime_of, translate_os_error

#: Missing outside Linux, where every read takes a thread.
_NO_WAIT = getattr(os, "RWF_NOWAIT", None)
#: Bytes that are sent in one go where the system does it: it takes a fifth of a millisecond.
_SPAN = 1 << 20


def peek(fd: int, view: memoryview, offset: int) -> int:
    """Read what lies in the system's memory, and ask no disk; returns the number of bytes."""
    if _NO_WAIT is None:
        return 0
    try:
        return os.preadv(fd, (view,), offset, _NO_WAIT)
    except OSError:
        # Nothing of it is there, or this file system cannot tell.
        return 0


def lies_in_memory(fd: int, offset: int, count: int) -> bool:
    """Whether the first and the last byte of a part of a file can be had without a disk.

    So all of it probably can, since files are read from front to back and forgotten by age. To ask for every page costs
    as much as to read it, or a mapping; who is wrong waits for the disk once, for what the part is long.
    """
    byte = memoryview(bytearray(1))
    return count > 0 and peek(fd, byte, offset) == 1 and peek(fd, byte, offset + count - 1) == 1


class Opened(Protocol):
    """One file that somebody asked for. Closed by who opened it."""

    @property
    def file(self) -> Listed: ...

    @property
    def sha256(self) -> str | None:
        """Of the bytes, as far as it is known before they are here."""

    @property
    def size(self) -> int | None:
        """Bytes; None where nobody knows before they are here."""

    @property
    def modified(self) -> int | None:
        """Seconds since 1970."""

    async def begin(self) -> None:
        """Make sure that there are bytes to come. Raises NotFound, UpstreamFailed, NoSpace, Unavailable."""

    async def measure(self) -> None:
        """Learn the size without the bytes. Raises as `begin`."""

    def peek(self, view: memoryview, offset: int, end: int | None) -> int:
        """Read what can be had without waiting; how many bytes that is, none where `read` has to be asked."""

    def span(self, offset: int, end: int) -> tuple[int, int]:
        """A descriptor, and how many of its bytes may be sent from `offset` on without looking at them or waiting."""

    async def read(self, count: int, offset: int, end: int | None) -> bytes:
        """Up to `count` bytes; none at the end of the file.

        The byte before `end`, the last that is wanted, comes only when all bytes of the file were checked. Raises
        Failure where they turn out to be wrong or cannot be had.
        """

    def real_path(self) -> str | None:
        """The absolute path of the whole file, without links in it; None where it has none, or none yet."""

    def close(self) -> None: ...


class OpenFile:
    """Bytes that are here."""

    def __init__(self, file: Listed, fd: int, threads: Threads, *, sha256: str, modified: int | None) -> None:
        self.file = file
        self.sha256 = sha256
        self.size: int | None = os.fstat(fd).st_size
        self.modified = modified
        self._fd = fd
        self._threads = threads

    async def begin(self) -> None:
        """They are here."""

    async def measure(self) -> None:
        """It is known."""

    def peek(self, view: memoryview, offset: int, end: int | None) -> int:
        return peek(self._fd, view, offset)

    def span(self, offset: int, end: int) -> tuple[int, int]:
        count = min(end - offset, _SPAN)
        return self._fd, count if lies_in_memory(self._fd, offset, count) else 0

    async def read(self, count: int, offset: int, end: int | None) -> bytes:
        return await self._threads.run(os.pread, self._fd, count, offset)

    def real_path(self) -> str | None:
        try:
            path = os.readlink(f"/proc/self/fd/{self._fd}")  # noqa: PTH115
        except OSError:
            return None
        return None if path.endswith(" (deleted)") else path

    def close(self) -> None:
        os.close(self._fd)


def open_exactly(directory: Directory, file: File) -> int | None:
    """A descriptor of the file that has a row; None where another one lies there now, or none. Raises Failure."""
    try:
        fd = directory.open(file.root, file.path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        raise translate_os_error(fault, "the file cannot be read") from fault
    status = os.fstat(fd)
    if (status.st_size, mtime_of(status)) == (file.size, file.mtime_ns):
        return fd
    os.close(fd)
    return None
