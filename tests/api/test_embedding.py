"""The package inside another program: under asyncio, trio, in threads, cancelled, and quiet."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import structlog
import structlog.testing
import trio
from children import Child
from harness import KEY, wait_until
from terminal import heed_ctrl_c

import downloader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness import StartSimulator

    from downloader.simulator.server import Simulator

BACKENDS = ["asyncio", "trio"]


def fast(simulator: Simulator, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - of Options
    """Return options for a drain from a simulator."""
    return {
        "api_key": KEY,
        "api_url": simulator.api_url,
        "min_poll_seconds": 0.05,
        "max_poll_seconds": 0.2,
        "min_free_bytes": 0,
        **more,
    }


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[downloader.Tracker]:
    """Open a tracker on a new database."""
    with downloader.open(tmp_path / "runs.sqlite3") as opened:
        yield opened


def claims(tracker: downloader.Tracker) -> int:
    """Count the runs that somebody has a claim on."""
    with contextlib.closing(sqlite3.connect(f"file:{tracker.path}?mode=ro", uri=True)) as raw:
        row = raw.execute("SELECT count(*) FROM runs WHERE lease_owner IS NOT NULL").fetchone()
    return int(row[0])


def assert_saved(tracker: downloader.Tracker, simulator: Simulator, run_ids: set[int]) -> None:
    """Assert that just these runs are saved, with the simulator's own bytes."""
    saved = {one.run_id: one for one in tracker.saved()}
    assert set(saved) == run_ids
    for run_id, one in saved.items():
        assert one.location.read_bytes() == simulator.audio(run_id)
        assert one.location.stat().st_size == one.bytes


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_drain_in_an_event_loop(
    tracker: downloader.Tracker, start_simulator: StartSimulator, backend: str
) -> None:
    """Under either event loop a drain saves everything, beside whatever else the program does."""
    simulator = start_simulator()
    tracker.submit(range(1, 13))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await anyio.sleep(0.01)

    async def main() -> downloader.Drained:
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            drained = await downloader.adrain(tracker, **fast(simulator))
            group.cancel_scope.cancel()
        return drained

    drained = anyio.run(main, backend=backend)
    sizes = sum(len(simulator.audio(run_id)) for run_id in range(1, 13))
    assert drained == downloader.Drained(saved=12, failed=0, bytes=sizes, complete=True)
    assert ticks > 1
    assert_saved(tracker, simulator, set(range(1, 13)))


def parts(tracker: downloader.Tracker) -> list[Path]:
    """Return the files of transfers that are not over."""
    return list((tracker.path.parent / "audio/.partial").glob("*"))


