from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.estimate import ENOUGH, Recent, all_saved_at, recent

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unfinished", "of_late", "seconds"),
    [
        (10, Recent(5.0, 10, 1), 5),
        (1, Recent(600.0, 60, 1), 10),
        (0, Recent(5.0, 10, 1), None),  # nothing to estimate
        (10, Recent(5.0, ENOUGH - 1, 1), None),  # too little to go by
        (10, Recent(0.0, 10, 1), None),  # all at this very moment
        (10, Recent(0.0, 0, 0), None),
        (10**12, Recent(86400.0, 3, 1), None),  # longer than anybody waits
    ],
)
def test_all_saved_at(unfinished: int, of_late: Recent, seconds: float | None) -> None:
    """The end is as far away as the unfinished take at the rate of late; else it is not known."""
    expected = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert all_saved_at(unfinished, of_late, NOW) == expected


def test_recent_goes_on_until_now() -> None:
    """Where nothing has come for a while the rate goes down."""
    first = NOW - timedelta(seconds=100)
    assert recent(first, 50, 1000, NOW).runs_per_second == 0.5
    assert recent(first, 50, 1000, NOW + timedelta(seconds=100)).runs_per_second == 0.25
    assert recent(None, 0, 0, NOW) == Recent(0.0, 0, 0)
    # A clock that was set back.
    assert recent(first, 50, 1000, first - timedelta(seconds=5)).runs_per_second is None


@given(
    st.integers(1, 10**9), st.integers(ENOUGH, 10**9), st.floats(0.001, 86400), st.integers(1, 99)
)
def test_more_takes_longer(unfinished: int, runs: int, seconds: float, more: int) -> None:
    """The end is never in the past, and never sooner where more is unfinished."""
    of_late = Recent(seconds, runs, runs)
    ends_at = all_saved_at(unfinished, of_late, NOW)
    later = all_saved_at(unfinished + more, of_late, NOW)
    if ends_at is None:
        assert later is None
    else:
        assert ends_at >= NOW
        assert later is None or later >= ends_at
