"""SIGHUP without a terminal: the daemon reads its configuration and its key again."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import psutil
import pytest
from children import Child
from harness import KEY, wait_until
from hypothesis import given
from hypothesis import strategies as st
from operating.listening import listening

from downloader import settings as settings_module
from downloader.rules.concurrency import Concurrency, Observation
from downloader.rules.decisions import Limits
from downloader.settings import Settings, change
from downloader.throttle import Throttle
from downloader.transfer.guard import Guard
from downloader.transfer.rate_limit import RateLimit

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program, StartSimulator


class Daemon:
    """A daemon with a configuration file and a key file, and its log."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.log = program.folder / "log"
        self.config = program.folder / "config.toml"
        self.key = program.folder / "key"
        self.key.touch(0o600)
        self.key.write_text(KEY, encoding="utf-8")
        program.env |= {
            "CAMB_API_KEY": "",
            "CAMB_API_KEY_FILE": str(self.key),
            "DOWNLOADER_CONFIG": str(self.config),
            "DOWNLOADER_LOG_FORMAT": "text",
        }
        self.configure()

    def configure(self, *lines: str) -> None:
        """Write the configuration file."""
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it, its log in a file, as a service manager does."""
        with self.log.open("w", encoding="utf-8") as log:
            return self.program.start("run", *arguments, stderr=log)

    def logged(self) -> str:
        """Return its log so far."""
        return self.log.read_text(encoding="utf-8")

    def reload(self, process: subprocess.Popen[str], said: str) -> str:
        """Have it read its configuration again; return the lines of the log from there on."""
        before = len(self.logged())
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: said in self.logged()[before:], process)
        return self.logged()[before:]

    def start_and_wait(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it, and wait until it has saved a run: then it hears every signal."""
        self.program.submit([999])
        process = self.start(*arguments)
        wait_until(lambda: self.count("done") == 1, process)
        return process

    def count(self, state: str) -> int:
        """Return how many runs are in a state."""
        [(number,)] = self.program.query("SELECT count(*) FROM runs WHERE state = ?", state)
        return int(number)


