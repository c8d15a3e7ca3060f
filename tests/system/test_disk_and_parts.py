"""The disk: full, gone, and what a crash has left on it."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from downloader.camb.run_types import DEFAULT_RUN_TYPE
from downloader.errors import ConfigurationError
from downloader.rules.states import RunKey
from downloader.session import Mode
from downloader.store.blocks import current_blocks
from downloader.transfer.output import Output

if TYPE_CHECKING:
    from harness import MakeService, StartSimulator


def test_a_full_disk_blocks_and_spends_nothing(
    start_simulator: StartSimulator,
    make_service: MakeService,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full disk stops the service as a whole, fails no run, and is over when there is room."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(*range(1, 8))
    write = os.write

    def no_room(descriptor: int, data: bytes) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", no_room)
        result = service.run(Mode.ONCE)
    assert result.trouble is not None
    assert result.trouble.reason == "disk_full"
    assert result.tally.failed == 0
    assert set(service.rows("state, attempts", "state <> 'pending'")) == {("ready", 0)}
    [block] = current_blocks(service.database)
    assert (block.reason, block.probes) == ("disk_full", 1)  # once, not once a transfer
    assert service.run().tally.done == 7
    service.assert_saved(simulator, *range(1, 8))
    assert service.count("blocks") == 0


def test_the_file_of_a_lost_commit_is_adopted(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A file that was published before the crash is verified and recorded, not fetched again."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(7)
    output = Output(service.settings.output, DEFAULT_RUN_TYPE)
    output.prepare()
    part = output.open_part(RunKey(DEFAULT_RUN_TYPE, 7), None, None)
    part.write(simulator.audio(7))
    part.sync()
    part.publish(output.final(RunKey(DEFAULT_RUN_TYPE, 7), "wav"))
    part.close()  # and here the power went
    assert service.run().tally.done == 1
    service.assert_saved(simulator, 7)
    assert service.reasons(7)[-1] == "adopted"
    assert simulator.stats()["storage"]["requests"] == 0
    assert list((service.settings.output / ".partial").iterdir()) == []


def test_parts_of_finished_runs_are_swept(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """What a crash after the commit leaves of a part goes with the next start, and nothing else."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(1, 2)
    service.run()
    output = Output(service.settings.output, DEFAULT_RUN_TYPE)
    for run_id in (1, 99):  # one that is done, one that nobody tracks
        part = output.open_part(RunKey(DEFAULT_RUN_TYPE, run_id), '"etag"', 5)
        part.write(b"bytes")
        part.belongs_to('"etag"', 5)
        part.close()
    service.submit(3)
    service.run()
    [left] = (service.settings.output / ".partial").iterdir()
    assert left.name.startswith("text-to-sound-99.")
    service.assert_saved(simulator, 1, 2, 3)


def test_an_output_folder_that_cannot_be_used(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """An output folder that is a file is told at the start, and nothing is asked for."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(1, 2)
    service.settings.output.write_text("not a folder")
    with pytest.raises(ConfigurationError, match="--output"):
        service.run()
    assert simulator.stats()["api"]["requests"] == 0


def test_a_run_types_folder_that_cannot_be_used(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Something else in the place of one run type's folder is the trouble of that type alone."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.settings.output.mkdir()
    (service.settings.output / "tts").write_text("not a folder")
    service.submit(1, 2)
    service.submit(1, 2, run_type="tts")
    result = service.run()
    assert (result.tally.done, result.tally.failed, result.trouble) == (2, 2, None)
    assert service.rows("error_code", "run_type = 'tts'") == [("name_taken",)] * 2


def test_urls_are_asked_for_just_in_time(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """No more URLs are asked for than the workers can soon use."""
    simulator = start_simulator(
        rules=[{"runs": "*", "where": "storage", "fault": {"kind": "slow", "seconds": 0.3}}]
    )
    service = make_service(simulator)
    service.submit(*range(1, 201))
    result = service.run(concurrency=2, max_duration_seconds=1.0)
    asked = simulator.stats()["api"]["ids_asked"]
    # Two per worker, made up to a whole batch, in front of those that were taken up.
    assert asked <= simulator.stats()["storage"]["requests"] + 2 * 2 + 5
    assert result.work_left
