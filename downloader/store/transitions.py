"""One statement a kind of step, made once; its values are the step's own fields.

A statement that is built anew for each run costs several times what SQLite needs for it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import sqlalchemy as sa

from downloader.rules.steps import PollStep, TransferStep
from downloader.store.rows import ForRows
from downloader.store.schema import BY_KEY, in_state, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from downloader.rules.states import RunKey, State
    from downloader.store.database import Database

Outcome = TypeVar("Outcome")
Result = TypeVar("Result")

NO_LEASE: Mapping[str, object] = {"lease_owner": None, "lease_expires_at": None}
NO_URL: Mapping[str, object] = {"url": None, "url_expires_at": None}


class LeaseLostError(Exception):
    """Not every run of a group is still held under the lease it was claimed with."""


def held(state: State) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition on a run in this state that is held under a lease."""
    return (*BY_KEY, in_state(state), runs.c.lease_owner == sa.bindparam("lease"))


_COLUMNS: Final[Mapping[type, tuple[str, ...]]] = {
    step: tuple(one.name for one in fields(step) if one.name in runs.c)
    for step in {*get_args(PollStep), *get_args(TransferStep)}
}
"""The columns of `runs` that a kind of step has a field of."""


def statement(
    step: type[PollStep | TransferStep],
    where: Sequence[sa.ColumnElement[bool]],
    values: Mapping[str, Any],
) -> ForRows:
    """Return the UPDATE of a kind of step.

    It sets each column that the step has a field of, and what `values` gives beside or instead.
    """
    own = {name: sa.bindparam(f"new_{name}", type_=runs.c[name].type) for name in _COLUMNS[step]}
    return ForRows(
        sa.update(runs)
        .where(*where)
        .values({**own, **NO_LEASE, "updated_at": sa.bindparam("now"), **values})
    )


def parameters(
    key: RunKey, lease: str | None, step: PollStep | TransferStep, now: datetime
) -> dict[str, object]:
    """Return the values of a step's statement."""
    own = {f"new_{name}": getattr(step, name) for name in _COLUMNS[type(step)]}
    return {**own, "key_type": key.run_type, "key_id": key.run_id, "lease": lease, "now": now}


def carry_out(
    connection: sa.Connection,
    statements: Mapping[Any, ForRows],
    steps: Sequence[tuple[Any, dict[str, object]]],
) -> None:
    """Carry out steps, each the key of its statement and its values: all, or none of them holds.

    Raises:
        LeaseLostError: a run among them is not held any more; the transaction must end here.

    """
    groups: dict[Any, list[dict[str, object]]] = {}
    for kind, values in steps:
        groups.setdefault(kind, []).append(values)
    for kind, group in groups.items():
        if statements[kind].execute(connection, group) != len(group):
            raise LeaseLostError


def record_in_group(
    database: Database,
    outcomes: Sequence[Outcome],
    together: Callable[[sa.Connection, Sequence[Outcome]], None],
    then: Callable[[sa.Connection], Result],
) -> tuple[list[bool], Result]:
    """Record outcomes and do `then`, in one transaction; say of each whether it holds.

    `together` records some outcomes or raises `LeaseLostError`. False: that run's lease was lost
    (rescued, cancelled), and nothing was written of it.
    """
    try:
        with database.write() as connection:
            together(connection, outcomes)
            return [True] * len(outcomes), then(connection)
    except LeaseLostError:  # nothing of it is written: which of them it was shows one by one
        with database.write() as connection:
            held = [_is_recorded(connection, one, together) for one in outcomes]
            return held, then(connection)


def _is_recorded(
    connection: sa.Connection,
    outcome: Outcome,
    together: Callable[[sa.Connection, Sequence[Outcome]], None],
) -> bool:
    try:
        together(connection, [outcome])
    except LeaseLostError:
        return False
    return True
