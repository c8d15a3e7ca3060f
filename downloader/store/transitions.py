"""One statement a kind of step, made once; its values are the step's own fields.

A statement that is built anew for each run costs several times what SQLite needs for it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, get_args

import sqlalchemy as sa

from downloader.rules.states import RunKey
from downloader.rules.steps import PollStep, TransferStep
from downloader.store.rows import ForRows
from downloader.store.schema import BY_KEY, in_state, runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from downloader.rules.states import State

KEY: Final = (runs.c.run_type, runs.c.run_id)
NO_LEASE: Mapping[str, object] = {"lease_owner": None, "lease_expires_at": None}
NO_URL: Mapping[str, object] = {"url": None, "url_expires_at": None}


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
    returned: Sequence[sa.ColumnElement[Any]] = KEY,
) -> ForRows:
    """Return the UPDATE of a kind of step; of each run that it has found it tells the key first.

    It sets each column that the step has a field of, and what `values` gives beside or instead.
    """
    own = {name: sa.bindparam(f"new_{name}", type_=runs.c[name].type) for name in _COLUMNS[step]}
    return ForRows(
        sa.update(runs)
        .where(*where)
        .values({**own, **NO_LEASE, "updated_at": sa.bindparam("now"), **values}),
        *returned,
    )


def parameters(
    key: RunKey, lease: str | None, step: PollStep | TransferStep, now: datetime
) -> dict[str, object]:
    """Return the values of a step's statement."""
    own = {f"new_{name}": getattr(step, name) for name in _COLUMNS[type(step)]}
    return {**own, "key_type": key.run_type, "key_id": key.run_id, "lease": lease, "now": now}


def carry_out(
    connection: sa.Connection,
    steps: Sequence[tuple[ForRows, RunKey, Mapping[str, object]]],
) -> list[sa.Row[Any] | None]:
    """Carry out steps: the statement of each, its run and its values.

    Of each it returns the row as its statement tells it, None where the lease was lost. All of
    one statement go together, but those of one run one after the other, as they are given.
    """
    found: list[sa.Row[Any] | None] = [None] * len(steps)
    left: Sequence[int] = range(len(steps))
    while left:
        groups: dict[ForRows, dict[RunKey, int]] = {}
        seen: set[RunKey] = set()
        again: list[int] = []
        for number in left:
            made, key, _ = steps[number]
            if key in seen:
                again.append(number)
            else:
                seen.add(key)
                groups.setdefault(made, {})[key] = number
        for made, numbers in groups.items():
            for row in made.returning(connection, [steps[one][2] for one in numbers.values()]):
                found[numbers[RunKey(*row[: len(KEY)])]] = row
        left = again
    return found