def has_saved(tracker: downloader.Tracker, runs: int) -> bool:
    """Return whether so many runs are saved."""
    return tracker.progress().done == runs


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition while tasks run."""
    while not condition():  # noqa: ASYNC110 - it is another thread or process that fulfils it
        await anyio.sleep(0.02)


def under_way(tracker: downloader.Tracker, transfers: int = 3) -> bool:
    """Return whether so many transfers have received most of their file."""
    sizes = [path.stat().st_size for path in parts(tracker)]
    received = sum(size > 1_000_000 for size in sizes)
    return tracker.progress().downloading == received == transfers


def cancel_natively(tracker: downloader.Tracker, options: dict[str, Any]) -> None:
    """Cancel a drain as asyncio does it."""

    async def main() -> None:
        task = asyncio.create_task(downloader.adrain(tracker, **options))
        await until(partial(under_way, tracker))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # somebody in a hurry
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def cancel_by_time_out(tracker: downloader.Tracker, options: dict[str, Any]) -> None:
    """Cancel a drain as asyncio's time-outs do it."""

    async def main() -> None:
        async with asyncio.timeout(None) as limit:
            async with asyncio.TaskGroup() as group:
                group.create_task(downloader.adrain(tracker, **options))
                await until(partial(under_way, tracker))
                limit.reschedule(0)
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def cancel_in_trio(tracker: downloader.Tracker, options: dict[str, Any]) -> None:
    """Cancel a drain as trio does it."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(downloader.adrain, tracker, **options))
            await until(partial(under_way, tracker))
            nursery.cancel_scope.cancel()

    trio.run(main)


STALLED = {
    "runs": "1-9",
    "where": "storage",
    "fault": {"kind": "stall", "at": "body", "after": 1_500_000},
}


@pytest.mark.parametrize("engine", ["httpx", "curl"])
@pytest.mark.parametrize("cancel", [cancel_natively, cancel_by_time_out, cancel_in_trio])
def test_cancelled_in_the_middle(
    tracker: downloader.Tracker,
    start_simulator: StartSimulator,
    cancel: Callable[[downloader.Tracker, dict[str, Any]], None],
    engine: str,
) -> None:
    """A cancelled drain gives its runs back and keeps their parts; the next goes on from them."""
    simulator = start_simulator(min_size=2_000_000, max_size=2_000_000, rules=[STALLED])
    tracker.submit([1, 2, 3])
    cancel(tracker, fast(simulator, engine=engine))
    assert claims(tracker) == 0
    assert tracker.progress().ready == 3
    kept = parts(tracker)
    assert len(kept) == 3
    assert all(path.stat().st_size > 1_000_000 for path in kept)
    simulator.set_rules([])
    simulator.reset_stats()
    drained = downloader.drain(tracker, **fast(simulator, engine=engine))
    assert drained.complete
    assert_saved(tracker, simulator, {1, 2, 3})
    asked = simulator.stats()["storage"]["by_run"]
    assert asked == {str(run_id): {"full": 0, "ranged": 1} for run_id in (1, 2, 3)}
    with contextlib.closing(sqlite3.connect(tracker.path)) as raw:
        assert raw.execute("SELECT DISTINCT attempts FROM runs").fetchall() == [(1,)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_while_asking(
    tracker: downloader.Tracker, start_simulator: StartSimulator, backend: str
) -> None:
    """A drain that is cancelled while the API has not answered gives back what it asked for."""
    simulator = start_simulator(
        rules=[{"runs": "1-9", "where": "api", "fault": {"kind": "slow", "seconds": 2.0}}]
    )
    tracker.submit([1, 2, 3])

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(downloader.adrain, tracker, **fast(simulator)))
            await until(partial(claims, tracker))
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert claims(tracker) == 0
    assert tracker.progress().pending == 3


def test_run_until_cancelled(tracker: downloader.Tracker, start_simulator: StartSimulator) -> None:
    """`arun` saves what is submitted while it runs, and ends only when it is cancelled."""
    simulator = start_simulator()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(downloader.arun, tracker, **fast(simulator)))
            for run_id in (1, 2):
                await anyio.to_thread.run_sync(tracker.submit, [run_id])
                await until(partial(has_saved, tracker, run_id))
            group.cancel_scope.cancel()

    anyio.run(main)
    assert_saved(tracker, simulator, {1, 2})


def test_run_before_there_is_anything(tmp_path: Path, start_simulator: StartSimulator) -> None:
    """`arun` may begin before its database is there, and saves what is then submitted to it."""
    simulator, path = start_simulator(), tmp_path / "runs.sqlite3"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(downloader.arun, path, **fast(simulator)))
            await until(path.exists)
            with downloader.open(path) as tracker:
                tracker.submit([1])
                await until(partial(has_saved, tracker, 1))
            group.cancel_scope.cancel()

    anyio.run(main)


def test_run_waits_while_blocked(
    tracker: downloader.Tracker, start_simulator: StartSimulator
) -> None:
    """Where the key is refused `arun` goes on, and the progress says so."""
    simulator = start_simulator(api_key="another")
    tracker.submit([1])

    async def main() -> None:
        saving = asyncio.create_task(downloader.arun(tracker, **fast(simulator)))
        await until(lambda: tracker.progress().blocked)
        assert "refused" in (tracker.progress().blocked or "")
        assert not saving.done()
        saving.cancel()
        await asyncio.wait([saving])
        assert saving.cancelled()

    asyncio.run(main())


def test_two_drains_in_one_process(
    tracker: downloader.Tracker, start_simulator: StartSimulator
) -> None:
    """Two drains in one process, in two threads of which none is the main one, share the runs."""
    simulator = start_simulator(finish_after=0.3)
    run_ids = set(range(1, 41))
    tracker.submit(run_ids)
    with ThreadPoolExecutor(2) as threads:
        drains = [
            threads.submit(downloader.drain, database, **fast(simulator))
            for database in (tracker, tracker.path)
        ]
        ended = [one.result() for one in drains]
    assert sum(one.saved for one in ended) == 40
    assert all(one.complete for one in ended)
    assert_saved(tracker, simulator, run_ids)
    asked = simulator.stats()["storage"]["by_run"]
    assert asked == {str(run_id): {"full": 1, "ranged": 0} for run_id in run_ids}


def test_two_drains_in_one_event_loop(
    tracker: downloader.Tracker, start_simulator: StartSimulator
) -> None:
    """Two drains in one event loop share the runs as well."""
    simulator = start_simulator(finish_after=0.3)
    tracker.submit(range(1, 41))

    async def main() -> list[downloader.Drained]:
        both = (downloader.adrain(one, **fast(simulator)) for one in (tracker, tracker.path))
        return list(await asyncio.gather(*both))

    assert sum(one.saved for one in asyncio.run(main())) == 40
    assert_saved(tracker, simulator, set(range(1, 41)))


COUNT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("SELECT count(*) FROM runs").fetchone())
connection.close()
"""


