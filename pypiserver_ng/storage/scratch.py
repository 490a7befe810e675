"""Files in the making: written and hashed in one pass, invisible until they are published."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pypiserver_ng.model import Digests

_BLOCK = 1 << 20
_OURS = re.compile(r"[0-9a-f]{32}")


class Hasher:
    """The three digests that clients and the JSON API speak of."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._blake2b = hashlib.blake2b(digest_size=32)

    def update(self, block: bytes | memoryview) -> None:
        self._sha256.update(block)
        self._md5.update(block)
        self._blake2b.update(block)

    def digests(self) -> Digests:
        return Digests(self._sha256.hexdigest(), self._md5.hexdigest(), self._blake2b.hexdigest())


def hash_stream(stream: BinaryIO, is_stopped: Callable[[], bool] = lambda: False, size: int = _BLOCK) -> Digests:
    """Digests of everything from the stream's position to its end. Raises InterruptedError when it is stopped.

    `size` is how much it probably is: a small file does not deserve a large buffer.
    """
    hasher = Hasher()
    buffer = memoryview(bytearray(min(size + 1, _BLOCK)))
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        if is_stopped():
            raise InterruptedError
        hasher.update(buffer[:count])
    return hasher.digests()


class Scratch:
    """One file in the making; it is on the disk from when somebody writes it or needs it there.

    Its lock tells a sweep that somebody still owns it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: Whoever works on the file holds it: a request that is cancelled discards while a thread may still write.
        self.lock = threading.Lock()
        self.size = 0
        self._hasher = Hasher()
        self._held: list[bytes | bytearray] = []
        self._fd = -1
        self._path: Path | None = None
        self.is_discarded = False

    @property
    def path(self) -> Path:
        """Where the file lies, once it does."""
        assert self._path is not None
        return self._path

    def hold(self, block: bytes | bytearray) -> None:
        """Keep a block in memory, to be written later by who needs the file. Does not block."""
        self._held.append(block)

    def write(self, block: bytes | bytearray) -> None:
        with self.lock:
            self._write(self.descriptor(), block)

    def descriptor(self) -> int:
        """The open file with all its bytes, for who holds the lock. Raises OSError, also after it was discarded."""
        if self.is_discarded:
            raise OSError(errno.EBADF, "the upload was given up")
        if self._fd < 0:
            self._path, self._fd = _create_locked(self._directory)
        while self._held:
            self._write(self._fd, self._held.pop(0))
        return self._fd

    def _write(self, fd: int, block: bytes | bytearray) -> None:
        view = memoryview(block)
        self._hasher.update(view)
        self.size += len(view)
        while view:
            view = view[os.write(fd, view) :]

    def digests(self) -> Digests:
        """Of all its bytes. Raises OSError."""
        with self.lock:
            self.descriptor()
            return self._hasher.digests()

    def discard(self) -> None:
        """Remove the file; harmless when it was published or discarded before."""
        with self.lock:
            self.is_discarded = True
            self._held.clear()
            if self._fd >= 0:
                with contextlib.suppress(FileNotFoundError):
                    self.path.unlink()
                os.close(self._fd)
                self._fd = -1


def _create_locked(directory: Path) -> tuple[Path, int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        path = directory / secrets.token_hex(16)
        fd = os.open(path, flags, 0o600)
        # Another process may have swept the file before it was locked: then take another.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return path, fd
        os.close(fd)


@contextlib.contextmanager
def kept_from_sweeps(path: Path) -> Iterator[None]:
    """Own a file that has a name in scratch, and remove that name in the end."""
    fd = -1
    # A link in the place of a file is nothing that a sweep removes.
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if fd >= 0:
            os.close(fd)


def sweep_scratch(directory: Path) -> int:
    """Remove what dead processes left behind; returns how many files that were."""
    removed = 0
    for path in directory.iterdir():
        # Whatever else somebody keeps here, or where a link leads to, is not ours.
        if not _OURS.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
            finally:
                os.close(fd)
    return removed
