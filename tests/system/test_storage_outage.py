"""A storage that cannot be reached is its host's trouble: it is waited for, at no run's cost."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from harness import wait_until

from downloader.breakers import Breaker, Breakers, Kind, Place
from downloader.observe import logs
from downloader.session import Mode
from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    from pathlib import Path

    from harness import MakeService, Program, Service, StartSimulator

HOST = "http://storage.invalid"
AT_ONCE = 4


def free_ports() -> tuple[int, int]:
    """Return two ports that nobody listens on."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        return one.getsockname()[1], other.getsockname()[1]


def events(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a log in JSON."""
    whole = log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def test_an_outage_of_api_and_storage_in_the_middle_of_a_drain(
    program: Program, tmp_path: Path
) -> None:
    """Everything is saved when both are back, no run has failed, and only what broke off has spent.

    The log tells once that the storage is out of reach, and once that it is back.
    """
    port, storage_port = free_ports()
    ids = range(1, 81)
    options = SimulatorOptions(min_size=2_000, max_size=30_000, storage_latency=0.1)

    def simulator() -> Simulator:
        return Simulator(options, port=port, storage_port=storage_port)

    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        with simulator() as first:
            program.env["DOWNLOADER_API_URL"] = first.api_url
            program.submit(ids)
            process = stack.enter_context(
                program.start(
                    *("run", "--drain", "--concurrency", str(AT_ONCE), "--log-format", "json"),
                    stderr=stack.enter_context(log.open("w")),
                )
            )
            saved = "SELECT count(*) >= 5 FROM runs WHERE state = 'done'"
            wait_until(lambda: program.query(saved) == [(1,)], process)  # all 80 take two seconds
        wait_until(lambda: "storage.down" in log.read_text(), process)
        told = "SELECT error_message FROM unfinished WHERE error_code = 'storage_unreachable'"
        assert {f"127.0.0.1:{storage_port}" in row[0] for row in program.query(told)} == {True}
        with simulator() as second:
            assert process.wait(120) == 0
            program.assert_saved(second, ids)
    spent = [row[0] for row in program.query("SELECT attempts FROM runs")]
    assert max(spent) <= 2
    assert sum(spent) <= len(ids) + AT_ONCE
    assert program.query("SELECT sum(refreshes) FROM runs") == [(0,)]
    names = [one["event"] for one in events(log)]
    assert [name for name in names if name.startswith("storage.")] == [
        "storage.down",
        "storage.back",
    ]
    assert "run.attempt_failed" not in names


def without_storage(simulator: Simulator) -> Simulator:
    """Close the storage of a simulator for good, its API going on."""
    storage, loop = simulator._listeners[1], simulator._loop
    assert loop is not None
    for server in storage.servers:
        loop.call_soon_threadsafe(server.close)
    at = urlsplit(simulator.storage_url)
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            with contextlib.suppress(ConnectionResetError):  # as it closes
                socket.create_connection((at.hostname, at.port), 1).close()
    return simulator


def rest(service: Service) -> list[tuple[Any, ...]]:
    """Return what the runs have come to."""
    return service.rows("state, error_code, attempts, refreshes")


def test_once_tells_of_a_storage_that_is_down(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """`--once` tries each host once, ends as blocked, and spends no attempt of any run."""
    simulator = without_storage(start_simulator())
    service = make_service(simulator)
    service.submit(*range(1, 31))
    result = service.run(Mode.ONCE)
    assert result.trouble is not None
    assert result.trouble.reason == "storage_unreachable"
    assert set(rest(service)) == {("ready", "storage_unreachable", 0, 0)}


def test_once_asks_for_all_that_is_due(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A storage that is down keeps no run of `--once` from being asked for, nor for minutes."""
    simulator = without_storage(start_simulator())
    service = make_service(simulator)
    service.submit(*range(1, 601))
    service.run(Mode.ONCE)
    assert service.rows("DISTINCT state, polls, attempts") == [("ready", 1, 0)]
    assert simulator.stats()["api"]["requests"] == 120


def test_what_waits_too_long_is_given_up(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A run whose storage was out of reach for all of `--give-up-after` fails, and says so."""
    service = make_service(without_storage(start_simulator()))
    limits = replace(service.settings.limits, give_up_after_seconds=1.5)
    service.submit(1, 2)
    result = service.run(limits=limits)
    assert result.tally.failed == 2
    assert set(rest(service)) == {("failed", "storage_unreachable", 0, 0)}
    assert all("--give-up-after" in row[0] for row in service.rows("error_message"))


def test_a_url_that_expires_meanwhile_is_renewed(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """What expires while its storage is out of reach gets new URLs, and spends no refresh."""
    service = make_service(without_storage(start_simulator(url_lifetime=1)))
    limits = replace(service.settings.limits, refreshes=0, give_up_after_seconds=4)
    service.submit(1)
    service.run(limits=limits)
    assert service.reasons(1).count("url_received") > 1
    assert rest(service) == [("failed", "storage_unreachable", 0, 0)]


UNREACHABLE = ("storage_unreachable", "Refused.")


def a_host() -> Breaker:
    """Return the breaker of a host."""
    return Breaker(Place(Kind.HOST, HOST))


def test_many_failures_together_are_one() -> None:
    """Transfers that meet it at once raise the pause once; the probe's failure raises it again."""
    host = a_host()
    began = time.monotonic()
    first = host.failed(*UNREACHABLE, began)
    assert 0.8 <= first <= 1.2
    assert all(host.failed(*UNREACHABLE, began) <= first for _ in range(50))
    assert 1.6 <= host.failed(*UNREACHABLE, time.monotonic()) <= 2.4


def test_one_probe_at_a_time() -> None:
    """To a host whose pause is over one run goes; the others wait until that has ended."""
    host = a_host()
    host.failed(*UNREACHABLE, time.monotonic())
    assert host.pause() is not None
    host.try_at_once()
    assert host.pause(taken=True) is not None
    assert host.pause() is None
    host.begins("lease")
    assert host.pause() is not None
    assert host.pause(mine="lease") is None
    host.ended("another lease")
    assert host.pause() is not None
    host.ended("lease")
    assert host.pause() is None


def test_what_began_before_frees_no_host(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A transfer that was under way when its host went does not say that it is back."""
    database = make_service(start_simulator()).database
    breakers = Breakers(database, ends_call=False, once=False)
    host, began = breakers.host(HOST), time.monotonic()
    host.failed(*UNREACHABLE, time.monotonic())
    host.succeeded(began)
    assert breakers.any_in_trouble(Kind.HOST)
    assert not breakers.take_closed(Kind.HOST)
    host.succeeded(time.monotonic())
    assert (breakers.any_in_trouble(Kind.HOST), host.trouble) == (False, None)
    assert breakers.take_closed(Kind.HOST)
    assert not breakers.take_closed(Kind.HOST)


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_host_is_told_of_when_it_stays_down(
    tries: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """One vain try is silent; from the second on there is one line, and one at the end."""
    logs.configure(0, as_json=True)
    host = a_host()
    for _ in range(tries):
        host.failed(*UNREACHABLE, time.monotonic())
    host.succeeded(time.monotonic())
    told = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert told == (["storage.down", "storage.back"] if tries > 1 else [])
