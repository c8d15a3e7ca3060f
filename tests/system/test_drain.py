"""The main job, whole: run ids in, verified files out."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.clock import utc_now
from downloader.rules.decisions import Limits
from downloader.session import Mode
from downloader.store.intake import submit

if TYPE_CHECKING:
    from harness import MakeService, StartSimulator


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 11, 24])
@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_saves_every_run(
    start_simulator: StartSimulator, make_service: MakeService, count: int, audio_format: str
) -> None:
    """Any number of finished runs is drained into files that equal the service's own."""
    simulator = start_simulator(audio_format=audio_format)
    service = make_service(simulator)
    service.submit(*range(1, count + 1))
    result = service.run()
    assert (result.tally.done, result.tally.failed, result.work_left) == (count, 0, False)
    service.assert_saved(simulator, *range(1, count + 1))
    stats = simulator.stats()
    assert stats["storage"]["by_status"] == {"200": count}
    assert stats["storage_requests_with_api_key"] == 0
    assert sum(stats["api"]["bulk"].values()) == -(-count // 5) if count > 1 else True
    names = {path.name for path in service.settings.output.iterdir()}
    assert names == {f"{run_id}.{audio_format}" for run_id in range(1, count + 1)} | {".partial"}
    assert list((service.settings.output / ".partial").iterdir()) == []


def test_late_runs(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """Runs that finish late are asked for again until they have."""
    simulator = start_simulator(finish_after=1.0, finish_spread=1.0)
    service = make_service(simulator)
    service.submit(*range(1, 13))
    assert service.run().tally.done == 12
    service.assert_saved(simulator, *range(1, 13))
    # On a loaded machine some have finished before they are first asked for.
    assert any(polls > 1 for (polls,) in service.rows("polls"))


def test_failure_at_the_provider(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A run that failed at the provider ends with the provider's own word; the others are saved."""
    simulator = start_simulator(
        rules=[
            {
                "runs": [3],
                "where": "api",
                "fault": {"kind": "word", "word": "TIMEOUT", "reason": "Out of time"},
            }
        ]
    )
    service = make_service(simulator)
    service.submit(1, 2, 3, 4, 5)
    result = service.run()
    assert (result.tally.done, result.tally.failed) == (4, 1)
    service.assert_saved(simulator, 1, 2, 4, 5)
    [(state, code, word, message)] = service.rows(
        "state, error_code, remote_status, error_message", "run_id = 3"
    )
    assert (state, code, word) == ("failed", "provider_failed", "TIMEOUT")
    assert "Out of time" in message


def test_once_takes_what_is_due_and_ends(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """`--once` asks for each due run once, saves what is ready, and leaves the rest pending."""
    simulator = start_simulator(
        rules=[{"runs": [2, 4], "where": "api", "fault": {"kind": "pending"}}]
    )
    service = make_service(simulator)
    service.submit(*range(1, 31))
    result = service.run(Mode.ONCE)
    assert result.tally.done == 28
    assert result.work_left
    assert {service.states()[run_id] for run_id in (2, 4)} == {"pending"}
    assert set(simulator.stats()["api"]["asked_by_run"].values()) == {1}
    simulator.set_rules([])
    # Not due yet, perhaps; at the latest when it is, the second call saves them.
    while service.run(Mode.ONCE).work_left:
        pass
    service.assert_saved(simulator, *range(1, 31))


def test_once_asks_for_just_what_is_due(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """`--once` asks for all that is due and for no run before its time, nor to fill a batch."""
    simulator = start_simulator(
        rules=[{"runs": "1-60", "where": "api", "fault": {"kind": "pending"}}]
    )
    service = make_service(simulator)
    limits = Limits(max_poll_seconds=7200)
    an_hour_ago = utc_now() - timedelta(hours=1)
    submit(service.database, DEFAULT_RUN_TYPE, range(1, 61), an_hour_ago)
    service.run(Mode.ONCE, limits=limits)
    service.submit(61)
    assert service.run(Mode.ONCE, limits=limits).tally.done == 1
    asked = simulator.stats()["api"]["asked_by_run"]
    assert asked == {str(run_id): 1 for run_id in range(1, 62)}


def test_run_types_apart(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """Runs of two types never share a request, and other types' files have their own folder."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(1, 2, 3)
    service.submit(1, 2, 3, run_type="tts")
    assert service.run().tally.done == 6
    for run_type, folder in (("text-to-sound", ""), ("tts", "tts/")):
        for run_id in (1, 2, 3):
            saved = service.settings.output / f"{folder}{run_id}.wav"
            assert saved.read_bytes() == simulator.audio(run_id, run_type)
