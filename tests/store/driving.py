"""Driving runs through the store as the service does, at times that a test chooses."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from downloader.rules.states import RunKey
from downloader.rules.steps import PollFailed, PollLater, Published, PutBack, UrlReceived
from downloader.store import control, intake, polling, transfers
from downloader.store.leases import Owner
from downloader.store.turn import Turn, take_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from downloader.rules.steps import PollStep, ReadyStep, TransferStep
    from downloader.store.database import Database
    from downloader.store.turn import Done

TYPE = "text-to-sound"
OTHER_TYPE = "tts"
SIGNATURE = "X-Amz-Signature=5ec2e7"
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """Return a moment so many seconds after the tests' start."""
    return START + timedelta(seconds=seconds)


def key(run_id: int, run_type: str = TYPE) -> RunKey:
    """Return the key of a run."""
    return RunKey(run_type, run_id)


def signed_url(run_id: int) -> str:
    """Return a URL whose query nobody may see."""
    return f"https://storage.example/audio/{run_id}.wav?{SIGNATURE}{run_id}"


def published(run_id: int, *, size: int = 1000) -> Published:
    """Return the step of a file that is saved."""
    return Published(f"/audio/{run_id}.wav", size, f"{run_id:064x}", "wav", '"etag"')


def url_received(run_id: int) -> UrlReceived:
    """Return the step of a run that has its URL."""
    return UrlReceived(signed_url(run_id), at(3600), "SUCCESS")


def usable(_run: transfers.ReadyRun) -> ReadyStep | None:
    """Judge every URL to be good."""
    return None


