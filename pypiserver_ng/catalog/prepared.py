"""Statements that are made and compiled once: both cost more than running them. Knows no table."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler


class Prepared:
    """One statement whose parameters are all named with `bindparam`, or are the columns of an insert."""

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        """`columns` are those that an insert fills in."""
        assert isinstance(statement, Executable)
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, tuple[str, Sequence[str] | None, Mapping[str, Any]]] = {}

    def first(self, connection: Connection, **values: Any) -> Any:
        return self._run(connection, [values]).first()

    def rows(self, connection: Connection, **values: Any) -> Sequence[Any]:
        return self._run(connection, [values]).all()

    def scalar(self, connection: Connection, **values: Any) -> Any:
        return self._run(connection, [values]).scalar()

    def each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each row of values."""
        self._run(connection, rows)

    def _run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> CursorResult[Any]:
        dialect = connection.dialect
        if dialect.name not in self._compiled:
            compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
            assert isinstance(compiled, SQLCompiler)
            self._compiled[dialect.name] = compiled.string, compiled.positiontup, compiled.params
        text, names, constants = self._compiled[dialect.name]
        if names is None:
            return connection.exec_driver_sql(text, [{**constants, **row} for row in rows])
        parameters = [tuple([row[name] if name in row else constants[name] for name in names]) for row in rows]
        return connection.exec_driver_sql(text, parameters if len(parameters) > 1 else parameters[0])
