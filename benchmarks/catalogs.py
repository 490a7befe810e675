"""Catalogs that are large from the start: rows by the million, and files that take no room.

The rows are written through the catalog's own tables in a few large transactions, as a scan and the reading after it
would have left them; the files are sparse, with the size and time that their rows say, so that a scan finds every one
of them where it should be. What is measured on them is what the catalog costs, never what reading costs.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from benchmarks.corpus import name_project
from pypiserver_ng.catalog.database import Database
from pypiserver_ng.catalog.finding import tell
from pypiserver_ng.catalog.rows import Contents, Presence, contents_values, presence_values
from pypiserver_ng.catalog.schema import files, projects
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import Digests

_SIZE = 1000
_BATCH = 20_000
_SECOND = 10**9
_MOMENT_NS = 1_700_000_000 * _SECOND


def fill(state_dir: Path, directory: Path, wanted: range, versions: int) -> None:
    """Projects of these numbers with so many files each, in directories of a thousand projects."""
    state_dir.mkdir(parents=True, exist_ok=True)
    database = Database(state_dir, None)
    try:
        with database.change() as change:
            serial = change.serial
            for batch in _batches(wanted, max(_BATCH // versions, 1)):
                _insert(change.connection, directory, batch, versions, serial)
    finally:
        database.close()


def _batches(wanted: range, size: int) -> Iterator[range]:
    for start in range(wanted.start, wanted.stop, size):
        yield range(start, min(start + size, wanted.stop))


def _insert(connection: Connection, directory: Path, numbers: range, versions: int, serial: int) -> None:
    rows = [_describe(directory, number, version) for number in numbers for version in range(versions)]
    connection.execute(
        insert(projects), [{"name": name_project(number), "serial": serial, "files": versions} for number in numbers]
    )
    connection.execute(insert(files), rows)
    tell(connection, [(row["project"], row["display_name"], row["summary"]) for row in rows])
    for row in rows:
        _make_sparse(Path(row["root"], row["path"]), row["mtime_ns"])


def _describe(directory: Path, number: int, version: int) -> dict[str, Any]:
    name = name_project(number)
    filename = f"{name.replace('-', '_')}-1.{version}-py3-none-any.whl"
    parsed = parse_found(filename)
    assert parsed is not None
    path = f"{number // 1000:04d}/{filename}"
    presence = Presence(str(directory), path, parsed, _SIZE, _MOMENT_NS + number * _SECOND)
    digest = hashlib.sha256(filename.encode()).hexdigest()
    contents = Contents(Digests(digest, digest[:32], digest), name, ">=3.9", f"{name} for tests", digest)
    return presence_values(presence) | contents_values(contents) | {"upload_time": presence.mtime_ns // 1000}


def _make_sparse(path: Path, mtime_ns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(_SIZE)
    os.utime(path, ns=(mtime_ns, mtime_ns))
