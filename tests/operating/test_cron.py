"""`run --once` as cron runs it: no terminal, next to no environment, nothing relative."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import Child
from harness import KEY, Program
from pages import block

if TYPE_CHECKING:
    from harness import StartSimulator


class Cron:
    """Runs the recipe of docs/operations.md for a user, as cron(8) does."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / ".local/share/downloader"
        self.settings = home / ".config/downloader"
        self.settings.mkdir(parents=True)
        self.key = self.settings / "key"
        self.key.touch(0o600)
        self.key.write_text(f"{KEY}\n", encoding="utf-8")
        line = block("docs/operations.md", "cron")
        command = line.split(None, 5)[5]
        self.program = str(Path(sys.executable).with_name("downloader"))
        assert "/opt/downloader/bin/downloader" in command
        self.command = command.replace("/opt/downloader/bin/downloader", self.program)

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command as cron does."""
        surroundings = [f"HOME={self.home}", "LOGNAME=ada", "PATH=/usr/bin:/bin", "SHELL=/bin/sh"]
        return Child(
            ["env", "-i", *surroundings, "/bin/sh", "-c", command],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # no terminal of its own
        )

    def __call__(self, command: str | None = None) -> tuple[int, str, str]:
        """Run a command to its end: its exit code, and what cron would send by mail."""
        with self.start(command or self.command) as process:
            out, err = process.communicate()
        return process.returncode, out, err

    def submit(self, first: int, last: int) -> None:
        """Submit runs, as this user."""
        ids = " ".join(map(str, range(first, last + 1)))
        assert self(f"{self.program} submit {ids}")[0] == 0

    @property
    def files(self) -> Program:
        """What was recorded, for asking."""
        return _Home(self.home, env={})


class _Home(Program):
    """The database where it is for a user who has set nothing."""

    @property
    def database(self) -> Path:
        return self.folder / ".local/share/downloader/downloader.sqlite3"

    @property
    def output(self) -> Path:
        return self.database.parent / "audio"


@pytest.fixture
def cron(tmp_path: Path) -> Cron:
    """Give a user a home with a key."""
    (tmp_path / "home").mkdir()
    return Cron(tmp_path / "home")


def ask(cron: Cron, url: str) -> None:
    """Have this user's configuration name an API."""
    (cron.settings / "config.toml").write_text(f'api-url = "{url}"\nlease = "2s"\n', "utf-8")


def test_silent_on_success(cron: Cron, start_simulator: StartSimulator) -> None:
    """Everything is saved without a word, once there is a database; before, a slip is likelier."""
    simulator = start_simulator()
    ask(cron, simulator.api_url)
    code, out, err = cron()
    assert (code, out) == (2, "")
    assert "`downloader submit` makes one" in err
    assert [path.name for path in cron.home.iterdir()] == [".config"]
    cron.submit(1, 12)
    assert cron() == (0, "", "")
    assert cron() == (0, "", "")
    cron.files.assert_saved(simulator, range(1, 13))
    assert sorted(path.name for path in cron.home.iterdir()) == [".config", ".local"]


def test_overlapping_calls_share_the_work(cron: Cron, start_simulator: StartSimulator) -> None:
    """Calls that overlap, also where they make the database, fetch nothing twice and end 0."""
    simulator = start_simulator(storage_latency=0.05)
    ask(cron, simulator.api_url)
    first = [cron.start(cron.command) for _ in range(3)]
    cron.submit(1, 60)
    for process in [*first, *(cron.start(cron.command) for _ in range(3))]:
        with process:
            assert process.communicate() == ("", "")
        assert process.returncode == 0
    assert cron() == (0, "", "")
    cron.files.assert_saved(simulator, range(1, 61))
    assert simulator.stats()["storage"]["requests"] == 60


def test_a_failed_run(cron: Cron, start_simulator: StartSimulator) -> None:
    """A run that fails is told once, with 1; the next call is silent again."""
    fault = {"kind": "word", "word": "ERROR", "reason": "No such sound"}
    ask(cron, start_simulator(rules=[{"runs": [2], "where": "api", "fault": fault}]).api_url)
    cron.submit(1, 3)
    code, out, err = cron()
    assert (code, out) == (1, "")
    assert "No such sound" in err
    assert err.endswith("downloader: 1 run failed; see `downloader list --state failed`.\n")
    assert cron() == (0, "", "")


def test_a_refused_key(cron: Cron, start_simulator: StartSimulator) -> None:
    """A key that is refused is told, with 3, until it is good; no line shows it."""
    simulator = start_simulator(api_key="the-good-key")
    ask(cron, simulator.api_url)
    cron.submit(1, 3)
    for _ in range(2):
        code, out, err = cron()
        assert (code, out) == (3, "")
        assert err == "downloader: The service refused the API key (401).\n"
    cron.key.write_text("the-good-key", encoding="utf-8")
    code, _, err = cron()
    assert code == 0
    assert "service.unblocked" in err  # the mail that says that the trouble is over
    assert cron() == (0, "", "")
    cron.files.assert_saved(simulator, range(1, 4))


def test_no_key(cron: Cron, start_simulator: StartSimulator) -> None:
    """A key file that is not there is told in one line, with 2."""
    ask(cron, start_simulator().api_url)
    cron.key.unlink()
    code, out, err = cron()
    assert (code, out) == (2, "")
    assert err == (
        f"downloader: CAMB_API_KEY_FILE names {cron.key}, which cannot be read: "
        "No such file or directory.\n"
    )


def test_nobody_answers(cron: Cron) -> None:
    """An API that cannot be reached is told, with 3, and nothing is lost."""
    ask(cron, "http://127.0.0.1:9/apis")
    cron.submit(1, 3)
    code, out, err = cron()
    assert (code, out) == (3, "")
    [last] = err.splitlines()
    assert last.startswith("downloader: The API at 127.0.0.1 cannot be reached")
    assert cron.files.query("SELECT count(*) FROM runs WHERE state = 'pending'") == [(3,)]
