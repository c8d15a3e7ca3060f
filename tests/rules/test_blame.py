"""Whose fault a refusal is: the run's, where others are served, or that of the place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.blame import Blame, Evidence
from downloader.rules.states import RunKey


def run(run_id: int) -> RunKey:
    """Return the key of a run."""
    return RunKey("text-to-sound", run_id)


def judge(*happened: tuple[str, int], others: bool = False, code: str = "busy") -> Blame:
    """Play what happened, a second apart, each try having lasted half of one; return the last."""
    evidence, found = Evidence(), None
    for at, (what, run_id) in enumerate(happened):
        if what == "served":
            evidence.served(run(run_id), at)
        else:
            found = evidence.refused(run(run_id), code, at - 0.5, at, others=others)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("happened", "blame"),
    [
        ([("refused", 1)], Blame.ALONE),
        ([("refused", 1), ("refused", 1)], Blame.ALONE),
        ([("refused", 1), ("refused", 2)], Blame.PLACE),
        ([("refused", 1), ("refused", 2), ("refused", 1)], Blame.PLACE),
        ([("served", 2), ("refused", 1)], Blame.ALONE),  # that may have been before the trouble
        ([("refused", 1), ("served", 2), ("refused", 1)], Blame.RUN),
        ([("refused", 1), ("served", 1), ("refused", 1)], Blame.ALONE),  # itself is no other
        ([("refused", 1), ("served", 3), ("refused", 2), ("refused", 1)], Blame.RUN),
        ([("refused", 1), ("refused", 2), ("served", 3), ("refused", 4)], Blame.ALONE),
        # Found to be at fault while others were served it stays so when there are none left.
        ([("refused", 1), ("served", 2), ("refused", 1), ("refused", 1)], Blame.RUN),
        # But not while others are refused as well: then it is everybody's.
        (
            [("refused", 1), ("served", 2), ("refused", 1), ("refused", 3), ("refused", 1)],
            Blame.PLACE,
        ),
    ],
)
def test_whose_fault(happened: list[tuple[str, int]], blame: Blame) -> None:
    """What others got since a run was refused before tells whose fault it is."""
    assert judge(*happened) is blame


def test_others_that_are_under_way_will_tell() -> None:
    """The first refusal beside others is nobody's fault yet; the second is judged by itself."""
    assert judge(("refused", 1), others=True) is Blame.UNKNOWN
    assert judge(("refused", 1), ("refused", 1), others=True) is Blame.ALONE


@pytest.mark.parametrize(("share", "enough"), [(0.0, 2), (0.05, 2), (0.2, 3), (0.5, 7), (0.95, 44)])
def test_bad_runs_that_meet_by_chance(share: float, enough: int) -> None:
    """The more runs are bad, the more in a row it takes until it is the place's fault."""
    evidence, runs = Evidence(_bad=share), range(1, enough + 1)
    found = [evidence.refused(run(n), "busy", n - 0.5, n, others=True) for n in runs]
    assert found == [Blame.UNKNOWN] * (enough - 1) + [Blame.PLACE]


def test_chance_is_no_excuse_twice() -> None:
    """Refused again, with none served since, it is the place's fault however many runs are bad."""
    evidence = Evidence(_bad=0.5)
    found = [evidence.refused(run(n), "busy", at, at) for at, n in enumerate([1, 2, 1])]
    assert found == [Blame.ALONE, Blame.UNKNOWN, Blame.PLACE]


def test_the_share_of_bad_runs_is_learned() -> None:
    """It grows where runs are refused beside others that are served, and shrinks where all are."""
    evidence = Evidence()
    for n in range(100):
        evidence.served(run(n), n)
        if n % 2:
            evidence.refused(run(-n), "busy", n - 0.5, n)
    assert 0.3 < evidence._bad < 0.6
    for n in range(100, 200):
        evidence.served(run(n), n)
    assert evidence._bad < 0.01


def test_served_during_a_try() -> None:
    """A run that is served while another's try lasts shows that the place serves."""
    evidence = Evidence()
    evidence.served(run(2), 10.0)
    assert evidence.refused(run(1), "busy", 9.0, 11.0) is Blame.RUN
    assert evidence.refused(run(3), "busy", 10.5, 11.0) is Blame.ALONE


@given(
    st.lists(
        st.tuples(st.sampled_from(["served", "refused"]), st.integers(1, 4)),
        min_size=1,
        max_size=30,
    ),
    st.booleans(),
)
def test_a_run_is_never_blamed_where_no_other_is_served(
    happened: list[tuple[str, int]],
    others: bool,  # noqa: FBT001 - Hypothesis'
) -> None:
    """Whatever happens, nobody is found at fault before another run was served beside it."""
    evidence, served = Evidence(), set()
    for at, (what, run_id) in enumerate(happened):
        if what == "served":
            evidence.served(run(run_id), at)
            served.add(run_id)
        elif evidence.refused(run(run_id), "busy", at - 0.5, at, others=others) is Blame.RUN:
            assert served - {run_id}


def test_memory_is_bounded() -> None:
    """Of very many refusals the oldest are forgotten."""
    evidence = Evidence()
    for run_id in range(1, 10_001):
        evidence.refused(run(run_id), "busy", 0.0, 1.0)
    assert len(evidence._refused) == 4096