@dataclass
class Driver:
    """A database, and short ways to bring runs into each of their states."""

    database: Database
    owner: Owner = field(default_factory=Owner)

    def submit(self, *run_ids: int, seconds: float = 0, run_type: str = TYPE) -> None:
        """Track runs."""
        intake.submit(self.database, run_type, run_ids, at(seconds))

    def claim_due(
        self,
        seconds: float = 0,
        *,
        most: int = 1000,
        cutoff: float | None = None,
        soon: float = 0,
        lease: float = 60,
        owner: Owner | None = None,
    ) -> list[polling.ClaimedBatch]:
        """Claim runs to ask for."""
        return polling.claim_due(
            self.database,
            owner or self.owner,
            [TYPE, OTHER_TYPE],
            wanted=polling.Wanted(most),
            now=at(seconds),
            cutoff=at(seconds if cutoff is None else cutoff),
            soon_seconds=soon,
            lease_until=at(seconds + lease),
        )

    def poll(self, *run_ids: int, step: PollStep, seconds: float = 0, run_type: str = TYPE) -> None:
        """Claim these runs, record one step for each, and give back whatever else was claimed."""
        wanted = {RunKey(run_type, run_id) for run_id in run_ids}
        recorded = 0
        for batch in self.claim_due(seconds):
            judged: list[tuple[RunKey, str, PollStep]] = [
                (
                    run.key,
                    batch.lease,
                    step if run.key in wanted else PollLater(run.next_attempt_at, asked=False),
                )
                for run in batch.runs
            ]
            recorded += sum(run.key in wanted for run in batch.runs)
            assert all(polling.record_polls(self.database, judged, at(seconds)))
        assert recorded == len(wanted)

    def ready(
        self,
        *run_ids: int,
        seconds: float = 0,
        expires: float | None = 3600,
        run_type: str = TYPE,
    ) -> None:
        """Track runs and give each a URL."""
        self.submit(*run_ids, seconds=seconds, run_type=run_type)
        for run_id in run_ids:
            received = UrlReceived(
                signed_url(run_id), None if expires is None else at(expires), "SUCCESS"
            )
            self.poll(run_id, step=received, seconds=seconds, run_type=run_type)

    def claim_ready(
        self,
        seconds: float = 0,
        *,
        most: int = 1000,
        cutoff: float | None = None,
        lease: float = 60,
        judge: Callable[[transfers.ReadyRun], ReadyStep | None] = usable,
        owner: Owner | None = None,
    ) -> transfers.Ready:
        """Claim runs to transfer."""
        claim = transfers.Claim(
            owner or self.owner,
            most,
            at(seconds),
            None if cutoff is None else at(cutoff),
            at(seconds + lease),
            judge,
        )
        return transfers.claim_ready(self.database, claim)

    def downloading(self, *run_ids: int, seconds: float = 0) -> list[transfers.ClaimedRun]:
        """Track runs and claim each for a transfer; nothing else may be ready."""
        self.ready(*run_ids, seconds=seconds)
        claimed = self.claim_ready(seconds).claimed
        assert {claim.run.key.run_id for claim in claimed} == set(run_ids)
        return list(claimed)

    def end(
        self, claims: Sequence[transfers.ClaimedRun], step: TransferStep, seconds: float = 0
    ) -> list[bool]:
        """Record the same step for each claim."""
        return transfers.record_transfers(
            self.database, [(claim.run.key, claim.lease, step) for claim in claims], at(seconds)
        )

    def begun(self, *run_ids: int, seconds: float = 0, lease: float = 60) -> Done:
        """Track runs, and let a transfer take each as soon as it has its URL."""
        self.submit(*run_ids, seconds=seconds)
        return self.answer(self.claim_due(seconds), seconds=seconds, lease=lease)

    def answer(
        self, batches: Sequence[polling.ClaimedBatch], *, seconds: float = 0, lease: float = 60
    ) -> Done:
        """Give each run of these batches a URL, which a transfer takes at once."""
        judged = [
            (run.key, one.lease, url_received(run.key.run_id))
            for one in batches
            for run in one.runs
        ]
        leases = {one: self.owner.new_lease() for one, _, _ in judged}
        begun = polling.Begun(leases, at(seconds + lease))
        return self.turn(Turn(judged=judged, begun=begun), seconds)

    def turn(self, turn: Turn, seconds: float = 0) -> Done:
        """Have all of this done in one transaction."""
        return take_turn(self.database, turn, at(seconds))

    def due(self, seconds: float = 0, *, most: int = 1000, soon: float = 0) -> polling.Due:
        """Return the claim of runs to ask for, as `claim_due` makes it."""
        types, moment, until = [TYPE, OTHER_TYPE], at(seconds), at(seconds + 60)
        return polling.Due(self.owner, types, polling.Wanted(most), moment, moment, soon, until)

    def done(self, *run_ids: int, seconds: float = 0, size: int = 1000) -> None:
        """Track runs and save each."""
        for claim in self.downloading(*run_ids, seconds=seconds):
            step = published(claim.run.key.run_id, size=size)
            assert self.end([claim], step, seconds) == [True]

    def failed(self, *run_ids: int, seconds: float = 0, message: str = "Out of credit") -> None:
        """Track runs and let each fail at the provider."""
        self.submit(*run_ids, seconds=seconds)
        self.poll(*run_ids, step=PollFailed("provider_failed", message, "ERROR"), seconds=seconds)

    def cancelled(self, *run_ids: int, seconds: float = 0) -> None:
        """Track runs and cancel each."""
        self.submit(*run_ids, seconds=seconds)
        control.cancel(self.database, [key(run_id) for run_id in run_ids], at(seconds))

    def one_of_each_state(self) -> None:
        """Make runs 1 to 6: pending, ready, downloading, done, failed, cancelled."""
        self.done(4)
        self.failed(5)
        self.cancelled(6)
        self.downloading(3)
        self.ready(2)
        self.submit(1)

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Query the database as a person does."""
        with self.database.read() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql, parameters)]

    def execute(self, sql: str, *parameters: object) -> None:
        """Change the database as a person with a shell could."""
        with self.database.write() as connection:
            connection.exec_driver_sql(sql, parameters)

    def row(self, run_id: int, run_type: str = TYPE) -> dict[str, Any]:
        """Return every column of one run."""
        with self.database.read() as connection:
            found = connection.exec_driver_sql(
                "SELECT * FROM runs WHERE run_type = ? AND run_id = ?", (run_type, run_id)
            )
            return dict(found.mappings().one())

    def states(self) -> dict[int, str]:
        """Return the state of each run."""
        return dict(self.query("SELECT run_id, state FROM runs"))

    def reasons(self, run_id: int) -> list[str]:
        """Return the reasons of a run's transitions, oldest first."""
        sql = "SELECT reason FROM run_events WHERE run_id = ? ORDER BY event_id"
        return [reason for (reason,) in self.query(sql, run_id)]


PUT_BACK = PutBack(START, "interrupted")
