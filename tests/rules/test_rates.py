"""Limits on a rate: what may come in any minute, whoever asks for it and however."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downloader.rules.rates import CATCH_UP_SECONDS, booked_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MINUTE = 60.0


def taken(
    rate: float, clients: list[Iterator[tuple[float, float, int]]], seconds: float = float("inf")
) -> list[tuple[float, int]]:
    """Return when bytes came, and how many, to clients that wait for as long as they are told.

    A client yields for each piece for how many seconds it does something else before it, how much
    too late it wakes up from its wait, and how many bytes the piece has.
    """
    until = float("-inf")
    events = [(0.0, who) for who in range(len(clients))]
    found: list[tuple[float, int]] = []
    while events:
        now, who = heapq.heappop(events)
        piece = next(clients[who], None)
        if piece is None or now > seconds:
            continue
        pause, late, size = piece
        if pause:
            heapq.heappush(events, (now + pause, who))
            clients[who] = itertools.chain([(0.0, late, size)], clients[who])
            continue
        until = booked_until(until, size, rate=rate, now=now)
        found.append((now, size))
        heapq.heappush(events, (until + late if until > now else now, who))
    return found


def in_a_minute(came: Sequence[tuple[float, int]]) -> float:
    """Return the most that came within any minute."""
    most = total = 0
    first = 0
    for at, size in came:
        total += size
        while came[first][0] < at - MINUTE:
            total -= came[first][1]
            first += 1
        most = max(most, total)
    return most


sizes = st.integers(1, 65_536)
lateness = st.floats(0, CATCH_UP_SECONDS / 2)
pieces = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(0, 30)), lateness, sizes), max_size=60
)


@given(st.sampled_from([1e3, 2e5, 2e6, 1e8]), st.lists(pieces, min_size=1, max_size=8))
def test_no_minute_has_more(rate: float, clients: list[list[tuple[float, float, int]]]) -> None:
    """Whatever transfers do, no minute has more than the rate, but for what each has just got."""
    came = taken(rate, [iter(client) for client in clients])
    pending = 65_536 * len(clients)
    assert in_a_minute(came) <= rate * (MINUTE + CATCH_UP_SECONDS) * 1.000_001 + pending


@settings(max_examples=30)
@given(
    st.sampled_from([1e6, 2e6, 1e7]),
    st.integers(1, 8),
    st.lists(st.integers(16_384, 65_536), min_size=5, max_size=5),
    st.lists(lateness, min_size=7, max_size=7),
)
def test_the_rate_is_used(rate: float, transfers: int, sizes: list[int], late: list[float]) -> None:
    """Transfers that always want more get all of it, even where each sleep ends late."""

    def endless(who: int) -> Iterator[tuple[float, float, int]]:
        for turn in itertools.count(who):
            yield 0.0, late[turn % 7], sizes[turn % 5]

    came = taken(rate, [endless(who) for who in range(transfers)], seconds=MINUTE)
    assert sum(size for _, size in came) >= 0.95 * rate * MINUTE


def test_one_after_the_other() -> None:
    """Who comes first is served first; nobody waits while others are served twice."""
    rate, until = 100.0, 0.0
    waits = []
    for _ in range(4):
        until = booked_until(until, 50, rate=rate, now=10.0)
        waits.append(round(until - 10.0, 3))
    assert waits == [0.25, 0.75, 1.25, 1.75]


@pytest.mark.parametrize("pause", [0.25, 1.0, 1000.0])
def test_a_pause_is_not_saved_up(pause: float) -> None:
    """After however long a pause no more than a fraction of a second's worth comes at once."""
    until = booked_until(0.0, 100, rate=100, now=0.0)
    assert booked_until(until, 0, rate=100, now=until + pause) == until + pause - CATCH_UP_SECONDS


@pytest.mark.parametrize("rate", [0.01, 0.5, 5.0, 300.0])
@pytest.mark.parametrize("late", [0.0, 0.05, 0.2])
def test_requests(rate: float, late: float) -> None:
    """Requests that wait for their time first, and wake up late, are as many as they may be."""
    now, until = 0.0, float("-inf")
    came: list[tuple[float, int]] = []
    while now < 10 * max(MINUTE, 1 / rate):
        if until > now:
            now = until + late
        until = booked_until(until, 1, rate=rate, now=now)
        came.append((now, 1))
    assert in_a_minute(came) <= rate * (MINUTE + CATCH_UP_SECONDS) + 1
    assert 0.95 * rate * now - 1 <= len(came) <= 1.05 * rate * now + 1
