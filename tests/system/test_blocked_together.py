"""Blocked is one state of everybody on the database."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

from harness import wait_until

from downloader.session import Mode, Session
from downloader.store.blocks import current_blocks

if TYPE_CHECKING:
    from harness import MakeService, Program, StartSimulator


def make_the_probe_due(program: Program) -> None:
    """Let the time pass that is left until the next probe."""
    with contextlib.closing(sqlite3.connect(program.database, timeout=30)) as raw, raw:
        raw.execute("UPDATE blocks SET until = '2020-01-01 00:00:00.000000'")


def test_daemons_honour_what_one_of_them_has_met(
    program: Program, start_simulator: StartSimulator
) -> None:
    """A key refused to one daemon stops them all, each says so once, and one probe frees them."""
    simulator = start_simulator()
    options = type(simulator.options)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url

    paths = [program.folder / "one.log", program.folder / "two.log"]
    daemons = []
    for path in paths:
        with path.open("w") as log:
            daemons.append(program.start("run", stdout=subprocess.DEVNULL, stderr=log))
    program.submit(range(1, 31))
    wait_until(lambda: program.status()["runs"]["done"] == 30, *daemons)
    simulator.set_options(options(api_key="another", min_size=2_000, max_size=30_000))
    simulator.reset_stats()
    program.submit(range(31, 41))

    def logs() -> list[str]:
        return [path.read_text() for path in paths]

    wait_until(lambda: all("service.blocked" in log for log in logs()), *daemons)
    refused = simulator.stats()["api"]["requests"]
    # Those that were under way when the first was refused, and no more.
    assert 1 <= refused <= 8
    [(reason, probes)] = program.query("SELECT reason, probes FROM blocks")
    assert (reason, probes) == ("key_refused", 1)
    # Each probe in vain is one request of one daemon, and puts the next one further off.
    make_the_probe_due(program)
    wait_until(lambda: program.query("SELECT probes FROM blocks") == [(2,)], *daemons)
    assert simulator.stats()["api"]["requests"] == refused + 1
    # A call that starts meanwhile may try for itself, and ends as blocked.
    assert program("run", "--once").returncode == 3
    assert program.query("SELECT probes FROM blocks") == [(2,)]
    simulator.set_options(options(min_size=2_000, max_size=30_000))
    make_the_probe_due(program)
    wait_until(lambda: program.status()["runs"]["done"] == 40, *daemons)
    assert program.status()["blocked"] is None
    wait_until(lambda: all("service.unblocked" in log for log in logs()), *daemons)
    for process in daemons:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    for text in logs():
        assert text.count("service.blocked") == 1
        assert text.count("service.unblocked") == 1
    program.assert_saved(simulator, range(1, 41))


def test_success_of_what_began_before_opens_nothing(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A transfer that ends well after the disk was found full does not say that it has room."""
    service = make_service(start_simulator())

    breaker = Session(service.settings, service.database, Mode.FOREVER).folder
    breaker.look()
    began = time.monotonic()
    breaker.failed("disk_full", "The disk is full.", began)
    breaker.succeeded(began)
    assert [one.reason for one in current_blocks(service.database)] == ["disk_full"]
    breaker.succeeded(time.monotonic())
    assert breaker.trouble is None
    assert current_blocks(service.database) == []
    assert service.run(Mode.ONCE).trouble is None
