"""Statements for many rows at once: one execution, whose only parameter is the rows as JSON.

SQLite's driver lets other threads run around every step of a statement. Where many do, each of
these costs its turn, and a statement that is executed for every row several of them a row.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from downloader.store.schema import to_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_GIVEN: Final = sa.func.json_each(sa.bindparam("rows", type_=sa.Text)).table_valued(
    "value", name="given"
)
_NUL: Final = "\\u0000"
"""How JSON writes a NUL, at which SQLite would end the text."""


class ForRows:
    """An UPDATE or an INSERT of one row, by named parameters, that can be carried out for many.

    It tells the columns `returned` of each row that it has found.
    """

    def __init__(self, one: sa.Update | sa.Insert, *returned: sa.ColumnElement[Any]) -> None:
        self._one = one.returning(*returned) if returned else one

    @functools.cached_property
    def _many(self) -> sa.Executable:
        one = self._one
        if isinstance(one, sa.Insert):
            columns = [column for column in one.table.c if not column.primary_key]
            given = [_given(column.name, column.type) for column in columns]
            return sa.insert(one.table).from_select(columns, sa.select(*given))
        return cast("sa.Executable", visitors.replacement_traverse(one, {}, _replace))

    def execute(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Carry it out for each of these rows; return for how many there was something to do."""
        return sum(done.rowcount for done in self._execute(connection, rows))

    def returning(
        self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]
    ) -> list[sa.Row[Any]]:
        """Carry it out for each of these rows; return what each that it has found says then."""
        return [row for done in self._execute(connection, rows) for row in done.all()]

    def _execute(
        self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[sa.CursorResult[Any]]:
        if len(rows) > 1:
            text = json.dumps(rows, ensure_ascii=False, default=to_text)
            if _NUL not in text:
                yield connection.execute(self._many, {"rows": text})
                return
        for row in rows:
            yield connection.execute(self._one, row)


def _replace(element: object, **_: object) -> sa.ColumnElement[Any] | None:
    """Put what a row gives in the place of a named parameter; constants have no name of ours."""
    if isinstance(element, sa.BindParameter) and not element.unique:
        return _given(element.key, element.type)
    return None


def _given(name: str, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    path: sa.ColumnElement[str] = sa.literal_column(f"'$.{name}'")
    return sa.type_coerce(sa.func.json_extract(_GIVEN.c.value, path), kind)
