"""Records of malware that the operator keeps on the disk: a directory of JSON files or a zip of them.

What cannot be read as a whole is refused, so that whoever watches it can keep to what was known; a single broken
record costs itself only.
"""

import contextlib
import logging
import lzma
import os
import stat as modes
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pypiserver_ng.errors import Invalid
from pypiserver_ng.policy import Advisories, Advisory, parse_record

_log = logging.getLogger(__name__)

#: Bytes.
_MAX_RECORD = 16 * 2**20
#: To see that there are more.
_ENOUGH = _MAX_RECORD + 1
#: Bytes of all records together, unpacked.
_MAX_TOTAL = 2 * 2**30
_MAX_RECORDS = 200_000
_SUFFIX = ".json"
#: What the standard library raises over a member that is damaged, encrypted or packed in a way it cannot read.
_BAD_MEMBER = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, ValueError)


def load_advisories(path: Path) -> Advisories:
    """All records. Blocking. Raises Invalid with one line where the path cannot be read or holds no record at all."""
    try:
        records, broken, count = _read_all(path)
    except OSError as fault:
        raise Invalid(f"cannot read the OSV records in {path} (--osv): {fault.strerror or 'it is damaged'}") from None
    except (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError):
        raise Invalid(f"{path} (--osv) is neither a directory nor a whole zip file") from None
    if count == len(broken):
        raise Invalid(f"{path} (--osv) holds no OSV record: name a directory or zip of *{_SUFFIX} files")
    if broken:
        _log.warning("%d of %d OSV records are broken and block nothing, such as %s", len(broken), count, broken[0])
    return Advisories(records)


def stamp(path: Path) -> tuple[int, ...]:
    """Another one when the records change; empty where there is nothing. Blocking."""
    try:
        status = path.stat()
    except OSError:
        return ()
    if not modes.S_ISDIR(status.st_mode):
        return status.st_mtime_ns, status.st_size, status.st_ino
    # Sums, because a file may be replaced by an older one.
    count = size = times = 0
    for entry in _walk(path, ignore_errors=True):
        with contextlib.suppress(OSError):
            status = entry.stat()
            count, size, times = count + 1, size + status.st_size, times + status.st_mtime_ns
    return count, size, times


def _read_all(path: Path) -> tuple[list[Advisory], list[str], int]:
    """What the sound records say, what the broken ones are called and why, and how many there are."""
    records: list[Advisory] = []
    broken: list[str] = []
    count = total = 0
    for name, content in _read_directory(path) if path.is_dir() else _read_zip(path):
        count, total = count + 1, total + len(content or b"")
        if count > _MAX_RECORDS or total > _MAX_TOTAL:
            raise Invalid(
                f"{path} (--osv) holds more than {_MAX_RECORDS} records or {_MAX_TOTAL // 2**30} GiB: "
                "keep only those of Python projects"
            )
        try:
            records += parse_record(_check(content))
        except Invalid as fault:
            broken.append(f"{name!r}: {fault.message}")
    return records, broken, count


def _check(content: bytes | None) -> bytes:
    if content is None:
        raise Invalid("it is damaged, or in a form that cannot be unpacked")
    if len(content) > _MAX_RECORD:
        raise Invalid(f"it is larger than {_MAX_RECORD // 2**20} MiB")
    return content


def _read_directory(path: Path) -> Iterator[tuple[str, bytes]]:
    for entry in _walk(path):
        # One that goes while its neighbours are read is gone.
        with contextlib.suppress(FileNotFoundError), Path(entry.path).open("rb") as file:
            yield entry.name, file.read(_ENOUGH)


def _walk(path: Path, *, ignore_errors: bool = False) -> Iterator[os.DirEntry[str]]:
    """Every record's entry, in no order. Raises OSError where it is not told to pass over what cannot be read."""
    todo = [str(path)]
    while todo:
        directory = todo.pop()
        try:
            with os.scandir(directory) as entries:
                found = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            if ignore_errors:
                continue
            raise
        todo += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
        yield from (entry for entry in found if entry.name.endswith(_SUFFIX) and entry.is_file())


def _read_zip(path: Path) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            parts = member.filename.split("/")
            if member.filename.endswith(_SUFFIX) and not any(part.startswith(".") for part in parts):
                yield parts[-1], _read_member(archive, member)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    try:
        with archive.open(member) as file:
            return file.read(_ENOUGH)
    except _BAD_MEMBER:
        return None
    except OSError as fault:
        # Damaged bzip2 data is one without a number; others are faults of the disk.
        if fault.errno is None:
            return None
        raise
