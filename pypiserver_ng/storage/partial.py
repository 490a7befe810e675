"""Files that are being fetched: one process fetches each, others follow it on the disk.

Who fetches holds an exclusive lock on the file itself, which the system takes back when the process dies; a shared lock
that can be had tells that he is done or gone.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from pathlib import Path

#: What was being fetched so long ago, in seconds, and is locked by nobody, is left over.
_LEFT_OVER_SECONDS = 60.0


class Partial:
    """A file that is being fetched, in this process (`is_ours`) or in another."""

    def __init__(self, path: Path, fd: int, *, is_ours: bool) -> None:
        self.path = path
        self.fd = fd
        self.is_ours = is_ours

    def is_over(self) -> bool:
        """Whether another process, who fetched it, is done with it or gone."""
        return _lock(self.fd, fcntl.LOCK_SH)

    def has_moved(self) -> bool:
        """Whether who fetched it gave it another name."""
        return os.fstat(self.fd).st_nlink > 0 and not is_same(self.path, self.fd)

    def give_up(self) -> None:
        """Ours only: remove it, unless it has another name by now."""
        remove_if_same(self.path, self.fd)

    def close(self) -> None:
        os.close(self.fd)


def begin_partial(directory: Path, key: str) -> Partial:
    """Fetch what `key` names, or follow who does already. Raises OSError."""
    # Somebody may have removed it under our feet.
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / key
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            is_new = True
        except FileExistsError:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            is_new = False
        try:
            if is_new:
                # Somebody may have taken it for left over, before it could be locked.
                if _lock(fd, fcntl.LOCK_EX) and os.fstat(fd).st_nlink:
                    return Partial(path, fd, is_ours=True)
            elif not _lock(fd, fcntl.LOCK_SH):
                return Partial(path, fd, is_ours=False)
            else:
                # Who fetched it is gone; others may still read from it.
                remove_if_same(path, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def sweep_partials(directory: Path) -> None:
    """Remove what dead processes left behind."""
    for path in list(directory.iterdir()) if directory.is_dir() else []:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                # Some are written without a lock, in a moment.
                if _lock(fd, fcntl.LOCK_EX) and time.time() - os.fstat(fd).st_mtime > _LEFT_OVER_SECONDS:
                    remove_if_same(path, fd)
            finally:
                os.close(fd)


def remove_if_same(path: Path, fd: int) -> None:
    """Remove the name of an open file, unless another file has it by now."""
    with contextlib.suppress(FileNotFoundError):
        if is_same(path, fd):
            path.unlink()


def is_same(path: Path, fd: int) -> bool:
    """Whether the open file has this name."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except OSError:
        return False


def hash_open_file(fd: int) -> str:
    """The sha256 of all of it, wherever others who share the descriptor stand."""
    digest = hashlib.sha256()
    offset = 0
    while block := os.pread(fd, 1 << 20, offset):
        digest.update(block)
        offset += len(block)
    return digest.hexdigest()


def _lock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
