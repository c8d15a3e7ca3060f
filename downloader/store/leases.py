"""Claims: who holds one, for how long, and what becomes of one that ran out.

Every claim has a name of its own. A worker that was frozen past its lease must not be taken for
the one that holds the run now, not even where both are tasks of one process: so a name is never
used twice.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from downloader.rules.states import RunKey, State
from downloader.store import events
from downloader.store.rows import ForRows
from downloader.store.schema import BY_KEY, UTCText, in_state, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from downloader.store.database import Database

_DOWNLOADING = in_state(State.DOWNLOADING)


class Owner:
    """One process; gives each of its claims a new `lease_owner`."""

    def __init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)

    def new_lease(self) -> str:
        """Return a `lease_owner` that no claim has had."""
        return f"{self.name}:{next(self._numbers)}"


_EXTEND: Final = ForRows(
    sa.update(runs)
    .where(
        *BY_KEY,
        runs.c.lease_owner == sa.bindparam("lease"),
        runs.c.state.in_([State.PENDING.value, State.DOWNLOADING.value]),
    )
    .values(
        lease_expires_at=sa.bindparam("until"),
        next_attempt_at=sa.case((_DOWNLOADING, None), else_=sa.bindparam("until", type_=UTCText)),
        updated_at=sa.bindparam("now"),
    ),
    runs.c.run_type,
    runs.c.run_id,
    runs.c.lease_owner,
)


def extend_leases(
    database: Database, held: Iterable[tuple[RunKey, str]], until: datetime, now: datetime
) -> set[str]:
    """Extend claims of both queues to `until`; return the leases that are lost."""
    claims = [(*key, lease) for key, lease in held]
    names = ("key_type", "key_id", "lease")
    rows = [dict(zip(names, one, strict=True)) | {"until": until, "now": now} for one in claims]
    if not rows:
        return set()
    with database.write() as connection:
        kept = set(map(tuple, _EXTEND.returning(connection, rows)))
    return {lease for *key, lease in claims if (*key, lease) not in kept}


def lost_leases(database: Database, held: Iterable[tuple[RunKey, str]]) -> set[str]:
    """Return those leases that are no longer on their run: rescued, or the run cancelled."""
    statement = sa.select(runs.c.lease_owner).where(*BY_KEY)
    with database.read() as connection:
        return {
            lease
            for key, lease in held
            if connection.scalar(statement, {"key_type": key.run_type, "key_id": key.run_id})
            != lease
        }


def rescue(database: Database, now: datetime) -> list[RunKey]:
    """Put runs whose lease has run out back in the ready queue; return which."""
    ran_out = sa.and_(_DOWNLOADING, runs.c.lease_expires_at < now)
    with database.read() as connection:
        if connection.scalar(sa.select(sa.literal(1)).where(ran_out).limit(1)) is None:
            return []
    statement = (
        sa.update(runs)
        .where(ran_out)
        .values(
            state=State.READY.value,
            next_attempt_at=now,
            lease_owner=None,
            lease_expires_at=None,
            updated_at=now,
        )
        .returning(runs.c.run_type, runs.c.run_id)
    )
    with database.write() as connection:
        rescued = [RunKey(*row) for row in connection.execute(statement)]
        events.record(
            connection,
            now,
            [(key, State.DOWNLOADING, State.READY, "lease_ran_out", None) for key in rescued],
        )
    return rescued


_ROWS_AT_A_TIME: Final = 1000
_WAITS = runs.c.next_attempt_at > sa.bindparam("horizon")
_FROM_THE_FUTURE = tuple(
    sa.select(
        runs.c.run_type,
        runs.c.run_id,
        runs.c.updated_at,
        runs.c.next_attempt_at,
        runs.c.lease_expires_at,
    )
    .where(runs.c.updated_at > sa.bindparam("later"), *conditions)
    .limit(_ROWS_AT_A_TIME)
    for conditions in (
        (in_state(State.PENDING), runs.c.run_type == sa.bindparam("of_type"), _WAITS),
        (in_state(State.READY), _WAITS),
        (_DOWNLOADING,),
    )
)


def rebase(
    database: Database,
    run_types: Iterable[str],
    now: datetime,
    *,
    tolerance: timedelta,
    horizon: timedelta,
) -> int:
    """Give waits and leases that were written in the future their length from now; return how many.

    Rows of the future are there when the clock was set back. A lease that is alive is extended
    by its process long before; one whose process is dead would else outlive it by the step. What
    falls due within `horizon` is left to do so.
    """
    values: dict[str, object] = {"later": now + tolerance, "horizon": now + horizon}
    pending, *others = _FROM_THE_FUTURE
    queries = [(pending, values | {"of_type": name}) for name in run_types]
    queries += [(query, values) for query in others]
    rebased = 0
    for query, bound in queries:
        while True:
            with database.read() as connection:
                found = connection.execute(query, bound).all()
            if not found:
                break
            rebased += _rebase(database, found, now)
    return rebased


def _rebase(database: Database, found: Sequence[Sequence[Any]], now: datetime) -> int:
    rebased = 0
    with database.write() as connection:
        for run_type, run_id, written_at, next_attempt_at, lease_expires_at in found:
            step = written_at - now
            changed = connection.execute(
                sa.update(runs)
                .where(*BY_KEY, runs.c.updated_at == written_at)
                .values(
                    next_attempt_at=next_attempt_at and next_attempt_at - step,
                    lease_expires_at=lease_expires_at and lease_expires_at - step,
                    updated_at=now,
                ),
                {"key_type": run_type, "key_id": run_id},
            )
            rebased += changed.rowcount
    return rebased
