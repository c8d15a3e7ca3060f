"""The state machine of a run: its states, and which transition may follow which.

The database enforces the shape of each state by CHECK constraints; this module is what
those constraints, the store's updates and the documentation are tested against.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    """Where a run stands for us; the provider's own word is `remote_status`."""

    PENDING = "pending"
    READY = "ready"
    DOWNLOADING = "downloading"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED: Final = frozenset({State.PENDING, State.READY, State.DOWNLOADING})
FINISHED: Final = frozenset(State) - UNFINISHED

TRANSITIONS: Final[frozenset[tuple[State, State]]] = frozenset(
    {
        (State.PENDING, State.READY),  # the API gave a URL
        (State.PENDING, State.DOWNLOADING),  # it gave a URL, and a worker takes it at once
        (State.PENDING, State.FAILED),  # failed at the provider, or the deadline has passed
        (State.READY, State.PENDING),  # the URL expired before it was used
        (State.READY, State.DOWNLOADING),  # claimed by a worker
        (State.DOWNLOADING, State.DONE),  # the file is published
        (State.DOWNLOADING, State.READY),  # an error with attempts left; interrupted; rescued
        (State.DOWNLOADING, State.PENDING),  # the URL was refused: a new one is needed
        (State.READY, State.FAILED),  # refreshes spent
        (State.DOWNLOADING, State.FAILED),  # attempts or refreshes spent
        (State.PENDING, State.CANCELLED),
        (State.READY, State.CANCELLED),
        (State.DOWNLOADING, State.CANCELLED),
        (State.FAILED, State.PENDING),  # retry
        (State.CANCELLED, State.PENDING),  # retry
        (State.DONE, State.PENDING),  # verify: the file is damaged or missing
        (State.PENDING, State.DONE),  # verify: the file is published, its commit was lost
        (State.READY, State.DONE),  # as above
        (State.FAILED, State.DONE),  # as above
    }
)


class RunKey(NamedTuple):
    """What names a run: the provider's run type and run id."""

    run_type: str
    run_id: int


_RUN_TYPE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
MAX_INTEGER: Final = 2**63 - 1
"""What the database can hold: ids, and counters of rows that somebody has edited."""

MAX_RUN_ID: Final = MAX_INTEGER


def is_run_type(name: str) -> bool:
    """Return whether a word may be a run type: files are named after it, and folders."""
    return _RUN_TYPE.fullmatch(name) is not None
