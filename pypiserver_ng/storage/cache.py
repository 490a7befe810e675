"""What was fetched from other indexes: pages by project, files by their hash. Plain files that can be had again.

Blocking code, called in threads. Nothing here knows what a page or a file means, or asks anybody for it. Whatever has
its final name is whole and was checked by who gave it that name; processes keep out of each other's way by locks on
the files themselves, which a process that dies gives up.

    cache/pages/<upstream>/<project>        its modification time says when the upstream last confirmed it
    cache/files/<ab>/<sha256>/<filename>    its access time says when it was last asked for
    cache/files/<ab>/<key>/<digest>.metadata    core metadata of a file, named after their own sha256
    cache/partial/<key>                     what is being fetched, locked by who fetches it
    cache/changed                           its modification time says when a page was changed or something removed
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pypiserver_ng.model import NormalizedName
from pypiserver_ng.storage.lock import SharedLock
from pypiserver_ng.storage.partial import (
    Partial,
    begin_partial,
    hash_open_file,
    is_same,
    remove_if_same,
    sweep_partials,
)
from pypiserver_ng.storage.sidecar import make_private_directory

_log = logging.getLogger(__name__)

_METADATA = ".metadata"
#: Below this many files, exactly what is over the limit is evicted; above, a little more, so that the next file does
#: not cost another look through all of them.
_MANY = 5_000
_SLACK = 0.05

#: Tells one state of a page from another: inode and modification time in nanoseconds.
Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """One file in the cache."""

    sha256: str
    filename: str
    #: Bytes.
    size: int
    #: Seconds since 1970.
    used: float
    path: Path

    @property
    def is_metadata(self) -> bool:
        return self.filename.endswith(_METADATA)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the cache holds."""

    pages: int
    page_bytes: int
    files: int
    file_bytes: int


