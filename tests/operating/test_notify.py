"""What systemd is told by the daemon, over a real socket: sd_notify(3) and its watchdog."""

from __future__ import annotations

import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import psutil
import pytest
from children import Child
from harness import wait_until
from operating.listening import Told, listening
from structlog.testing import capture_logs

from downloader.observe.notify import Notifier, status_line
from downloader.observe.progress import Snapshot
from downloader.supervision import give_signs_of_life

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Program, StartSimulator


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    """Listen as a service manager does."""
    with listening(tmp_path) as found:
        yield found


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_life(
    program: Program, start_simulator: StartSimulator, tmp_path: Path, *, abstract: bool
) -> None:
    """A daemon tells that it is ready, how it stands, and that it is about to end."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    with listening(tmp_path, abstract=abstract) as told:
        program.env["NOTIFY_SOCKET"] = told.address
        with program.start("run") as process:
            wait_until(lambda: bool(told.values("READY")), process)
            saved = "3 saved since the start, 0 unfinished, 0 transferring"
            wait_until(lambda: saved in told.values("STATUS"), process)
            assert told.order() == ["READY"]
            process.terminate()
            _, err = process.communicate()
        assert process.returncode == 0, err
        assert told.order() == ["READY", "STOPPING"]
        assert told.values("STATUS")[-1] == "ending (SIGTERM), 0 transferring"
        assert told.times("WATCHDOG") == []  # nobody has asked for it
    assert "manager." not in err


def test_ready_comes_after_the_database(
    program: Program, start_simulator: StartSimulator, told: Told
) -> None:
    """A daemon that is held up while it makes its database is not ready before it goes on."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "NOTIFY_SOCKET": told.address,
        "DOWNLOADER_FAILPOINTS": "migrate.applied=stop",
    }
    with program.start("run") as process:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, process)
        assert told.messages == []
        assert not program.output.exists()
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: bool(told.values("READY")), process)
        assert program.query("SELECT count(*) FROM runs") == [(0,)]
        assert (program.output / ".partial").is_dir()
        process.terminate()
        process.communicate()


