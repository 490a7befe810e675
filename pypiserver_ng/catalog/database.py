"""One state directory's database: opened, upgraded or made anew, read in snapshots, changed in numbered transactions.

Knows transactions, serials and the journal; the questions and changes themselves are the catalog's.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, insert, inspect, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from pypiserver_ng.catalog import schema
from pypiserver_ng.catalog.events import Event, event_numbers, events_since, last_event, record_events
from pypiserver_ng.catalog.journal import Journal
from pypiserver_ng.catalog.prepared import Prepared
from pypiserver_ng.catalog.rows import to_microseconds
from pypiserver_ng.catalog.schema import projects, state
from pypiserver_ng.catalog.serial import SharedSerial
from pypiserver_ng.catalog.soundness import Mark, read_through
from pypiserver_ng.catalog.sqlite import create_sqlite_engine
from pypiserver_ng.errors import Failure, Invalid, NoSpace, Unavailable

_log = logging.getLogger(__name__)

#: A counter above this was not counted but damaged.
_NEVER_REACHED = 2**48


@dataclass(slots=True)
class Transaction:
    """One change under way."""

    connection: Connection
    serial: int
    events: list[Event] = field(default_factory=list)

    def record(self, action: str, project: str, **fields: Any) -> None:
        """Apply one event, and have it written down when the change is committed."""
        self.record_all(action, [{"project": project, **fields}])

    def set_state(self, key: str, value: int) -> None:
        """Change one of the catalog's own facts."""
        _set(self.connection, key, value)

    def record_all(self, action: str, fields: Sequence[Mapping[str, Any]]) -> None:
        """As `record`, for several events of one sort."""
        now = to_microseconds(datetime.now(UTC))
        self.events += record_events(self.connection, [Event(0, now, action, **one) for one in fields])


