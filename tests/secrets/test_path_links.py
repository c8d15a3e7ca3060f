"""What others have put into the output folder: links are not followed, and nothing is overwritten.

Each through the whole service, with everything around it compared before and after.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from whole_tree import snapshot

from downloader.errors import ConfigurationError

if TYPE_CHECKING:
    from harness import MakeService, Service, StartSimulator

    from downloader.simulator.server import Simulator

Obstruct = Callable[[Path, Path], object]


def link_to_a_pipe(place: Path, elsewhere: Path) -> None:
    """Link to a pipe that nobody writes to."""
    pipe = elsewhere / f"pipe-{place.name[:40]}"
    os.mkfifo(pipe)
    place.symlink_to(pipe)


def folder(place: Path, _elsewhere: Path) -> None:
    """Make a folder with something in it."""
    place.mkdir()
    (place / "1.wav").write_bytes(b"precious")


def listening(place: Path, _elsewhere: Path) -> None:
    """Make a socket; its path has to be short."""
    with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(place.name)


def device(place: Path, _elsewhere: Path) -> None:
    """Make what takes everything and keeps nothing."""
    os.mknod(place, 0o020666, os.makedev(1, 3))


def unreadable(place: Path, _elsewhere: Path) -> None:
    """Make a file that nobody but root may read."""
    place.write_bytes(b"precious")
    place.chmod(0)


OBSTACLES: dict[str, Obstruct] = {
    "link to a file": lambda place, elsewhere: place.symlink_to(elsewhere / "precious"),
    "link to an equal file": lambda place, elsewhere: place.symlink_to(elsewhere / "equal"),
    "link to nothing": lambda place, elsewhere: place.symlink_to(elsewhere / "nothing"),
    "link to nowhere": lambda place, elsewhere: place.symlink_to(elsewhere / "none" / "nothing"),
    "link to a folder": lambda place, elsewhere: place.symlink_to(elsewhere),
    "link to itself": lambda place, _: place.symlink_to(place),
    "link to a device": lambda place, _: place.symlink_to(os.devnull),
    "link to a pipe": link_to_a_pipe,
    "second name of a file": lambda place, elsewhere: place.hardlink_to(elsewhere / "precious"),
    "folder": folder,
    "pipe": lambda place, _: os.mkfifo(place),
    "socket": listening,
    "device": device,
    "unreadable file": unreadable,
}
KINDS = [
    pytest.param(kind, marks=[pytest.mark.needs("root")] * (kind == "device")) for kind in OBSTACLES
]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Make a folder of somebody else's, with a file in it."""
    made = tmp_path / "elsewhere"
    made.mkdir()
    (made / "precious").write_bytes(b"precious")
    return made


def prepared(make_service: MakeService, simulator: Simulator) -> Service:
    """Make the service, and its output folder as it is after a first call."""
    service = make_service(simulator)
    (service.settings.output / ".partial").mkdir(parents=True, mode=0o700)
    return service


