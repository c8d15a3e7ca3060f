"""The program as a person, cron and systemd run it: processes, signals, exit codes, silence."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from harness import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program, StartSimulator


MB = 1_000_000


def part_sizes(program: Program) -> list[int]:
    """Return how large the parts are just now; one that is being renamed is left out."""
    sizes = []
    for part in (program.output / ".partial").glob("*.part"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(part.stat().st_size)
    return sizes


def test_cron_is_silent(program: Program, start_simulator: StartSimulator) -> None:
    """`--once` twice off a terminal: silent, exit 0, and the second has nothing to do."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 13))
    for _ in range(2):
        done = program("run", "--once")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    program.assert_saved(simulator, range(1, 13))
    assert simulator.stats()["storage"]["requests"] == 12


def test_exit_code_of_failures(program: Program, start_simulator: StartSimulator) -> None:
    """A failed run ends `--drain` with exit 1 and lines that say which, why, and where to look."""
    fault = {"kind": "word", "word": "ERROR", "reason": "No such sound"}
    simulator = start_simulator(rules=[{"runs": [2], "where": "api", "fault": fault}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    done = program("run", "--drain")
    assert done.returncode == 1
    assert re.fullmatch(rf"2 saved \([\d.]+ [kM]B\) in {program.output}, 1 failed\n", done.stdout)
    assert "run_id=2" in done.stderr
    assert "\nprovider_failed (1): no use in a retry" in done.stderr
    assert "No such sound" in done.stderr
    assert done.stderr.endswith("downloader: 1 run failed; see `downloader list --state failed`.\n")
    assert "2  failed" in program("list", "--state", "failed").stdout


def test_exit_code_of_a_refused_key(program: Program, start_simulator: StartSimulator) -> None:
    """A refused key ends `--once` and `--drain` with exit 3, and `status` tells."""
    simulator = start_simulator(api_key="another-key")
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 8))
    for mode in ("--once", "--drain"):
        done = program("run", mode)
        assert done.returncode == 3
        assert "refused the API key" in done.stderr
        assert "test-key" not in done.stderr
    status = json.loads(program("status", "--json").stdout)
    assert status["blocked"]["reason"] == "key_refused"
    assert status["runs"]["pending"] == 7
    program.env["CAMB_API_KEY"] = "another-key"
    assert program("run", "--drain").returncode == 0
    assert json.loads(program("status", "--json").stdout)["blocked"] is None


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_then_resumed(
    program: Program, start_simulator: StartSimulator, interrupt: signal.Signals
) -> None:
    """A signal cuts transfers off after the grace time; the next call resumes them by Range."""
    simulator = start_simulator(min_size=8 * MB, max_size=9 * MB, bandwidth=4.0 * MB)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    with program.start("run", "--drain", "--grace", "0") as process:
        wait_until(lambda: sum(size > 2 * MB for size in part_sizes(program)) == 3, process)
        process.send_signal(interrupt)
        _, err = process.communicate()
    assert process.returncode == 4
    assert err.endswith(
        f"downloader: stopped early ({interrupt.name}), 3 runs are left; "
        "`downloader run --drain` continues with them.\n"
    )
    assert len(part_sizes(program)) == 3
    rows = program.query("SELECT state, lease_owner, attempts FROM runs")
    assert rows == [("ready", None, 0)] * 3
    simulator.set_options(type(simulator.options)(min_size=8 * MB, max_size=9 * MB))
    simulator.reset_stats()
    done = program("run", "--drain")
    assert (done.returncode, done.stderr) == (0, "")
    program.assert_saved(simulator, range(1, 4))
    by_run = simulator.stats()["storage"]["by_run"]
    assert by_run == {str(run_id): {"full": 0, "ranged": 1} for run_id in range(1, 4)}
    assert part_sizes(program) == []


