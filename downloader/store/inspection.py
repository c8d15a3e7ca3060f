"""Looking into the database: counts, lists, one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from downloader.rules.states import UNFINISHED, RunKey, State
from downloader.store.schema import in_state, is_run, runs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from downloader.store.database import Database


def count(connection: sa.Connection, state: State) -> int:
    """Return how many runs are in a state, from the index of its queue alone."""
    counted = sa.select(sa.func.count()).select_from(runs).where(in_state(state))
    return connection.scalar(counted) or 0


def not_tracked(connection: sa.Connection, key: RunKey, advice: str) -> str:
    """Return the words for a run that is not there; whoever meant one of another type is told."""
    others = sa.select(runs.c.run_type).where(runs.c.run_id == key.run_id)
    names = " and ".join(f"{name}/{key.run_id}" for name in connection.scalars(others))
    said = f"Run {key.run_id} ({key.run_type}) is not tracked"
    return f"{said}, but {names} is: name it so." if names else f"{said}{advice}"


def count_unfinished(database: Database) -> int:
    """Return how many runs are pending, ready or downloading, from the queues' indexes alone."""
    with database.read() as connection:
        return sum(count(connection, state) for state in sorted(UNFINISHED))


def any_unfinished(database: Database, run_types: Iterable[str]) -> bool:
    """Return whether there is work: a run pending that is of these types, ready or downloading.

    A ready run is transferred whatever its type. A row of each queue's index is read.
    """
    queues = [sa.and_(in_state(State.PENDING), runs.c.run_type == name) for name in run_types]
    queues += [in_state(state) for state in (State.READY, State.DOWNLOADING)]
    with database.read() as connection:
        return any(
            connection.scalar(sa.select(sa.literal(1)).select_from(runs).where(queue).limit(1))
            for queue in queues
        )


def any_of_other_types(database: Database, run_types: Iterable[str]) -> bool:
    """Return whether an unfinished run is of another type, which nobody takes up."""
    known = set(run_types)
    with database.read() as connection:
        for state in sorted(UNFINISHED):
            # From type to type: among a million runs of one, a look at each would take a while.
            name = connection.scalar(sa.select(sa.func.min(runs.c.run_type)).where(in_state(state)))
            while name is not None:
                if name not in known:
                    return True
                name = connection.scalar(
                    sa.select(sa.func.min(runs.c.run_type)).where(
                        in_state(state), runs.c.run_type > name
                    )
                )
    return False


def any_done(database: Database) -> RunKey | None:
    """Return a run that is done, None where none is."""
    with database.read() as connection:
        row = connection.execute(
            sa.select(runs.c.run_type, runs.c.run_id).where(in_state(State.DONE)).limit(1)
        ).first()
    return None if row is None else RunKey(*row)


def locations_in(database: Database, folder: str, most: int) -> list[str]:
    """Return where the files are that were saved last in a folder or below, up to so many."""
    below = folder.rstrip("/") + "/"
    query = (
        sa.select(runs.c.location)
        .where(in_state(State.DONE), sa.func.substr(runs.c.location, 1, len(below)) == below)
        .order_by(runs.c.done_at.desc())
        .limit(most)
    )
    with database.read() as connection:
        return list(connection.scalars(query))


def states_of(database: Database, keys: list[RunKey]) -> dict[RunKey, str]:
    """Return the state of each tracked run among `keys`."""
    found = {}
    with database.read() as connection:
        for key in keys:
            state = connection.scalar(sa.select(runs.c.state).where(is_run(key)))
            if state is not None:
                found[key] = state
    return found
