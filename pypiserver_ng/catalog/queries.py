"""What several of the catalog's questions and changes have in common, each in the caller's transaction."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.database import Transaction
from pypiserver_ng.catalog.rows import Contents, Known, Marks, Presence
from pypiserver_ng.catalog.schema import files, projects, provenances, uploads, yanks
from pypiserver_ng.errors import NotFound
from pypiserver_ng.filenames import is_same_version, release_key, sort_key
from pypiserver_ng.model import NormalizedName, Status

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


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
    for batch in batches(found):
        here = files.c.path.in_([presence.path for presence in batch])
        known = {(row.root, row.path): row for row in connection.execute(select(*columns).where(here))}
        for presence in batch:
            row = known.get((presence.root, presence.path))
            if row and row.sha256 and (row.size, row.mtime_ns) != (presence.size, presence.mtime_ns):
                _log.warning("%s was changed in its directory; it had the sha256 %s", presence.path, row.sha256)


def find_upload_time(connection: Connection, known: Known, contents: Contents) -> dict[str, int]:
    """Bytes that were uploaded keep their time, whoever moves or touches the file."""
    same = (uploads.c.filename == known.presence.parsed.filename) & (uploads.c.sha256 == contents.digests.sha256)
    moment = connection.scalar(select(uploads.c.upload_time).where(same))
    return {} if moment is None else {"upload_time": moment}


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
