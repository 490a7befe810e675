"""Uploads become rows, several in one transaction; each is taken or refused for itself.

Statements are made once: making one costs more than running it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, select

from pypiserver_ng.catalog.database import Transaction
from pypiserver_ng.catalog.events import UPLOAD
from pypiserver_ng.catalog.queries import count_files, touch, upsert_files
from pypiserver_ng.catalog.rows import NO_MARKS, Contents, Known, Presence, contents_values, presence_values, to_known
from pypiserver_ng.catalog.schema import doomed, files, projects, tombstones
from pypiserver_ng.errors import Conflict, Denied, Failure
from pypiserver_ng.model import NormalizedName, Status
from pypiserver_ng.policy import describe_status


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the catalog has to say of an upload before it is looked into."""

    status: Status
    status_reason: str | None
    #: The rows that have its filename.
    known: list[Known]
    #: The sha256 that its name was buried with.
    buried: str | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that was just published, and who uploaded it."""

    presence: Presence
    contents: Contents
    user: str | None
    provenance: bytes | None = None


_STATUS = select(projects.c.status, projects.c.status_reason).where(projects.c.name == bindparam("name"))
_NAMED = select(files).where(files.c.filename == bindparam("filename")).order_by(files.c.id)
_BURIED = select(tombstones.c.sha256).where(tombstones.c.filename == bindparam("filename"))

_CLOSED = select(projects.c.name, projects.c.status, projects.c.status_reason).where(
    projects.c.name.in_(bindparam("names", expanding=True)), projects.c.status != Status.ACTIVE
)
_GRAVES = select(tombstones.c.filename, tombstones.c.sha256).where(
    tombstones.c.filename.in_(bindparam("filenames", expanding=True))
)
_IS_DOOMED = select(exists().where(doomed.c.path.in_(bindparam("paths", expanding=True))))
_SPARE = delete(doomed).where((doomed.c.root == bindparam("at_root")) & (doomed.c.path == bindparam("at_path")))
_UPSERT = upsert_files(column.name for column in files.c if not column.primary_key)


def look_out(connection: Connection, name: NormalizedName, filename: str) -> Outlook:
    row = connection.execute(_STATUS, {"name": name}).first()
    named = connection.execute(_NAMED, {"filename": filename})
    return Outlook(
        Status(row[0]) if row else Status.ACTIVE,
        row[1] if row else None,
        [to_known(one, NO_MARKS) for one in named],
        connection.scalar(_BURIED, {"filename": filename}),
    )


def record_arrivals(change: Transaction, arrivals: Sequence[Arrival], *, overwrite: bool) -> list[Failure | None]:
    """For each in its turn why it is refused, or None where it is recorded."""
    connection = change.connection
    names = {arrival.presence.parsed.name for arrival in arrivals}
    filenames = {arrival.presence.parsed.filename for arrival in arrivals}
    closed = {row[0]: (Status(row[1]), row[2]) for row in connection.execute(_CLOSED, {"names": list(names)})}
    graves: dict[str, str] = {}
    if not overwrite:
        graves = {row[0]: row[1] for row in connection.execute(_GRAVES, {"filenames": list(filenames)})}
    refusals = [_refuse(arrival, closed, graves) for arrival in arrivals]
    taken = [arrival for arrival, refusal in zip(arrivals, refusals, strict=True) if refusal is None]
    if taken:
        _record(change, taken)
    return refusals


def _refuse(arrival: Arrival, closed: dict[str, tuple[Status, str | None]], graves: dict[str, str]) -> Failure | None:
    parsed = arrival.presence.parsed
    status, reason = closed.get(parsed.name, (Status.ACTIVE, None))
    if not status.takes_uploads:
        return closed_denial(parsed.name, status, reason)
    if graves.get(parsed.filename) not in {None, arrival.contents.digests.sha256}:
        return buried_conflict(parsed.filename)
    return None


def _record(change: Transaction, arrivals: Sequence[Arrival]) -> None:
    connection = change.connection
    names = {arrival.presence.parsed.name for arrival in arrivals}
    touch(change, names)
    connection.execute(_UPSERT, [_values(arrival) for arrival in arrivals])
    paths = [{"at_root": arrival.presence.root, "at_path": arrival.presence.path} for arrival in arrivals]
    # The same bytes again, before their deletion was finished: now they are meant to stay.
    if connection.scalar(_IS_DOOMED, {"paths": [path["at_path"] for path in paths]}):
        connection.execute(_SPARE, paths)
    change.record_all(UPLOAD, [_event_fields(arrival) for arrival in arrivals])
    count_files(connection, names)


def _values(arrival: Arrival) -> dict[str, Any]:
    return presence_values(arrival.presence) | contents_values(arrival.contents) | {"upload_time": _moment(arrival)}


def _moment(arrival: Arrival) -> int:
    # The file's own time, so that its page is the same after the catalog was made anew from the directory.
    return arrival.presence.mtime_ns // 1000


def _event_fields(arrival: Arrival) -> dict[str, Any]:
    parsed = arrival.presence.parsed
    return {
        "project": parsed.name,
        "version": parsed.version,
        "filename": parsed.filename,
        "sha256": arrival.contents.digests.sha256,
        "user": arrival.user,
        "upload_time": _moment(arrival),
        "provenance": arrival.provenance.decode() if arrival.provenance is not None else None,
    }


def buried_conflict(filename: str) -> Conflict:
    return Conflict(
        f"File already exists: {filename} was deleted here, and its name takes no other bytes; upload a new version"
    )


def closed_denial(name: NormalizedName, status: Status, reason: str | None) -> Denied:
    """Why an archived or quarantined project takes no upload (PEP 792)."""
    return Denied(f"{describe_status(name, status, reason)}: it takes no uploads")
