"""How many transfers, bytes and requests: what the service keeps to, and what it finds out."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from harness import KEY

from downloader import concurrency
from downloader.concurrency import START, AdaptiveConcurrency
from downloader.rules.memory import Memory
from downloader.rules.rates import CATCH_UP_SECONDS
from downloader.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

    from harness import MakeService, StartSimulator


@pytest.fixture
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have memory enough, whatever else runs on it."""
    monkeypatch.setattr(concurrency, "read_memory", lambda: None)


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect every line of the log, whatever a command has set the level to before."""
    kept = structlog.get_config()
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**kept)


def test_max_rate(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """With --max-rate all files are saved, and no faster than that; no transfer is blamed."""
    simulator = start_simulator(min_size=100_000, max_size=300_000)
    service = make_service(simulator)
    service.submit(*range(1, 9))
    began = time.monotonic()
    result = service.run(max_bytes_per_second=400_000, stall_seconds=1.0)
    seconds = time.monotonic() - began
    service.assert_saved(simulator, *range(1, 9))
    assert result.tally.bytes <= 400_000 * (seconds + CATCH_UP_SECONDS)
    assert service.rows("attempts, refreshes") == [(1, 0)] * 8


def test_max_rate_outlasts_the_lease(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A transfer that a low --max-rate draws out beyond its lease keeps it by its heartbeat."""
    simulator = start_simulator(min_size=120_000, max_size=120_000)
    service = make_service(simulator)
    service.submit(1, 2)
    result = service.run(max_bytes_per_second=60_000, lease_seconds=1.5)
    assert (result.tally.done, result.tally.retried) == (2, 0)
    service.assert_saved(simulator, 1, 2)
    for run_id in (1, 2):
        assert service.ways(run_id).count("downloading") == 1
        assert service.reasons(run_id)[-1] == "published"


def test_max_rate_ends_in_peace(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A transfer that waits for its share of --max-rate is cut off at once, and spends nothing."""
    simulator = start_simulator(min_size=300_000, max_size=300_000)
    service = make_service(simulator)
    service.submit(1, 2)
    result = service.run(
        max_bytes_per_second=1000, max_duration_seconds=1.0, grace_seconds=0.0, stall_seconds=60
    )
    assert (result.tally.done, result.work_left) == (0, True)
    assert service.rows("state, attempts, lease_owner") == [("ready", 0, None)] * 2


def test_api_rate(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """With --api-rate all that is asked keeps to it, the parts of a refused batch included."""
    simulator = start_simulator(
        rules=[{"runs": "3", "where": "api", "fault": {"kind": "status", "status": 422}}]
    )
    service = make_service(simulator)
    service.submit(*range(1, 21))
    began = time.monotonic()
    result = service.run(api_requests_per_second=4.0)
    seconds = time.monotonic() - began
    assert (result.tally.done, result.tally.failed) == (19, 1)
    asked = simulator.stats()["api"]["requests"]
    assert 7 <= asked <= 4.0 * (seconds + CATCH_UP_SECONDS) + 1


@pytest.mark.usefixtures("enough_memory")
def test_it_grows_where_the_storage_answers_slowly(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """From the start on more are begun as transfers end, up to --concurrency and never beyond."""
    simulator = start_simulator(storage_latency=0.3)
    service = make_service(simulator)
    service.submit(*range(1, 121))
    assert service.run(concurrency=20).tally.done == 120
    assert START < simulator.stats()["storage"]["highest_in_flight"] <= 20


@pytest.mark.parametrize("most", [1, 3])
def test_never_more_than_concurrency(
    start_simulator: StartSimulator, make_service: MakeService, most: int
) -> None:
    """Where the maximum is below the start it is what there is."""
    simulator = start_simulator(storage_latency=0.05)
    service = make_service(simulator)
    service.submit(*range(1, 21))
    assert service.run(concurrency=most).tally.done == 20
    assert simulator.stats()["storage"]["highest_in_flight"] == most


@pytest.mark.usefixtures("enough_memory")
def test_a_busy_storage_is_asked_for_less(
    start_simulator: StartSimulator,
    make_service: MakeService,
    logged: list[MutableMapping[str, Any]],
) -> None:
    """Where the storage answers 503 there are soon fewer transfers, and a line says so."""
    simulator = start_simulator(
        storage_latency=0.02,
        rules=[
            {
                "runs": "*",
                "where": "storage",
                "fault": {"kind": "status", "status": 503},
                "times": 1,
            }
        ],
    )
    service = make_service(simulator)
    service.submit(*range(1, 41))
    assert service.run().tally.done == 40
    lowered = [line for line in logged if line["event"] == "concurrency.lowered"]
    assert lowered
    assert all(line["why"] == "storage_busy" and line["limit"] < line["was"] for line in lowered)


def test_low_memory_is_told(
    start_simulator: StartSimulator,
    make_service: MakeService,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[MutableMapping[str, Any]],
) -> None:
    """Where memory is low there are fewer transfers, a line says so, and all files are saved."""
    low = Memory(10**9, 10**6, 10**8, 0.0)
    monkeypatch.setattr(concurrency, "read_memory", lambda: low)
    simulator = start_simulator(storage_latency=0.1)
    service = make_service(simulator)
    service.submit(*range(1, 61))
    assert service.run().tally.done == 60
    [first, *_] = [line for line in logged if line["event"] == "concurrency.lowered"]
    assert first["why"] == "memory_low"


@pytest.mark.parametrize(
    ("code", "lowers"),
    [("storage_busy", True), ("network", True), ("stalled", True), ("missing", False)],
)
def test_failures_that_mean_too_many(tmp_path: Path, code: str, lowers: bool) -> None:  # noqa: FBT001 - a table's column
    """Refusals and breaks lower the number, once for all transfers that had begun before."""
    adaptive = AdaptiveConcurrency(Settings(output=tmp_path, api_key=KEY))
    began_at = time.monotonic()
    for _ in range(10):
        adaptive.failed(code, began_at, again=False)
    assert adaptive.look(8, 0) == (4 if lowers else 8)
    for _ in range(10):
        adaptive.failed(code, began_at, again=False)
    pause = threading.Event()
    while time.monotonic() < began_at + 0.6:  # the rule takes what comes sooner for the same
        pause.wait(0.1)
    assert adaptive.look(4, 0) == (4 if lowers else 8)
    for _ in range(10):
        adaptive.failed(code, time.monotonic(), again=False)
    assert adaptive.look(4, 0) == (2 if lowers else 8)


def test_runs_that_break_off_again_and_again(tmp_path: Path) -> None:
    """Bad runs that are tried anew lower no number: it is not that that is wrong."""
    adaptive = AdaptiveConcurrency(Settings(output=tmp_path, api_key=KEY))
    for _ in range(10):
        adaptive.failed("storage_error", time.monotonic(), again=True)
    assert adaptive.look(8, 0) == 8


def test_a_low_rate_begins_with_few(tmp_path: Path) -> None:
    """With --max-rate no more transfers begin than can each have a share worth the name."""
    settings = Settings(output=tmp_path, api_key=KEY)
    rates = (None, 1000, 250_000, 10_000_000)
    limits = [
        AdaptiveConcurrency(replace(settings, max_bytes_per_second=rate)).limit for rate in rates
    ]
    assert limits == [8, 1, 2, 8]
