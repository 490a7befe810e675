"""One state directory's database: opened, upgraded, read in snapshots, changed in numbered transactions.

Knows transactions and serials; the questions and changes themselves are the catalog's.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, insert, inspect, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from pypiserver_ng.catalog import schema
from pypiserver_ng.catalog.schema import state
from pypiserver_ng.catalog.serial import SharedSerial
from pypiserver_ng.catalog.sqlite import create_sqlite_engine
from pypiserver_ng.errors import Invalid, NoSpace, Unavailable

_log = logging.getLogger(__name__)


class Database:
    """Opening raises Invalid when it is damaged, cannot be written, or is from a later version."""

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
                "only yanks, statuses, provenance and the names of deleted uploads are lost"
            ) from None
        # Waiting here is fair and cheap; waiting in SQLite's busy handler is neither.
        self._writing = threading.Lock()

    def close(self) -> None:
        self._engine.dispose()
        self.shared.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One snapshot. Raises Unavailable when the catalog cannot be read."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as fault:
            _log.error("the catalog cannot be read: %s", _reason(fault))
            raise Unavailable("the server's catalog cannot be read just now", retry_after=5) from fault

    @contextmanager
    def change(self) -> Iterator[tuple[Connection, int]]:
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
                serial = read_serial(connection) + 1
                connection.execute(
                    upsert(state)
                    .values(key="serial", value=serial)
                    .on_conflict_do_update(index_elements=["key"], set_={"value": serial})
                )
                yield connection, serial
            self.shared.advance(serial)

    def _prepare(self) -> None:
        """Create the tables in a new catalog, bring an older one to today's schema, refuse a later one."""
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if not inspect(connection).has_table("state"):
                schema.metadata.create_all(connection)
                connection.execute(insert(state), [{"key": "schema", "value": schema.VERSION}])
            found = connection.scalar(select(state.c.value).where(state.c.key == "schema")) or 0
            if not 0 < found <= schema.VERSION:
                raise Invalid(
                    f"the catalog has schema {found}, this version reads {schema.VERSION}: use another --state-dir"
                )
            if found < schema.VERSION:
                _upgrade(connection, found)
            # The catalog may be new or restored beside an old counter. Nobody else commits while we hold the lock.
            self.shared.restart(read_serial(connection))


def read_serial(connection: Connection) -> int:
    return connection.scalar(select(state.c.value).where(state.c.key == "serial")) or 0


def _upgrade(connection: Connection, found: int) -> None:
    # Costs a tenth of a second, which only a start after an update has to pay.
    from pypiserver_ng.catalog.migrations import upgrade  # noqa: PLC0415

    upgrade(connection, found)
    connection.execute(update(state).where(state.c.key == "schema").values(value=schema.VERSION))


def _reason(fault: SQLAlchemyError) -> str:
    """What the database said, without the statement."""
    return str(getattr(fault, "orig", None) or type(fault).__name__)
