"""The package directories: scanned, opened, published into.

Every path that is opened comes from a scan or from a checked filename, never from a URL.
"""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import signal
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pypiserver_ng.errors import Failure, NoSpace, Unavailable
from pypiserver_ng.storage.scratch import Scratch, hash_stream, kept_from_sweeps, sweep_scratch

_log = logging.getLogger(__name__)

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_ODD_NAME = "the name is not UTF-8, so nothing of it is served, and it shadows nothing: rename it"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Exists(Exception):  # noqa: N818 - an outcome, not a fault
    """The name is taken."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One regular file below a package directory; `path` is relative, with ``/``."""

    root: str
    path: str
    size: int
    mtime_ns: int

    @property
    def filename(self) -> str:
        return self.path.rpartition("/")[2]


class Directory:
    """Several package directories; uploads go flat into the first."""

    def __init__(self, roots: Sequence[Path], state_dir: Path) -> None:
        #: Absolute, in order of priority.
        self.roots = tuple(os.path.abspath(root) for root in roots)  # noqa: PTH100 - links stay as given
        #: Directories that were mounts when they were last looked at; the catalog remembers them between runs.
        self.mounts: set[str] = set()
        self._warned: set[str] = set()
        self._scratch = self._place_scratch(state_dir)
        self._mode = 0o666 & ~_umask()

    def _place_scratch(self, state_dir: Path) -> Path:
        # A hard link cannot leave its mount, so scratch must share the first directory's.
        first = Path(self.roots[0])
        scratch = state_dir / "scratch"
        _make_scratch(scratch)
        if not _can_link(scratch, first):
            scratch = first / ".pypiserver-ng-scratch"
            _make_scratch(scratch)
        return scratch

    def scan(self) -> tuple[list[Seen], list[tuple[str, str]]]:
        """Every regular file whose path has no dot name, and the directories that could not be read.

        A directory is given as (root, path with ``/`` at its end). What lies below one that could not be read
        is unknown, not gone.
        """
        failed: list[tuple[str, str]] = []
        return list(self.walk(failed)), failed

    def walk(self, failed: list[tuple[str, str]]) -> Iterator[Seen]:
        """As `scan`, one file after another; the list of directories that cannot be read grows meanwhile."""
        has_odd = False
        for root in self.roots:
            todo = [""]
            while todo:
                directory = todo.pop()
                try:
                    self._check_mount(f"{root}/{directory}".rstrip("/"))
                    # In the order of the catalog's index: as they come, recording many takes several times as long.
                    names = sorted(os.listdir(f"{root}/{directory}"))  # noqa: PTH208 - names, not a Path for each
                except OSError as fault:
                    failed.append((root, directory))
                    self._warn(directory or root, fault.strerror or "it cannot be read")
                    continue
                for name in names:
                    if name.startswith("."):
                        continue
                    path = directory + name
                    if not _is_utf8(name):
                        has_odd = True
                        self._warn(ascii(path), _ODD_NAME)
                    elif status := _stat(f"{root}/{path}"):
                        if stat.S_ISDIR(status.st_mode):
                            todo.append(f"{path}/")
                        else:
                            yield _seen(root, path, status)
        if not failed and not has_odd:
            self._warned.clear()

    def names(self) -> Iterator[tuple[str, str]]:
        """(root, path) of whatever may be a file. Quick, because only directories are looked into.

        Of directories that cannot be read there is nothing.
        """
        for root in self.roots:
            todo = [""]
            while todo:
                directory = todo.pop()
                with contextlib.suppress(OSError), os.scandir(f"{root}/{directory}") as entries:
                    for entry in entries:
                        name = entry.name
                        if name.startswith(".") or not _is_utf8(name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            todo.append(f"{directory}{name}/")
                        else:
                            yield root, directory + name

    def _check_mount(self, directory: str) -> None:
        """Remember what is mounted. Raises OSError where a mount has gone and left its empty mount point."""
        if os.path.ismount(directory):
            self.mounts.add(directory)
        elif self._is_unmounted(directory):
            raise OSError(errno.ENODEV, "it was a mount and is an empty directory now; its files are kept in mind")
        else:
            self.mounts.discard(directory)

    def _is_unmounted(self, directory: str) -> bool:
        if directory not in self.mounts or os.path.ismount(directory):
            return False
        with os.scandir(directory) as entries:
            return next(entries, None) is None

    def _warn(self, directory: str, reason: str) -> None:
        if directory not in self._warned:
            self._warned.add(directory)
            _log.warning("%s: %s", directory, reason)

    def is_known(self, root: str, path: str) -> bool:
        """False where the file's directory cannot be looked into just now, so that a missing file means nothing."""
        directory = root
        try:
            for name in path.split("/"):
                if not os.path.isdir(directory):  # noqa: PTH112
                    # Below a directory that is served, one that went took its files with it.
                    return directory != root
                if self._is_unmounted(directory):
                    return False
                directory = f"{directory}/{name}"
        except OSError:
            return False
        return True

    def look(self, root: str, path: str) -> Seen | None:
        """The file as it is now, or None when it is gone, or where a scan does not go. Raises OSError."""
        if _is_behind_link(root, path):
            return None
        try:
            status = os.stat(f"{root}/{path}")  # noqa: PTH116 - a stat result, without a Path on the way
        except OSError as fault:
            if fault.errno in _GONE:
                return None
            raise
        return _seen(root, path, status) if stat.S_ISREG(status.st_mode) else None

    def open(self, root: str, path: str) -> int:
        """A descriptor for reading. Raises OSError; a link to a file is followed."""
        fd = os.open(f"{root}/{path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        return fd

    def hash(self, root: str, path: str) -> str | None:
        """The sha256 of a file, or None where it cannot be opened. Raises OSError."""
        try:
            fd = self.open(root, path)
        except OSError:
            return None
        with open(fd, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
            return hash_stream(stream).sha256

    def new_scratch(self) -> Scratch:
        return Scratch(self._scratch)

    def flush(self, scratch: Scratch) -> None:
        """Bring the finished bytes to the disk, before they get a name. Raises OSError."""
        with scratch.lock:
            fd = scratch.descriptor()
            os.fchmod(fd, self._mode)
            os.fsync(fd)

    def publish(self, scratch: Scratch, filename: str, *, overwrite: bool) -> Seen:
        """Give the flushed bytes their name in the first directory, durably. Raises Exists, OSError."""
        seen = self.give_name(scratch, filename, overwrite=overwrite)
        try:
            self.flush_names()
        except OSError:
            # Refused means refused; what was replaced is kept aside by who asked for that.
            with contextlib.suppress(OSError):
                os.unlink(f"{seen.root}/{seen.path}")  # noqa: PTH108
            raise
        return seen

    def give_name(self, scratch: Scratch, filename: str, *, overwrite: bool) -> Seen:
        """As `publish`, but the name lasts only from `flush_names` on."""
        target = f"{self.roots[0]}/{filename}"
        with scratch.lock:
            fd = scratch.descriptor()
            if overwrite:
                scratch.path.replace(target)
            else:
                self._link(scratch, target)
            return _seen(self.roots[0], filename, os.fstat(fd))

    def flush_names(self) -> None:
        """Bring the names in the first directory to the disk. Raises OSError."""
        _sync_directory(self.roots[0])

    @contextlib.contextmanager
    def keep_aside(self, filename: str) -> Iterator[Path | None]:
        """A second name, in scratch, for what has this name in the first directory. Raises OSError."""
        kept = self._scratch / secrets.token_hex(16)
        try:
            os.link(f"{self.roots[0]}/{filename}", kept, follow_symlinks=False)
        except OSError as fault:
            if fault.errno in _GONE:
                yield None
                return
            if fault.errno not in _NO_LINKS:
                raise
            shutil.copy2(f"{self.roots[0]}/{filename}", kept, follow_symlinks=False)
        with kept_from_sweeps(kept):
            yield kept

    def put_back(self, kept: Path | None, filename: str) -> None:
        """Undo a replacement. Raises OSError."""
        if kept is None:
            self.delete(self.roots[0], filename)
        else:
            kept.replace(Path(self.roots[0], filename))
            with contextlib.suppress(OSError):
                _sync_directory(self.roots[0])

    def _link(self, scratch: Scratch, target: str) -> None:
        try:
            os.link(scratch.path, target, follow_symlinks=False)
        except FileExistsError:
            raise Exists from None
        except OSError as fault:
            if fault.errno not in _NO_LINKS:
                raise
            # No hard links here: an empty file takes the name, then the bytes take its place.
            try:
                os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode))
            except FileExistsError:
                raise Exists from None
            scratch.path.replace(target)

    def delete(self, root: str, path: str) -> None:
        """Remove the name, durably; harmless when it is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{root}/{path}")  # noqa: PTH108
        _sync_directory(os.path.dirname(f"{root}/{path}"))  # noqa: PTH120

    def is_taken(self, filename: str) -> bool:
        """Whether anything, of whatever sort, has this name in the first directory."""
        return os.path.lexists(f"{self.roots[0]}/{filename}")

    def may_delete(self, root: str, path: str) -> bool:
        return os.access(os.path.dirname(f"{root}/{path}"), os.W_OK | os.X_OK)  # noqa: PTH120


def is_being_written(fd: int) -> bool:
    """Whether another process has the file open for writing.

    A read lease is granted only when nobody does. Where leases do not exist (another system, a network file
    system, another owner) the answer is False, and only the file's age can tell.
    """
    lease = getattr(fcntl, "F_SETLEASE", None)
    if lease is None:
        return False
    try:
        # Should a writer come in this very moment, the kernel sends a signal: choose one that is ignored by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, lease, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(fd, lease, fcntl.F_UNLCK)
    return False


def translate_os_error(fault: OSError, outcome: str = "nothing was stored") -> Failure:
    """What a fault of the machine means to the client that met it."""
    if fault.errno in _NO_SPACE:
        return NoSpace(f"no space is left on the server's disk; {outcome}")
    _log.error("the file system failed: %s", fault)
    return Unavailable(f"the server's file system fails just now; {outcome}", retry_after=30)


def _stat(path: str) -> os.stat_result | None:
    """Of a directory or of a regular file, which may be behind a link; None for anything else."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(path)  # noqa: PTH116 - a stat result, without a Path on the way
            return status if stat.S_ISREG(status.st_mode) else None
    except OSError:
        # A dangling link, or a file that went while we looked.
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else None


def _is_behind_link(root: str, path: str) -> bool:
    """Links to directories are not followed. Those who notify of changes do follow them."""
    ends = (end for end, character in enumerate(path) if character == "/")
    return any(os.path.islink(f"{root}/{path[:end]}") for end in ends)  # noqa: PTH114


def _is_utf8(name: str) -> bool:
    """Neither a URL nor the catalog can hold other names."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _seen(root: str, path: str, status: os.stat_result) -> Seen:
    return Seen(root, path, status.st_size, mtime_of(status))


def mtime_of(status: os.stat_result) -> int:
    """When the file was last written, in nanoseconds since 1970, within what 64 bits hold: from 1970 to 2262."""
    return min(max(status.st_mtime_ns, 0), 2**63 - 1)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_scratch(scratch: Path) -> None:
    # Where it cannot be made, uploads are refused and everything else works.
    with contextlib.suppress(OSError):
        scratch.mkdir(mode=0o700, exist_ok=True)
        if swept := sweep_scratch(scratch):
            _log.info("swept %d unfinished files", swept)


def _can_link(scratch: Path, target: Path) -> bool:
    """False only when the two lie on different mounts; other faults show when something is published."""
    probe = target / f".pypiserver-ng-{secrets.token_hex(8)}"
    try:
        file = Scratch(scratch)
        try:
            file.write(b"")
            os.link(file.path, probe)
        finally:
            file.discard()
        probe.unlink()
    except OSError as fault:
        return fault.errno != errno.EXDEV
    return True


def _umask() -> int:
    # The only portable way to read it is to set it; this runs before any thread writes files.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
