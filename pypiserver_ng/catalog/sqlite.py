"""The SQLite engine: rollback journal, synchronous=FULL, one writer at a time.

Not WAL: SQLite up to 3.51.2 can corrupt a WAL database that several connections reset at once.
"""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event

_BUSY_SECONDS = 10


def create_sqlite_engine(path: Path) -> Engine:
    # Not as text: a "?" in the path would begin options.
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(
        url,
        module=sqlite3,
        connect_args={"timeout": _BUSY_SECONDS},
        pool_size=8,
        max_overflow=24,
        # The connection that was used last has the pages that the next change needs.
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: Any) -> None:
    # The driver opens no transactions by itself: `_begin` says which kind.
    connection.isolation_level = None
    # One that keeps its blocks would be flushed faster. But on a full disk changes would then be committed whose
    # events the journal of events has no room for.
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Any) -> None:
    # A writer takes its lock at once: upgrading a read lock later could only fail.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