def test_transfers_end_within_the_grace_time(
    program: Program, start_simulator: StartSimulator
) -> None:
    """On SIGTERM what is running is finished and nothing new is begun."""
    simulator = start_simulator(min_size=2 * MB, max_size=2 * MB, bandwidth=2.0 * MB)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 11))

    def running() -> int:
        [(number,)] = program.query("SELECT count(*) FROM runs WHERE state = 'downloading'")
        return int(number)

    with program.start("run", "--concurrency", "2") as process:
        wait_until(lambda: running() == 2, process)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 0, err  # a daemon that was asked to end
    states = dict(program.query("SELECT state, count(*) FROM runs GROUP BY state"))
    assert states["done"] in (2, 3, 4)  # one more each, where one ended just before the signal
    assert "downloading" not in states
    assert program.query("SELECT count(*) FROM runs WHERE lease_owner IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("at", ["headers", "body"])
def test_a_second_signal_ends_at_once(
    program: Program, start_simulator: StartSimulator, at: str
) -> None:
    """A second Ctrl-C cuts off what waits for an hour, harmlessly: no lease, no wrong row."""
    simulator = start_simulator(
        rules=[{"runs": "*", "where": "storage", "fault": {"kind": "stall", "at": at}}],
        min_size=2 * MB,
        max_size=2 * MB,
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    with program.start("run", "--drain", "--grace", "1h", "--stall", "1h") as process:
        assert process.stderr is not None
        wait_until(lambda: simulator.stats()["faults"].get("storage:stall") == 3, process)
        process.send_signal(signal.SIGINT)
        heard = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert "service.stopping" in heard
    assert process.returncode == 4
    assert program.query("SELECT state, lease_owner FROM runs") == [("ready", None)] * 3


def test_a_signal_while_the_api_is_asked(program: Program, start_simulator: StartSimulator) -> None:
    """One signal ends a service that only waits for the API; its claims are given back."""
    simulator = start_simulator(rules=[{"runs": "*", "where": "api", "fault": {"kind": "stall"}}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    with program.start("run", "--grace", "1s") as process:
        wait_until(lambda: simulator.stats()["faults"].get("api:stall", 0) >= 1, process)
        process.terminate()
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert program.query("SELECT state, lease_owner, polls FROM runs") == [("pending", None, 0)] * 3


def test_killed_and_rescued(program: Program, start_simulator: StartSimulator) -> None:
    """After SIGKILL the leases run out, and the next process saves everything."""
    simulator = start_simulator(min_size=3 * MB, max_size=3 * MB, bandwidth=1.0 * MB)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 6))
    with program.start("run", "--drain", "--lease", "1") as process:
        wait_until(lambda: sum(size > MB for size in part_sizes(program)) >= 3, process)
        process.kill()
    simulator.set_options(type(simulator.options)(min_size=3 * MB, max_size=3 * MB))
    done = program("run", "--drain", "--lease", "1")
    assert done.returncode == 0, done.stderr
    program.assert_saved(simulator, range(1, 6))
    assert part_sizes(program) == []
    reasons = {reason for (reason,) in program.query("SELECT reason FROM run_events")}
    assert "lease_ran_out" in reasons


def test_max_duration(program: Program, start_simulator: StartSimulator) -> None:
    """`--max-duration` ends a drain in peace, with exit 4 where runs are left."""
    simulator = start_simulator(rules=[{"runs": [1], "where": "api", "fault": {"kind": "pending"}}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    done = program("run", "--drain", "--max-duration", "1s", "--grace", "0")
    assert done.returncode == 4
    states = dict(program.query("SELECT run_id, state FROM runs"))
    assert states == {1: "pending", 2: "done", 3: "done"}


def test_cancel_ends_a_running_transfer(program: Program, start_simulator: StartSimulator) -> None:
    """`cancel` reaches a transfer that is running in another process; its bytes go."""
    simulator = start_simulator(
        rules=[{"runs": [2], "where": "storage", "fault": {"kind": "stall"}}],
        min_size=2 * MB,
        max_size=2 * MB,
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))

    def state() -> tuple[Any, ...]:
        return program.query("SELECT state FROM runs WHERE run_id = 2")[0]

    with program.start("run", "--drain", "--stall", "1h") as process:
        wait_until(lambda: state() == ("downloading",), process)
        assert program("cancel", "2").stdout == "cancelled 1\n"
        _, err = process.communicate()
    assert process.returncode == 0, err
    states = dict(program.query("SELECT run_id, state FROM runs"))
    assert states == {1: "done", 2: "cancelled", 3: "done"}
    assert list((program.output / ".partial").iterdir()) == []


def test_several_processes_share_the_work(
    program: Program, start_simulator: StartSimulator
) -> None:
    """Three processes on one database fetch each file once."""
    simulator = start_simulator(storage_latency=0.01)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 151))
    running = [program.start("run", "--drain") for _ in range(3)]
    for process in running:
        with process:
            _, err = process.communicate()
            assert (process.returncode, err) == (0, "")
    program.assert_saved(simulator, range(1, 151))
    assert simulator.stats()["storage"]["requests"] == 150


def test_tls(program: Program, start_simulator: StartSimulator, tmp_path: Path) -> None:
    """With a CA named by SSL_CERT_FILE everything is saved over TLS; without it nothing is sent."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    pem, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(ca))
    simulator = start_simulator(certfile=pem)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 8))
    untrusted = program("run", "--once")
    assert untrusted.returncode == 3
    assert "cannot be trusted: its certificate is signed by" in untrusted.stderr
    assert simulator.stats()["api"]["requests"] == 0
    program.env["SSL_CERT_FILE"] = str(ca)
    # The runs were put off; a drain waits for them.
    assert program("run", "--drain").returncode == 0
    program.assert_saved(simulator, range(1, 8))


def test_submit_twice(program: Program, start_simulator: StartSimulator) -> None:
    """Runs that are done stay done when they are submitted again, and are not fetched again."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 4))
    program("run", "--drain")
    again = program("submit", "1", "2", "3", "4")
    assert again.stdout == "submitted 1 new, 3 already tracked\n"
    program("run", "--drain")
    program.assert_saved(simulator, range(1, 5))
    assert simulator.stats()["storage"]["requests"] == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [("SSL_CERT_FILE", "/nonexistent.pem"), ("ALL_PROXY", "ftp://127.0.0.1:1")],
)
def test_settings_of_the_environment_that_cannot_be_used(
    program: Program, name: str, value: str
) -> None:
    """A CA file that is not there, or a proxy of another kind, is told by name, with exit 2."""
    program.env[name] = value
    program.submit(range(1, 3))
    done = program("run", "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("at", ["poll.answered", "transfer.claimed"])
def test_a_thread_that_hangs_keeps_no_run(
    program: Program, start_simulator: StartSimulator, at: str
) -> None:
    """What a thread has claimed that hangs, with an answer or in a turn, is soon others'."""
    program.env |= {
        "DOWNLOADER_API_URL": start_simulator().api_url,
        "DOWNLOADER_LEASE": "2s",
        "DOWNLOADER_FAILPOINTS": f"{at}=hang",
    }
    program.submit(range(1, 4))
    claimed = "SELECT count(*) FROM runs WHERE lease_owner IS NOT NULL"
    with program.start("run") as hanging:
        wait_until(lambda: program.query(claimed) == [(3,)], hanging)
        del program.env["DOWNLOADER_FAILPOINTS"]
        drained = program("run", "--drain", "--min-poll", "0.1s")
        assert hanging.poll() is None
        hanging.kill()
    assert drained.returncode == 0, drained.stderr
    assert program.status()["runs"]["done"] == 3