class Database:
    """Opening makes it new where it is missing or damaged and nobody else uses it; else raises Invalid."""

    def __init__(self, state_dir: Path, cell: memoryview | None) -> None:
        self._path = state_dir / "catalog.sqlite"
        self._engine: Engine = create_sqlite_engine(self._path)
        self.shared = SharedSerial(state_dir / "serial", cell)
        self._journal = Journal(state_dir / "journal.jsonl")
        self._mark = Mark(self._path)
        self._is_open = False
        # Waiting here is fair and cheap; waiting in SQLite's busy handler is neither.
        self._writing = threading.Lock()
        self._users = os.open(state_dir / "catalog.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()
        if self._is_open and self._try_to_be_alone():
            self._mark.leave()
        self.shared.close()
        self._journal.close()
        os.close(self._users)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot. Raises Unavailable when the catalog cannot be read."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as fault:
            self._judge(fault)
            _log.error("the catalog cannot be read: %s", _reason(fault))
            raise Unavailable("the server's catalog cannot be read just now", retry_after=5) from fault

    @contextmanager
    def change(self) -> Iterator[Transaction]:
        """One transaction and its serial. Raises NoSpace or Unavailable when it cannot be committed."""
        try:
            with self._committed() as change:
                yield change
        except SQLAlchemyError as fault:
            self._judge(fault)
            _log.error("the catalog cannot be written: %s", _reason(fault))
            if "full" in _reason(fault):
                raise NoSpace("no space is left on the server's disk; nothing was stored") from fault
            raise Unavailable("the server's catalog cannot be written just now", retry_after=30) from fault
        if change.events:
            self._write_down(change.events, must_last=any(event.must_last for event in change.events))

    @contextmanager
    def aside(self) -> Iterator[Connection]:
        """One transaction that changes nothing that anybody remembers. Raises Unavailable."""
        try:
            with self._writing, self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as fault:
            self._judge(fault)
            _log.error("the catalog cannot be written: %s", _reason(fault))
            raise Unavailable("the server's catalog cannot be written just now", retry_after=30) from fault

    def _judge(self, fault: SQLAlchemyError) -> None:
        if isinstance(fault, DatabaseError) and not isinstance(fault, OperationalError):
            self._mark.spoil()

    @contextmanager
    def _committed(self) -> Iterator[Transaction]:
        with self._writing:
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                serial = self._count(connection)
                change = Transaction(connection, serial)
                yield change
            try:
                self.shared.advance(serial)
            except OSError as fault:
                # It is committed; other processes learn of it when they next compare.
                _log.error("the counter of changes cannot be written now: %s", fault.strerror)

    def _count(self, connection: Connection) -> int:
        """The number of a change: higher than any that was told, also where an older database was put in its place."""
        counted = self.shared.value
        serial = max(read_serial(connection), counted if counted < _NEVER_REACHED else 0) + 1
        _set(connection, "serial", serial)
        return serial

    def _write_down(self, events: Sequence[Event], *, must_last: bool) -> None:
        """Bring the journal up to the committed events, of which these are ours."""
        try:
            self._journal.append(events, self._last_event, self._events_since, must_last=must_last)
        except (OSError, Failure) as fault:
            # They are committed; the next change brings the journal up to them.
            _log.error("events cannot be written to the journal now: %s", fault)

    def _last_event(self) -> int:
        with self.reading() as connection:
            return last_event(connection)

    def _events_since(self, number: int) -> list[Event]:
        with self.reading() as connection:
            return events_since(connection, number)

    # Opening

    def _open(self) -> None:
        is_alone = self._try_to_be_alone()
        # Where others use it, one of them has looked.
        is_in_order = not is_alone or self._mark.take()
        if not is_in_order:
            read_through(self._path)
        try:
            self._prepare(may_create=is_alone, is_in_order=is_in_order)
        except OperationalError as fault:
            raise Invalid(f"the catalog {self._path} cannot be opened or written: {fault.orig}") from None
        except DatabaseError as fault:
            if not is_alone:
                raise Invalid(
                    f"the catalog {self._path} is damaged ({_reason(fault)}): stop the server that uses it, "
                    "the next start makes a new one from the files and the journal"
                ) from None
            self._set_aside(_reason(fault))
            self._prepare(may_create=True, is_in_order=True)
        self._is_open = True
        if is_alone:
            self._write_down((), must_last=True)
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def _try_to_be_alone(self) -> bool:
        """Whether no other process uses the catalog: only then it may be made, repaired or replayed into."""
        for _ in range(2):
            with suppress(BlockingIOError):
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            # Whoever prepares it just now, or was the last to leave, is done when this returns.
            fcntl.flock(self._users, fcntl.LOCK_SH)
        return False

    def _prepare(self, *, may_create: bool, is_in_order: bool) -> None:
        """Create the tables, upgrade an older schema, refuse a later one, and catch up with the journal."""
        with suppress(FileExistsError):
            # The state may lie in a directory that everybody may read.
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            is_new = not inspect(connection).has_table("state")
            if is_new and not may_create:
                raise Invalid(f"the catalog {self._path} was removed under a running server: restart that first")
            if is_new:
                schema.metadata.create_all(connection)
                connection.execute(insert(state), [{"key": "schema", "value": schema.VERSION}])
            if not is_in_order:
                _check(connection)
            found = connection.scalar(select(state.c.value).where(state.c.key == "schema")) or 0
            if not 0 < found <= schema.VERSION:
                raise Invalid(
                    f"the catalog has schema {found}, this version reads {schema.VERSION}: use another --state-dir"
                )
            if found < schema.VERSION:
                _upgrade(connection, found)
            if missing := schema.metadata.tables.keys() - set(inspect(connection).get_table_names()):
                raise DatabaseError("", None, ValueError(f"it has no table {min(missing)}"))
            if may_create:
                self._raise_serial(connection)
                self._replay(connection)
            # Nobody else commits while we hold the lock.
            self.shared.restart(read_serial(connection))

    def _raise_serial(self, connection: Connection) -> None:
        """A new or restored database beside the counter of an older one: no serial may stand for two states."""
        counted = self.shared.value
        if read_serial(connection) < counted < _NEVER_REACHED:
            _set(connection, "serial", counted)

    def _replay(self, connection: Connection) -> None:
        """Apply what the journal has and the database does not: it is new, or older than the journal."""
        if self._journal.last() <= last_event(connection):
            return
        known = event_numbers(connection)
        serial = read_serial(connection) + 1
        _set(connection, "serial", serial)
        names: set[str] = set()
        for event in self._journal.read():
            if event.id in known:
                continue
            try:
                with connection.begin_nested():
                    record_events(connection, [event])
            except SQLAlchemyError as fault:
                # Its own fault, not the database's: that must not be set aside for it.
                _log.warning("event %d of the journal is left out: %s", event.id, _reason(fault))
                continue
            known.add(event.id)
            names.add(event.project)
        for name in names:
            connection.execute(update(projects).where(projects.c.name == name).values(serial=serial))
        _log.warning("the catalog took events of %d projects from its journal", len(names))

    def _set_aside(self, reason: str) -> None:
        kept = self._path.with_name(f"{self._path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
        _log.warning(
            "the catalog is damaged (%s): a new one is made from the files and the journal, the old one is kept as %s",
            reason,
            kept,
        )
        self._engine.dispose()
        self._path.replace(kept)
        with suppress(FileNotFoundError):
            self._path.with_name(f"{self._path.name}-journal").unlink()


_SERIAL = Prepared(select(state.c.value).where(state.c.key == bindparam("key")))
_put = upsert(state)
_SET = Prepared(
    _put.on_conflict_do_update(index_elements=["key"], set_={"value": _put.excluded.value}), state.columns.keys()
)


def read_serial(connection: Connection) -> int:
    return _SERIAL.scalar(connection, key="serial") or 0


def _set(connection: Connection, key: str, value: int) -> None:
    _SET.each(connection, [{"key": key, "value": value}])


def _check(connection: Connection) -> None:
    """Raises DatabaseError when the file is not what a catalog was."""
    problem = connection.scalar(text("PRAGMA quick_check(1)"))
    if problem != "ok":
        raise DatabaseError("PRAGMA quick_check", None, ValueError(problem))


def _upgrade(connection: Connection, found: int) -> None:
    # Costs a tenth of a second, which only a start after an update has to pay.
    from pypiserver_ng.catalog.migrations import upgrade  # noqa: PLC0415

    upgrade(connection, found)
    _set(connection, "schema", schema.VERSION)


def _reason(fault: SQLAlchemyError) -> str:
    """What the database said, without the statement."""
    return str(getattr(fault, "orig", None) or type(fault).__name__)
