"""What all runs are refused at one place is that place's trouble: waited for, at no run's cost."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from harness import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Program, StartSimulator

    from downloader.simulator.server import Simulator

IDS = range(1, 41)


def for_all(where: str, kind: str, **details: object) -> dict[str, Any]:
    """Return a rule of the simulator's for every run."""
    return {"runs": "*", "where": where, "fault": {"kind": kind, **details}}


def saved_after_an_outage(
    program: Program, simulator: Simulator, rule: dict[str, Any], told: str
) -> str:
    """Drain through an outage that begins before and ends when it was told of; return the log."""
    log = program.folder / "log"
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(IDS)
    simulator.set_rules([rule])
    with (
        log.open("w") as stderr,
        program.start(
            *("run", "--drain", "--min-poll", "0.1s", "--stall", "2s"), stderr=stderr
        ) as process,
    ):
        wait_until(lambda: told in log.read_text(), process)
        # A run that is refused while another is served already would be to blame.
        wait_until(lambda: not program.status()["runs"]["downloading"], process)
        simulator.set_rules([])
        process.communicate(timeout=120)
    assert process.returncode == 0, log.read_text()
    program.assert_saved(simulator, IDS)
    return log.read_text()


@pytest.mark.parametrize(
    "rule",
    [
        *(
            pytest.param(for_all("storage", "status", status=status), id=f"status-{status}")
            for status in (401, 403, 404, 418, 503, 520)
        ),
        pytest.param(for_all("storage", "error-page", form="html"), id="page"),
        pytest.param(for_all("storage", "reset", at="headers"), id="reset"),
        pytest.param(for_all("storage", "truncate", after=0), id="truncated"),
        pytest.param(for_all("storage", "stall", at="headers"), id="stall"),
    ],
)
def test_a_storage_that_refuses_all(
    program: Program, start_simulator: StartSimulator, rule: dict[str, Any]
) -> None:
    """However a storage refuses everything, it is waited for: no attempt spent, no run failed."""
    simulator = start_simulator()
    log = saved_after_an_outage(program, simulator, rule, "storage.down")
    assert program.query("SELECT DISTINCT attempts, refreshes FROM runs") == [(1, 0)]
    assert log.count("storage.down") == 1
    assert log.count("storage.back") == 1


@pytest.mark.parametrize("runs", [1, 3])
def test_a_storage_that_serves_something_else_under_the_same_etags(
    program: Program, start_simulator: StartSimulator, runs: int
) -> None:
    """Seen in the very same object again, no audio is no run's fault where none is served."""
    ids = range(1, runs + 1)
    tries = (
        "SELECT max(n) FROM (SELECT count(*) AS n FROM run_events"
        " WHERE reason = 'not_audio' GROUP BY run_id)"
    )
    simulator = start_simulator(rules=[for_all("storage", "wrong-magic")])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(ids)
    with program.start("run", "--drain", "--min-poll", "0.1s") as process:
        wait_until(lambda: (program.query(tries)[0][0] or 0) > 1, process)
        simulator.set_rules([])
        process.communicate(timeout=120)
    assert process.returncode == 0
    program.assert_saved(simulator, ids)


@pytest.mark.parametrize(
    "rule",
    [
        *(
            pytest.param(for_all("api", "status", status=status), id=f"status-{status}")
            for status in (400, 404, 409, 418, 501, 502, 520)
        ),
        pytest.param(for_all("api", "not-json"), id="page"),
        pytest.param(for_all("api", "reset"), id="reset"),
    ],
)
def test_an_api_that_refuses_all(
    program: Program, start_simulator: StartSimulator, rule: dict[str, Any]
) -> None:
    """However an API refuses everything, it is waited for: nothing is failed, nor hurried."""
    simulator = start_simulator()
    saved_after_an_outage(program, simulator, rule, "api.down")
    assert program.query("SELECT DISTINCT attempts, refreshes FROM runs") == [(1, 0)]
    assert simulator.stats()["api"]["requests"] < 120


@pytest.mark.parametrize("status", [403, 422, 520])
def test_a_bulk_endpoint_that_refuses_all(
    program: Program, start_simulator: StartSimulator, status: int
) -> None:
    """While batches are refused and runs alone answered, they are asked for alone, and saved."""
    rule = for_all("api", "status", status=status) | {"endpoint": "bulk"}
    simulator = start_simulator(rules=[rule])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(IDS)
    done = program("run", "--drain", "--min-poll", "0.1s")
    assert done.returncode == 0, done.stderr
    program.assert_saved(simulator, IDS)
    assert simulator.stats()["api"]["requests"] < 4 * len(IDS)


@contextmanager
def drained_meanwhile(program: Program, simulator: Simulator) -> Iterator[None]:
    """Have a slow drain at work, with more left to do than it can; it goes on, and ends well."""
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 401))
    with program.start("run", "--drain", "--min-poll", "0.1s", "--api-rate", "2") as drain:
        wait_until(lambda: program.status()["runs"]["done"] > 0, drain)
        yield
        before = program.status()["runs"]["done"]
        assert before < 400, "there was nothing left to do"
        wait_until(lambda: program.status()["runs"]["done"] > before, drain)
        drain.send_signal(signal.SIGINT)
        _, told = drain.communicate(timeout=60)
    assert drain.returncode == 4, told


