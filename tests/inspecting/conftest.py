"""What the tests of the site share: a database with files to play, and with secrets."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from harness import Program
from inspecting.looking import Site, inspected
from sql.cases import Cases

from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAVED = range(1, 7)
"""Runs with a WAV of some seconds each; the others are the cases of docs/sql.md."""

AUDIO = SimulatorOptions(audio_format="wav", min_size=400_000, max_size=900_000)


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Save some runs of a simulator, then make runs in every state and trouble."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "home").mkdir()
    program = Program(folder)
    with Simulator(AUDIO) as simulator:
        program.env["DOWNLOADER_API_URL"] = simulator.api_url
        program.submit(SAVED)
        done = program("run", "--drain")
        assert done.returncode == 0, done.stderr
    with closing(open_database(program.database)) as database:
        Cases(database).make()
    return program


@pytest.fixture(scope="session")
def site(shown: Program) -> Iterator[Site]:
    """Serve that database; nobody changes it."""
    with inspected(shown) as served:
        yield served


@pytest.fixture(scope="session")
def secrets(shown: Program) -> list[str]:
    """Return the URLs that the database holds."""
    found = [url for (url,) in shown.query("SELECT url FROM runs WHERE url IS NOT NULL")]
    assert len(found) > 3
    return found


@pytest.fixture
def output(program: Program) -> Path:
    """Make the test's own output folder."""
    program.output.mkdir()
    return program.output
