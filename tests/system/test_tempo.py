"""What one process concludes from its answers: whom to ask for soon, and whom not just now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.decisions import Limits
from downloader.rules.pace import SCOUTED, SURE, Lead, Past, PutOff, Recall
from downloader.rules.states import RunKey
from downloader.store.polling import DueRun
from downloader.store.schema import UNREADABLE
from downloader.tempo import Tempo

TYPE = "text-to-sound"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LIMITS = Limits(min_poll_seconds=2, max_poll_seconds=300)
EVEN = 0.999999


def due(*run_ids: int, age: float = 400, polls: int = 0, run_type: str = TYPE) -> list[DueRun]:
    """Return runs of this age, in seconds, that have fallen due."""
    submitted_at = NOW - timedelta(seconds=age)
    return [
        DueRun(RunKey(run_type, one), polls, submitted_at, submitted_at, submitted_at)
        for one in run_ids
    ]


def read(
    tempo: Tempo, runs: list[DueRun], *finished: int, lead: Lead | None = None, seconds: float = 0
) -> list[PutOff | Recall]:
    """Let the tempo read an answer that finds these finished."""
    now = NOW + timedelta(seconds=seconds)
    keys = {run.key for run in runs if run.key.run_id in finished}
    return tempo.read(runs, keys, now, lead)


def leads(tempo: Tempo) -> list[tuple[int, bool]]:
    """Take all leads: the run and the direction of each, the newest first."""
    return [(lead.key.run_id, lead.upwards) for lead in tempo.next_leads(100)]


def delay(tempo: Tempo, run: DueRun, seconds: float = 0) -> float:
    """Return when the tempo has an unfinished run asked for again."""
    return tempo.delay_seconds(run, NOW + timedelta(seconds=seconds), EVEN)


def until_sure(tempo: Tempo) -> PutOff:
    """Let so many runs be unfinished that others are put off, which the last batch decides."""
    for first in range(1, SURE - 4, 5):
        assert read(tempo, due(*range(first, first + 5))) == []
    [decided] = read(tempo, due(*range(SURE, SURE + 5)))
    assert isinstance(decided, PutOff)
    return decided


def test_a_run_on_its_own() -> None:
    """A run of which nothing else is known is asked for again after a quarter of its age."""
    tempo = Tempo(LIMITS)
    [run] = due(1)
    assert read(tempo, [run]) == []
    assert delay(tempo, run) == pytest.approx(100, rel=1e-3)
    assert tempo.delay_seconds(run, NOW, 0.0) == pytest.approx(80)
    assert leads(tempo) == []


def test_beside_finished_neighbours() -> None:
    """What is unfinished in a batch that mostly is comes again soon, each time in vain later."""
    tempo = Tempo(LIMITS)
    runs = due(1, 2, 3, 4, 5)
    read(tempo, runs, 1, 2, 4)
    assert delay(tempo, runs[2]) == pytest.approx(12, rel=1e-3)
    read(tempo, [runs[2]], seconds=12)
    assert delay(tempo, runs[2], 12) == pytest.approx(12 * 1.6, rel=1e-3)
    read(tempo, [runs[2]], seconds=60)
    assert delay(tempo, runs[2], 60) == pytest.approx(460 / 4, rel=1e-3)  # no longer eagerly


def test_finished_runs_lead_to_their_neighbours() -> None:
    """A batch that is mostly finished leads both ways; its neighbours go on in one, or end it."""
    tempo = Tempo(LIMITS)
    read(tempo, due(10, 11, 12, 13, 14), 10, 12, 13)
    [lead] = tempo.next_leads(1)
    assert (lead.key.run_id, lead.upwards, lead.quiet_seconds) == (13, True, 12)
    assert NOW - timedelta(seconds=400) < lead.submitted_until < NOW - timedelta(seconds=200)
    assert leads(tempo) == [(10, False)]
    read(tempo, due(14, 15, 16, 17, 18), 14, 15, 16, 17, 18, lead=lead)
    assert leads(tempo) == [(18, True)] * 2  # all: twice as many next
    read(tempo, due(19, 20, 21, 22, 23), 19, 20, 22, lead=lead)
    assert leads(tempo) == [(22, True)]
    beyond = due(24, 25, 26, 27, 28)
    read(tempo, beyond, 24, lead=lead)
    assert leads(tempo) == []
    assert delay(tempo, beyond[1]) == pytest.approx(12, rel=1e-3)


def test_many_that_are_unfinished_speak_for_others() -> None:
    """Runs of the same age and type are put off once enough of them were unfinished."""
    tempo = Tempo(LIMITS)
    decided = until_sure(tempo)
    assert leads(tempo) == []
    assert decided.run_type == TYPE
    assert decided.submitted_from < due(1)[0].submitted_at <= decided.submitted_until
    assert decided.until == NOW + timedelta(seconds=100)
    # Where many are put off those asked in their place are enough, and the others wait for longer.
    tempo.note_put_off(decided, 1000)
    [again] = read(tempo, due(1, 2, 3, 4, 5), seconds=31)
    assert isinstance(again, PutOff)
    assert again.until == NOW + timedelta(seconds=331)
    tempo = Tempo(LIMITS)
    until_sure(tempo)
    assert decided.asked_before < NOW < decided.due_before < decided.until
    assert read(tempo, due(1, 2, 3, 4, 5, age=1000)) == []
    assert read(tempo, due(1, 2, 3, 4, 5, run_type="tts")) == []
    assert read(tempo, due(101, 102, 103, 104, 105), 101) == []


def test_what_was_asked_for_just_now_says_nothing_of_others() -> None:
    """Runs that only filled up a batch before their time put no others off."""
    tempo = Tempo(LIMITS)
    later = NOW + timedelta(seconds=10)
    for first in range(1, 100, 5):
        runs = [replace(run, next_attempt_at=later) for run in due(*range(first, first + 5))]
        assert read(tempo, runs) == []


def test_scouts_are_asked_for_more_often() -> None:
    """A few of the runs asked for come again sooner where many others are put off."""
    tempo = Tempo(LIMITS)
    tempo.note_put_off(until_sure(tempo), SCOUTED * 16)
    delays = [round(delay(tempo, run)) for run in due(*range(1, 21))]
    assert delays == [25] * 10 + [100] * 10
    # One of them finished: its neighbours are worth a look, though four are not.
    read(tempo, due(1, 2, 3, 4, 5), 3)
    assert leads(tempo) == [(3, True), (3, False)]
    assert round(delay(tempo, due(11)[0])) == 25
    # What is put off is so until its time only.
    read(tempo, due(1, 2), seconds=301)
    assert round(delay(tempo, due(1)[0], 301)) == 175


def test_what_was_put_off_is_called_back_where_others_have_finished() -> None:
    """Where all of those asked in their place have finished, the others are due at once."""
    tempo = Tempo(LIMITS)
    put_off = until_sure(tempo)
    assert read(tempo, due(1, 2, 3, 4, 5), *range(1, 6)) == []  # nothing was put off
    tempo.note_put_off(put_off, 1000)
    [decided] = read(tempo, due(11, 12, 13, 14, 15), *range(11, 16))
    assert isinstance(decided, Recall)
    assert (decided.run_type, decided.now) == (TYPE, NOW)
    assert decided.submitted_from < due(1)[0].submitted_at <= decided.submitted_until
    assert decided.asked_before < NOW
    assert read(tempo, due(16, 17, 18, 19, 20), *range(16, 21)) == []  # and they were


def test_what_has_none_left_to_put_off_is_not_looked_through_again() -> None:
    """Until the next runs of the kind fall due no answer decides about them anew."""
    tempo = Tempo(LIMITS)
    tempo.note_put_off(until_sure(tempo), 0)
    assert read(tempo, due(*range(30, 35))) == []
    assert read(tempo, due(*range(30, 35)), seconds=29) == []
    assert len(read(tempo, due(*range(30, 35)), seconds=31)) == 1


def test_polls_that_find_nothing_are_held_back() -> None:
    """Runs asked for again and again wait where too many such requests found nothing."""
    tempo = Tempo(LIMITS)
    for _ in range(150):
        read(tempo, due(1, 2, 3, 4, 5))  # the first polls of these
    assert tempo.repolls_wait_seconds(NOW) == 0
    for _ in range(150):
        read(tempo, due(1, 2, 3, 4, 5, polls=1), 3)
    assert tempo.repolls_wait_seconds(NOW) == 0
    for _ in range(150):
        read(tempo, due(1, 2, 3, 4, 5, polls=1))
    assert tempo.repolls_wait_seconds(NOW) == pytest.approx(2.5, rel=1e-3)
    assert tempo.repolls_wait_seconds(NOW + timedelta(seconds=3)) == 0


def test_the_young_wait_for_their_first_poll() -> None:
    """Where the past tells, a new run's first poll comes late; a cohort's first batch at once."""
    tempo = Tempo(LIMITS)
    alone = due(1, age=5)
    assert tempo.first_polls(alone, NOW) == {}
    tempo.past = {TYPE: Past(tuple(float(second) for second in range(60, 120)))}
    first = NOW + timedelta(seconds=63 * 0.75 - 5)
    assert tempo.first_polls(alone, NOW) == {alone[0].key: first}
    assert tempo.first_polls(due(1, age=5, polls=1), NOW) == {}
    assert tempo.first_polls(due(1, age=48), NOW) == {}
    assert tempo.first_polls(due(1, age=5, run_type="tts"), NOW) == {}
    assert tempo.first_polls(due(1, 2, 3, 4, 5, age=5), NOW) == {}
    tempo.past = {TYPE: Past((1e6,) * 100)}
    assert tempo.first_polls(alone, NOW) == {alone[0].key: NOW + timedelta(seconds=295)}


@given(
    ages=st.lists(st.floats(-1e6, 1e9), min_size=1, max_size=5, unique=True),
    finished=st.sets(st.integers(1, 5)),
    past=st.lists(st.floats(0, 1e9), max_size=40),
    rounds=st.integers(1, 10),
    jitter=st.floats(0, 1),
)
def test_every_run_is_asked_for_in_time(
    ages: list[float], finished: set[int], past: list[float], rounds: int, jitter: float
) -> None:
    """Whatever the answers, no run waits longer than the maximum or shorter than the minimum."""
    tempo = Tempo(LIMITS)
    tempo.past = {TYPE: Past(tuple(sorted(past)))}
    runs = [due(number, age=age)[0] for number, age in enumerate(ages, 1)]
    for _ in range(rounds):
        for decided in read(tempo, runs, *finished):
            if isinstance(decided, Recall):
                continue
            tempo.note_put_off(decided, decided.most)
            assert NOW < decided.until <= NOW + timedelta(seconds=LIMITS.max_poll_seconds)
        for run in runs:
            seconds = tempo.delay_seconds(run, NOW, jitter)
            assert LIMITS.min_poll_seconds * 0.8 <= seconds <= LIMITS.max_poll_seconds


def test_rows_whose_times_cannot_be() -> None:
    """A row edited by hand, submitted at the end of all calendars or at their start, is polled."""
    tempo = Tempo(LIMITS)
    tempo.past = {TYPE: Past((60.0,) * 20)}
    for moment, seconds in ((UNREADABLE, 2), (datetime(1, 1, 1, tzinfo=UTC), 300)):
        runs = [DueRun(RunKey(TYPE, one), 0, moment, moment, moment) for one in range(1, 5)]
        assert tempo.first_polls(runs, NOW) == {}
        for _ in range(5):
            read(tempo, runs)
        assert delay(tempo, runs[0]) == pytest.approx(seconds, rel=1e-3)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many runs are seen, and never again, little of them is kept."""
    monkeypatch.setattr("downloader.tempo._MOST_EAGER", 20)
    tempo = Tempo(LIMITS)
    for first in range(1, 2000, 5):
        runs = due(*range(first, first + 5), age=400 + first)
        for decided in read(tempo, runs, first, first + 1, first + 2):
            if isinstance(decided, PutOff):
                tempo.note_put_off(decided, 1000)
        for run in runs:
            delay(tempo, run)
    assert len(tempo._eager) <= 20
    assert len(tempo._scouts) <= 10
    assert len(tempo._samples) <= 100
    assert len(leads(tempo)) <= 32
