"""Runs that the service does not know, beside others that it answers for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from harness import wait_until

from downloader.session import Mode

if TYPE_CHECKING:
    from harness import MakeService, Program, StartSimulator

UNKNOWN = {"runs": [2], "where": "api", "fault": {"kind": "status", "status": 404}}


def test_an_unknown_run_is_given_up(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """After --unknown-after, and five answers, a run that only others are answered beside fails."""
    simulator = start_simulator(rules=[UNKNOWN])
    service = make_service(simulator)
    limits = replace(service.settings.limits, unknown_after_seconds=1.0)
    service.submit(1, 2, 3)
    result = service.run(limits=limits)
    assert (result.tally.done, dict(result.tally.failures)) == (2, {"unknown_run": 1})
    service.assert_saved(simulator, 1, 3)
    [(state, code, message, word, answers)] = service.rows(
        "state, error_code, error_message, remote_status, unknown_answers", "run_id = 2"
    )
    assert (state, code, word) == ("failed", "unknown_run", "HTTP 404")
    assert answers >= 5
    assert message.startswith(
        f"The API does not know this run (404), and answers for others: {answers} times in "
    )
    assert message.endswith("; see --unknown-after.")


def test_a_young_run_that_becomes_known(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A run that is not known at first is saved like any other, and nothing is left of it."""
    simulator = start_simulator(rules=[{**UNKNOWN, "times": 6}])
    service = make_service(simulator)
    service.submit(1, 2, 3)
    assert service.run().tally.done == 3
    assert service.rows("error_code, unknown_answers, unknown_since", "run_id = 2") == [
        (None, 0, None)
    ]


def test_nothing_counts_where_nothing_is_found(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """An API that answers 404 to everything, such as one at a wrong URL, knows no run."""
    simulator = start_simulator(rules=[{**UNKNOWN, "runs": "*"}])
    service = make_service(simulator)
    limits = replace(service.settings.limits, unknown_after_seconds=0.0)
    service.submit(1, 2, 3)
    result = service.run(limits=limits, max_duration_seconds=3.0)
    assert (result.tally.failed, result.stopped) == (0, "max-duration")
    assert {row[0] for row in service.rows("unknown_answers")} == {0}
    assert {row[0] for row in service.rows("state")} == {"pending"}


def test_a_run_alone_with_nothing_to_compare(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A single run, where none was ever saved: told, and given up by its deadline alone."""
    simulator = start_simulator(rules=[UNKNOWN])
    service = make_service(simulator)
    limits = replace(service.settings.limits, unknown_after_seconds=0.0)
    service.submit(2)
    assert service.run(limits=limits, max_duration_seconds=2.0).tally.failed == 0
    assert service.rows("remote_status, unknown_answers, error_code") == [("HTTP 404", 0, None)]


@pytest.mark.parametrize("alone", [False, True], ids=["beside", "saved before"])
def test_it_is_told_at_once(
    program: Program, start_simulator: StartSimulator, *, alone: bool
) -> None:
    """status, show, list, stuck and the exit code say it, from the first answer on."""
    simulator = start_simulator(rules=[UNKNOWN])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([1])
    if alone:
        assert program("run", "--drain").returncode == 0
    program.submit([2, 3])
    arguments = ("run", "--drain", "--min-poll", "0.05", "--unknown-after")
    known = "SELECT count(*) FROM runs WHERE run_id = 2 AND unknown_answers > 1"
    with program.start(*arguments, "1h") as process:
        wait_until(lambda: program.query(known) == [(1,)], process)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    said = "The API does not know this run (404), and answers for others"
    assert program.query("SELECT why FROM stuck") == [
        ("the API does not know it (404), and answers for others",)
    ]
    assert said in program("status").stdout
    [met] = program.status()["unfinished_errors"]
    assert (met["error_code"], met["runs"]) == ("unknown_run", 1)
    shown = program("show", "2").stdout
    assert said in shown
    assert "HTTP 404" in shown
    assert said in program("list", "--error", "unknown_run").stdout
    done = program(*arguments, "0")
    assert done.returncode == 1
    assert "unknown_run (1): no use in a retry as it is: check the run id" in done.stderr
    assert "check the run id" in program("show", "2").stdout
    assert program("retry", "2").returncode == 0
    assert program.query("SELECT state, unknown_answers FROM runs WHERE run_id = 2") == [
        ("pending", 0)
    ]


def test_once_counts_as_well(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """Calls of --once, from cron, give up an unknown run as a daemon does."""
    simulator = start_simulator(rules=[UNKNOWN])
    service = make_service(simulator)
    limits = replace(service.settings.limits, unknown_after_seconds=0.0, min_poll_seconds=0.05)
    service.submit(1, 2, 3)
    calls = 0
    while service.states()[2] == "pending":
        service.run(Mode.ONCE, limits=limits)
        calls += 1
    assert service.states() == {1: "done", 2: "failed", 3: "done"}
    assert calls >= 5