@pytest.fixture
def daemon(program: Program, start_simulator: StartSimulator) -> Daemon:
    """Prepare a daemon for a simulator that serves small files, and takes any key."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    return Daemon(program)


def ended(process: subprocess.Popen[str]) -> int:
    """End a daemon in peace; return its exit code."""
    process.terminate()
    return process.wait()


def test_a_key_that_was_replaced(
    daemon: Daemon, program: Program, start_simulator: StartSimulator, tmp_path: Path
) -> None:
    """A daemon whose key is refused goes on at once with the one that it finds on SIGHUP."""
    program.env["DOWNLOADER_API_URL"] = start_simulator(api_key="the-new-key-42").api_url
    program.submit(range(1, 8))
    with listening(tmp_path) as told:
        program.env["NOTIFY_SOCKET"] = told.address
        with daemon.start() as process:
            wait_until(lambda: "service.blocked" in daemon.logged(), process)
            daemon.key.write_text("the-new-key-42\n", encoding="utf-8")
            said = daemon.reload(process, "configuration.read_again")
            wait_until(lambda: daemon.count("done") == 7, process)
            assert ended(process) == 0
        order = told.order()
        [told_at] = [int(one) for one in told.values("MONOTONIC_USEC")]
        first, last = told.messages[0][0] * 1e6, told.messages[-1][0] * 1e6
    assert "changed='the API key'" in said
    assert "new-key" not in said
    assert order == ["READY", "RELOADING", "READY", "STOPPING"]
    assert first < told_at < last  # microseconds of the clock that systemd compares with


def test_a_configuration_that_is_wrong(daemon: Daemon, program: Program) -> None:
    """What is wrong is told, nothing of it is taken, and the daemon works on as before."""
    with daemon.start_and_wait() as process:
        for line, said in (
            ("cheese = 1", "unknown setting"),
            ('max-rate = "fast"', "max-rate"),
            ('min-poll = "1h"', "--max-poll 300 is less than --min-poll 3600"),
            ("attempts =", "not valid TOML"),
        ):
            daemon.configure("concurrency = 4", line)
            told = daemon.reload(process, "configuration.refused")
            assert said in told
            assert "the settings of before stay in force" in told
        daemon.config.unlink()
        assert "config.toml cannot be read" in daemon.reload(process, "configuration.refused")
        daemon.configure("concurrency = 4")
        daemon.key.write_text("two words", encoding="utf-8")
        told = daemon.reload(process, "configuration.refused")
        assert "The API key has white space" in told
        assert "two words" not in told
        program.submit(range(1, 4))
        wait_until(lambda: daemon.count("done") == 4, process)
        assert ended(process) == 0
    assert "configuration.read_again" not in daemon.logged()
    assert "Traceback" not in daemon.logged()


def test_what_holds_from_the_next_start_on(
    daemon: Daemon, program: Program, start_simulator: StartSimulator
) -> None:
    """Options that a running service cannot take are told by name, the others are taken."""
    named = [f'database = "{program.database}"', f'api-url = "{start_simulator().api_url}"']
    unset = ("DOWNLOADER_DATABASE", "DOWNLOADER_OUTPUT", "DOWNLOADER_API_URL")
    daemon.configure(*named)
    program.submit([999])
    program.env |= dict.fromkeys(unset, "")
    with daemon.start("--concurrency", "4") as process:
        wait_until(lambda: daemon.count("done") == 1, process)
        daemon.configure(*named, "concurrency = 9")  # the command line has said otherwise
        assert "changed=nothing" in daemon.reload(process, "configuration.read_again")
        daemon.key.write_text("another-key", encoding="utf-8")
        daemon.configure(
            'database = "other.sqlite3"',
            'api-url = "https://elsewhere.example/apis"',
            'output = "/nowhere"',
            'lease = "90s"',
            "attempts = 3",
        )
        told = daemon.reload(process, "configuration.needs_restart")
        assert ended(process) == 0
    assert "configuration.read_again changed=attempts\n" in told
    # The key of another API is not sent to this one.
    assert "changed='database, output, api-url, lease, the API key' hint" in told


def test_the_limits_on_bytes_and_requests(
    daemon: Daemon, program: Program, start_simulator: StartSimulator
) -> None:
    """A limit that would take minutes is lifted for what waits under it already."""
    simulator = start_simulator(min_size=300_000, max_size=300_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    daemon.configure('max-rate = "1K"', "api-rate = 0.01")
    program.submit(range(1, 21))
    with daemon.start() as process:
        wait_until(lambda: daemon.count("downloading") > 0, process)
        wait_until(lambda: simulator.stats()["storage"]["requests"] > 0, process)
        assert simulator.stats()["api"]["requests"] == 1
        daemon.configure()
        daemon.reload(process, "changed='max-rate, api-rate'")
        wait_until(lambda: daemon.count("done") == 20, process)
        assert ended(process) == 0


def test_concurrency(daemon: Daemon, program: Program, start_simulator: StartSimulator) -> None:
    """One transfer at a time becomes four, without a restart."""
    program.env["DOWNLOADER_API_URL"] = start_simulator(
        rules=[{"runs": "*", "where": "storage", "fault": {"kind": "stall"}}]
    ).api_url
    daemon.configure("concurrency = 1")
    program.submit(range(1, 11))
    with daemon.start("--grace", "0", "--stall", "1h") as process:
        wait_until(lambda: daemon.count("downloading") == 1, process)
        daemon.configure("concurrency = 4", "verbose = 2")
        daemon.reload(process, "changed='concurrency, verbose'")
        wait_until(lambda: daemon.count("downloading") == 4, process)
        assert "[debug" in daemon.logged()
        assert ended(process) == 0


def test_many_wishes(daemon: Daemon) -> None:
    """A daemon that is asked again and again, also while it ends, ends in peace."""
    with daemon.start_and_wait() as process:
        for _ in range(50):
            process.send_signal(signal.SIGHUP)
        daemon.reload(process, "configuration.read_again")
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            process.send_signal(signal.SIGHUP)
    assert process.returncode == 0


@pytest.mark.parametrize("mode", ["--once", "--drain"])
def test_nohup(program: Program, start_simulator: StartSimulator, mode: str) -> None:
    """Without a terminal a hang-up ends nothing, from the first moment to the last."""
    simulator = start_simulator(storage_latency=0.05)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 61))
    command = ["nohup", *program.command("run", mode)]
    with Child(
        command,
        env=program.environment(),
        cwd=program.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_until(lambda: psutil_name(process.pid) != "nohup" or process.poll() is not None)
        while process.poll() is None:
            process.send_signal(signal.SIGHUP)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        out, _ = process.communicate()
    assert process.returncode == 0
    assert re.fullmatch(r"(60 saved .*, 0 failed\n)?", out)  # a drain says what it saved
    program.assert_saved(simulator, range(1, 61))


def psutil_name(pid: int) -> str:
    """Return the name of the program that a process runs just now."""
    try:
        return psutil.Process(pid).name()
    except psutil.NoSuchProcess:
        return ""


_ON_A_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("mode", [(), ("--drain",)], ids=["daemon", "drain"])
def test_a_terminal_that_is_closed(
    program: Program, start_simulator: StartSimulator, mode: tuple[str, ...]
) -> None:
    """A window that is closed ends what runs in it as SIGTERM does: nothing is left claimed."""
    simulator = start_simulator(
        rules=[{"runs": "*", "where": "storage", "fault": {"kind": "stall"}}]
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    window, inside = os.openpty()
    command = program.command("run", *mode, "--grace", "0", "--stall", "1h")
    process = Child(
        [sys.executable, "-c", _ON_A_TERMINAL, *command],
        env=program.environment(),
        cwd=program.folder,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        text=True,
        start_new_session=True,
    )
    os.close(inside)
    seen = threading.Event()
    watching = threading.Thread(target=_watch, args=(window, seen))
    watching.start()

    def downloading() -> bool:
        return program.query("SELECT count(*) FROM runs WHERE state = 'downloading'") == [(3,)]

    wait_until(downloading, process)
    seen.set()
    watching.join()
    os.close(window)  # the kernel sends SIGHUP, and refuses every write from here on
    assert process.wait(60) == (4 if mode else 0)
    assert program.query("SELECT DISTINCT state, lease_owner FROM runs") == [("ready", None)]


def _watch(window: int, seen: threading.Event) -> None:
    """Look at a terminal, so that nobody waits for it to take more, until enough is seen."""
    while not seen.is_set():
        if select.select([window], [], [], 0.05)[0]:
            os.read(window, 65536)


def test_each_setting_is_taken_or_told() -> None:
    """No field is forgotten: each is one that a running service takes, or one that it tells of."""
    names = {one.name for holder in (Settings, Limits) for one in fields(holder)} - {"limits"}
    live, others = settings_module._LIVE, settings_module._AT_THE_START
    assert live.keys() | others.keys() == names
    assert live.keys() & others.keys() == set()


def test_what_a_change_comes_to(tmp_path: Path) -> None:
    """What is live is taken, the rest stays as it was, and both are named as the options are."""
    before = Settings(output=tmp_path, api_key=KEY)
    read = replace(
        before,
        api_key="another",
        engine="httpx",
        max_bytes_per_second=5000,
        limits=Limits(attempts=2),
    )
    found = change(before, read)
    assert found.taken == ("the API key", "max-rate", "attempts")
    assert found.kept == ("engine",)
    assert found.now == replace(read, engine=before.engine)
    assert change(before, before).now == before
    other = change(before, replace(read, api_url="https://elsewhere.example"))
    assert other.kept == ("api-url", "engine", "the API key")
    assert other.now.api_key == KEY


@given(
    start=st.integers(1, 20),
    bounds=st.lists(st.integers(1, 256), min_size=1, max_size=6),
    files=st.integers(0, 30),
)
def test_a_bound_holds(start: int, bounds: list[int], files: int) -> None:
    """Whatever the maximum is set to, there are never more transfers than it, and always one."""
    rule = Concurrency(16, start)
    for maximum in bounds:
        rule.bound(maximum)
        assert 1 <= rule.limit <= maximum
        for _ in range(20):
            limit = rule.observe(Observation(0.6, rule.limit, 10**6, files))
            assert 1 <= limit <= maximum


def test_a_higher_bound_is_used() -> None:
    """Where the maximum was all that held them back, there are soon more."""
    rule = Concurrency(2, 8)
    for _ in range(60):
        rule.observe(Observation(1.0, rule.limit, rule.limit * 10**6, rule.limit * 4))
    assert rule.limit == 2
    rule.bound(16)
    for _ in range(60):
        rule.observe(Observation(1.0, rule.limit, rule.limit * 10**6, rule.limit * 4))
    assert rule.limit == 16


def test_another_rate_of_bytes() -> None:
    """Whoever waits under a limit goes on when it is changed, and under the new one counts anew."""
    limit = RateLimit(1000)
    pause = limit.book(1_000_000)
    assert pause > 900
    waiting = threading.Thread(target=limit.pause, args=(pause, Guard(3600)))
    waiting.start()
    limit.change(None)
    waiting.join(60)
    assert not waiting.is_alive()
    assert (limit.book(10**9), limit.reached) == (0, False)
    limit.change(1000)
    assert 0 < limit.book(2000) <= 2


def test_another_rate_of_requests() -> None:
    """A request that waits under a limit goes out when it is changed."""
    throttle = Throttle(0.001)

    looked, stopping = threading.Semaphore(0), threading.Event()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(throttle.wait, stopping, looked.release) for _ in range(3)]
        for _ in waiting:
            assert looked.acquire(timeout=30)
        throttle.change(1000)
        for one in waiting:
            one.result(60)  # else it would take half an hour
