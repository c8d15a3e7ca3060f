"""The poller as it is, in simulated time: few requests, and results soon."""

from __future__ import annotations

from statistics import median

import pytest

from benchmarks.poll_scenarios import NEVER, Run, Scenario, in_order, scenarios
from benchmarks.poll_schedule import ANSWER_SECONDS, simulate
from downloader.rules.decisions import Limits

COUNT = 300


def test_runs_that_finish_roughly_in_order() -> None:
    """A fifth of the requests of fixed polling find half of the runs within ten seconds."""
    found = simulate(in_order(COUNT, 10))
    assert len(found.delays) == COUNT
    assert found.requests <= found.fixed_requests / 5
    assert median(found.delays) <= 10


@pytest.mark.parametrize("scenario", scenarios(COUNT)[1:], ids=lambda one: one.name)
def test_every_run_is_found_in_time(scenario: Scenario) -> None:
    """In whatever order runs finish each is found, and none is left unasked beyond the maximum."""
    found = simulate(scenario)
    longest = Limits().max_poll_seconds
    assert len(found.delays) == sum(run.finished < NEVER for run in scenario.runs)
    assert max(found.delays) <= longest
    assert found.longest_unasked <= longest + 5  # to the answer, after its turn


def test_finished_when_submitted() -> None:
    """Runs that are finished already cost a request for each five, and do not wait."""
    found = simulate(Scenario("finished", [Run(0, 0)] * 103))
    assert found.requests == 21
    assert max(found.delays) <= 21 * ANSWER_SECONDS


def test_all_at_once() -> None:
    """Where all finish at one moment a few are asked for until then, and all soon after."""
    found = simulate(Scenario("at once", [Run(0, 300)] * COUNT))
    assert found.requests <= found.fixed_requests / 10
    assert max(found.delays) <= 90


def test_first_polls_wait_as_long_as_the_past_tells() -> None:
    """Runs submitted one by one cost fewer requests where it is known how long they take."""
    runs = [Run(at * 10, at * 10 + 60 + at % 7) for at in range(60)]
    known = simulate(Scenario("known", runs, past=[60.0 + at % 7 for at in range(100)]))
    unknown = simulate(Scenario("unknown", runs[:10]))
    assert len(known.delays) == 60
    assert median(known.delays) <= 10
    assert max(unknown.first_polls) < 5
    assert median(known.first_polls) > 40
    assert known.requests / 60 <= unknown.requests / 10 * 0.75


@pytest.mark.parametrize("takes", [0, 5])
def test_runs_that_never_finish_hold_up_none(takes: float) -> None:
    """Behind thousands of these new runs are found as soon as if they were alone, or nearly so."""
    never = [Run(0, NEVER)] * 1000
    behind = simulate(Scenario("behind", [*never, *([Run(60, 60 + takes)] * 20)], ends=120))
    assert len(behind.delays) == 20
    assert max(behind.delays) <= 4 * ANSWER_SECONDS + takes / 2
