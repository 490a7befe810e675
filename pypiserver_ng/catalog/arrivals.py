"""Uploads become rows, several in one transaction; each is taken or refused for itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, literal, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.database import Transaction
from pypiserver_ng.catalog.events import UPLOAD
from pypiserver_ng.catalog.finding import tell
from pypiserver_ng.catalog.prepared import Prepared
from pypiserver_ng.catalog.queries import upsert_files
from pypiserver_ng.catalog.rows import NO_MARKS, Contents, Known, Presence, contents_values, presence_values, to_known
from pypiserver_ng.catalog.schema import doomed, files, projects, tombstones
from pypiserver_ng.errors import Conflict, Denied, Failure
from pypiserver_ng.model import NormalizedName, Status
from pypiserver_ng.policy import describe_status


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the catalog has to say of an upload before it is looked into."""

    #: Whether its project has no file yet.
    is_new: bool
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
    address: str | None = None


_STANDING = Prepared(
    select(projects.c.files, projects.c.status, projects.c.status_reason, tombstones.c.sha256).select_from(
        select(literal(1).label("one"))
        .subquery()
        .outerjoin(projects, projects.c.name == bindparam("name"))
        .outerjoin(tombstones, tombstones.c.filename == bindparam("filename"))
    )
)
_NAMED = Prepared(select(files).where(files.c.filename == bindparam("filename")).order_by(files.c.id))
_IS_DOOMED = Prepared(select(exists(select(doomed.c.path))))
_SPARE = Prepared(delete(doomed).where((doomed.c.root == bindparam("root")) & (doomed.c.path == bindparam("path"))))

_new = upsert(projects)
_TOUCH = Prepared(
    _new.on_conflict_do_update(index_elements=["name"], set_={"serial": _new.excluded.serial}),
    ["name", "serial", "files"],
)
_COLUMNS = [column.name for column in files.c if not column.primary_key]
_UPSERT = Prepared(upsert_files(_COLUMNS), _COLUMNS)
_COUNT = Prepared(
    update(projects)
    .where(projects.c.name == bindparam("project"))
    .values(files=select(func.count()).where(files.c.project == projects.c.name).scalar_subquery())
)


def look_out(connection: Connection, name: NormalizedName, filename: str) -> Outlook:
    count, status, reason, buried = _stand(connection, name, filename)
    named = _NAMED.rows(connection, filename=filename)
    return Outlook(not count, status, reason, [to_known(row, NO_MARKS) for row in named], buried)


def _stand(connection: Connection, name: NormalizedName, filename: str) -> tuple[int, Status, str | None, str | None]:
    """A project's files, its status and its reason, and the sha256 that the filename was buried with."""
    row = _STANDING.first(connection, name=name, filename=filename)
    assert row is not None
    count, status, reason, buried = row
    return count or 0, Status(status or Status.ACTIVE), reason, buried


def record_arrivals(change: Transaction, arrivals: Sequence[Arrival], *, overwrite: bool) -> list[Failure | None]:
    """For each in its turn why it is refused, or None where it is recorded."""
    refusals = [_refuse(change.connection, arrival, overwrite=overwrite) for arrival in arrivals]
    taken = [arrival for arrival, refusal in zip(arrivals, refusals, strict=True) if refusal is None]
    if taken:
        _record(change, taken)
    return refusals


def _refuse(connection: Connection, arrival: Arrival, *, overwrite: bool) -> Failure | None:
    parsed = arrival.presence.parsed
    _, status, reason, buried = _stand(connection, parsed.name, parsed.filename)
    if not status.takes_uploads:
        return closed_denial(parsed.name, status, reason)
    if buried not in {None, arrival.contents.digests.sha256} and not overwrite:
        return buried_conflict(parsed.filename)
    return None


def _record(change: Transaction, arrivals: Sequence[Arrival]) -> None:
    connection = change.connection
    names = sorted({arrival.presence.parsed.name for arrival in arrivals})
    _TOUCH.each(connection, [{"name": name, "serial": change.serial, "files": 0} for name in names])
    rows = [_values(arrival) for arrival in arrivals]
    _UPSERT.each(connection, rows)
    tell(connection, [(row["project"], row["display_name"], row["summary"]) for row in rows])
    # The same bytes again, before their deletion was finished: now they are meant to stay.
    if _IS_DOOMED.scalar(connection):
        _SPARE.each(connection, rows)
    change.record_all(UPLOAD, [_event_fields(arrival) for arrival in arrivals])
    _COUNT.each(connection, [{"project": name} for name in names])


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
        "address": arrival.address,
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
