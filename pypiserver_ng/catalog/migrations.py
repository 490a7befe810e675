"""Brings a catalog that an older version wrote to today's schema, one step for each version."""

from collections.abc import Callable

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Connection, LargeBinary, String


def upgrade(connection: Connection, found: int) -> None:
    """Run the steps after schema version `found`, inside the caller's transaction."""
    operations = Operations(MigrationContext.configure(connection))
    for step in _STEPS[found - 1 :]:
        step(operations)


def _add_yanks_statuses_provenances(operations: Operations) -> None:
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


#: The first brings schema 1 to 2, and so on.
_STEPS: tuple[Callable[[Operations], None], ...] = (_add_yanks_statuses_provenances,)
