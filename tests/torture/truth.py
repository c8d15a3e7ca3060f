"""What has to be true of the database and the disk, whatever was done to the program.

Every function returns what it finds wrong, in words, so that a test can show all of it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from downloader.rules.states import FINISHED, TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from downloader.simulator.server import Simulator

RUN_TYPE: Final = "text-to-sound"
PARTIAL: Final = ".partial"
_SECRETS: Final = ("X-Amz-", "Signature=", "X-Goog-", "sig=")
_SHOWN: Final = 20


class Variant(NamedTuple):
    """One of the files that the storage may rightly have for a run."""

    version: int = 1
    streamed: bool = False


class Event(NamedTuple):
    """A row of `run_events`."""

    before: str | None
    after: str
    reason: str
    detail: str | None


def _only_one(_run_id: int) -> Sequence[Variant]:
    return (Variant(),)


@dataclass(frozen=True)
class Expected:
    """What a scenario leaves behind: every id is `done`, unless something else is said of it.

    `failed` has the true reason of each run that has to fail. `variants` says which files are
    right for a run where its object changes; the row's own ETag and SHA-256 then decide. Only
    runs that were `repaired` may have lost a file that was saved; `aside` are the names of files
    that had to make way for their new ones.
    """

    ids: Collection[int]
    failed: Mapping[int, str] = field(default_factory=dict)
    cancelled: Collection[int] = ()
    repaired: Collection[int] = ()
    aside: Collection[str] = ()
    variants: Callable[[int], Sequence[Variant]] = _only_one


@dataclass(frozen=True)
class Snapshot:
    """The database at one moment: its rows by run id, its histories, what SQLite says of it."""

    rows: Mapping[int, dict[str, Any]]
    histories: Mapping[int, Sequence[Event]]
    damage: Sequence[str]

    @classmethod
    def of(cls, database: Path) -> Snapshot:
        """Read a database, all of it in one transaction."""
        uri = f"file:{database}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as raw:
            raw.execute("BEGIN")
            cursor = raw.execute("SELECT * FROM runs")
            names = [column[0] for column in cursor.description]
            rows = {
                row["run_id"]: row for row in (dict(zip(names, r, strict=True)) for r in cursor)
            }
            histories: dict[int, list[Event]] = defaultdict(list)
            for run_id, *event in raw.execute(
                "SELECT run_id, from_state, to_state, reason, detail FROM run_events"
                " ORDER BY event_id"
            ):
                histories[run_id].append(Event(*event))
            damage = [str(row) for row in raw.execute("PRAGMA integrity_check") if row != ("ok",)]
            damage += [str(row) for row in raw.execute("PRAGMA foreign_key_check")]
        return cls(rows, histories, damage)

    def count(self, reason: str) -> int:
        """Count the transitions that have this reason."""
        return sum(one.reason == reason for events in self.histories.values() for one in events)


def assert_nothing(wrong: Sequence[str]) -> None:
    """Fail with what is wrong, at a length that can be read."""
    more = [f"… and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    assert not wrong, "\n".join([*wrong[:_SHOWN], *more])


def wrong_at_any_moment(database: Path, output: Path) -> list[str]:
    """Return what is wrong now, with runs under way or just killed."""
    now = Snapshot.of(database)
    wrong = [f"the database is damaged: {one}" for one in now.damage]
    wrong += _wrong_histories(now)
    for run_id, row in now.rows.items():
        if row["state"] == State.DONE:
            wrong += _wrong_file(run_id, row, output)
    return wrong


def wrong_at_the_end(
    database: Path, output: Path, simulator: Simulator, expected: Expected
) -> list[str]:
    """Return what is wrong after everything was drained and nothing runs any more."""
    end = Snapshot.of(database)
    wrong = wrong_at_any_moment(database, output)
    if end.rows.keys() != set(expected.ids):
        lost, new = set(expected.ids) - end.rows.keys(), end.rows.keys() - set(expected.ids)
        wrong.append(f"lost runs {sorted(lost)[:_SHOWN]}, unknown runs {sorted(new)[:_SHOWN]}")
    for run_id in end.rows.keys() & set(expected.ids):
        wrong += _wrong_end(run_id, end.rows[run_id], end.histories[run_id], simulator, expected)
    saved = {row["location"] for row in end.rows.values() if row["location"] is not None}
    there = {str(path) for path in output.rglob("*") if path != output / PARTIAL}
    aside = {str(output / name) for name in expected.aside}
    # What there is of a failed run's file is kept: `retry` goes on with it. That of one that was
    # cancelled when nothing ran goes with the next process.
    kept = {
        str(path)
        for run_id, row in end.rows.items()
        if row["state"] in {State.FAILED, State.CANCELLED}
        for path in (output / PARTIAL).glob(f"*-{run_id}.*.part")
    }
    wrong += [f"nobody has recorded {path}" for path in sorted(there - saved - aside - kept)]
    wrong += [f"{path} was not kept" for path in sorted(aside - there)]
    return wrong


def _wrong_end(
    run_id: int,
    row: Mapping[str, Any],
    history: Sequence[Event],
    simulator: Simulator,
    expected: Expected,
) -> list[str]:
    """Return what is wrong with one run that nothing is to be done for any more."""
    wanted: tuple[str, str | None] = ("done", None)
    if run_id in expected.failed:
        wanted = ("failed", expected.failed[run_id])
    elif run_id in expected.cancelled:
        wanted = ("cancelled", row["error_code"])
    told = [one.reason for one in history]
    if (row["state"], row["error_code"]) != wanted:
        return [f"run {run_id} is {row['state']} ({row['error_code']}), not {wanted}: {told}"]
    wrong = []
    if run_id not in expected.repaired and any(one.before == State.DONE for one in history):
        wrong.append(f"run {run_id} was done, and then no more: {told}")
    if row["lease_owner"] is not None or row["lease_expires_at"] is not None:
        wrong.append(f"run {run_id} is finished and has a lease")
    if row["url"] is not None:
        wrong.append(f"run {run_id} is finished and keeps its URL")
    said = [str(row["error_message"]), *(str(one.detail) for one in history)]
    if any(secret in text for text in said for secret in _SECRETS):
        wrong.append(f"run {run_id} tells a signature: {said}")
    if row["state"] == State.DONE and not _is_the_simulators_own(row, simulator, expected):
        wrong.append(f"run {run_id} is done with a file that the storage never had: {told}")
    return wrong


def _is_the_simulators_own(
    row: Mapping[str, Any], simulator: Simulator, expected: Expected
) -> bool:
    """Return whether a row's digest and ETag are of one and the same object of the storage."""
    run_id = row["run_id"]
    for version, streamed in expected.variants(run_id):
        content = simulator.audio(run_id, version=version, streamed=streamed)
        name = simulator._state.audio(RUN_TYPE, run_id, version=version, streamed=streamed)
        if (len(content), hashlib.sha256(content).hexdigest()) == (row["bytes"], row["sha256"]):
            return row["etag"] in (None, name.etag)
    return False