def test_locks_outlive_a_tracker(tmp_path: Path) -> None:
    """Opening a database again in one process takes no lock of SQLite's away from the first.

    Another process would else take the database for unused, and remove the log with what is in it.
    """
    path = tmp_path / "runs.sqlite3"
    with downloader.open(path) as first:
        first.submit([1])
        downloader.open(path).close()
        for known in (1, 2):
            found = subprocess.run(
                [sys.executable, "-c", COUNT, path], capture_output=True, text=True, check=True
            )
            assert found.stdout == f"{known}\n"
            assert path.with_name("runs.sqlite3-wal").exists()
            first.submit([known + 1])
    assert not path.with_name("runs.sqlite3-wal").exists()


def test_no_surprises(
    tracker: downloader.Tracker,
    start_simulator: StartSimulator,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A drain changes nothing of the process, and prints nothing."""

    async def handlers() -> list[Any]:
        return [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]

    def state() -> list[object]:
        umask = os.umask(0o022)
        os.umask(umask)
        root = logging.getLogger()
        return [
            umask,
            resource.getrlimit(resource.RLIMIT_NOFILE),
            gc.get_threshold(),
            gc.get_freeze_count(),
            *(signal.getsignal(one) for one in signal.valid_signals()),
            list(root.handlers),
            root.level,
        ]

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fault = {"kind": "status", "status": 500}
    simulator = start_simulator(
        rules=[{"runs": [2], "where": "storage", "fault": fault, "times": 1}], finish_after=0.2
    )
    tracker.submit([1, 2, 3])
    seen: list[list[Any]] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            before = await handlers()
            group.start_soon(
                partial(downloader.adrain, tracker, **fast(simulator, concurrency=256))
            )
            while tracker.progress().unfinished:
                seen.append(await handlers())
                await anyio.sleep(0.02)
            assert seen == [before] * len(seen)

    resource.setrlimit(resource.RLIMIT_NOFILE, (900, limits[1]))
    try:
        before = state()
        anyio.run(main)
        assert state() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert seen
    assert capfd.readouterr() == ("", "")


QUIET = """
import logging, sys
import downloader
if len(sys.argv) > 3:
    logging.basicConfig(level=sys.argv[3], stream=sys.stdout)
with downloader.open("runs.sqlite3") as tracker:
    tracker.submit([1, 2])
    downloader.drain(
        tracker, api_key=sys.argv[1], api_url=sys.argv[2], engine="httpx",
        min_poll_seconds=0.05, max_poll_seconds=0.2,
    )
"""


@pytest.mark.parametrize("level", [None, "INFO", "DEBUG"])
def test_logs(tmp_path: Path, start_simulator: StartSimulator, level: str | None) -> None:
    """Nothing is printed unless the program listens; then it is told of runs, and of no URL."""
    fault = {"kind": "status", "status": 500}
    simulator = start_simulator(
        rules=[{"runs": [2], "where": "storage", "fault": fault, "times": 1}]
    )
    said = subprocess.run(
        [sys.executable, "-c", QUIET, KEY, simulator.api_url, *filter(None, [level])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stderr == ""
    if level is None:
        assert said.stdout == ""
        return
    assert "INFO:downloader.worker:run.done run_id=1 run_type=" in said.stdout
    failed = r"INFO:downloader\.worker:run\.(attempt_failed|held_up) run_id=2 run_type="
    assert re.search(failed, said.stdout)
    assert "Signature" not in said.stdout
    assert KEY not in said.stdout
    assert "X-Amz" not in said.stdout


def test_logs_of_the_programs_own_requests(
    start_simulator: StartSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What httpx logs of the program's own requests is logged as ever."""
    import_module("downloader.http")  # it puts a filter there
    simulator = start_simulator()
    with caplog.at_level(logging.INFO):
        httpx.get(simulator.api_url + "/nothing")
    assert "/nothing" in caplog.text


def test_logs_by_structlog(tracker: downloader.Tracker, start_simulator: StartSimulator) -> None:
    """Where the program has configured structlog, events go there."""
    simulator = start_simulator()
    tracker.submit([1])
    with structlog.testing.capture_logs() as lines:
        downloader.drain(tracker, **fast(simulator))
    assert [line["run_id"] for line in lines if line["event"] == "run.done"] == [1]


def test_interrupted_by_a_person(tmp_path: Path, start_simulator: StartSimulator) -> None:
    """Ctrl-C ends a blocking drain in peace, and reaches the script as KeyboardInterrupt."""
    simulator = start_simulator(min_size=2_000_000, max_size=2_000_000, rules=[STALLED])
    script = (
        "import downloader, sys\n"
        "try:\n"
        "    downloader.drain('runs.sqlite3', api_key=sys.argv[1], api_url=sys.argv[2])\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    with downloader.open(tmp_path / "runs.sqlite3") as tracker:
        tracker.submit([1, 2])
        with Child(
            [sys.executable, "-c", script, KEY, simulator.api_url],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        ) as process:
            wait_until(partial(under_way, tracker, 2), process)
            process.send_signal(signal.SIGINT)
            assert process.communicate() == ("interrupted\n", "")
        assert claims(tracker) == 0
        assert len(parts(tracker)) == 2


def test_blocked(tracker: downloader.Tracker, start_simulator: StartSimulator) -> None:
    """A key that is refused is an error with a reason, and shows in the progress."""
    simulator = start_simulator(api_key="another")
    tracker.submit([1, 2])
    with pytest.raises(downloader.BlockedError, match="refused") as raised:
        downloader.drain(tracker, **fast(simulator))
    assert raised.value.reason == "key_refused"
    assert "refused" in (tracker.progress().blocked or "")
    assert KEY not in str(raised.value)


def test_stopped_by_time(tracker: downloader.Tracker, start_simulator: StartSimulator) -> None:
    """A drain that its own limit ends says that it is not complete."""
    simulator = start_simulator(finish_after=600)
    tracker.submit([1, 2])
    drained = downloader.drain(tracker, **fast(simulator, max_duration_seconds=0.3))
    assert drained == downloader.Drained(saved=0, failed=0, bytes=0, complete=False)


def test_a_blocking_drain_in_an_event_loop(tracker: downloader.Tracker) -> None:
    """`drain` in an event loop is refused, with what to do instead."""

    async def main() -> None:
        downloader.drain(tracker, api_key=KEY)

    for backend in BACKENDS:
        with pytest.raises(downloader.ConfigurationError, match=r"await downloader\.adrain"):
            anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_come_as_they_are(tmp_path: Path, backend: str) -> None:
    """What goes wrong in a drain is raised as it is documented, in no group of exceptions."""
    (tmp_path / "file").write_text("no folder, and no database. " * 50)
    downloader.open(tmp_path / "runs.sqlite3").close()
    for arguments, expected in (
        ({"output": tmp_path / "file/audio"}, downloader.ConfigurationError),
        ({"api_url": "http://[::1"}, downloader.ConfigurationError),
        ({}, downloader.StoreError),
    ):
        path = tmp_path / ("runs.sqlite3" if arguments else "file")
        options: dict[str, Any] = {"api_key": KEY, "min_free_bytes": 0, **arguments}
        with pytest.raises(expected):
            anyio.run(partial(downloader.adrain, path, **options), backend=backend)
