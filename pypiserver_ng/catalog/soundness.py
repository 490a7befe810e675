"""Whether the database's file has to be read whole before it is used. Knows files, no database.

That takes seconds for a large one, and minutes from a slow disk. Only what was left in order and was not touched since
needs no such look: whoever closes it last leaves a mark, and whoever opens it first takes the mark away.
"""

import contextlib
import os
from pathlib import Path

_CHUNK = 2**20


class Mark:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = path.with_name(f"{path.name}.in-order")

    def take(self) -> bool:
        """Whether the file is as it was when the mark was left, which counts once."""
        try:
            left = self._mark.read_text(errors="replace")
            self._mark.unlink()
            # Back after a loss of power, it would speak for what was written since.
            sync_directory(self._mark.parent)
        except OSError:
            return False
        return left == self._describe()

    def leave(self) -> None:
        """Call it when nobody uses the file."""
        # Without a mark, the next start has more to do; a part of one is none.
        with contextlib.suppress(OSError), self._mark.open("x") as mark:
            mark.write(self._describe())

    def spoil(self) -> None:
        """Whoever closes the file, the next start has to look: something in it cannot be read."""
        with contextlib.suppress(OSError):
            self._mark.write_text("damaged\n")

    def _describe(self) -> str:
        try:
            status = self._path.stat()
        except OSError:
            return "nothing"
        return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}\n"


def read_through(path: Path) -> None:
    """Have the system read a file in one go, which is about to be read in small pieces.

    Not while this process has it open as a database: closing it here would give up the locks there.
    """
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        while file.read(_CHUNK):
            pass


def sync_directory(path: Path) -> None:
    """Have what was made or removed in it outlast a loss of power. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
