"""A lock that threads of this process and other processes on the same state directory take alike."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

_PATIENCE_SECONDS = 10.0


class SharedLock:
    """Not reentrant. A process that dies releases it; for one that hangs nobody waits longer than ten seconds."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # A lock of a file belongs to its descriptor: between the threads that share it, it decides nothing.
        self._threads = threading.Lock()

    def __enter__(self) -> None:
        """Raises TimeoutError."""
        self._acquire(time.monotonic() + _PATIENCE_SECONDS)

    @contextmanager
    def by(self, deadline: float) -> Iterator[None]:
        """For who has waited for something else: up to this moment (monotonic). Raises TimeoutError."""
        self._acquire(deadline)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, deadline: float) -> None:
        # For threads and for processes together.
        if not self._threads.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise TimeoutError(errno.ETIMEDOUT, "another change takes too long")
        try:
            self._lock_file(deadline)
        except BaseException:
            self._threads.release()
            raise

    def _lock_file(self, deadline: float) -> None:
        pause = 0.001
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock for too long") from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.02)
            else:
                return

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        os.close(self._fd)


class Seat:
    """A place for one process at a time; whoever takes it keeps it until it closes or dies."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> bool:
        """Whether it is ours, now or already."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)
