"""What we know: projects, files, hashes, yanks, statuses, names that were deleted. Blocking code, called in threads.

Every write bumps the serial of the projects it touches in its own transaction, and the shared serial after
the commit. The catalog never touches the files themselves.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, true
from sqlalchemy.dialects.sqlite import insert as upsert

from pypiserver_ng.catalog.arrivals import (
    Arrival,
    Outlook,
    buried_conflict,
    closed_denial,
    look_out,
    record_arrivals,
)
from pypiserver_ng.catalog.database import Database, read_serial
from pypiserver_ng.catalog.events import ATTEST, DELETE, EVENTS_AFTER, STATUS, UNYANK, YANK, Event, read_event
from pypiserver_ng.catalog.finding import find_names, forget_empty, read_found, read_newest, tell
from pypiserver_ng.catalog.identities import Identities
from pypiserver_ng.catalog.prepared import Prepared
from pypiserver_ng.catalog.queries import (
    METADATA_AFTER,
    PLACES_AFTER,
    STAMPS_AT,
    UNKNOWN_AT,
    batches,
    count_files,
    describe_read,
    expect_release,
    find_upload_times,
    is_yanked,
    list_projects,
    list_versions,
    read_marks,
    read_project,
    touch,
    upsert_files,
    warn_of_changes,
)
from pypiserver_ng.catalog.rows import (
    NO_MARKS,
    Change,
    Contents,
    Doomed,
    Known,
    Presence,
    Rows,
    Stamp,
    found_values,
    read_values,
    to_known,
)
from pypiserver_ng.catalog.schema import doomed, files, mounts, projects, provenances, uploads
from pypiserver_ng.catalog.tokens import Tokens
from pypiserver_ng.errors import Failure, NotFound
from pypiserver_ng.filenames import release_key
from pypiserver_ng.model import File, Found, NormalizedName, ParsedFilename, Status

__all__ = [
    "Arrival",
    "Catalog",
    "Change",
    "Contents",
    "Doomed",
    "Event",
    "Known",
    "Outlook",
    "Presence",
    "Rows",
    "Stamp",
    "buried_conflict",
    "closed_denial",
]


class Catalog:
    """One state directory's catalog. Opening raises Invalid when it is damaged or a later version's."""

    def __init__(self, state_dir: Path, cell: memoryview | None = None) -> None:
        """`cell` is a number that the processes of one server share in memory."""
        self._database = Database(state_dir, cell)
        self.shared = self._database.shared
        self.tokens = Tokens(self._database)
        self.identities = Identities(self._database)
        self._reading = self._database.reading
        self._change = self._database.change

    def close(self) -> None:
        self._database.close()

    def notice(self) -> None:
        """Tell everybody of what a process committed that died before it could."""
        with suppress(OSError):
            self.shared.advance(self.serial())

    # Reading

    def serial(self) -> int:
        with self._reading() as connection:
            return read_serial(connection)

    def changes_since(self, serial: int) -> list[Change]:
        """Every project changed after `serial`, once each, also those that have no file any more."""
        query = select(projects.c.name, projects.c.serial, projects.c.files, projects.c.status)
        statuses = {status.value: status for status in Status}
        with self._reading() as connection:
            return [
                Change(name, number, count, statuses[status])
                for name, number, count, status in connection.execute(query.where(projects.c.serial > serial))
            ]

    def project_rows(self, name: NormalizedName) -> Rows:
        """The project and its files, as they were at one moment."""
        query = select(files).where(files.c.project == name).order_by(files.c.id)
        with self._reading() as connection:
            serial, status, reason = read_project(connection, name)
            marks = read_marks(connection, name)
            texts: dict[str, str] = {}
            known = [to_known(row, marks, texts.setdefault) for row in connection.execute(query)]
            return Rows(serial, status, reason, known)

    def uploads(self) -> dict[str, set[str]]:
        """Every filename that was ever uploaded to the digests of the bytes that were."""
        digests: dict[str, set[str]] = {}
        with self._reading() as connection:
            for row in connection.execute(select(uploads.c.filename, uploads.c.sha256)):
                digests.setdefault(row.filename, set()).add(row.sha256)
        return digests

    def everything(self) -> list[Known]:
        """Every row, by id."""
        return self._known(true())

    def total_size(self) -> int:
        """Bytes of all files."""
        with self._reading() as connection:
            return connection.scalar(select(func.sum(files.c.size))) or 0

    def file_at(self, root: str, path: str) -> Known | None:
        """The row of one path."""
        return next(iter(self._known((files.c.root == root) & (files.c.path == path))), None)

    def unread(self, limit: int) -> list[Known]:
        return self._known(files.c.sha256.is_(None), limit=limit)

    def extent(self) -> tuple[int, int]:
        """The highest id of a row, and how many rows there are."""
        with self._reading() as connection:
            last, count = connection.execute(_EXTENT).one()
            return last or 0, count or 0

    def places(self, last: int) -> Iterator[tuple[int, str, str]]:
        """Id, root and path of every row up to an id, as it was when its part was read."""
        return ((row[0], row[1], row[2]) for row in self._read_parts(PLACES_AFTER) if row[0] <= last)

    def stamps(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Stamp]:
        """Those of the (root, path) that have a row, to its id, size and mtime_ns."""
        return {(root, row[0]): (row[1], row[2], row[3]) for root, row in self._ask_for(keys, STAMPS_AT)}

    def unknown(self, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the (root, path) that have no row."""
        return [(root, row[0]) for root, row in self._ask_for(keys, UNKNOWN_AT)]

    def _ask_for(self, keys: Sequence[tuple[str, str]], query: Prepared) -> Iterator[tuple[str, Any]]:
        paths: dict[str, list[str]] = {}
        for root, path in keys:
            paths.setdefault(root, []).append(path)
        with self._reading() as connection:
            for root, below in paths.items():
                yield from ((root, row) for row in query.rows(connection, root=root, paths=json.dumps(below)))

    def mounts(self) -> set[str]:
        """Directories that were mounts when they were last looked at."""
        with self._reading() as connection:
            return set(connection.scalars(select(mounts.c.path)))

    def metadata_digests(self) -> Iterator[str]:
        """The sha256 of every core metadata that a file refers to, as it was when its part was read."""
        return (digest for _, digest in self._read_parts(METADATA_AFTER) if digest is not None)

    def history(self, last: int = 0) -> Iterator[Event]:
        """Every event after the number `last`, in order, as it was when its part was read."""
        return (read_event(row[1]) for row in self._read_parts(EVENTS_AFTER, last))

    def _read_parts(self, next_rows: Prepared, last: int = 0) -> Iterator[Any]:
        # Nothing can be committed while somebody reads: whoever reads everything does it in parts.
        while rows := self._read_part(next_rows, last):
            yield from rows
            last = rows[-1][0]

    def _read_part(self, next_rows: Prepared, last: int) -> Sequence[Any]:
        with self._reading() as connection:
            return next_rows.rows(connection, last=last)

    def outlook(self, name: NormalizedName, filename: str) -> Outlook:
        """What is known of an upload's project and filename, as it was at one moment."""
        with self._reading() as connection:
            return look_out(connection, name, filename)

    def provenance(self, filename: str, sha256: str) -> bytes | None:
        """The provenance object of exactly these bytes under this name."""
        exact = (provenances.c.filename == filename) & (provenances.c.sha256 == sha256)
        query = select(provenances.c.content).where(exact)
        with self._reading() as connection:
            return connection.scalar(query)

    def status(self, name: NormalizedName) -> tuple[Status, str | None]:
        """A project's status and its reason; active where nobody said otherwise."""
        with self._reading() as connection:
            return read_project(connection, name)[1:]

    def search(self, terms: Sequence[str]) -> list[NormalizedName]:
        """Projects that may have one of the terms, in lower case, in name or summary, by name; all without terms."""
        with self._reading() as connection:
            return find_names(connection, terms)

    def found(self, names: Sequence[NormalizedName], terms: Sequence[str]) -> Iterator[Found]:
        """Every file of these projects that has one of the terms, by project, as it was when its part was read."""
        for batch in batches(names):
            with self._reading() as connection:
                rows = read_found(connection, batch, terms)
            yield from rows

    def recent(self, limit: int) -> list[Found]:
        """The newest files, the newest first."""
        with self._reading() as connection:
            return read_newest(connection, limit)

    def _known(self, condition: ColumnElement[bool], limit: int | None = None) -> list[Known]:
        query = select(files).where(condition).order_by(files.c.id).limit(limit)
        with self._reading() as connection:
            return [to_known(row, NO_MARKS) for row in connection.execute(query)]

    # Writing

    def remember_mounts(self, paths: Iterable[str]) -> None:
        with self._change() as change:
            change.connection.execute(delete(mounts))
            if rows := [{"path": path} for path in paths]:
                change.connection.execute(insert(mounts), rows)

    def add_uploads(self, arrivals: Sequence[Arrival], *, overwrite: bool = False) -> list[Failure | None]:
        """Record files that were just published, in one transaction; for each in its turn why it is refused, or None.

        A row that a scan made in between becomes the upload's. Refused with Conflict when the name was buried with
        other bytes meanwhile, unless it may be overwritten, and with Denied when the project was closed meanwhile.
        """
        with self._change() as change:
            return record_arrivals(change, arrivals, overwrite=overwrite)

    def add_provenance(
        self, parsed: ParsedFilename, sha256: str, content: bytes, user: str | None, address: str | None = None
    ) -> None:
        """Record what an upload of bytes that were here already brought."""
        with self._change() as change:
            touch(change, {parsed.name})
            fields = {"version": parsed.version, "filename": parsed.filename, "sha256": sha256}
            change.record(ATTEST, parsed.name, **fields, user=user, address=address, provenance=content.decode())

    def yank(self, name: NormalizedName, version: str, reason: str | None, user: str | None) -> None:
        """Mark a release, its later files included (PEP 592). Raises NotFound when it has no file."""
        with self._change() as change:
            expect_release(change.connection, name, version)
            touch(change, {name})
            change.record(YANK, name, version=version, reason=reason, user=user)

    def unyank(self, name: NormalizedName, version: str, user: str | None) -> bool:
        """Take the mark away; returns whether there was one. Raises NotFound when the release is unknown."""
        with self._change() as change:
            if not is_yanked(change.connection, name, version):
                expect_release(change.connection, name, version)
                return False
            touch(change, {name})
            change.record(UNYANK, name, version=version, user=user)
            return True

    def set_status(self, name: NormalizedName, status: Status, reason: str | None, user: str | None) -> None:
        """Raises NotFound when the project was never here, unless it is to be quarantined before it comes."""
        with self._change() as change:
            known = change.connection.scalar(select(projects.c.name).where(projects.c.name == name))
            if known is None and status is not Status.QUARANTINED:
                raise NotFound(f"{name} has no file here")
            touch(change, {name})
            change.record(STATUS, name, status=status.value, reason=reason, user=user)

    def sync(self, found: Sequence[Presence], gone: Sequence[int]) -> None:
        """One scan's result: files that appeared or changed, and ids of those that vanished."""
        if not found and not gone:
            return
        with self._change() as change:
            connection = change.connection
            touched = {presence.parsed.name for presence in found} | list_projects(connection, gone)
            touch(change, touched)
            warn_of_changes(connection, found)
            if found:
                rows = [found_values(presence) for presence in found]
                connection.execute(upsert_files(rows[0], if_changed=True), rows)
            for batch in batches(gone):
                connection.execute(delete(files).where(files.c.id.in_(batch)))
            count_files(connection, touched)
            forget_empty(connection, touched)

    def record(self, results: Sequence[tuple[Known, Contents]], *, again: bool = False) -> None:
        """What reading told of files, unless they changed in between; `again` also replaces what was known."""
        with self._change() as change:
            touch(change, {known.presence.parsed.name for known, _ in results})
            if results:
                times = find_upload_times(change.connection, results)
                rows = [read_values(known, contents, times) for known, contents in results]
                change.connection.execute(describe_read(again=again), rows)
                tell(change.connection, [_tell_of(known, contents) for known, contents in results])

    def remove(self, removed: Sequence[File], user: str | None, address: str | None = None) -> None:
        """Forget files and bury their names: other bytes never come back under them.

        They are doomed until `finish_removal` says that they are gone from the disk too.
        """
        touched = {file.project for file in removed}
        with self._change() as change:
            connection = change.connection
            touch(change, touched)
            for file in removed:
                same = (files.c.id == file.id) & (files.c.sha256 == file.digests.sha256)
                if not connection.execute(delete(files).where(same)).rowcount:
                    continue  # somebody replaced it meanwhile: other bytes were meant
                row = Doomed(file.root, file.path, file.project, file.version, file.size, file.mtime_ns)
                connection.execute(upsert(doomed).on_conflict_do_nothing(), [asdict(row)])
                fields = {"version": file.version, "filename": file.filename, "sha256": file.digests.sha256}
                change.record(DELETE, file.project, **fields, user=user, address=address)
            count_files(connection, touched)
            forget_empty(connection, touched)

    def doomed(self) -> list[Doomed]:
        """What deletions that did not end have left to do."""
        with self._reading() as connection:
            return [Doomed(**row) for row in connection.execute(select(doomed)).mappings()]

    def finish_removal(
        self, gone: Sequence[Doomed], kept: Sequence[Doomed], user: str | None, address: str | None = None
    ) -> None:
        """Files that are gone from the disk, and others that cannot be removed and may be found again."""
        with self._change() as change:
            connection = change.connection
            for file in (*gone, *kept):
                connection.execute(delete(doomed).where((doomed.c.root == file.root) & (doomed.c.path == file.path)))
            left = {(file.project, release_key(file.version)) for file in kept}
            for project, version in sorted({(file.project, file.version) for file in gone}):
                # A release that is uploaded again after it was deleted whole is a new one.
                is_whole = (
                    version not in list_versions(connection, project) and (project, release_key(version)) not in left
                )
                if is_whole and is_yanked(connection, project, version):
                    touch(change, {project})
                    change.record(UNYANK, project, version=version, user=user, address=address)


_EXTENT = select(select(func.max(files.c.id)).scalar_subquery(), select(func.sum(projects.c.files)).scalar_subquery())


def _tell_of(known: Known, contents: Contents) -> tuple[str, str, str | None]:
    parsed = known.presence.parsed
    return parsed.name, contents.display_name or parsed.display_name, contents.summary
