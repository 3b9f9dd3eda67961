"""Statements that every round runs, without what SQLAlchemy does for each execution.

SQLAlchemy still writes the SQL for the database at hand, once, and keeps connection and transaction. For a statement
that takes SQLite ten microseconds its execution takes some hundred more in a process with cold caches, and a round has
thirty of them at each member; so these go to the driver's own cursor.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import DBAPIError


@dataclass
class _Plan:
    sql: str
    order: tuple[str, ...] | None  # names in the order of placeholders, where the driver counts them
    constants: dict[str, Any]
    row: Any = None  # makes the rows, known after the first execution


@dataclass
class Hot:
    """One statement, compiled once for each kind of database.

    Its values must be of types that the driver takes and gives as they are: text, bytes, int, float and None.

    Args:
        statement: with `bindparam`s for what changes from one execution to the next.
        columns: the columns an insert writes, in its parameters' names; empty for other statements.
    """

    statement: ClauseElement
    columns: tuple[str, ...] = ()
    _plans: dict[str, _Plan] = field(default_factory=dict, init=False, repr=False)

    def all(self, connection: Connection, parameters: Mapping[str, Any] | None = None) -> list[Any]:
        """Run it in the connection's transaction and return its rows, with their columns as attributes.

        Raises:
            sqlalchemy.exc.DBAPIError: of the same classes as `connection.execute`.
            KeyError: where a parameter is missing.
        """
        plan = self._plans.get(connection.dialect.name) or self._compile(connection)
        given = {**plan.constants, **(parameters or {})}
        values: Any = given if plan.order is None else tuple(given[name] for name in plan.order)
        driver = connection.dialect.loaded_dbapi.Error
        cursor = connection.connection.cursor()
        try:
            cursor.execute(plan.sql, values)
            if cursor.description is None:
                return []
            if plan.row is None:
                plan.row = _row_type([column[0] for column in cursor.description])
            return [plan.row(row) for row in cursor.fetchall()]
        except driver as error:
            raise DBAPIError.instance(
                plan.sql, None, error, driver, hide_parameters=True, dialect=connection.dialect
            ) from error
        finally:
            cursor.close()

    def first(self, connection: Connection, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run it and return its first row, or None."""
        rows = self.all(connection, parameters)
        return rows[0] if rows else None

    def _compile(self, connection: Connection) -> _Plan:
        compiled: Any = self.statement.compile(dialect=connection.dialect, column_keys=self.columns or None)
        constants = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        order = tuple(compiled.positiontup) if compiled.positional else None
        plan = self._plans[connection.dialect.name] = _Plan(str(compiled), order, constants)
        return plan


def _row_type(names: list[str]) -> Any:
    make: Any = namedtuple  # typed for names known beforehand only
    return make("Row", names, rename=True)._make
