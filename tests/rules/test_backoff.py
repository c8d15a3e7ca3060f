from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.backoff import (
    attempt_delay_seconds,
    disk_probe_delay_seconds,
    no_answer_delay_seconds,
    probe_delay_seconds,
    refresh_delay_seconds,
)

EVEN = 0.5
counts = st.integers(-1, 20) | st.integers(0, 10**30)
jitters = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(("polls", "seconds"), [(0, 2), (1, 3.2), (2, 5.12), (3, 8.192), (9, 60)])
def test_no_answers(polls: int, seconds: float) -> None:
    """Polls that get no answer grow 1.6-fold apart, up to a minute, whatever the maximum."""
    assert no_answer_delay_seconds(polls, 2, 60, EVEN) == pytest.approx(seconds)
    assert no_answer_delay_seconds(polls, 2, 300, EVEN) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(0, 1), (1, 1), (2, 2), (3, 4), (9, 256), (10, 300)]
)
def test_attempts(attempts: int, seconds: float) -> None:
    """Attempts at a transfer follow after 1 s, then twice as long each time, up to 300 s."""
    assert attempt_delay_seconds(attempts, EVEN) == pytest.approx(seconds)


@pytest.mark.parametrize(("refreshes", "seconds"), [(0, 0), (1, 1), (2, 2), (3, 4), (10, 300)])
def test_refreshes(refreshes: int, seconds: float) -> None:
    """The first refresh waits for nothing, the next ones twice as long each time."""
    assert refresh_delay_seconds(refreshes, EVEN) == pytest.approx(seconds)


@pytest.mark.parametrize(("probes", "seconds"), [(0, 30), (1, 60), (4, 480), (5, 900), (99, 900)])
def test_probes(probes: int, seconds: float) -> None:
    """A blocked service is probed after 30 s and at least every quarter of an hour."""
    assert probe_delay_seconds(probes, EVEN) == pytest.approx(seconds)


@pytest.mark.parametrize(("probes", "seconds"), [(0, 5), (1, 10), (4, 60), (99, 60)])
def test_probes_of_a_disk(probes: int, seconds: float) -> None:
    """A disk without room is looked at after 5 s and at least every minute."""
    assert disk_probe_delay_seconds(probes, EVEN) == pytest.approx(seconds)


@given(polls=counts, minimum=st.floats(0.01, 60), extra=st.floats(0, 3600), jitter=jitters)
def test_no_answer_delay_is_bounded(
    polls: int, minimum: float, extra: float, jitter: float
) -> None:
    """No poll comes sooner than 0.8 of the minimum or later than the maximum."""
    delay = no_answer_delay_seconds(polls, minimum, minimum + extra, jitter)
    assert minimum * 0.8 <= delay * (1 + 1e-12)
    assert delay <= minimum + extra


@given(count=counts, jitter=jitters)
def test_other_delays_are_bounded(count: int, jitter: float) -> None:
    """However many tries there were, and whatever the jitter, every delay has its bounds."""
    assert 0.8 <= attempt_delay_seconds(count, jitter) <= 300
    assert 0 <= refresh_delay_seconds(count, jitter) <= 300
    assert 24 <= probe_delay_seconds(count, jitter) <= 900
    assert 4 <= disk_probe_delay_seconds(count, jitter) <= 60


@given(count=st.integers(0, 100))
def test_jitter_spreads(count: int) -> None:
    """Two runs with different jitter come back at different times, unless at the maximum."""
    assert attempt_delay_seconds(count, 0.0) < attempt_delay_seconds(count, 0.4)