def test_never_ready_without_a_folder(
    program: Program, start_simulator: StartSimulator, told: Told
) -> None:
    """A daemon that cannot write to its output folder ends with 2 and was never ready."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "NOTIFY_SOCKET": told.address,
    }
    program.output.write_text("in the way")
    done = program("run")
    assert done.returncode == 2
    assert "READY" not in told.order()


def test_the_watchdog_is_fed(program: Program, start_simulator: StartSimulator, told: Told) -> None:
    """Signs of life come twice as often as they are asked for, from the process that is meant."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "NOTIFY_SOCKET": told.address,
        "WATCHDOG_USEC": "600000",
    }
    meant = ["sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *program.command("run")]
    with Child(meant, env=program.environment(), stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(told.times("WATCHDOG")) >= 12, process)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 0, err
    times = told.times("WATCHDOG")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert 0.25 < statistics.median(gaps) < 0.6


def test_a_watchdog_for_another(
    program: Program, start_simulator: StartSimulator, told: Told
) -> None:
    """Signs of life that another process is asked for are not given."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "NOTIFY_SOCKET": told.address,
        "WATCHDOG_USEC": "1000",
        "WATCHDOG_PID": "1",
    }
    program.submit([1])
    with program.start("run") as process:
        wait_until(lambda: any(one.startswith("1 saved") for one in told.values("STATUS")), process)
        process.terminate()
        process.communicate()
    assert told.times("WATCHDOG") == []


def test_a_hung_loop_gives_no_sign(
    program: Program, start_simulator: StartSimulator, told: Told
) -> None:
    """An event loop that hangs is silent though its process lives, and dies as systemd ends it."""
    slow = {"runs": [1], "where": "storage", "fault": {"kind": "stall"}, "times": 1}
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator(rules=[slow]).api_url,
        "NOTIFY_SOCKET": told.address,
        "WATCHDOG_USEC": "200000",
        "DOWNLOADER_FAILPOINTS": "leases.extended=hang",
        "DOWNLOADER_LEASE": "2s",  # what it had claimed is soon another's
    }
    with program.start("run") as process:
        wait_until(lambda: len(told.times("WATCHDOG")) >= 3, process)
        program.submit(range(1, 4))
        wait_until(lambda: time.monotonic() - told.times("WATCHDOG")[-1] > 2, process)
        process.terminate()  # in vain: nobody is there to hear it
        silent = len(told.messages)
        wait_until(lambda: time.monotonic() - told.times("WATCHDOG")[-1] > 3, process)
        assert len(told.messages) == silent
        process.send_signal(signal.SIGABRT)  # WatchdogSignal= of systemd.service(5)
        process.communicate()
    assert process.returncode == -signal.SIGABRT
    del program.env["DOWNLOADER_FAILPOINTS"]
    assert program("run", "--drain").returncode == 0
    assert program.query("SELECT count(*) FROM runs WHERE state = 'done'") == [(3,)]


def test_work_that_stands_still_gives_no_sign(tmp_path: Path) -> None:
    """A loop that goes round while the workers take no turn feeds no watchdog until they do."""
    turned_at = [time.monotonic()]

    async def live(told: Told, notifier: Notifier) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_signs_of_life, notifier, lambda: turned_at[0], 1.0)
            await anyio.to_thread.run_sync(
                wait_until,
                lambda: time.monotonic() - ([*turned_at, *told.times("WATCHDOG")])[-1] > 1,
            )
            stopped_after = told.times("WATCHDOG")[-1] - turned_at[0]
            assert 0.5 < stopped_after < 1.5
            turned_at[0] = time.monotonic()
            fed = len(told.messages)
            await anyio.to_thread.run_sync(wait_until, lambda: len(told.messages) >= fed + 3)
            tasks.cancel_scope.cancel()

    with (
        listening(tmp_path) as told,
        closing(Notifier(told.address, 0.1)) as notifier,
        capture_logs() as logged,
    ):
        anyio.run(live, told, notifier)
    assert [line["event"] for line in logged] == ["service.stuck"]


def test_blocked_is_told_with_its_reason(
    program: Program, start_simulator: StartSimulator, told: Told
) -> None:
    """The status says that the service is blocked, and why, without the key."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator(api_key="another").api_url,
        "NOTIFY_SOCKET": told.address,
    }
    program.submit(range(1, 4))
    with program.start("run") as process:
        wait_until(lambda: any("key_refused" in one for one in told.values("STATUS")), process)
        process.terminate()
        process.communicate()
    [status] = {one for one in told.values("STATUS") if "key_refused" in one}
    assert status == (
        "blocked (key_refused): The service refused the API key (401). "
        "0 saved since the start, 3 unfinished, 0 transferring"
    )
    assert "test-key" not in str(told.messages)


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody-is-there", "vsock:2:1234"])
def test_nobody_listens(program: Program, start_simulator: StartSimulator, address: str) -> None:
    """A manager that cannot be reached is told of once, and ends nothing."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "100000",
    }
    program.submit(range(1, 4))
    done = program("run", "--drain")
    assert done.returncode == 0
    assert len(re.findall(r"manager\.", done.stderr)) == 1


def test_one_line_is_one_line(told: Told) -> None:
    """What a status quotes adds no message of its own, and no signature."""
    with closing(Notifier(told.address)) as notifier:
        notifier.status("It said:\nREADY=1\r\nMAINPID=1 of https://s.example/a?sig=5ec2e7")
        notifier.status("It said: READY=1 MAINPID=1 of https://s.example/a?sig=5ec2e7")
        notifier.alive()
        wait_until(lambda: bool(told.times("WATCHDOG")))
    assert told.values("STATUS") == ["It said: READY=1 MAINPID=1 of https://s.example/a?…"]
    assert set(told.values("READY")) == set()


def test_nothing_is_taken_back(told: Told) -> None:
    """Once it is stopping a service is not ready again, whatever is still going on."""
    with closing(Notifier(told.address)) as notifier:
        notifier.ready("a")
        notifier.stopping("b")
        notifier.reloading()
        notifier.ready("c")
        notifier.stopping("d")
        notifier.alive()
        wait_until(lambda: bool(told.times("WATCHDOG")))
    assert told.order() == ["READY", "STOPPING"]
    assert told.values("STATUS") == ["a", "b"]


def test_children_are_not_told(monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    """What the manager has put into the environment is gone for whatever is started later."""
    for name, value in (
        ("NOTIFY_SOCKET", told.address),
        ("WATCHDOG_USEC", "5000000"),
        ("WATCHDOG_PID", str(os.getpid())),
    ):
        monkeypatch.setenv(name, value)
    with closing(Notifier.from_environment(os.environ)) as notifier:
        assert notifier.alive_every_seconds == 2.5
    code = "import os; print(sorted(n for n in os.environ if n.startswith(('NOTIFY', 'WATCHDOG'))))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "[]\n"


@pytest.mark.parametrize(
    ("environment", "on", "every"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": ""}, False, None),
        ({"WATCHDOG_USEC": "1000000"}, False, None),
        ({"NOTIFY_SOCKET": "relative"}, False, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000"}, True, 0.5),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, True, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "0"}, True, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "-5"}, True, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "soon"}, True, None),
        ({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "9" * 5000}, True, None),
    ],
)
def test_what_the_environment_says(
    environment: dict[str, str], *, on: bool, every: float | None
) -> None:
    """What is asked for is read as sd_notify(3) and sd_watchdog_enabled(3) have it."""
    left: dict[str, Any] = {**environment, "OTHER": "1"}
    with closing(Notifier.from_environment(left)) as notifier:
        assert (notifier.is_on, notifier.alive_every_seconds) == (on, every)
    assert left == {"OTHER": "1"}


def test_the_status_line() -> None:
    """The line names failures only where there are any, and a reason where it is blocked."""
    snapshot = Snapshot(
        done=2,
        failed=0,
        unfinished=5,
        transferring=1,
        concurrency=8,
        received_bytes=0,
        remaining_bytes=None,
        blocked=None,
    )
    assert status_line(snapshot) == "2 saved since the start, 5 unfinished, 1 transferring"
