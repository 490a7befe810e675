"""Rows become values and values rows. Knows the columns, runs no query."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from pypiserver_ng.filenames import release_key
from pypiserver_ng.model import Digests, File, Kind, NormalizedName, ParsedFilename, Status

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: A row's id, and its file's size and mtime_ns.
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Presence:
    """A file seen in a package directory, not read yet."""

    root: str
    path: str
    parsed: ParsedFilename
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What reading a file's bytes told."""

    digests: Digests
    #: The project's name as its metadata spells it.
    display_name: str | None = None
    requires_python: str | None = None
    summary: str | None = None
    metadata_sha256: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """One row, read or not. `file` is None while the bytes were not read."""

    id: int
    presence: Presence
    file: File | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Doomed:
    """A file whose deletion began."""

    root: str
    path: str
    project: NormalizedName
    version: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Change:
    """A project that changed; `files` counts what it has now."""

    name: NormalizedName
    serial: int
    files: int
    status: Status = Status.ACTIVE


@dataclass(frozen=True, slots=True)
class Rows:
    """One project with all its files, as they were at one moment."""

    serial: int
    status: Status
    status_reason: str | None
    known: list[Known]


@dataclass(frozen=True, slots=True)
class Marks:
    """What is known of a project's files beside their rows."""

    #: Yanked releases by `release_key`, with the reason.
    yanks: Mapping[str, str | None]
    #: (filename, sha256) of files that have provenance.
    provenances: Container[tuple[str, str]]


NO_MARKS = Marks({}, ())
_KINDS = {kind.value: kind for kind in Kind}


def to_microseconds(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 10**6 + delta.microseconds


def from_microseconds(value: int) -> datetime:
    return datetime.fromtimestamp(value // 10**6, tz=UTC).replace(microsecond=value % 10**6)


def to_known(row: Row[Any], marks: Marks, share: Callable[[str, str], str] = lambda _, text: text) -> Known:
    """`share` gives back one and the same object for equal texts, as `dict.setdefault` does."""

    def shared(text: str) -> str:
        return share(text, text)

    # Files of one project have most texts in common, and there may be very many of them in memory.
    path, filename, root, version = shared(row.path), shared(row.filename), shared(row.root), shared(row.version)
    project, display_name = NormalizedName(shared(row.project)), shared(row.display_name)
    parsed = ParsedFilename(filename, display_name, project, version, _KINDS[row.kind])
    presence = Presence(root, path, parsed, row.size, row.mtime_ns)
    file = None
    if row.sha256 is not None:
        release = release_key(row.version) if marks.yanks else ""
        file = File(
            id=row.id,
            root=root,
            path=path,
            filename=filename,
            project=project,
            display_name=display_name,
            version=version,
            kind=parsed.kind,
            size=row.size,
            mtime_ns=row.mtime_ns,
            digests=Digests(row.sha256, row.md5, row.blake2b_256),
            upload_time=from_microseconds(row.upload_time),
            requires_python=row.requires_python and shared(row.requires_python),
            summary=row.summary and shared(row.summary),
            metadata_sha256=row.metadata_sha256 and shared(row.metadata_sha256),
            yanked=release in marks.yanks,
            yanked_reason=marks.yanks.get(release),
            has_provenance=(row.filename, row.sha256) in marks.provenances,
        )
    return Known(row.id, presence, file, row.problem)


def presence_values(presence: Presence) -> dict[str, Any]:
    parsed = presence.parsed
    return {
        "root": presence.root,
        "path": presence.path,
        "filename": parsed.filename,
        "project": parsed.name,
        "display_name": parsed.display_name,
        "version": parsed.version,
        "kind": parsed.kind.value,
        "size": presence.size,
        "mtime_ns": presence.mtime_ns,
    }


def contents_values(contents: Contents) -> dict[str, Any]:
    spelling = {"display_name": contents.display_name} if contents.display_name else {}
    return spelling | {
        "sha256": contents.digests.sha256,
        "md5": contents.digests.md5,
        "blake2b_256": contents.digests.blake2b_256,
        "requires_python": contents.requires_python,
        "summary": contents.summary,
        "metadata_sha256": contents.metadata_sha256,
        "problem": contents.problem,
    }


#: Columns that only reading a file can fill.
READ = ("sha256", "md5", "blake2b_256", "requires_python", "summary", "metadata_sha256", "problem")
_UNREAD = dict.fromkeys(READ)


def read_values(known: Known, contents: Contents, upload_times: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """One row for `queries.describe_read`."""
    filename = known.presence.parsed.filename
    values = contents_values(contents)
    return {column: values[column] for column in READ} | {
        "_id": known.id,
        "_size": known.presence.size,
        "_mtime_ns": known.presence.mtime_ns,
        "_display_name": contents.display_name,
        "_upload_time": upload_times.get((filename, contents.digests.sha256)),
    }


def found_values(presence: Presence) -> dict[str, Any]:
    # PEP 700's upload-time of a file that was copied in is the time it was last written.
    return presence_values(presence) | _UNREAD | {"upload_time": presence.mtime_ns // 1000}
