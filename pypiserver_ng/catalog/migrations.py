"""Brings a catalog that an older version wrote to today's schema, one step for each version."""

from collections.abc import Callable, Iterator

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, String, text

from pypiserver_ng.catalog.events import ATTEST, DELETE, STATUS, UPLOAD, YANK, Event, record_events
from pypiserver_ng.catalog.finding import tell
from pypiserver_ng.filenames import parse_found

#: Rows that are brought over at one go.
_MOST_AT_ONCE = 1000


def upgrade(connection: Connection, found: int) -> None:
    """Run the steps after schema version `found`, inside the caller's transaction."""
    operations = Operations(MigrationContext.configure(connection))
    for step in _STEPS[found - 1 :]:
        step(operations)


def _add_marks(operations: Operations) -> None:
    """Yanks, statuses and provenance."""
    operations.add_column("projects", Column("status", String, nullable=False, server_default="active"))
    operations.add_column("projects", Column("status_reason", String))
    operations.drop_column("files", "yanked")
    operations.drop_column("files", "yanked_reason")
    operations.create_table(
        "yanks",
        Column("project", String, primary_key=True),
        Column("version", String, primary_key=True),
        Column("reason", String),
    )
    operations.create_table(
        "provenances",
        Column("filename", String, primary_key=True),
        Column("sha256", String, primary_key=True),
        Column("project", String, nullable=False, index=True),
        Column("content", LargeBinary, nullable=False),
    )


def _add_events(operations: Operations) -> None:
    """Whatever no file tells of comes by events; what is known of it becomes some, so that the journal has it."""
    operations.create_table(
        "events", Column("id", Integer, primary_key=True), Column("content", LargeBinary, nullable=False)
    )
    operations.create_table(
        "uploads",
        Column("filename", String, primary_key=True),
        Column("sha256", String, primary_key=True),
        Column("upload_time", BigInteger, nullable=False),
        Column("user", String),
    )
    operations.create_table(
        "doomed",
        Column("root", String, primary_key=True),
        Column("path", String, primary_key=True),
        Column("project", String, nullable=False),
        Column("version", String, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("mtime_ns", BigInteger, nullable=False),
    )
    connection = operations.get_bind()
    for event in list(_tell_history(connection)):
        record_events(connection, [event])
    operations.drop_column("files", "uploaded_by")


def _tell_history(connection: Connection) -> Iterator[Event]:
    uploaded = "SELECT * FROM files WHERE uploaded_by IS NOT NULL AND sha256 IS NOT NULL ORDER BY id"
    for row in connection.execute(text(uploaded)):
        fields = {"version": row.version, "filename": row.filename, "sha256": row.sha256, "user": row.uploaded_by}
        yield Event(0, row.upload_time, UPLOAD, row.project, **fields, upload_time=row.upload_time)
    for row in connection.execute(text("SELECT * FROM tombstones ORDER BY deleted_at")):
        parsed = parse_found(row.filename)
        yield Event(0, row.deleted_at, DELETE, parsed.name if parsed else "", filename=row.filename, sha256=row.sha256)
    for row in connection.execute(text("SELECT * FROM yanks")):
        yield Event(0, 0, YANK, row.project, version=row.version, reason=row.reason)
    for row in connection.execute(text("SELECT * FROM projects WHERE status <> 'active'")):
        yield Event(0, 0, STATUS, row.name, status=row.status, reason=row.status_reason)
    for row in connection.execute(text("SELECT * FROM provenances")):
        content = row.content.decode()
        yield Event(0, 0, ATTEST, row.project, filename=row.filename, sha256=row.sha256, provenance=content)


def _add_texts(operations: Operations) -> None:
    """Search and the newest files without a look at every row."""
    operations.create_table(
        "texts",
        Column("project", String, primary_key=True),
        Column("text", String, primary_key=True),
        sqlite_with_rowid=False,
    )
    operations.create_index("files_newest", "files", ["upload_time"], sqlite_where=text("sha256 IS NOT NULL"))
    connection = operations.get_bind()
    known = "SELECT DISTINCT project, display_name, summary FROM files WHERE sha256 IS NOT NULL ORDER BY project"
    for rows in connection.execute(text(known)).partitions(_MOST_AT_ONCE):
        tell(connection, [(row.project, row.display_name, row.summary) for row in rows])


def _add_tokens(operations: Operations) -> None:
    operations.create_table(
        "token_uses", Column("id", String, primary_key=True), Column("time", BigInteger, nullable=False)
    )
    operations.create_table(
        "tokens",
        Column("id", String, primary_key=True),
        Column("name", String, nullable=False, index=True),
        Column("created", BigInteger, nullable=False),
        Column("expires", BigInteger, index=True),
        Column("content", LargeBinary, nullable=False),
    )


def _add_used_identities(operations: Operations) -> None:
    operations.create_table(
        "used_identities",
        Column("key", String, primary_key=True),
        Column("expires", BigInteger, nullable=False, index=True),
    )


#: The first brings schema 1 to 2, and so on.
_STEPS: tuple[Callable[[Operations], None], ...] = (
    _add_marks,
    _add_events,
    _add_texts,
    _add_tokens,
    _add_used_identities,
)