def test_a_key_of_before_stops_no_other(program: Program, start_simulator: StartSimulator) -> None:
    """A call with a key that is refused ends alone; a drain with a good one beside it goes on."""
    simulator = start_simulator(api_key="good-key-0123")
    program.env["CAMB_API_KEY"] = "good-key-0123"
    with drained_meanwhile(program, simulator):
        program.env["CAMB_API_KEY"] = "old-key-01234567"
        once = program("run", "--once")
        assert once.returncode == 3
        assert "refused the API key" in once.stderr


def test_another_folder_stops_no_other(program: Program, start_simulator: StartSimulator) -> None:
    """A call whose own output folder cannot be used ends alone; the drain beside it goes on."""
    with drained_meanwhile(program, start_simulator()):
        once = program("run", "--once", "--output", "/proc/downloader")
        assert once.returncode in {2, 3}, once.stderr


@pytest.mark.parametrize("dead", [range(1, 1501), range(21, 1521)], ids=["before", "behind"])
def test_a_host_out_of_reach_stops_no_other(
    program: Program, start_simulator: StartSimulator, dead: range
) -> None:
    """Runs at a storage that is well are saved, though many wait for one that is out of reach.

    Nor are URLs made for all of those, which would only expire.
    """
    elsewhere = {
        "runs": f"{dead[0]}-{dead[-1]}",
        "where": "api",
        "fault": {"kind": "url", "url": "http://127.0.0.1:9/x.wav"},
    }
    simulator = start_simulator(rules=[elsewhere])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    well = set(range(1, 1521)) - set(dead)
    program.submit(range(1, 1521))
    with program.start("run", "--min-poll", "0.1s") as daemon:
        wait_until(lambda: program.status()["runs"]["done"] == len(well), daemon)
        [(made,)] = program.query("SELECT count(*) FROM runs WHERE ready_at IS NOT NULL")
        daemon.terminate()
        assert daemon.wait(60) == 0
    program.assert_saved(simulator, well)
    assert made < 1200


def test_retry_after_of_one_type(program: Program, start_simulator: StartSimulator) -> None:
    """An endpoint that asks to be left alone holds up no runs of another type."""
    busy = for_all("api", "status", status=429, retry_after=600) | {"run_type": "tts"}
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(IDS)
    assert program("submit", "--type", "tts", *map(str, range(101, 131))).returncode == 0
    simulator.set_rules([busy])
    with program.start("run", "--min-poll", "0.1s") as daemon:
        wait_until(lambda: program.status()["runs"]["done"] == len(IDS), daemon)
        daemon.terminate()
        assert daemon.wait(60) == 0
    assert program.query("SELECT DISTINCT run_type FROM runs WHERE state = 'done'") == [
        ("text-to-sound",)
    ]


def test_unknown_runs_cost_few_requests(program: Program, start_simulator: StartSimulator) -> None:
    """A run that has its batch refused is asked for by itself from then on, the others together."""
    unknown = {"runs": "3,8", "where": "api", "fault": {"kind": "status", "status": 404}}
    found = "SELECT DISTINCT error_code FROM runs WHERE run_id IN (3, 8)"
    simulator = start_simulator(rules=[unknown], finish_after=3)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 11))
    with program.start("run", "--min-poll", "1s") as daemon:
        wait_until(lambda: program.status()["runs"]["done"] == 8, daemon)
        wait_until(lambda: program.query(found) == [("unknown_run",)], daemon)
        daemon.terminate()
        assert daemon.wait(60) == 0
    assert simulator.stats()["api"]["requests"] <= 40


def test_bad_runs_in_front_hold_up_no_good_ones(
    program: Program, start_simulator: StartSimulator
) -> None:
    """Many bad runs at the head of a queue, none served yet, keep no good one behind them waiting.

    Which run tries a storage in trouble is left to chance, and one that was refused comes last.
    """
    bad = {"runs": "1-60", "where": "storage", "fault": {"kind": "status", "status": 500}}
    simulator = start_simulator(rules=[bad])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 301))
    with program.start("run", "--min-poll", "0.1s", stderr=subprocess.DEVNULL) as daemon:
        wait_until(lambda: program.status()["runs"]["done"] == 240, daemon)
        daemon.terminate()
        assert daemon.wait(60) == 0
    program.assert_saved(simulator, range(61, 301))


def test_one_pass_saves_what_is_good_behind_bad_ones(
    program: Program, start_simulator: StartSimulator
) -> None:
    """A single pass goes on beyond bad runs at the head: it waits for what others get there."""
    bad = {"runs": "1-8", "where": "storage", "fault": {"kind": "status", "status": 500}}
    simulator = start_simulator(rules=[bad])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 401))
    program("run", "--once")
    program.assert_saved(simulator, range(9, 401))
