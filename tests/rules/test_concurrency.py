"""How many transfers at a time: on services that are simulated, and on anything that may happen."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.concurrency import MAX_REST_SECONDS, Concurrency, Observation

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR = 3600.0


@dataclass
class Service:
    """A storage, and the transfers of a program that keeps to the rule.

    Files of `size` bytes, their first byte `latency` seconds after they are asked for, at most
    `each` bytes a second for one of them and `total` for all. `refuses(seconds, transfers)` says
    which share of the transfers that end at that time is answered 503.
    """

    rule: Concurrency
    size: float = 1.76e6
    latency: float = 0.05
    each: float = 20e6
    total: float = float("inf")
    refuses: Callable[[float, int], float] = lambda _seconds, _transfers: 0.0
    breaks: float = 0.0
    noise: float = 0.0
    max_rate: float = float("inf")
    memory_low: bool = False
    seconds: float = 0.0
    files: int = 0
    changes: list[tuple[float, int, str]] = field(default_factory=list)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - noise
    _under_way: float = 0.0

    def capacity(self, transfers: int) -> float:
        """Return the bytes a second that so many transfers would bring."""
        return min(transfers * self.size / (self.latency + self.size / self.each), self.total)

    def run(self, seconds: float, step: float = 0.02) -> Service:
        """Let the program go on for so long."""
        for _ in range(round(seconds / step)):
            before = self.rule.limit
            rate = self.capacity(before) * max(0.1, self._chance.gauss(1, self.noise))
            received = min(rate, self.max_rate) * step
            self._under_way += received / self.size
            ended = int(self._under_way)
            self._under_way -= ended
            self.seconds += step
            busy = self._share(ended, self.refuses(self.seconds, before))
            broken = self._share(ended - busy, self.breaks)
            self.files += ended - busy - broken
            self.rule.observe(
                Observation(
                    step,
                    before,
                    round(received),
                    ended - busy - broken,
                    busy=busy,
                    broken=broken,
                    throttled=rate > self.max_rate,
                    memory_low=self.memory_low,
                )
            )
            if self.rule.limit != before:
                self.changes.append((self.seconds, self.rule.limit, self.rule.why))
        return self

    def _share(self, count: int, share: float) -> int:
        return sum(self._chance.random() < share for _ in range(count))


def test_starts_at_the_start() -> None:
    """It begins with the start, or with the maximum where that is less."""
    assert [Concurrency(most, 8).limit for most in (1, 7, 8, 16, 256)] == [1, 7, 8, 8, 8]


def test_a_service_that_answers_slowly() -> None:
    """Where every transfer more brings as much as the others, a job of seconds loses next to none.

    The whole of it is within a twentieth of what the maximum brings from the first moment on.
    """
    service = Service(Concurrency(16, 8)).run(4.5)
    assert service.rule.limit == 16
    assert service.files > 0.95 * 4.5 * service.capacity(16) / service.size


@pytest.mark.parametrize("maximum", [16, 64, 256])
def test_the_maximum_is_reached_soon(maximum: int) -> None:
    """Where more always helps, each doubling takes little more than a second."""
    service = Service(Concurrency(maximum, 8), size=20e3).run(8)
    assert service.rule.limit == maximum


def test_large_files_do_not_hold_it_up() -> None:
    """The number grows while no transfer has ended yet."""
    service = Service(Concurrency(16, 8), size=10e9).run(3)
    assert (service.files, service.rule.limit) == (0, 16)


@pytest.mark.parametrize("knee", [8, 10, 24, 100])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_it_ends_near_the_knee(knee: int, noise: float) -> None:
    """Where the line is full from some number on, it stays at about that number, and full."""
    service = Service(Concurrency(256, 8), latency=0.0, total=knee * 20e6, noise=noise).run(300)
    before = service.files
    service.run(300)
    found = [limit for at, limit, why in service.changes if at > 300] or [service.rule.limit]
    assert 0.7 * knee <= service.rule.limit <= 1.5 * knee, found
    assert service.files - before > 0.9 * 300 * service.total / service.size


@pytest.mark.parametrize("total", [60e6, 200e6, float("inf")])
def test_it_comes_to_rest(total: float) -> None:
    """Under constant throughput another number is tried once in some minutes, no more often."""
    service = Service(Concurrency(16, 8), total=total).run(HOUR / 2).run(HOUR / 2, step=0.1)
    tries = [change for change in service.changes if change[2] == "trying fewer"]
    tries += [change for change in service.changes if change[2] == "more did not help"]
    late = [at for at, *_ in tries if at > HOUR / 2]
    assert len(late) <= 2 * (HOUR / 2) / 300 + 1
    assert len(tries) < 30


def test_never_fewer_than_the_start_for_want_of_use() -> None:
    """What the start has is kept where fewer would do as well; only trouble takes it away."""
    service = Service(Concurrency(16, 8), total=20e6).run(600)
    assert min(limit for _, limit, _ in service.changes) == 8
    service = Service(Concurrency(4, 8), total=20e6).run(600)
    assert service.changes == []


def test_a_busy_storage() -> None:
    """A storage that refuses more than five is asked less and less often whether it takes more."""
    service = Service(Concurrency(16, 8), refuses=lambda _, many: 0.3 if many > 5 else 0.0)
    service.run(300)
    early = len(service.changes)
    before = service.files
    service.run(600)
    assert len(service.changes) - early < 25
    assert service.files - before > 0.8 * 600 * service.capacity(5) / service.size


def test_one_refusal_now_and_then() -> None:
    """One 503 among hundreds of transfers changes nothing for long."""
    service = Service(Concurrency(16, 8), refuses=lambda *_: 0.002).run(120)
    assert service.files > 0.85 * 120 * service.capacity(16) / service.size


def test_a_storm_passes() -> None:
    """While everything is refused one transfer is left; a while after, all are back."""
    service = Service(
        Concurrency(16, 8), refuses=lambda seconds, _: 1.0 if 10 < seconds < 40 else 0.0
    )
    service.run(12)
    assert service.rule.limit == 1
    assert service.changes[-1][2] == "storage_busy"
    service.run(27)
    assert service.rule.limit == 1
    service.run(21)
    assert service.rule.limit == 16


def test_half_a_storm_passes() -> None:
    """What was lowered step by step, some transfers being saved, comes back as well."""
    service = Service(
        Concurrency(16, 8), refuses=lambda seconds, _: 0.3 if 10 < seconds < 40 else 0.0
    )
    service.run(40)
    assert service.rule.limit <= 4
    service.run(60)
    assert service.rule.limit == 16


def test_connections_that_break() -> None:
    """Where every other transfer is reset there are soon few; one in a hundred is the weather."""
    assert Service(Concurrency(16, 8), breaks=0.5).run(20).rule.limit <= 2
    assert Service(Concurrency(16, 8), breaks=0.01).run(20).rule.limit >= 12


def test_low_memory() -> None:
    """While memory is low the number falls, step by step, to one; then it comes back."""
    service = Service(Concurrency(16, 8)).run(2)
    service.memory_low = True
    service.run(1)
    assert service.rule.limit == 8
    service.run(9)
    assert service.rule.limit == 1
    assert service.changes[-1][2] == "memory_low"
    service.memory_low = False
    service.run(60)
    assert service.rule.limit == 16


def test_low_memory_waits_for_what_runs() -> None:
    """As long as more run than there may be, low memory does not lower the number again."""
    rule = Concurrency(16, 16)
    for _ in range(100):
        rule.observe(Observation(1.0, 16, memory_low=True))
    assert rule.limit == 8
    rule.observe(Observation(1.0, 8, memory_low=True))
    assert rule.limit == 4


def test_a_limit_of_our_own_is_no_reason_for_more() -> None:
    """While --max-rate holds transfers back no more are begun; as few as it starts with stay."""
    service = Service(Concurrency(16, 4), max_rate=2e6).run(600)
    assert service.changes == []
    service.max_rate = float("inf")
    service.run(5)
    assert service.rule.limit == 16


def test_what_is_tried_ends_at_a_limit_of_our_own() -> None:
    """A trial that --max-rate interrupts is given up, and leaves no number half tried."""
    service = Service(Concurrency(16, 8), size=10e9).run(0.6)
    assert 8 < service.rule.limit < 16
    service.max_rate = 1e6
    service.run(1)
    assert service.rule.limit == 8


def test_too_little_work_proves_nothing() -> None:
    """As long as fewer run than might, for want of work, the number stays as it is."""
    rule = Concurrency(16, 8)
    for _ in range(1000):
        rule.observe(Observation(0.1, 3, 1000, 5, full=False))
    assert (rule.limit, rule.why) == (8, "start")


observations = st.builds(
    Observation,
    seconds=st.floats(0, 100),
    running=st.integers(0, 300),
    received_bytes=st.integers(0, 10**12),
    files=st.integers(0, 500),
    busy=st.integers(0, 5),
    broken=st.integers(0, 50),
    full=st.booleans(),
    throttled=st.booleans(),
    memory_low=st.booleans(),
)


@given(st.integers(1, 256), st.integers(1, 32), st.lists(observations, max_size=200))
def test_never_below_one_never_above_the_maximum(
    maximum: int, start: int, seen: list[Observation]
) -> None:
    """Whatever happens, there may be one transfer, and never more than the maximum."""
    rule = Concurrency(maximum, start)
    for one in seen:
        before = rule.limit
        assert 1 <= rule.observe(one) <= maximum
        if rule.fell:
            assert rule.limit <= max(1, before // 2)


@given(st.integers(1, 64), st.lists(observations, max_size=100))
def test_it_recovers_from_whatever_there_was(maximum: int, seen: list[Observation]) -> None:
    """After any history, on a service where more helps, the maximum is there again in time."""
    rule = Concurrency(maximum, 8)
    for one in seen:
        rule.observe(one)
    service = Service(rule, size=20e3)
    while rule.limit < maximum and service.seconds < 2 * MAX_REST_SECONDS:
        service.run(1, step=0.1)
    assert rule.limit == maximum