@pytest.mark.parametrize("run_type", ["text-to-sound", "tts"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_a_file(
    start_simulator: StartSimulator,
    make_service: MakeService,
    elsewhere: Path,
    *,
    kind: str,
    run_type: str,
) -> None:
    """Whatever has a run's name keeps it, and what it leads to is not touched; others are saved."""
    simulator = start_simulator(audio_format="wav")
    service = prepared(make_service, simulator)
    output = service.settings.output
    saved = output if run_type == "text-to-sound" else output / run_type
    saved.mkdir(exist_ok=True)
    (elsewhere / "equal").write_bytes(simulator.audio(1, run_type))
    OBSTACLES[kind](saved / "1.wav", elsewhere)
    before = snapshot(output.parent)
    service.submit(1, 2, run_type=run_type)
    service.run()
    assert service.rows("run_id, state, error_code") == [
        (1, "failed", "name_taken"),
        (2, "done", None),
    ]
    after = snapshot(output.parent)
    names = {str((saved / "2.wav").relative_to(output.parent))}
    records = {name for name in after if name.startswith("runs.sqlite3")}
    assert set(after) - set(before) - records == names
    assert {name: after[name] for name in set(before) - records} == {
        name: before[name] for name in set(before) - records
    }


def test_a_second_name_of_an_equal_file(
    start_simulator: StartSimulator, make_service: MakeService, elsewhere: Path
) -> None:
    """A second name of somebody's equal file is as good as saved, and is not written to."""
    simulator = start_simulator(audio_format="wav")
    service = prepared(make_service, simulator)
    (elsewhere / "equal").write_bytes(simulator.audio(1))
    (service.settings.output / "1.wav").hardlink_to(elsewhere / "equal")
    before = snapshot(elsewhere)
    service.submit(1)
    assert service.run().tally.done == 1
    service.assert_saved(simulator, 1)
    assert snapshot(elsewhere) == before


@pytest.mark.parametrize("kind", ["link to a folder", "link to nothing", "second name of a file"])
def test_in_place_of_the_folder_of_parts(
    start_simulator: StartSimulator, make_service: MakeService, elsewhere: Path, kind: str
) -> None:
    """What is no folder of parts is not written through: the service does not start."""
    service = make_service(start_simulator())
    output = service.settings.output
    output.mkdir()
    OBSTACLES[kind](output / ".partial", elsewhere)
    service.submit(1, 2)
    before = snapshot(elsewhere)
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        service.run()
    assert snapshot(elsewhere) == before
    assert set(service.states().values()) == {"pending"}
    assert [path.name for path in output.iterdir()] == [".partial"]


@pytest.mark.parametrize("kind", ["link to a folder", "link to nothing", "pipe", "link to itself"])
def test_in_place_of_a_types_folder(
    start_simulator: StartSimulator, make_service: MakeService, elsewhere: Path, kind: str
) -> None:
    """What is no folder of a run type's costs that type's runs, and nobody else anything."""
    service = prepared(make_service, start_simulator())
    OBSTACLES[kind](service.settings.output / "tts", elsewhere)
    before = snapshot(elsewhere)
    service.submit(1, run_type="tts")
    service.submit(1, 2)
    service.run()
    assert service.rows("run_type, state, error_code") == [
        ("text-to-sound", "done", None),
        ("text-to-sound", "done", None),
        ("tts", "failed", "name_taken"),
    ]
    assert snapshot(elsewhere) == before


@pytest.mark.parametrize("kind", KINDS)
def test_in_place_of_parts(
    start_simulator: StartSimulator, make_service: MakeService, elsewhere: Path, kind: str
) -> None:
    """What only has a part's name is never written to, nor what it leads to; the run is saved."""
    simulator = start_simulator(min_size=1_200_000, max_size=1_300_000)  # these are resumed
    service = prepared(make_service, simulator)
    parts = service.settings.output / ".partial"
    (elsewhere / "equal").write_bytes(simulator.audio(1))
    before = {name: entry._replace(names=0) for name, entry in snapshot(elsewhere).items()}
    for number, ending in enumerate(("0", "0123456789abcdef", "0123456789abcdef" * 4)):
        OBSTACLES[kind](parts / f"text-to-sound-1.{number:012x}.{ending}.part", elsewhere)
    service.submit(1)
    assert service.run().tally.done == 1
    service.assert_saved(simulator, 1)
    after = {name: entry._replace(names=0) for name, entry in snapshot(elsewhere).items()}
    assert {name: entry for name, entry in after.items() if "pipe" not in name} == before


def test_the_output_folder_itself(
    start_simulator: StartSimulator, make_service: MakeService, elsewhere: Path
) -> None:
    """The output folder may be a link, which is its owner's choice; beside it nothing changes."""
    service = make_service(start_simulator())
    (elsewhere / "large").mkdir()
    service.settings.output.symlink_to(elsewhere / "large")
    service.submit(1, 2)
    assert service.run().tally.done == 2
    assert {path.name.split(".")[0] for path in (elsewhere / "large").iterdir()} == {"", "1", "2"}
    assert sorted(path.name for path in elsewhere.iterdir()) == ["large", "precious"]
    assert service.settings.output.is_symlink()
