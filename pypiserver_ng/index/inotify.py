"""What Linux tells of directories: names that came, went, or were closed after writing.

Not that a file was opened or read, as by every download, nor each of many writes: nobody is woken for those. Blocking,
called in threads, one at a time.
"""

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from struct import Struct

_HEAD = Struct("iIII")
_ROOM = 2**16

_ATTRIB = 0x4
_CLOSE_WRITE = 0x8
_MOVED_FROM = 0x40
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE = 0x200
_MOVE_SELF = 0x800
_OVERFLOW = 0x4000
_IGNORED = 0x8000
_ONLY_DIRECTORIES = 0x1000000
_NO_LINKS = 0x2000000
_IS_DIRECTORY = 0x40000000

_WANTED = _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_DIRECTORIES
#: What becomes of a directory while we look, and no fault.
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES}


class Notices:
    """Of everything below some directories but what has a dot name. Raises OSError where the system tells nothing."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = roots
        self._system = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._system, "inotify_init1"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self._fd = self._call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        #: The directories by their watches.
        self._watched: dict[int, str] = {}

    def _call(self, name: str, *arguments: object) -> int:
        result: int = getattr(self._system, name)(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)

    def watch(self) -> None:
        """Begin to be told of everything. Raises OSError where a root is not there, or there is too much to watch."""
        for root in self._roots:
            self._add(root, _MOVE_SELF)
            for _ in self._watch_below(root):
                pass

    def read(self) -> set[str] | None:
        """The files that came, changed or went since the last time; None where it may be anything. Raises OSError."""
        changed: set[str] = set()
        is_anything = False
        for watch, mask, name in self._events():
            directory = self._watched.get(watch)
            if mask & _IGNORED:
                self._watched.pop(watch, None)
            if mask & _OVERFLOW or (directory in self._roots and mask & (_IGNORED | _MOVE_SELF)):
                # What was missed may be a new directory.
                self.watch()
                is_anything = True
            elif directory is None or not _is_wanted(name):
                continue
            elif mask & _IS_DIRECTORY:
                path = f"{directory}/{name}"
                if mask & _MOVED_FROM:
                    self._leave(path)
                if mask & (_MOVED_FROM | _DELETE):
                    is_anything = True
                elif not mask & _ATTRIB or path not in self._watched.values():
                    # It may be one that could not be read before.
                    changed.update(self._watch_below(path))
            else:
                changed.add(f"{directory}/{name}")
        return None if is_anything else changed

    def _events(self) -> Iterator[tuple[int, int, str]]:
        while True:
            try:
                content = os.read(self._fd, _ROOM)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(content):
                watch, mask, _, length = _HEAD.unpack_from(content, offset)
                offset += _HEAD.size
                yield watch, mask, os.fsdecode(content[offset : offset + length].rstrip(b"\0"))
                offset += length

    def _add(self, directory: str, more: int) -> None:
        watch = self._call("inotify_add_watch", self._fd, os.fsencode(directory), _WANTED | more)
        self._watched[watch] = directory

    def _watch_below(self, directory: str) -> Iterator[str]:
        """Watch all directories that are here; yields the files, which may have come before their directory's watch."""
        todo = [directory]
        while todo:
            directory = todo.pop()
            try:
                # A root was watched already, and may be behind a link.
                if directory not in self._roots:
                    self._add(directory, _NO_LINKS)
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if not _is_wanted(entry.name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(entry.path)
                        else:
                            yield entry.path
            except OSError as fault:
                if fault.errno not in _GONE:
                    raise

    def _leave(self, directory: str) -> None:
        """A directory was moved, and those below it: they are watched again where they turn up."""
        for watch, path in list(self._watched.items()):
            if f"{path}/".startswith(f"{directory}/"):
                self._call("inotify_rm_watch", self._fd, watch)
                del self._watched[watch]


def _is_wanted(name: str) -> bool:
    # Names that are not UTF-8 are not served.
    return bool(name) and not name.startswith(".") and not any("\ud800" <= letter <= "\udfff" for letter in name)
