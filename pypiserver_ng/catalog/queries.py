"""What several of the catalog's questions and changes have in common, each in the caller's transaction."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Update, bindparam, exists, func, literal_column, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.database import Transaction
from pypiserver_ng.catalog.prepared import Prepared
from pypiserver_ng.catalog.rows import READ, Contents, Known, Marks, Presence
from pypiserver_ng.catalog.schema import files, projects, provenances, uploads, yanks
from pypiserver_ng.errors import NotFound
from pypiserver_ng.filenames import is_same_version, release_key, sort_key
from pypiserver_ng.model import NormalizedName, Status

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Rows that are read at one go, in about two milliseconds.
_PART = 2000


def _select_after(*columns: ColumnElement[Any]) -> Prepared:
    """The next rows after the id `last`."""
    here = files.c.id > bindparam("last")
    return Prepared(select(files.c.id, *columns).where(here).order_by(files.c.id).limit(literal_column(str(_PART))))


METADATA_AFTER = _select_after(files.c.metadata_sha256)
PLACES_AFTER = _select_after(files.c.root, files.c.path)
#: A list as JSON, so that the statement is the same for any number.
_PATHS = func.json_each(bindparam("paths")).table_valued("value").c.value
_IS_BELOW = files.c.root == bindparam("root")
STAMPS_AT = Prepared(
    select(files.c.path, files.c.id, files.c.size, files.c.mtime_ns).where(_IS_BELOW & files.c.path.in_(select(_PATHS)))
)
UNKNOWN_AT = Prepared(select(_PATHS).where(~exists(select(files.c.id).where(_IS_BELOW & (files.c.path == _PATHS)))))


def read_project(connection: Connection, name: NormalizedName) -> tuple[int, Status, str | None]:
    """Serial, status and its reason."""
    query = select(projects.c.serial, projects.c.status, projects.c.status_reason).where(projects.c.name == name)
    row = connection.execute(query).first()
    return (row[0], Status(row[1]), row[2]) if row else (0, Status.ACTIVE, None)


def read_marks(connection: Connection, name: NormalizedName) -> Marks:
    yanked = select(yanks.c.version, yanks.c.reason).where(yanks.c.project == name)
    attested = select(provenances.c.filename, provenances.c.sha256).where(provenances.c.project == name)
    return Marks(
        {row.version: row.reason for row in connection.execute(yanked)},
        {(row.filename, row.sha256) for row in connection.execute(attested)},
    )


def list_versions(connection: Connection, name: NormalizedName) -> list[str]:
    return list(connection.scalars(select(files.c.version).where(files.c.project == name).distinct()))


def expect_release(connection: Connection, name: NormalizedName, version: str) -> None:
    versions = list_versions(connection, name)
    if not versions:
        raise NotFound(f"{name} has no file here")
    if not any(is_same_version(version, known) for known in versions):
        newest = ", ".join(sorted(versions, key=sort_key, reverse=True)[:5])
        raise NotFound(f"{name} {version[:100]!a} is not here; its newest versions are {newest}")


def is_yanked(connection: Connection, name: NormalizedName, version: str) -> bool:
    release = (yanks.c.project == name) & (yanks.c.version == release_key(version))
    return connection.scalar(select(yanks.c.project).where(release)) is not None


def warn_of_changes(connection: Connection, found: Sequence[Presence]) -> None:
    """Name files whose bytes were replaced in the directory: clients may hold the old ones for a year."""
    columns = (files.c.root, files.c.path, files.c.size, files.c.mtime_ns, files.c.sha256)
    now = {(presence.root, presence.path): (presence.size, presence.mtime_ns) for presence in found}
    for here in rows_at(list(now)):
        for row in connection.execute(select(*columns).where(here)):
            if row.sha256 and (row.size, row.mtime_ns) != now[row.root, row.path]:
                _log.warning("%s was changed in its directory; it had the sha256 %s", row.path, row.sha256)


def rows_at(keys: Sequence[tuple[str, str]]) -> Iterator[ColumnElement[bool]]:
    """Conditions that together choose the rows of some (root, path), each of them by the index."""
    paths: dict[str, list[str]] = {}
    for root, path in keys:
        paths.setdefault(root, []).append(path)
    for root, below in paths.items():
        for batch in batches(below):
            yield (files.c.root == root) & files.c.path.in_(batch)


def find_upload_times(connection: Connection, results: Sequence[tuple[Known, Contents]]) -> dict[tuple[str, str], int]:
    """(filename, sha256) of bytes that were uploaded to their time: they keep it, whoever moves or touches the file."""
    times: dict[tuple[str, str], int] = {}
    for batch in batches([known.presence.parsed.filename for known, _ in results]):
        same = select(uploads.c.filename, uploads.c.sha256, uploads.c.upload_time).where(uploads.c.filename.in_(batch))
        times.update({(row[0], row[1]): row[2] for row in connection.execute(same)})
    return times


def describe_read(*, again: bool) -> Update:
    """What reading a file changes of its row, unless the file changed in between; for rows as `read_values` makes them.

    With `again` also what was read before.
    """
    unchanged = (
        (files.c.id == bindparam("_id"))
        & (files.c.size == bindparam("_size"))
        & (files.c.mtime_ns == bindparam("_mtime_ns"))
        & (true() if again else files.c.sha256.is_(None))
    )
    kept: dict[str, Any] = {
        column: func.coalesce(bindparam(f"_{column}"), files.c[column]) for column in ("display_name", "upload_time")
    }
    return update(files).where(unchanged).values(kept | {column: bindparam(column) for column in READ})


def upsert_files(columns: Iterable[str], *, if_changed: bool = False) -> Any:
    statement = upsert(files)
    new = statement.excluded
    changed = (files.c.size != new.size) | (files.c.mtime_ns != new.mtime_ns)
    return statement.on_conflict_do_update(
        index_elements=["root", "path"],
        set_={column: new[column] for column in columns},
        where=changed if if_changed else None,
    )


def touch(change: Transaction, names: Iterable[str]) -> None:
    rows = [{"name": name, "serial": change.serial, "files": 0} for name in names]
    if rows:
        statement = upsert(projects).on_conflict_do_update(index_elements=["name"], set_={"serial": change.serial})
        change.connection.execute(statement, rows)


def count_files(connection: Connection, names: Iterable[str]) -> None:
    count = select(func.count()).where(files.c.project == projects.c.name).scalar_subquery()
    for batch in batches(sorted(names)):
        connection.execute(update(projects).where(projects.c.name.in_(batch)).values(files=count))


def list_projects(connection: Connection, ids: Sequence[int]) -> set[NormalizedName]:
    names: set[NormalizedName] = set()
    for batch in batches(ids):
        names.update(connection.scalars(select(files.c.project).where(files.c.id.in_(batch)).distinct()))
    return names


def batches(items: Sequence[_T], size: int = 500) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
