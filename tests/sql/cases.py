"""A database in which every question has something to find, made by the store as runs make it.

It is looked at on 2026-03-01 at 20:00, eight hours after the store tests' start.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from store.driving import OTHER_TYPE, TYPE, Driver, at, key, signed_url

from downloader.rules.states import State
from downloader.rules.steps import (
    NewUrl,
    PollFailed,
    PollLater,
    Published,
    PutBack,
    TransferFailed,
    TryAgain,
    UrlReceived,
)
from downloader.store import blocks, control, hook_events, leases, verification
from downloader.store.leases import Owner
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from datetime import datetime

    from downloader.rules.steps import TransferStep
    from downloader.store.database import Database

HOUR: Final = 3600.0
LOOKED_AT: Final = 8 * HOUR
NOW: Final = to_text(at(LOOKED_AT))
_FUNCTIONS_OF_TIME: Final = ("date", "time", "datetime", "julianday", "strftime")


def look_at(connection: sqlite3.Connection, now: str = NOW) -> None:
    """Have SQL's `'now'` mean a certain moment; what is done with it stays SQLite's own."""
    plain = sqlite3.connect(":memory:")

    def fix(name: str) -> None:
        def function(*arguments: Any) -> Any:  # noqa: ANN401 - SQL's own values
            given = [now if argument == "now" else argument for argument in arguments]
            marks = ", ".join("?" * len(given))
            return plain.execute(f"SELECT {name}({marks})", given).fetchone()[0]

        connection.create_function(name, -1, function, deterministic=True)

    for name in _FUNCTIONS_OF_TIME:
        fix(name)


class Cases:
    """Runs in every state and trouble, by their ids."""

    def __init__(self, database: Database) -> None:
        self.driver = Driver(database, _owner("alpha:11:0a0b0c0d"))
        self.other = _owner("beta:22:1a2b3c4d")

    def make(self) -> None:
        """Make all of it; what is to be claimed alone comes before what would be claimed too."""
        hook_events.HookQueue(self.driver.database, [State.DONE]).begin()
        self._days_before()
        self._a_long_way()
        self._failed_and_cancelled()
        self._put_back()
        self._cut_off()
        self._last_hour()
        self._under_way()
        self._ready()
        self._pending()
        self._blocked()
        self._hooks()

    def saved(
        self, run_id: int, begun: float, ended: float, size: int, run_type: str = TYPE
    ) -> None:
        """Submit a run ten seconds before its transfer begins, and save it."""
        self.driver.ready(run_id, seconds=begun - 10, run_type=run_type)
        self._transfer(run_id, begun, ended, _published(run_id, size))

    def _transfer(self, run_id: int, begun: float, ended: float, step: TransferStep) -> None:
        [claim] = self.driver.claim_ready(begun).claimed
        assert claim.run.key.run_id == run_id
        assert self.driver.end([claim], step, ended) == [True]

    def _days_before(self) -> None:
        self.saved(100, -50 * HOUR, -50 * HOUR + 20, 7_000_000)
        self.driver.failed(201, seconds=-20 * HOUR)
        self.saved(101, -20 * HOUR, -20 * HOUR + 20, 5_000_000)

    def _a_long_way(self) -> None:
        driver = self.driver
        driver.ready(123)
        reset = TryAgain(at(120), "network", "The transfer broke off: nothing can be received.", 1)
        self._transfer(123, 60, 90, reset)
        expired = "The URL expired before it was used."
        self._transfer(123, 120, 130, NewUrl(at(130), "url_expired", expired, 1, 1))
        driver.poll(123, step=UrlReceived(signed_url(123), at(4000), "SUCCESS"), seconds=140)
        self._transfer(123, 150, 160.5, _published(123, 2_000_000, "flac"))

    def _failed_and_cancelled(self) -> None:
        driver = self.driver
        driver.ready(202, seconds=600)
        taken = "/audio/202.wav exists and is not this run's: move it away, then retry the run."
        self._transfer(202, 610, 700, TransferFailed("name_taken", taken, 1, 0))
        driver.failed(203, seconds=900, message="Out of luck")
        driver.cancelled(204, seconds=1000)

    def _put_back(self) -> None:
        driver, database = self.driver, self.driver.database
        driver.failed(205, seconds=1000)
        assert control.retry(database, [key(205)], at(1100)).changed == [key(205)]
        driver.poll(205, step=UrlReceived(signed_url(205), at(5000), "SUCCESS"), seconds=1110)
        self._transfer(205, 1120, 1200, _published(205, 900))
        self.saved(206, 1300, 1320, 800)
        [saved] = [run for run in verification.saved_runs(database) if run.key == key(206)]
        lost = [(saved, "damaged")]
        verification.put_back(database, lost, at(1400), lambda _: "790 bytes instead of 800")
        driver.poll(206, step=UrlReceived(signed_url(206), at(5000), "SUCCESS"), seconds=1410)
        self._transfer(206, 1420, 1500, _published(206, 800))
        driver.ready(207, seconds=1600)
        assert verification.adopt(database, key(207), _published(207, 700), at(1610))

    def _cut_off(self) -> None:
        driver = self.driver
        driver.ready(210, seconds=1700)
        assert len(driver.claim_ready(1700).claimed) == 1
        assert leases.rescue(driver.database, at(1800)) == [key(210)]
        for begun, reason in (
            (1810, "interrupted"),
            (1830, "disk_full"),
            (1850, "output_unusable"),
        ):
            self._transfer(210, begun, begun + 5, PutBack(at(begun + 5), reason))
        self._transfer(210, 1870, 1900, _published(210, 600))
        self.saved(301, 2000, 2030, 3_000_000, OTHER_TYPE)

    def _last_hour(self) -> None:
        for run_id, minutes, size in ((401, 30, 100), (402, 40, 200), (403, 50, 300)):
            ended = 7 * HOUR + minutes * 60
            self.saved(run_id, ended - 40, ended, size)
        self.driver.submit(404, seconds=7 * HOUR)
        refused = PollFailed("bad_run", "The service refused the run (422).")
        self.driver.poll(404, step=refused, seconds=7 * HOUR + 45 * 60)

    def _under_way(self) -> None:
        driver = self.driver
        driver.ready(508, seconds=_before(minutes=5))
        assert len(driver.claim_ready(_before(minutes=2), owner=self.other).claimed) == 1
        driver.ready(507, seconds=_before(minutes=1))
        assert len(driver.claim_ready(_before(seconds=20)).claimed) == 1
        driver.submit(509, seconds=_before(seconds=50))
        [batch] = driver.claim_due(_before(seconds=30))
        assert batch.batch.run_ids == (509,)

    def _ready(self) -> None:
        driver = self.driver
        driver.ready(505, seconds=_before(minutes=30), expires=LOOKED_AT + 1800)
        stalled = TryAgain(_later(60), "stalled", "The storage sent no byte for 30 seconds.", 1)
        self._transfer(505, _before(minutes=12), _before(minutes=10), stalled)
        driver.ready(506, seconds=_before(minutes=25), expires=LOOKED_AT)
        refused = "The storage refused the URL (HTTP 403), and not because it had expired."
        spent = NewUrl(_later(90), "url_refused", refused, 0, 3)
        self._transfer(506, _before(minutes=24), _before(minutes=20), spent)
        driver.ready(504, seconds=_before(minutes=2), expires=LOOKED_AT + 300)
        driver.ready(511, seconds=_before(minutes=20), expires=None)
        driver.ready(512, seconds=_before(minutes=10), expires=LOOKED_AT - 30)

    def _pending(self) -> None:
        driver = self.driver
        driver.submit(503, seconds=_before(minutes=90))
        asked = "The service asks to come back later (429)."
        busy = PollLater(_later(30), error_code="throttled", error_message=asked)
        driver.poll(503, step=busy, seconds=_before(minutes=1))
        driver.submit(502, seconds=_before(minutes=180))
        driver.poll(502, step=PollLater(_later(120), "PENDING"), seconds=_before(minutes=5))
        driver.submit(501, seconds=_before(minutes=120))
        driver.submit(510, seconds=_before(seconds=25))

    def _blocked(self) -> None:
        database = self.driver.database
        full = "The disk of /audio has 400 MB left, and 500 MB are to stay free (--min-free)."
        for minutes in (30, 25):
            moment = at(_before(minutes=minutes))
            blocks.block(database, "disk", "disk_full", full, now=moment, pause_seconds=_short)
        refused = "The service refused the API key (401)."
        moment = at(_before(minutes=1))
        blocks.block(database, "api", "key_refused", refused, now=moment, pause_seconds=_long)

    def _hooks(self) -> None:
        """Have run the hooks of all that was saved in the last day, but of 210 and 403.

        That of 210 was begun, and its process died; 403 is still owed its own.
        """
        queue = hook_events.HookQueue(self.driver.database, [State.DONE])
        assert [one.key.run_id for one in queue.turn([], 10)][6:] == [210, 301, 401, 402]
        ended = [
            (100, "hook_done", "exit 0, 0.250 s"),
            (123, "hook_done", "exit 0, 0.250 s"),
            (205, "hook_timeout", "signal SIGTERM, 60.004 s"),
            (206, "hook_interrupted", "signal SIGKILL, 3.100 s"),
            (207, "hook_failed", "exit 3, 0.017 s"),
            (401, "hook_done", "exit 0, 0.250 s"),
            (402, "hook_failed", "cannot be started: Exec format error"),
        ]
        moment = at(_before(minutes=9))
        events = [hook_events.HookEvent(key(run_id), moment, *how) for run_id, *how in ended]
        events.append(
            hook_events.HookEvent(key(301, OTHER_TYPE), moment, "hook_done", "exit 0, 0.250 s")
        )
        queue.turn(events, 0)


def _owner(name: str) -> Owner:
    owner = Owner()
    owner.name = name
    return owner


def _published(run_id: int, size: int, audio_format: str = "wav") -> Published:
    location = f"/audio/{run_id}.{audio_format}"
    return Published(location, size, f"{run_id:064x}", audio_format, '"etag"')


def _before(*, minutes: float = 0, seconds: float = 0) -> float:
    return LOOKED_AT - minutes * 60 - seconds


def _later(seconds: float) -> datetime:
    return at(LOOKED_AT + seconds)


def _short(probes: int) -> float:
    return 60.0 * probes


def _long(_probes: int) -> float:
    return 300.0
