"""What we know: projects, files, hashes, names that were deleted. Blocking code, called in threads.

Every write bumps the serial of the projects it touches in its own transaction, and the shared serial after
the commit. The catalog never touches the files themselves.
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, inspect, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from pypiserver_ng.catalog import schema
from pypiserver_ng.catalog.rows import (
    Change,
    Contents,
    Known,
    Presence,
    contents_values,
    found_values,
    from_microseconds,
    presence_values,
    to_known,
    to_microseconds,
)
from pypiserver_ng.catalog.schema import files, mounts, projects, state, tombstones
from pypiserver_ng.catalog.serial import SharedSerial
from pypiserver_ng.catalog.sqlite import create_sqlite_engine
from pypiserver_ng.errors import Conflict, Invalid, NoSpace, Unavailable
from pypiserver_ng.model import File, Found, NormalizedName

__all__ = ["Catalog", "Change", "Contents", "Known", "Presence", "buried_conflict"]

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Catalog:
    """One state directory's catalog on SQLite. Opening raises Invalid when it is damaged or another version's."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "catalog.sqlite"
        self._engine: Engine = create_sqlite_engine(path)
        self.shared = SharedSerial(state_dir / "serial")
        try:
            self._prepare()
        except OperationalError as fault:
            raise Invalid(f"the catalog {path} cannot be opened or written: {fault.orig}") from None
        except DatabaseError as fault:
            raise Invalid(
                f"the catalog {path} is damaged ({fault.orig}): move it away, and a new one is made from the files; "
                "only the names of deleted uploads are lost"
            ) from None
        # Waiting here is fair and cheap; waiting in SQLite's busy handler is neither.
        self._writing = threading.Lock()

    def close(self) -> None:
        self._engine.dispose()
        self.shared.close()

    # Reading

    def serial(self) -> int:
        with self._reading() as connection:
            return _serial(connection)

    def changes_since(self, serial: int) -> list[Change]:
        """Every project changed after `serial`, once each, also those that have no file any more."""
        query = select(projects).where(projects.c.serial > serial)
        with self._reading() as connection:
            return [Change(NormalizedName(row.name), row.serial, row.files) for row in connection.execute(query)]

    def project_files(self, name: NormalizedName) -> tuple[int, list[Known]]:
        """The project's serial and its rows, as they were at one moment."""
        query = select(files).where(files.c.project == name).order_by(files.c.id)
        with self._reading() as connection:
            serial = connection.scalar(select(projects.c.serial).where(projects.c.name == name)) or 0
            return serial, [to_known(row) for row in connection.execute(query)]

    def files_named(self, filename: str) -> list[Known]:
        return self._known(files.c.filename == filename)

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
        with self._reading() as connection:
            return [
                Found(NormalizedName(row[0]), row[1], row[2], row[3], from_microseconds(row[4]))
                for row in connection.execute(query)
            ]

    def _known(self, condition: ColumnElement[bool], limit: int | None = None) -> list[Known]:
        query = select(files).where(condition).order_by(files.c.id).limit(limit)
        with self._reading() as connection:
            return [to_known(row) for row in connection.execute(query)]

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
        upload_time: datetime,
        user: str | None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Record a file that was just published. A row that a scan made in between becomes this one.

        Raises Conflict when the name was buried with other bytes meanwhile, unless it may be overwritten.
        """
        values = presence_values(presence) | contents_values(contents)
        values |= {
            "upload_time": to_microseconds(upload_time),
            "uploaded_by": user,
            "yanked": False,
            "yanked_reason": None,
        }
        with self._change() as (connection, serial):
            _touch(connection, serial, {presence.parsed.name})
            connection.execute(_upsert(values), [values])
            grave = tombstones.c.filename == presence.parsed.filename
            buried = connection.scalar(select(tombstones.c.sha256).where(grave))
            if buried not in {None, contents.digests.sha256} and not overwrite:
                raise buried_conflict(presence.parsed.filename)
            connection.execute(delete(tombstones).where(grave))
            _count(connection, {presence.parsed.name})

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

    def record(self, results: Sequence[tuple[Known, Contents]]) -> None:
        """What reading told of files, unless they changed in between."""
        with self._change() as (connection, serial):
            _touch(connection, serial, {known.presence.parsed.name for known, _ in results})
            for known, contents in results:
                unchanged = (
                    (files.c.id == known.id)
                    & (files.c.size == known.presence.size)
                    & (files.c.mtime_ns == known.presence.mtime_ns)
                    & files.c.sha256.is_(None)
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
            _count(connection, touched)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """One snapshot. Raises Unavailable when the catalog cannot be read."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as fault:
            _log.error("the catalog cannot be read: %s", _reason(fault))
            raise Unavailable("the server's catalog cannot be read just now", retry_after=5) from fault

    @contextmanager
    def _change(self) -> Iterator[tuple[Connection, int]]:
        """One transaction and its serial. Raises NoSpace or Unavailable when it cannot be committed."""
        try:
            with self._committed() as change:
                yield change
        except SQLAlchemyError as fault:
            _log.error("the catalog cannot be written: %s", _reason(fault))
            if "full" in _reason(fault):
                raise NoSpace("no space is left on the server's disk; nothing was stored") from fault
            raise Unavailable("the server's catalog cannot be written just now", retry_after=30) from fault

    @contextmanager
    def _committed(self) -> Iterator[tuple[Connection, int]]:
        with self._writing:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                serial = _serial(connection) + 1
                connection.execute(
                    upsert(state)
                    .values(key="serial", value=serial)
                    .on_conflict_do_update(index_elements=["key"], set_={"value": serial})
                )
                yield connection, serial
            self.shared.advance(serial)

    def _prepare(self) -> None:
        """Create the tables in a new catalog; refuse one that another version's schema wrote."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if not inspect(connection).has_table("state"):
                schema.metadata.create_all(connection)
                connection.execute(insert(state), [{"key": "schema", "value": schema.VERSION}])
            found = connection.scalar(select(state.c.value).where(state.c.key == "schema"))
            # The catalog may be new or restored beside an old counter. Nobody else commits while we hold the lock.
            self.shared.restart(_serial(connection))
        if found != schema.VERSION:
            raise Invalid(
                f"the catalog has schema {found}, this version reads {schema.VERSION}: use another --state-dir"
            )


_SEARCH = select(files.c.project, files.c.display_name, files.c.version, files.c.summary, files.c.upload_time)


def buried_conflict(filename: str) -> Conflict:
    return Conflict(
        f"File already exists: {filename} was deleted here, and its name takes no other bytes; upload a new version"
    )


def _reason(fault: SQLAlchemyError) -> str:
    """What the database said, without the statement."""
    return str(getattr(fault, "orig", None) or type(fault).__name__)


def _serial(connection: Connection) -> int:
    return connection.scalar(select(state.c.value).where(state.c.key == "serial")) or 0


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
