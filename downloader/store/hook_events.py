"""Which hooks are owed, by the history; and what came of them, in it.

`run_events` is the queue: its numbers ascend as they are committed, since they are given out under
the lock of the one who writes. A cursor for each end that a run can have says how far hooks have
been begun. A hook's row is no transition: its two states are the one that the run is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from downloader.rules.states import RunKey, State
from downloader.store.listing import SHOWN
from downloader.store.schema import BY_KEY, UTCText, hook_cursors, run_events, runs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from downloader.store.database import Database

_FAR: Final = 10_000
"""From so many events on that nobody is owed a hook for, the cursor moves past them."""

_NO_END: Final = 2**63 - 1


class HookEvent(NamedTuple):
    """How a hook ended."""

    key: RunKey
    at: datetime
    reason: str
    detail: str


class OwedHook(NamedTuple):
    """A run whose hook is due, in the state that it has ended in; every column but `url`."""

    key: RunKey
    state: State
    row: dict[str, Any]


_ROW: Final = sa.select(*SHOWN).where(*BY_KEY)
_RECORD: Final = sa.insert(run_events).from_select(
    ["run_type", "run_id", "at", "from_state", "to_state", "reason", "detail"],
    sa.select(
        runs.c.run_type,
        runs.c.run_id,
        sa.bindparam("moment", type_=UTCText),
        runs.c.state,
        runs.c.state,
        sa.bindparam("why", type_=sa.Text),
        sa.bindparam("told", type_=sa.Text),
    ).where(*BY_KEY),
)

# A run that was put back since is owed the hook of its new end. CROSS JOIN keeps the order.
_OWED: Final = """
    FROM run_events AS ended
    CROSS JOIN runs ON runs.run_type = ended.run_type AND runs.run_id = ended.run_id
    WHERE ended.event_id > :after AND ended.event_id <= :upto
      AND ended.to_state = :state AND ended.from_state <> ended.to_state
      AND runs.state = ended.to_state
      AND NOT EXISTS (
          SELECT 1 FROM run_events AS later
          WHERE later.run_type = ended.run_type AND later.run_id = ended.run_id
            AND later.event_id > ended.event_id AND later.from_state IS NOT later.to_state
      )
"""
_NEXT: Final = sa.text(
    f"SELECT ended.event_id, ended.run_type, ended.run_id {_OWED}"
    " ORDER BY ended.event_id LIMIT :most"
)
_COUNT: Final = sa.text(f"SELECT count(*) {_OWED}")
_NEWEST: Final = sa.select(sa.func.coalesce(sa.func.max(run_events.c.event_id), 0))
_CURSOR: Final = sa.select(hook_cursors.c.event_id).where(
    hook_cursors.c.state == sa.bindparam("of_state")
)
_BEGIN: Final = sa.insert(hook_cursors)
_MOVE: Final = (
    sa.update(hook_cursors)
    .where(hook_cursors.c.state == sa.bindparam("of_state"))
    .values(event_id=sa.bindparam("to"))
)


class HookQueue:
    """The hooks that are owed for these ends of runs, by whatever process they were recorded.

    For one thread at a time. Several processes share the cursors, and each hook is claimed by one.
    """

    def __init__(self, database: Database, states: Collection[State]) -> None:
        self._database = database
        # Up to where this process has seen that nothing is owed: what is there stays as it is.
        self._seen = dict.fromkeys(states, 0)
        self._behind: dict[State, int] = {}  # cursors that are far from that, and where it is

    def begin(self) -> None:
        """Have hooks owed from now on, where these ends of a run never had one before."""
        with self._database.read() as connection:
            if not self._new(connection):
                return
        with self._database.write() as connection:
            newest = connection.scalar(_NEWEST)
            for state in self._new(connection):
                connection.execute(_BEGIN, {"state": state.value, "event_id": newest})

    def newest_event(self) -> int:
        """Return the number of the last event, 0 where there is none."""
        with self._database.read() as connection:
            return connection.scalar(_NEWEST) or 0

    def turn(
        self, ended: Sequence[HookEvent], most: int, upto: int | None = None
    ) -> list[OwedHook]:
        """Record how hooks ended and claim the next `most`, up to an event, in one transaction.

        What is claimed is owed no more: whoever has it begins it, or nobody does.
        """
        if not ended and not (most and (self.any_owed(upto) or self._behind)):
            return []
        with self._database.write() as connection:
            for one in ended:
                connection.execute(
                    _RECORD,
                    {
                        "key_type": one.key.run_type,
                        "key_id": one.key.run_id,
                        "moment": one.at,
                        "why": one.reason,
                        "told": one.detail,
                    },
                )
            claimed = self._next(connection, most, upto) if most else []
            moves = self._behind | {state: number for number, state, _ in claimed}
            for state, event_id in moves.items():
                connection.execute(_MOVE, {"of_state": state.value, "to": event_id})
            found = [OwedHook(key, state, _row(connection, key)) for _, state, key in claimed]
        self._behind = {}
        return found

    def any_owed(self, upto: int | None = None) -> bool:
        """Return whether a hook is owed for what ended up to an event."""
        with self._database.read() as connection:
            found = {state for _, state, _ in self._next(connection, 1, upto)}
            if not found and upto is None:
                newest = connection.scalar(_NEWEST) or 0
                self._seen = dict.fromkeys(self._seen, newest)
                self._behind = {
                    state: newest
                    for state in self._seen
                    if newest - _cursor(connection, state) > _FAR
                }
        return bool(found)

    def count(self) -> int:
        """Return how many hooks are owed."""
        with self._database.read() as connection:
            return sum(
                connection.scalar(
                    _COUNT,
                    {
                        "state": state.value,
                        "after": max(_cursor(connection, state), seen),
                        "upto": _NO_END,
                    },
                )
                or 0
                for state, seen in self._seen.items()
            )

    def _new(self, connection: sa.Connection) -> set[State]:
        """Return the ends that have never had a hook."""
        return {state for state in self._seen if _cursor(connection, state) == _NO_END}

    def _next(
        self, connection: sa.Connection, most: int, upto: int | None
    ) -> list[tuple[int, State, RunKey]]:
        """Return the first that are owed, in the order of their ends."""
        found: list[tuple[int, State, RunKey]] = []
        for state, seen in self._seen.items():
            values = {
                "state": state.value,
                "after": max(_cursor(connection, state), seen),
                "upto": _NO_END if upto is None else upto,
                "most": most,
            }
            rows = connection.execute(_NEXT, values)
            found += [(number, state, RunKey(*key)) for number, *key in rows]
        return sorted(found)[:most]


def _cursor(connection: sa.Connection, state: State) -> int:
    """Return up to where hooks have been begun; nothing is owed where somebody has removed that."""
    found = connection.scalar(_CURSOR, {"of_state": state.value})
    return _NO_END if found is None else found


def _row(connection: sa.Connection, key: RunKey) -> dict[str, Any]:
    names = {"key_type": key.run_type, "key_id": key.run_id}
    return dict(connection.execute(_ROW, names).mappings().one())