class Cache:
    """One state directory's cache. `limit` in bytes of files, None for no limit."""

    def __init__(self, state_dir: Path, limit: int | None = None) -> None:
        """Raises OSError."""
        self._directory = state_dir / "cache"
        make_private_directory(self._directory)
        self._pages = self._directory / "pages"
        self._files = self._directory / "files"
        #: For files that get no name.
        self.scratch = self._directory / "partial"
        for directory in (self._pages, self._files, self.scratch):
            directory.mkdir(exist_ok=True)
        self._changed = self._directory / "changed"
        if not self._changed.exists():
            self._changed.touch()
        self._limit = limit
        self._upkeep = SharedLock(self._directory / "upkeep.lock")
        #: Held by whoever changes a page that he has read.
        self.lock = SharedLock(self._directory / "pages.lock")
        self._used = self._directory / "used"
        sweep_partials(self.scratch)

    def close(self) -> None:
        self._upkeep.close()
        self.lock.close()

    # Changes that other processes have to learn of

    def generation(self) -> int:
        """Another number after somebody changed a page or removed something."""
        try:
            return self._changed.stat().st_mtime_ns
        except OSError:
            return 0

    def notice(self) -> None:
        """Let every process look again at what it remembers."""
        with contextlib.suppress(OSError):
            self._changed.touch()
            # Not the system's own time, which stands still for some milliseconds.
            _set_time(self._changed)

    # Pages

    def page_stamp(self, upstream: str, name: NormalizedName) -> Stamp | None:
        """None where nothing is kept."""
        try:
            status = os.stat(self._page_path(upstream, name))  # noqa: PTH116 - asked often
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def read_page(self, upstream: str, name: NormalizedName) -> tuple[bytes, Stamp] | None:
        """What was written last, or None."""
        try:
            with self._page_path(upstream, name).open("rb") as file:
                status = os.fstat(file.fileno())
                return file.read(), (status.st_ino, status.st_mtime_ns)
        except OSError:
            return None

    def write_page(self, upstream: str, name: NormalizedName, content: bytes, checked: int | None = None) -> Stamp:
        """Keep it in place of what was there, as confirmed now or at `checked` (ns since 1970). Raises OSError."""
        path = self._page_path(upstream, name)
        self._write(path, content, checked)
        self.notice()
        return self.page_stamp(upstream, name) or (0, 0)

    def confirm_page(self, upstream: str, name: NormalizedName) -> Stamp | None:
        """It is as fresh as if it had been written now. Raises OSError but where it is gone."""
        with contextlib.suppress(FileNotFoundError):
            _set_time(self._page_path(upstream, name))
        return self.page_stamp(upstream, name)

    def remove_page(self, name: NormalizedName) -> int:
        """Forget what every upstream said of a project; returns how many did."""
        count = 0
        for directory in _list(self._pages):
            with contextlib.suppress(FileNotFoundError):
                (directory / name).unlink()
                count += 1
        return count

    def pages(self, name: NormalizedName) -> Iterator[tuple[str, bytes]]:
        """What every upstream says of a project, as (upstream, content)."""
        for directory in _list(self._pages):
            if found := self.read_page(directory.name, name):
                yield directory.name, found[0]

    def _page_path(self, upstream: str, name: NormalizedName) -> Path:
        return self._pages / upstream / name

    def _write(self, path: Path, content: bytes, mtime_ns: int | None = None) -> None:
        # Somebody may have removed the cache under our feet.
        self.scratch.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.scratch / secrets.token_hex(16)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                mtime_ns = time.time_ns() if mtime_ns is None else mtime_ns
                os.utime(file.fileno(), ns=(mtime_ns, mtime_ns))
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    # Files

    def open_file(self, sha256: str, filename: str, size: int | None = None) -> int | None:
        """A descriptor, or None where it is not here. The file is not evicted while that is open.

        Where it has another size than it should, either the page that says so lies, or the disk spoilt the file:
        then it is as good as not here.
        """
        path = self._file_path(sha256, filename)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        if size is not None and os.fstat(fd).st_size != size and hash_open_file(fd) != sha256:
            _log.warning("%s has not its bytes any more: it is removed from the cache", filename)
            remove_if_same(path, fd)
            os.close(fd)
            return None
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _use(fd)
        return fd

    def has_file(self, sha256: str, filename: str) -> bool:
        return self._file_path(sha256, filename).is_file()

    def is_published(self, partial: Partial, sha256: str, filename: str) -> bool:
        """Whether what another process fetched got its name."""
        return is_same(self._file_path(sha256, filename), partial.fd)

    def begin(self, key: str) -> Partial:
        """Fetch what `key` names, or follow who does already. Raises OSError."""
        return begin_partial(self.scratch, key)

    def publish(self, partial: Partial, sha256: str, filename: str) -> None:
        """Give our bytes, which were checked, their name; durably. Raises OSError."""
        target = self._file_path(sha256, filename)
        # Before anything else: after a power cut a name must not stand for other bytes than were checked.
        os.fsync(partial.fd)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.path.replace(target)
        fcntl.flock(partial.fd, fcntl.LOCK_SH)
        _use(partial.fd)
        self._make_room(os.fstat(partial.fd).st_size)

    def read_metadata(self, key: str, digest: str | None) -> bytes | None:
        """The core metadata kept under `key`, those with this sha256 if one is given.

        What the disk spoilt is as good as not here.
        """
        directory = self._file_path(key, "")
        for path in [directory / f"{digest}{_METADATA}"] if digest else _list(directory):
            if not path.name.endswith(_METADATA):
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                content = file.read()
                if path.name == _name_metadata(content):
                    _use(file.fileno())
                    return content
        return None

    def write_metadata(self, key: str, content: bytes) -> None:
        """Raises OSError."""
        target = self._file_path(key, _name_metadata(content))
        self._write(target, content)
        self._make_room(len(content))

    def _file_path(self, sha256: str, filename: str) -> Path:
        return self._files / sha256[:2] / sha256 / filename

    # Room

    def files(self) -> list[Kept]:
        """Every file, metadata included, by its last use, the oldest first."""
        found = []
        for bucket in _list(self._files):
            for directory in _list(bucket):
                for path in _list(directory):
                    with contextlib.suppress(OSError):
                        status = path.stat()
                        found.append(Kept(directory.name, path.name, status.st_size, status.st_atime, path))
        return sorted(found, key=lambda kept: kept.used)

    def usage(self) -> Usage:
        files = self.files()
        pages = [path for directory in _list(self._pages) for path in _list(directory)]
        sizes = []
        for path in pages:
            with contextlib.suppress(OSError):
                sizes.append(path.stat().st_size)
        return Usage(len(sizes), sum(sizes), len(files), sum(kept.size for kept in files))

    def remove(self, kept: Kept) -> bool:
        """Whether it is gone: a file that is being sent to somebody stays."""
        try:
            fd = os.open(kept.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept.path.unlink()
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            os.close(fd)
        with contextlib.suppress(OSError):
            kept.path.parent.rmdir()
        return True

    def drop(self, sha256: str, filename: str, since: float) -> None:
        """As `remove`, for a file that came at that moment (seconds since 1970) or later."""
        path = self._file_path(sha256, filename)
        with contextlib.suppress(OSError):
            status = path.stat()
            if status.st_mtime >= since:
                self.remove(Kept(sha256, filename, status.st_size, status.st_atime, path))

    def purge(self) -> None:
        """Remove every file that is not being sent, and what is known of freshness: pages are asked for again."""
        for kept in self.files():
            self.remove(kept)
        for directory in _list(self._pages):
            for path in _list(directory):
                with contextlib.suppress(OSError):
                    os.utime(path, (0, 0))
        self.notice()

    def _make_room(self, added: int) -> None:
        if self._limit is None:
            # Whoever has a limit has to count anew.
            self._used.unlink(missing_ok=True)
            return
        try:
            with self._upkeep:
                used = self._read_used()
                used = self._evict(self._limit) if used is None or used + added > self._limit else used + added
                self._used.write_text(str(used), encoding="ascii")
        except OSError as fault:
            _log.warning("the cache cannot be kept within its size: %s", fault.strerror)

    def _read_used(self) -> int | None:
        try:
            return int(self._used.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _evict(self, limit: int) -> int:
        """Remove what was not used for longest until the rest fits; returns the bytes that are left."""
        files = self.files()
        used = sum(kept.size for kept in files)
        target = limit if len(files) < _MANY else int(limit * (1 - _SLACK))
        spared = 0
        # What can never fit must not push out everything else, least of all while it is being sent.
        for kept in sorted(files, key=lambda kept: kept.size <= limit):
            if used - spared <= target:
                break
            if self.remove(kept):
                used -= kept.size
                _log.info("evicted %s", kept.filename)
            elif kept.size > limit:
                spared += kept.size
        return used

    def tidy(self, *, count_anew: bool = False) -> None:
        """Bring what is here below the limit: it may be smaller than before, or a file was spared that can go now."""
        sweep_partials(self.scratch)
        if self._limit is None:
            return
        try:
            with self._upkeep:
                used = None if count_anew else self._read_used()
                if used is None or used > self._limit:
                    self._used.write_text(str(self._evict(self._limit)), encoding="ascii")
        except OSError as fault:
            _log.warning("the cache cannot be kept within its size: %s", fault.strerror)


def _list(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _set_time(path: Path) -> None:
    os.utime(path, ns=(time.time_ns(),) * 2)


def _name_metadata(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() + _METADATA


def _use(fd: int) -> None:
    """Set the access time by ourselves: many file systems do not, or once a day."""
    with contextlib.suppress(OSError):
        os.utime(fd, ns=(time.time_ns(), os.fstat(fd).st_mtime_ns))
