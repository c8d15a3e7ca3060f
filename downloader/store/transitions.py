"""One statement a kind of step, made once; its values are the step's own fields.

A statement that is built anew for each run costs several times what SQLite needs for it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from downloader.store.schema import in_state, runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from downloader.rules.states import RunKey, State
    from downloader.rules.steps import PollStep, TransferStep

BY_KEY = (runs.c.run_type == sa.bindparam("key_type"), runs.c.run_id == sa.bindparam("key_id"))
NO_LEASE: Mapping[str, object] = {"lease_owner": None, "lease_expires_at": None}
NO_URL: Mapping[str, object] = {"url": None, "url_expires_at": None}


class LeaseLostError(Exception):
    """Not every run of a group is still held under the lease it was claimed with."""


def held(state: State) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition on a run in this state that is held under a lease."""
    return (*BY_KEY, in_state(state), runs.c.lease_owner == sa.bindparam("lease"))


def statement(
    step: type[PollStep | TransferStep],
    where: Sequence[sa.ColumnElement[bool]],
    values: Mapping[str, Any],
) -> sa.Update:
    """Return the UPDATE of a kind of step.

    It sets each column that the step has a field of, and what `values` gives beside or instead.
    """
    own = {
        one.name: sa.bindparam(f"new_{one.name}", type_=runs.c[one.name].type)
        for one in fields(step)
        if one.name in runs.c
    }
    return (
        sa.update(runs)
        .where(*where)
        .values({**own, **NO_LEASE, "updated_at": sa.bindparam("now"), **values})
    )


def parameters(
    key: RunKey, lease: str | None, step: PollStep | TransferStep, now: datetime
) -> dict[str, object]:
    """Return the values of a step's statement."""
    own = {f"new_{one.name}": getattr(step, one.name) for one in fields(step) if one.name in runs.c}
    return {**own, "key_type": key.run_type, "key_id": key.run_id, "lease": lease, "now": now}


def carry_out(
    connection: sa.Connection,
    statements: Mapping[Any, sa.Update],
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
        if connection.execute(statements[kind], group).rowcount != len(group):
            raise LeaseLostError
