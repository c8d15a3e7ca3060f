"""When a run is asked for again: by its age, by the past, and by what its neighbours answered."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.pace import (
    ENOUGH_PAST,
    MOST_UNASKED,
    SCOUTED,
    SURE,
    Past,
    Sample,
    ages_of,
    eager_gap_seconds,
    generation,
    lateness,
    poll_gap_seconds,
    repolls_booked_until,
    repolls_wait_seconds,
    scout_gap_seconds,
    spread,
    unasked_gap_seconds,
)

NO_PAST = Past()
MINUTES = Past(tuple(float(second) for second in range(60, 120)))
ages = st.floats(-10, 1e10)
pasts = st.lists(st.floats(0, 1e7), max_size=60).map(lambda found: Past(tuple(sorted(found))))


@pytest.mark.parametrize(
    ("age", "seconds"),
    [(-5, 2), (0, 2), (4, 2), (8, 2), (40, 10), (400, 100), (1200, 300), (1e9, 300)],
)
def test_without_a_past(age: float, seconds: float) -> None:
    """Where nothing is known of others, a run is asked for again after a quarter of its age."""
    assert poll_gap_seconds(age, NO_PAST, 2, 300) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (40, 31),  # a fifth of all have finished at 71
        (10, 10),  # it may be of another kind: never more than its age
        (61, 12),
        (100, 4),
        (115, 28.75),  # too few have taken longer: as without a past
        (1000, 250),
    ],
)
def test_with_a_past(age: float, seconds: float) -> None:
    """A run is asked for when one in five of those that took longer before had finished."""
    assert poll_gap_seconds(age, MINUTES, 2, 300) == pytest.approx(seconds)


def test_first_polls() -> None:
    """The first poll comes a little before the first few runs of the past had finished."""
    assert MINUTES.first_poll_seconds() == pytest.approx(0.75 * 63)
    assert NO_PAST.first_poll_seconds() == 0
    few = Past(MINUTES.durations[: ENOUGH_PAST - 1])
    assert few.first_poll_seconds() == 0
    some_at_once = Past((0.0,) * 10 + MINUTES.durations)
    assert some_at_once.first_poll_seconds() == 0


@given(age=ages, past=pasts, minimum=st.floats(0.01, 60), extra=st.floats(0, 3600))
def test_gaps_are_bounded(age: float, past: Past, minimum: float, extra: float) -> None:
    """Whatever the age and the past, a gap is within its bounds."""
    maximum = minimum + extra
    gap = poll_gap_seconds(age, past, minimum, maximum)
    assert minimum <= gap <= maximum
    assert gap <= max(age, minimum) or gap == minimum
    assert minimum <= scout_gap_seconds(gap, 10**6, minimum) <= gap
    assert gap * 0.8 <= spread(gap, 0.0) <= spread(gap, 0.99) <= gap


@pytest.mark.parametrize(
    ("age", "since", "seconds"), [(10, None, 2), (400, None, 12), (400, 12, 19.2), (400, 1, 12)]
)
def test_eager_gaps(age: float, since: float | None, seconds: float) -> None:
    """Beside finished neighbours a run is asked for soon, and each time in vain less soon."""
    assert eager_gap_seconds(age, since, 2) == pytest.approx(seconds)


def test_scouts() -> None:
    """A run that stands for many others is asked for more often, the more they are."""
    gaps = [scout_gap_seconds(100, unasked, 2) for unasked in (0, SCOUTED - 1, 200, 450, 10**6)]
    assert gaps == pytest.approx([100, 100, 50, 100 / 3, 15])
    assert scout_gap_seconds(3, 10**6, 2) == 2


def test_samples() -> None:
    """Runs are put off unasked once enough like them were unfinished, and more as more were."""
    sample = Sample()
    found = []
    for _ in range(SURE):
        found.append(sample.unasked)
        sample.add(1, finished=False)
    assert found == [0] * SURE
    first = sample.unasked
    assert first > 0
    sample.add(1, finished=True)
    assert sample.unasked == 0
    for _ in range(SURE):
        sample.add(1, finished=False)
    assert first < sample.unasked < 2 * first
    for _ in range(5000):
        sample.add(1, finished=False)
    assert first < sample.unasked <= MOST_UNASKED


def test_samples_fade() -> None:
    """However many were unfinished for however long, a few that are not change the mind."""
    sample = Sample()
    for _ in range(10_000):
        sample.add(1, finished=False)
    answers = 0
    while sample.unasked:
        sample.add(1, finished=True)
        answers += 1
    assert answers <= 12


@given(share=st.integers(1, 5), rounds=st.integers(1, 300))
def test_what_finishes_is_asked_for(share: int, rounds: int) -> None:
    """Where at least one in five is finished, runs are not put off for long."""
    sample = Sample()
    for _ in range(rounds):
        for place in range(share):
            sample.add(1, finished=place == 0)
    assert sample.unasked == 0


@pytest.mark.parametrize(
    ("finished", "worth"),
    [
        ("", False),
        ("x", False),
        ("xx", False),
        ("xxx", True),
        ("xxxxxxxxxx", True),
        ("..x.x..x..", True),
        ("..x....x..", False),
        ("xxxx......", False),  # in order: their neighbours tell the rest
        ("......xxxx", False),
        ("xxx..........", False),  # long ago
    ],
)
def test_what_was_put_off_may_be_worth_asking_for(finished: str, worth: bool) -> None:  # noqa: FBT001 - a table
    """Where several of those asked for have finished, in no order of their ids, so may others."""
    sample = Sample()
    for run_id, one in enumerate(finished):
        sample.add(run_id, finished=one == "x")
    assert sample.worth_asking is worth


def test_how_late_a_run_is() -> None:
    """One that waits for its second poll overtakes one that has waited a thousand times as long."""
    assert lateness(0, 0) == lateness(-1, 5) == inf
    assert lateness(2, 1) > lateness(300, 100) > lateness(300, 0) == 0
    assert lateness(300, 300) > lateness(2, 1)


@pytest.mark.parametrize(
    ("age", "gap", "until"), [(100, 25, 75), (10, 8, 8), (2000, 300, 300), (100, 500, 100)]
)
def test_how_long_runs_are_put_off(age: float, gap: float, until: float) -> None:
    """Three times as long as a poll would put them off, and never beyond the longest pause."""
    assert unasked_gap_seconds(age, gap, 300) == (500 if gap > 300 else until)


def test_polls_that_find_nothing_have_a_ceiling() -> None:
    """Twenty a second, with those saved up that were not needed in the last five seconds."""
    booked, now, held = -inf, 1000.0, 0
    for _ in range(140):
        held += repolls_wait_seconds(booked, now) > 0
        booked = repolls_booked_until(booked, now)
    assert held == 39
    assert repolls_wait_seconds(booked, now) == pytest.approx(2)
    assert repolls_wait_seconds(booked, now + 2.01) == 0
    assert repolls_wait_seconds(booked, now - 3600) == 0  # the clock was set back
    assert repolls_wait_seconds(repolls_booked_until(booked, now - 3600), now - 3600) == 0


@given(age=ages)
def test_generations(age: float) -> None:
    """Each age is in one generation, which says between which ages it lies."""
    youngest, oldest = ages_of(generation(age))
    if 1 <= age < 1e8:
        assert youngest * 0.999 <= age <= oldest * 1.001
    assert 0 <= youngest < oldest < 20 * 365 * 86400
