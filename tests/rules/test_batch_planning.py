from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.batching import MAX_BATCH, Batch, claim_size, plan, split
from downloader.rules.states import RunKey

SOUND, SPEECH = "text-to-sound", "tts"

keys = st.builds(RunKey, st.sampled_from([SOUND, SPEECH, "dubbing"]), st.integers(1, 60))


def sounds(*run_ids: int) -> list[RunKey]:
    """Return keys of sound runs."""
    return [RunKey(SOUND, run_id) for run_id in run_ids]


@pytest.mark.parametrize(
    ("due", "soon", "sizes"),
    [
        (0, 9, []),
        (1, 0, [1]),
        (1, 1, [2]),
        (1, 9, [5]),
        (2, 0, [2]),
        (5, 9, [5]),
        (6, 0, [3, 3]),
        (6, 1, [4, 3]),
        (6, 9, [5, 5]),
        (7, 0, [5, 2]),
        (7, 2, [5, 4]),
        (10, 0, [5, 5]),
        (11, 0, [5, 3, 3]),
        (12, 0, [5, 5, 2]),
        (16, 0, [5, 5, 3, 3]),
    ],
)
def test_sizes(due: int, soon: int, sizes: list[int]) -> None:
    """No run is left over alone where batches can be balanced or topped up."""
    batches = plan(sounds(*range(1, due + 1)), sounds(*range(101, 101 + soon)))
    assert [len(batch.run_ids) for batch in batches] == sizes


def test_most_urgent_first() -> None:
    """Batches come in the order of their most urgent runs, whatever the type."""
    due = [RunKey(SPEECH, 1), RunKey(SOUND, 1), RunKey(SPEECH, 2), RunKey(SOUND, 2)]
    assert plan(due, []) == [Batch(SPEECH, (1, 2)), Batch(SOUND, (1, 2))]


def test_no_filler_of_another_type() -> None:
    """A short batch is not topped up with runs of another type."""
    assert plan(sounds(1), [RunKey(SPEECH, 2)]) == [Batch(SOUND, (1,))]


@given(due=st.lists(keys, max_size=60), soon=st.lists(keys, max_size=20))
def test_plan_covers_every_due_run_once(due: list[RunKey], soon: list[RunKey]) -> None:
    """Every due run is in exactly one batch, no run in two, and batches are as few as can be."""
    batches = plan(due, soon)
    planned = [RunKey(batch.run_type, run_id) for batch in batches for run_id in batch.run_ids]
    assert len(planned) == len(set(planned))
    assert set(due) <= set(planned) <= set(due) | set(soon)
    assert all(1 <= len(batch.run_ids) <= MAX_BATCH for batch in batches)
    for run_type in {key.run_type for key in due} | {batch.run_type for batch in batches}:
        count = len({key for key in due if key.run_type == run_type})
        fillers = {key for key in soon if key.run_type == run_type} - set(due)
        mine = [batch for batch in batches if batch.run_type == run_type]
        assert len(mine) == ceil(count / MAX_BATCH)
        if any(len(batch.run_ids) == 1 for batch in mine):
            assert count == 1
            assert not fillers
        room = sum(MAX_BATCH - len(batch.run_ids) for batch in mine)
        left = fillers - set(planned)
        assert room == 0 or not left
    position = {key: due.index(key) for key in due}
    firsts = [
        min(position.get(RunKey(batch.run_type, run_id), len(due)) for run_id in batch.run_ids)
        for batch in batches
    ]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(
    ("run_ids", "halves"),
    [
        ((1, 2), ((1,), (2,))),
        ((1, 2, 3), ((1, 2), (3,))),
        ((1, 2, 3, 4), ((1, 2), (3, 4))),
        ((1, 2, 3, 4, 5), ((1, 2, 3), (4, 5))),
    ],
)
def test_split(run_ids: tuple[int, ...], halves: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """A refused batch is halved, the first half being the larger."""
    assert split(run_ids) == halves


@pytest.mark.parametrize("run_ids", [(), (1,)])
def test_single_runs_are_not_split(run_ids: tuple[int, ...]) -> None:
    """A batch of one has its culprit already."""
    with pytest.raises(ValueError, match="cannot be split"):
        split(run_ids)


@pytest.mark.parametrize(
    ("budget", "due", "claimed"),
    [(0, 9, 0), (-1, 9, 0), (1, 0, 0), (1, 9, 5), (1, 3, 3), (5, 9, 5), (6, 9, 9), (6, 99, 10)],
)
def test_claim_size(budget: int, due: int, claimed: int) -> None:
    """Claims are rounded up to whole batches, and never exceed what is due."""
    assert claim_size(budget, due) == claimed
