"""Statements for many rows at once do what they do row by row."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from store.driving import at

from downloader.store.rows import ForRows
from downloader.store.schema import UTCText

_TABLE = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("thing_id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("size", sa.Integer),
    sa.Column("seen_at", UTCText),
    sqlite_strict=True,
)
_INSERT = ForRows(sa.insert(_TABLE))
_CHANGE = (
    sa.update(_TABLE)
    .where(_TABLE.c.thing_id == sa.bindparam("which"))
    .values(
        name=sa.func.coalesce(sa.bindparam("new_name"), "nothing"),
        size=_TABLE.c.size + 1,
        seen_at=sa.bindparam("now"),
    )
)
_UPDATE = ForRows(_CHANGE)
_TELLING = ForRows(_CHANGE, *_TABLE.c)

_TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": _TEXTS,
            "size": st.integers(-(2**63) + 1, 2**63 - 3),
            "seen_at": st.none() | st.integers(0, 10**6).map(at),
        }
    ),
    max_size=5,
)


def _engine() -> sa.Engine:
    engine = sa.create_engine("sqlite://")
    _TABLE.metadata.create_all(engine)
    return engine


def _content(connection: sa.Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(sa.select(_TABLE).order_by("thing_id"))]


@settings(deadline=None)
@given(rows=_ROWS, names=st.lists(_TEXTS, min_size=5, max_size=5))
def test_together_as_one_by_one(rows: list[dict[str, Any]], names: list[str | None]) -> None:
    """Whatever the values, a group of rows is written as each of them alone would be."""
    contents, counts = [], []
    for groups in ([rows], [[row] for row in rows]):
        with _engine().begin() as connection:
            for group in groups:
                assert not group or _INSERT.execute(connection, group) in (len(group), -1)
            changes: list[dict[str, Any]] = [
                {"which": number, "new_name": name, "now": at(7)}
                for number, name in enumerate(names, 1)
            ]
            together = len(groups) == 1
            parts = [changes] if together else [[change] for change in changes]
            counts.append(sum(_UPDATE.execute(connection, part) for part in parts))
            contents.append(_content(connection))
            told = [row for part in parts for row in _TELLING.returning(connection, part)]
            assert [tuple(row) for row in sorted(told)] == _content(connection)
    assert contents[0] == contents[1]
    assert counts == [len(rows)] * 2


def test_a_text_that_json_cannot_bring() -> None:
    """A NUL in a text, at which SQLite would end it, is kept as it is."""
    with _engine().begin() as connection:
        rows = [{"name": name, "size": 1, "seen_at": None} for name in ("a\0b", "\\u0000", "ü\n")]
        _INSERT.execute(connection, rows)
        assert [row[1] for row in _content(connection)] == ["a\0b", "\\u0000", "ü\n"]
