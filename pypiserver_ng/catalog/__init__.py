"""What we know: projects, files, hashes, yanks, statuses, names that were deleted. Blocking code, called in threads.

Every write bumps the serial of the projects it touches in its own transaction, and the shared serial after
the commit. The catalog never touches the files themselves.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.database import Database, read_serial
from pypiserver_ng.catalog.rows import (
    NO_MARKS,
    Change,
    Contents,
    Known,
    Marks,
    Presence,
    Rows,
    contents_values,
    found_values,
    from_microseconds,
    presence_values,
    to_known,
    to_microseconds,
)
from pypiserver_ng.catalog.schema import files, mounts, projects, provenances, tombstones, yanks
from pypiserver_ng.errors import Conflict, Denied, NotFound
from pypiserver_ng.filenames import is_same_version, release_key, sort_key
from pypiserver_ng.model import File, Found, NormalizedName, ParsedFilename, Status
from pypiserver_ng.policy import describe_status

__all__ = ["Catalog", "Change", "Contents", "Known", "Presence", "Rows", "buried_conflict", "closed_denial"]

_T = TypeVar("_T")


class Catalog:
    """One state directory's catalog. Opening raises Invalid when it is damaged or a later version's."""

    def __init__(self, state_dir: Path) -> None:
        self._database = Database(state_dir)
        self.shared = self._database.shared
        self._reading = self._database.reading
        self._change = self._database.change

    def close(self) -> None:
        self._database.close()

    # Reading

    def serial(self) -> int:
        with self._reading() as connection:
            return read_serial(connection)

    def changes_since(self, serial: int) -> list[Change]:
        """Every project changed after `serial`, once each, also those that have no file any more."""
        query = select(projects).where(projects.c.serial > serial)
        with self._reading() as connection:
            return [
                Change(NormalizedName(row.name), row.serial, row.files, Status(row.status))
                for row in connection.execute(query)
            ]

    def project_rows(self, name: NormalizedName) -> Rows:
        """The project and its files, as they were at one moment."""
        query = select(files).where(files.c.project == name).order_by(files.c.id)
        with self._reading() as connection:
            serial, status, reason = _project(connection, name)
            marks = _marks(connection, name)
            return Rows(serial, status, reason, [to_known(row, marks) for row in connection.execute(query)])

    def files_named(self, filename: str) -> list[Known]:
        return self._known(files.c.filename == filename)

    def everything(self) -> list[Known]:
        """Every row, by id."""
        return self._known(true())

    def unread(self, limit: int) -> list[Known]:
        return self._known(files.c.sha256.is_(None), limit=limit)

    def stamps(self, paths: Sequence[str] | None = None) -> dict[tuple[str, str], tuple[int, int, int]]:
        """(root, path) of every row, or of the rows of `paths`, to its id, size and mtime_ns."""
        query = select(files.c.root, files.c.path, files.c.id, files.c.size, files.c.mtime_ns)
        if paths is not None:
            query = query.where(files.c.path.in_(paths))
        with self._reading() as connection:
            return {(row[0], row[1]): (row[2], row[3], row[4]) for row in connection.execute(query)}

    def mounts(self) -> set[str]:
        """Directories that were mounts when they were last looked at."""
        with self._reading() as connection:
            return set(connection.scalars(select(mounts.c.path)))

    def metadata_digests(self) -> set[str]:
        """The sha256 of every core metadata that a file refers to."""
        query = select(files.c.metadata_sha256).where(files.c.metadata_sha256.is_not(None)).distinct()
        with self._reading() as connection:
            return set(connection.scalars(query))

    def tombstone(self, filename: str) -> str | None:
        """The sha256 that a deleted name had."""
        with self._reading() as connection:
            return connection.scalar(select(tombstones.c.sha256).where(tombstones.c.filename == filename))

    def provenance(self, filename: str, sha256: str) -> bytes | None:
        """The provenance object of exactly these bytes under this name."""
        query = select(provenances.c.content).where(_is_provenance(filename, sha256))
        with self._reading() as connection:
            return connection.scalar(query)

    def status(self, name: NormalizedName) -> tuple[Status, str | None]:
        """A project's status and its reason; active where nobody said otherwise."""
        with self._reading() as connection:
            return _project(connection, name)[1:]

    def search(self, terms: Sequence[str]) -> list[Found]:
        """Projects whose name or summary holds one of the terms, in lower case; no terms means every project."""
        fields = (files.c.project, func.lower(files.c.display_name), func.lower(func.coalesce(files.c.summary, "")))
        query = _SEARCH.where(files.c.sha256.is_not(None))
        if terms:
            query = query.where(or_(*(field.contains(term, autoescape=True) for term in terms for field in fields)))
        return self._search_rows(query)

    def recent(self, limit: int) -> list[Found]:
        """The newest files, the newest first."""
        query = _SEARCH.where(files.c.sha256.is_not(None)).order_by(files.c.upload_time.desc()).limit(limit)
        return self._search_rows(query)

    def _search_rows(self, query: Any) -> list[Found]:
        hidden = select(projects.c.name).where(projects.c.status == Status.QUARANTINED)
        query = query.where(files.c.project.not_in(hidden))
        with self._reading() as connection:
            return [
                Found(NormalizedName(row[0]), row[1], row[2], row[3], from_microseconds(row[4]))
                for row in connection.execute(query)
            ]

    def _known(self, condition: ColumnElement[bool], limit: int | None = None) -> list[Known]:
        query = select(files).where(condition).order_by(files.c.id).limit(limit)
        with self._reading() as connection:
            return [to_known(row, NO_MARKS) for row in connection.execute(query)]

    # Writing

    def remember_mounts(self, paths: Iterable[str]) -> None:
        with self._change() as (connection, _):
            connection.execute(delete(mounts))
            if rows := [{"path": path} for path in paths]:
                connection.execute(insert(mounts), rows)

    def add_upload(
        self,
        presence: Presence,
        contents: Contents,
        user: str | None,
        *,
        overwrite: bool = False,
        provenance: bytes | None = None,
    ) -> None:
        """Record a file that was just published. A row that a scan made in between becomes this one.

        Raises Conflict when the name was buried with other bytes meanwhile, unless it may be overwritten, and
        Denied when the project was closed meanwhile.
        """
        name = presence.parsed.name
        values = presence_values(presence) | contents_values(contents)
        # The file's own time, so that its page is the same after the catalog was made anew from the directory.
        values |= {"upload_time": presence.mtime_ns // 1000, "uploaded_by": user}
        with self._change() as (connection, serial):
            _, status, reason = _project(connection, name)
            if not status.takes_uploads:
                raise closed_denial(name, status, reason)
            _touch(connection, serial, {name})
            connection.execute(_upsert(values), [values])
            grave = tombstones.c.filename == presence.parsed.filename
            buried = connection.scalar(select(tombstones.c.sha256).where(grave))
            if buried not in {None, contents.digests.sha256} and not overwrite:
                raise buried_conflict(presence.parsed.filename)
            connection.execute(delete(tombstones).where(grave))
            if provenance is not None:
                _keep_provenance(connection, presence.parsed, contents.digests.sha256, provenance)
            _count(connection, {name})

    def add_provenance(self, parsed: ParsedFilename, sha256: str, content: bytes) -> None:
        """Record what an upload of bytes that were here already brought."""
        with self._change() as (connection, serial):
            _touch(connection, serial, {parsed.name})
            _keep_provenance(connection, parsed, sha256, content)

    def yank(self, name: NormalizedName, version: str, reason: str | None) -> None:
        """Mark a release, its later files included (PEP 592). Raises NotFound when it has no file."""
        with self._change() as (connection, serial):
            _expect_release(connection, name, version)
            _touch(connection, serial, {name})
            row = {"project": name, "version": release_key(version), "reason": reason}
            statement = upsert(yanks).on_conflict_do_update(index_elements=["project", "version"], set_=row)
            connection.execute(statement, [row])

    def unyank(self, name: NormalizedName, version: str) -> None:
        """Take the mark away; harmless where there is none. Raises NotFound when the release is unknown."""
        with self._change() as (connection, serial):
            if not connection.execute(delete(yanks).where(_is_yank(name, version))).rowcount:
                _expect_release(connection, name, version)
            _touch(connection, serial, {name})

    def set_status(self, name: NormalizedName, status: Status, reason: str | None) -> None:
        """Raises NotFound when the project was never here, unless it is to be quarantined before it comes."""
        with self._change() as (connection, serial):
            known = connection.scalar(select(projects.c.name).where(projects.c.name == name))
            if known is None and status is not Status.QUARANTINED:
                raise NotFound(f"{name} has no file here")
            _touch(connection, serial, {name})
            values = {"status": status.value, "status_reason": reason}
            connection.execute(update(projects).where(projects.c.name == name).values(values))

    def sync(self, found: Sequence[Presence], gone: Sequence[int]) -> None:
        """One scan's result: files that appeared or changed, and ids of those that vanished."""
        if not found and not gone:
            return
        with self._change() as (connection, serial):
            touched = {presence.parsed.name for presence in found} | _projects_of(connection, gone)
            _touch(connection, serial, touched)
            if found:
                rows = [found_values(presence) for presence in found]
                connection.execute(_upsert(rows[0], if_changed=True), rows)
            for batch in _batches(gone):
                connection.execute(delete(files).where(files.c.id.in_(batch)))
            _count(connection, touched)

    def record(self, results: Sequence[tuple[Known, Contents]], *, again: bool = False) -> None:
        """What reading told of files, unless they changed in between; `again` also replaces what was known."""
        with self._change() as (connection, serial):
            _touch(connection, serial, {known.presence.parsed.name for known, _ in results})
            for known, contents in results:
                unchanged = (
                    (files.c.id == known.id)
                    & (files.c.size == known.presence.size)
                    & (files.c.mtime_ns == known.presence.mtime_ns)
                    & (true() if again else files.c.sha256.is_(None))
                )
                connection.execute(update(files).where(unchanged).values(contents_values(contents)))

    def remove(self, removed: Sequence[File], deleted_at: datetime) -> None:
        """Forget files and bury their names: other bytes never come back under them."""
        touched = {file.project for file in removed}
        with self._change() as (connection, serial):
            _touch(connection, serial, touched)
            for file in removed:
                connection.execute(delete(files).where(files.c.id == file.id))
                grave = {
                    "filename": file.filename,
                    "sha256": file.digests.sha256,
                    "deleted_at": to_microseconds(deleted_at),
                }
                connection.execute(upsert(tombstones).values(grave).on_conflict_do_nothing())
            for project, version in {(file.project, file.version) for file in removed}:
                # A release that is uploaded again after it was deleted is a new one.
                if version not in _versions(connection, project):
                    connection.execute(delete(yanks).where(_is_yank(project, version)))
            _count(connection, touched)


_SEARCH = select(files.c.project, files.c.display_name, files.c.version, files.c.summary, files.c.upload_time)


def buried_conflict(filename: str) -> Conflict:
    return Conflict(
        f"File already exists: {filename} was deleted here, and its name takes no other bytes; upload a new version"
    )


def closed_denial(name: NormalizedName, status: Status, reason: str | None) -> Denied:
    """Why an archived or quarantined project takes no upload (PEP 792)."""
    return Denied(f"{describe_status(name, status, reason)}: it takes no uploads")


def _project(connection: Connection, name: NormalizedName) -> tuple[int, Status, str | None]:
    """Serial, status and its reason."""
    query = select(projects.c.serial, projects.c.status, projects.c.status_reason).where(projects.c.name == name)
    row = connection.execute(query).first()
    return (row[0], Status(row[1]), row[2]) if row else (0, Status.ACTIVE, None)


def _marks(connection: Connection, name: NormalizedName) -> Marks:
    yanked = select(yanks.c.version, yanks.c.reason).where(yanks.c.project == name)
    attested = select(provenances.c.filename, provenances.c.sha256).where(provenances.c.project == name)
    return Marks(
        {row.version: row.reason for row in connection.execute(yanked)},
        {(row.filename, row.sha256) for row in connection.execute(attested)},
    )


def _versions(connection: Connection, name: NormalizedName) -> list[str]:
    return list(connection.scalars(select(files.c.version).where(files.c.project == name).distinct()))


def _expect_release(connection: Connection, name: NormalizedName, version: str) -> None:
    versions = _versions(connection, name)
    if not versions:
        raise NotFound(f"{name} has no file here")
    if not any(is_same_version(version, known) for known in versions):
        newest = ", ".join(sorted(versions, key=sort_key, reverse=True)[:5])
        raise NotFound(f"{name} {version[:100]!a} is not here; its newest versions are {newest}")


def _is_yank(name: NormalizedName, version: str) -> ColumnElement[bool]:
    return (yanks.c.project == name) & (yanks.c.version == release_key(version))


def _is_provenance(filename: str, sha256: str) -> ColumnElement[bool]:
    return (provenances.c.filename == filename) & (provenances.c.sha256 == sha256)


def _keep_provenance(connection: Connection, parsed: ParsedFilename, sha256: str, content: bytes) -> None:
    # What was verified first stays: a repeated upload adds nothing.
    row = {"filename": parsed.filename, "sha256": sha256, "project": parsed.name, "content": content}
    connection.execute(upsert(provenances).on_conflict_do_nothing(), [row])


def _upsert(columns: Iterable[str], *, if_changed: bool = False) -> Any:
    statement = upsert(files)
    new = statement.excluded
    changed = (files.c.size != new.size) | (files.c.mtime_ns != new.mtime_ns)
    return statement.on_conflict_do_update(
        index_elements=["root", "path"],
        set_={column: new[column] for column in columns},
        where=changed if if_changed else None,
    )


def _touch(connection: Connection, serial: int, names: Iterable[str]) -> None:
    rows = [{"name": name, "serial": serial, "files": 0} for name in names]
    if rows:
        statement = upsert(projects).on_conflict_do_update(index_elements=["name"], set_={"serial": serial})
        connection.execute(statement, rows)


def _count(connection: Connection, names: Iterable[str]) -> None:
    count = select(func.count()).where(files.c.project == projects.c.name).scalar_subquery()
    for batch in _batches(sorted(names)):
        connection.execute(update(projects).where(projects.c.name.in_(batch)).values(files=count))


def _projects_of(connection: Connection, ids: Sequence[int]) -> set[NormalizedName]:
    names: set[NormalizedName] = set()
    for batch in _batches(ids):
        names.update(connection.scalars(select(files.c.project).where(files.c.id.in_(batch)).distinct()))
    return names


def _batches(items: Sequence[_T], size: int = 500) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
