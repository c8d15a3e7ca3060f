"""The program as a process, and the service in this process: what the tests drive."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from children import Child

from downloader import service
from downloader.clock import utc_now
from downloader.observe.progress import Silent
from downloader.session import Mode
from downloader.store.intake import submit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from downloader.settings import Settings
    from downloader.simulator.server import Simulator
    from downloader.store.database import Database

KEY = "test-key-0123456789"


def wait_until(condition: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    """Wait for a condition while processes run; the suite's own time-out ends a vain wait."""
    pause = threading.Event()
    while not condition():
        for process in processes:
            assert process.poll() is None, process.communicate()
        pause.wait(0.02)


@dataclass
class Program:
    """The installed program in a folder of its own, as a person or cron runs it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The database's path."""
        return self.folder / "runs.sqlite3"

    @property
    def output(self) -> Path:
        """The folder of saved files."""
        return self.folder / "audio"

    def environment(self) -> dict[str, str]:
        """Return an environment in which nothing of the caller's own settings is left."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DOWNLOADER_", "CAMB_", "XDG_"))
        }
        return kept | {
            "HOME": str(self.folder / "home"),
            "DOWNLOADER_DATABASE": str(self.database),
            "DOWNLOADER_OUTPUT": str(self.output),
            "CAMB_API_KEY": KEY,
            **self.env,
        }

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs the program."""
        return [str(Path(sys.executable).with_name("downloader")), *arguments]

    def start(self, *arguments: str, **options: Any) -> Child[str]:  # noqa: ANN401 - Popen's own
        """Start the program; its output is captured unless told otherwise."""
        captured = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
        }
        return Child(
            self.command(*arguments),
            env=self.environment(),
            cwd=self.folder,
            text=True,
            encoding="utf-8",
            **(captured | options),
        )

    def __call__(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        with self.start(*arguments, stdin=subprocess.PIPE) as process:
            out, err = process.communicate(stdin or "", timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def submit(self, run_ids: Iterable[int]) -> None:
        """Submit runs on standard input."""
        done = self("submit", "--file", "-", stdin="\n".join(map(str, run_ids)))
        assert done.returncode == 0, done.stderr

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        found: dict[str, Any] = json.loads(self("status", "--json").stdout)
        return found

    def runs(self, state: str) -> list[dict[str, Any]]:
        """Return what `list --json` prints of the runs in a state."""
        done = self("list", "--state", state, "--limit", "1000000", "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def assert_saved(self, simulator: Simulator, run_ids: Iterable[int]) -> None:
        """Assert that just these runs are done, and that their files are the simulator's."""
        done = {row["run_id"]: row for row in self.runs("done")}
        assert set(done) == set(run_ids)
        for run_id, row in done.items():
            content = Path(row["location"]).read_bytes()
            assert content == simulator.audio(run_id)
            digest = hashlib.sha256(content).hexdigest()
            assert (len(content), digest) == (row["bytes"], row["sha256"])

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Query the database as a person does."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as raw:
            return raw.execute(sql, parameters).fetchall()


NOBODY = 65534


class Unprivileged(Program):
    """The program as a user to whom not everything is open: as another where this one is root.

    Tests with it are marked `needs("unprivileged")`.
    """

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs the program."""
        as_other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return [*([] if os.geteuid() else as_other), *super().command(*arguments)]

    def own(self) -> None:
        """Make all that is in its folder its user's."""
        if not os.geteuid():
            for one in (self.folder, *self.folder.rglob("*")):
                os.chown(one, NOBODY, NOBODY)


@dataclass
class Service:
    """The service in this process, on a real database, against a simulator."""

    database: Database
    settings: Settings

    def submit(self, *run_ids: int, run_type: str = "text-to-sound") -> None:
        """Track runs."""
        submit(self.database, run_type, run_ids, utc_now())

    def run(self, mode: Mode = Mode.DRAIN, **changes: Any) -> service.Result:  # noqa: ANN401 - fields of Settings
        """Run the service to its end."""
        return service.run(replace(self.settings, **changes), self.database, mode, Silent())

    def count(self, table: str) -> int:
        """Count the rows of a table."""
        with self.database.read() as connection:
            found = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar()  # noqa: S608 - the tests' own text
        return int(found or 0)

    def rows(self, columns: str = "*", where: str = "1") -> list[tuple[Any, ...]]:
        """Query `runs`."""
        with self.database.read() as connection:
            found = connection.exec_driver_sql(
                f"SELECT {columns} FROM runs WHERE {where} ORDER BY run_type, run_id"  # noqa: S608 - the tests' own text
            )
            return [tuple(row) for row in found]

    def states(self) -> dict[int, str]:
        """Return the state of each run."""
        return dict(self.rows("run_id, state"))

    def reasons(self, run_id: int) -> list[str]:
        """Return the reasons of a run's transitions, oldest first."""
        return self._told("reason", run_id)

    def ways(self, run_id: int) -> list[str]:
        """Return the states that a run has come to, one after another."""
        return self._told("to_state", run_id)

    def _told(self, column: str, run_id: int) -> list[str]:
        with self.database.read() as connection:
            found = connection.exec_driver_sql(
                f"SELECT {column} FROM run_events WHERE run_id = ? ORDER BY event_id",  # noqa: S608
                (run_id,),
            )
            return [row[0] for row in found]

    def assert_saved(self, simulator: Simulator, *run_ids: int, version: int = 1) -> None:
        """Assert that these runs are done, and that their files are the simulator's own."""
        for run_id in run_ids:
            [(state, location, size, digest, url)] = self.rows(
                "state, location, bytes, sha256, url", f"run_id = {run_id}"
            )
            assert (state, url) == ("done", None), f"run {run_id}: {self.reasons(run_id)}"
            content = Path(location).read_bytes()
            assert content == simulator.audio(run_id, version=version)
            assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)


StartSimulator = Callable[..., "Simulator"]
MakeService = Callable[["Simulator"], Service]
