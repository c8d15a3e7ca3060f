"""What the tests share: a simulator, the program as a process, and the service in this process."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import children
import needs
import pytest
from harness import KEY, Program, Service, StartSimulator, Unprivileged
from hypothesis import settings as hypothesis_settings

from downloader.rules.decisions import Limits
from downloader.settings import Settings
from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Machines with other work on them are slow now and then; a deadline would only say that.
hypothesis_settings.register_profile("default", deadline=None)
hypothesis_settings.load_profile("default")


_BARE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Mark what this run starts; the workers of one that is spread have its mark from there."""
    if not hasattr(config, "workerinput"):
        children.mark_this_run()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot be run here, before any fixture has started anything."""
    if _BARE not in item.session.stash:
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        item.session.stash[_BARE] = factory.mktemp("bare")
    needs.prepare(item, item.session.stash[_BARE])


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    """End what a test has left running, and say so: its own helpers have to."""
    before = children.children()
    yield
    if left := children.end(children.children() - before):
        pytest.fail(f"the test has left a process: {'; '.join(left)}", pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that leaves any process behind, also one whose parent has ended."""
    if hasattr(session.config, "workerinput"):
        return
    for told in children.end(children.outliving()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nleft over from the tests: {told}")  # noqa: T201 - to whoever runs them


@pytest.fixture
def start_simulator() -> Iterator[StartSimulator]:
    """Start simulators that end with the test: `start_simulator(rules=[…], api_key=…, …)`.

    Small files by default; keyword arguments are `SimulatorOptions`' fields, and `rules` takes
    what a rule file holds.
    """
    with contextlib.ExitStack() as stack:

        def start(
            *,
            rules: list[dict[str, Any]] | None = None,
            certfile: Path | None = None,
            keyfile: Path | None = None,
            port: int = 0,
            **options: Any,  # noqa: ANN401 - fields of SimulatorOptions
        ) -> Simulator:
            options = {"min_size": 2_000, "max_size": 30_000} | options
            simulator = stack.enter_context(
                Simulator(
                    SimulatorOptions(**options), certfile=certfile, keyfile=keyfile, port=port
                )
            )
            if rules:
                simulator.set_rules(rules)
            return simulator

        yield start


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give the program a folder of its own."""
    (tmp_path / "home").mkdir()
    return Program(tmp_path)


@pytest.fixture
def unprivileged() -> Iterator[Unprivileged]:
    """Give the program, as a user to whom not everything is open, a folder that it can reach."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "home").mkdir()
        program = Unprivileged(folder)
        program.own()
        yield program
    finally:
        shutil.rmtree(folder)


FAST = Limits(min_poll_seconds=0.05, max_poll_seconds=0.2)


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[[Simulator], Service]]:
    """Make the service for a simulator: `make_service(simulator)`."""
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.closing(open_database(tmp_path / "runs.sqlite3")))

        def make(simulator: Simulator) -> Service:
            settings = Settings(
                output=tmp_path / "audio",
                api_key=KEY,
                api_url=simulator.api_url,
                limits=FAST,
                grace_seconds=10,
                owns_process=True,
            )
            return Service(database, settings)

        yield make