def _wrong_file(run_id: int, row: Mapping[str, Any], output: Path) -> list[str]:
    """Return what is wrong with the file of a run that is done."""
    path = output / f"{run_id}.{row['audio_format']}"
    if row["location"] != str(path):
        return [f"run {run_id} is said to be in {row['location']}, not in {path}"]
    try:
        content = path.read_bytes()
    except OSError as error:
        return [f"run {run_id} is done and has no file: {error}"]
    if (len(content), hashlib.sha256(content).hexdigest()) != (row["bytes"], row["sha256"]):
        return [f"run {run_id} is done and its file is not what was recorded"]
    return []


def _wrong_histories(now: Snapshot) -> list[str]:
    """Return which histories are no way through the state machine to the present state."""
    wrong = []
    for run_id, row in now.rows.items():
        at: str | None = None
        history = now.histories.get(run_id, ())
        for event in history:
            legal = (
                (State(event.before), State(event.after)) in TRANSITIONS
                if event.before is not None
                else at is None and event.after == State.PENDING
            )
            if event.before != at or not legal:
                wrong.append(f"run {run_id} went from {at} by {event}")
                break
            at = event.after
        else:
            if at != row["state"]:
                wrong.append(f"run {run_id} is {row['state']}, its history ends in {at}")
    return wrong


def wrong_requests(
    end: Snapshot,
    simulator: Simulator,
    *,
    killed: Collection[int],
    patient: bool = False,
    per_claim: Callable[[int], int] = lambda _run_id: 1,
) -> list[str]:
    """Return which files the storage was asked for more often than the history accounts for.

    A claim may ask once, and one that adopts the file of a lost commit not at all; so a file
    is asked for at most once more than there are kills that hit it and attempts that failed.
    `killed` are the process ids of those that were killed or frozen: a lease that ran out has to
    be one of theirs, unless the scenario is `patient` with leases that are so short that a busy
    machine may lose one. `per_claim` says how often one claim may ask, where answers make it.
    """
    wrong = []
    asked = simulator.stats()["storage"]["by_run"]
    for run_id, history in end.histories.items():
        claims = sum(one.after == State.DOWNLOADING for one in history)
        adopted = sum(
            one.reason == "adopted" and one.before == State.DOWNLOADING and claims > 1
            for one in history
        )  # `verify` may adopt the file of the first claim there was, and needs none
        requests = sum(asked.get(str(run_id), {}).values())
        allowed = (claims - adopted) * per_claim(run_id)
        if requests > allowed:
            told = [one.reason for one in history]
            wrong.append(f"run {run_id} was asked for {requests} times, not {allowed}: {told}")
        if not patient:
            living = set(losers(history)) - set(killed)
            wrong += [f"run {run_id} was taken from process {pid}, which lives" for pid in living]
    if leaked := simulator.stats()["storage_requests_with_api_key"]:
        wrong.append(f"{leaked} requests to the storage had the API key")
    return wrong


def losers(history: Sequence[Event]) -> list[int]:
    """Return the process ids of those whose lease on a run ran out, in order."""
    return [
        int(str(before.detail).rsplit(":", 3)[1])
        for before, event in pairwise(history)
        if event.reason == "lease_ran_out"
    ]


def unfinished(database: Path) -> int:
    """Count the runs that are not finished."""
    names = ", ".join(f"'{state}'" for state in sorted(FINISHED))
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
        [(number,)] = raw.execute(f"SELECT count(*) FROM runs WHERE state NOT IN ({names})")  # noqa: S608 - the tests' own text
    return int(number)
