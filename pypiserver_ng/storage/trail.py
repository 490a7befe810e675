"""The audit log read back, the oldest entry first, and again and again where somebody follows it."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from pypiserver_ng.storage.audit import Entry, list_names

_log = logging.getLogger(__name__)

_decoder = msgspec.json.Decoder(Entry)


class Trail:
    """The files of one state directory, whoever writes to them meanwhile."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        #: The newest file that was read, kept open: a new one that takes its name is another one.
        self._newest: BinaryIO | None = None

    def close(self) -> None:
        if self._newest is not None:
            self._newest.close()

    def read(self) -> Iterator[Entry]:
        """What was not read yet; what is no entry is named in the log and left out. Raises OSError."""
        streams: list[BinaryIO] = []
        try:
            self._open_newer(streams)
            if self._newest is not None:
                yield from _read_lines(self._newest)
            while streams:
                if self._newest is not None:
                    self._newest.close()
                self._newest = streams.pop()
                yield from _read_lines(self._newest)
        finally:
            # Whoever stops earlier may read them the next time.
            for stream in streams:
                stream.close()

    def _open_newer(self, opened: list[BinaryIO]) -> None:
        """Append the files that are newer than the one that is open, the oldest last; all where none is."""
        seen = [] if self._newest is None else [os.fstat(self._newest.fileno())]
        for name in list_names():
            with suppress(FileNotFoundError):
                stream = _open(self._state_dir / name)
                status = os.fstat(stream.fileno())
                if not any(os.path.samestat(status, other) for other in seen):
                    seen.append(status)
                    opened.append(stream)
                    continue
                stream.close()
                if self._newest is not None and os.path.samestat(status, seen[0]):
                    break
                # It was renamed while its elders were looked for.


def _open(path: Path) -> BinaryIO:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(fd, "rb")


def _read_lines(stream: BinaryIO) -> Iterator[Entry]:
    while line := stream.readline():
        if not line.endswith(b"\n"):
            # The rest is on its way.
            stream.seek(-len(line), os.SEEK_CUR)
            return
        if not line.strip():
            continue
        try:
            entry = _decoder.decode(line)
            if entry.time.tzinfo is None:
                raise ValueError("its time has no zone")
        except (ValueError, RecursionError) as fault:
            _log.warning("a line of the audit log is left out: %s", fault)
        else:
            yield entry
