"""A simulator, a database, and many processes of the program that come to harm."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

import psutil
from children import Child
from harness import KEY, Program
from torture import truth

from downloader.clock import utc_now
from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator
from downloader.store.intake import submit
from downloader.store.migrate import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType

    from torture.truth import Expected

PATIENCE_SECONDS: Final = 240.0
"""How long a thing may take that takes seconds; only a program that hangs takes longer."""

QUICK: Final = ("--min-poll", "0.05s", "--max-poll", "0.3s")
"""How often the runs are asked for: the simulator needs no rest."""

_NEVER_SAID: Final = re.compile(
    r"Traceback|database is locked|should not happen|Exception ignored|never awaited"
    rf"|{re.escape(KEY)}|X-Amz-|Signature=|[?&]sig="
)


@dataclass(eq=False)
class Running:
    """One process of the program, with what it says in files."""

    name: str
    process: subprocess.Popen[str]
    out: Path
    err: Path

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def is_frozen(self) -> bool:
        """Whether it was stopped by SIGSTOP."""
        return self.alive and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    def wait(self) -> int:
        """Wait for its end; return its exit code, negative for the signal that killed it."""
        return self.process.wait(PATIENCE_SECONDS)

    def said(self) -> str:
        """Return what it has written to standard error."""
        return self.err.read_text(encoding="utf-8", errors="replace")


class Rig:
    """A folder in which processes of the program work on one database, against one simulator.

    As a context manager it leaves no process behind, however the test ends.
    """

    def __init__(self, folder: Path, *, https: bool = False, **options: Any) -> None:  # noqa: ANN401 - SimulatorOptions' fields
        self.folder = folder
        (folder / "home").mkdir(parents=True)
        (folder / "said").mkdir()
        self.program = Program(folder)
        authority = folder / "authority.pem" if https else None
        if authority is not None:
            self.program.env["SSL_CERT_FILE"] = str(authority)
        self.simulator = Simulator(SimulatorOptions(**options), https=authority)
        self.killed: set[int] = set()
        """The process ids of those that were killed or frozen."""
        self.processes: list[Running] = []
        self._pause = threading.Event()

    @property
    def database(self) -> Path:
        """The database's path."""
        return self.program.database

    def __enter__(self) -> Self:
        self.simulator.__enter__()
        self.program.env["DOWNLOADER_API_URL"] = self.simulator.api_url
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for running in self.processes:
            if running.alive:
                running.process.kill()
            running.process.wait()
        self.simulator.__exit__(kind, error, trace)

    def start(self, *arguments: str, failpoints: str = "") -> Running:
        """Start the program, with these places armed."""
        armed = replace(self.program, env=self.program.env | {"DOWNLOADER_FAILPOINTS": failpoints})
        return self._watch(
            " ".join(arguments[:2]), lambda **files: armed.start(*arguments, **files)
        )

    def start_python(self, script: str, *arguments: str) -> Running:
        """Start a script of Python that uses the program's modules."""
        return self._watch(
            "script",
            lambda **files: Child(
                [sys.executable, "-c", script, *arguments],
                env=self.program.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                text=True,
                **files,
            ),
        )

    def _watch(self, name: str, start: Callable[..., subprocess.Popen[str]]) -> Running:
        number = f"{len(self.processes):04}"
        out, err = (self.folder / "said" / f"{number}.{stream}" for stream in ("out", "err"))
        with out.open("w") as to_out, err.open("w") as to_err:
            running = Running(name, start(stdout=to_out, stderr=to_err), out, err)
        self.processes.append(running)
        return running

    def run(self, *arguments: str, failpoints: str = "") -> Running:
        """Run the program to its end."""
        running = self.start(*arguments, failpoints=failpoints)
        running.wait()
        return running

    def succeed(self, *arguments: str) -> str:
        """Run the program to its end and return its output; it has to do it well."""
        running = self.run(*arguments)
        assert running.process.returncode == 0, (arguments, running.said())
        return running.out.read_text(encoding="utf-8")

    def start_dying(self, *arguments: str, at: str) -> Running:
        """Start the program so that it dies by its own SIGKILL at a place, `NAME` or `NAME@N`."""
        name, _, passes = at.partition("@")
        return self.start(*arguments, failpoints=f"{name}=kill@{passes or 1}")

    def die(self, *arguments: str, at: str) -> None:
        """Run the program until it dies by its own SIGKILL at a place."""
        self.died(self.start_dying(*arguments, at=at), at)

    def died(self, running: Running, at: str) -> None:
        """Wait for the end of a process that has to die by its own SIGKILL."""
        assert running.wait() == -signal.SIGKILL, f"{at} was not reached: {running.said()}"
        self.killed.add(running.process.pid)

    def kill(self, running: Running) -> bool:
        """Kill a process now; return False where it had ended by itself."""
        running.process.kill()
        if running.wait() != -signal.SIGKILL:
            return False
        self.killed.add(running.process.pid)
        return True

    def submit(self, ids: Iterable[int]) -> None:
        """Track runs, from this process."""
        with contextlib.closing(open_database(self.database)) as database:
            submit(database, truth.RUN_TYPE, ids, utc_now())

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Query the database as a person does."""
        return self.program.query(sql, *parameters)

    def done(self) -> int:
        """Count the runs that are done."""
        [(number,)] = self.query("SELECT count(*) FROM runs WHERE state = 'done'")
        return int(number)

    def leases_ran_out(self) -> bool:
        """Return whether no lease on a transfer lasts any more."""
        query = (
            "SELECT count(*) FROM runs WHERE state = 'downloading'"
            " AND lease_expires_at >= strftime('%Y-%m-%d %H:%M:%f', 'now')"
        )
        return self.query(query) == [(0,)]

    def until(
        self, condition: Callable[[], bool], what: str, *alive: Running, every: float = 0.02
    ) -> None:
        """Wait for a condition while these processes live; one that never comes is a failure."""
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            for running in alive:
                assert running.alive, f"waited for {what}; {running.name}: {running.said()}"
            assert time.monotonic() < ends_at, f"waited for {what} in vain"
            self._pause.wait(every)

    def idle(self, seconds: float) -> None:
        """Let time pass where the moment at which something happens is the thing to vary."""
        self._pause.wait(seconds)

    def wrong(
        self,
        expected: Expected,
        *,
        patient: bool = False,
        per_claim: Callable[[int], int] = lambda _run_id: 1,
        allowed: str = "",
    ) -> list[str]:
        """Return everything that is wrong after all processes have ended.

        See `truth.wrong_requests` and `wrongly_said` for what may be allowed.
        """
        end = truth.Snapshot.of(self.database)
        return [
            *truth.wrong_at_the_end(self.database, self.program.output, self.simulator, expected),
            *truth.wrong_requests(
                end, self.simulator, killed=self.killed, patient=patient, per_claim=per_claim
            ),
            *self.wrongly_said(allowed=allowed),
        ]

    def wrong_now(self) -> list[str]:
        """Return what is wrong at this moment, just after a crash."""
        return truth.wrong_at_any_moment(self.database, self.program.output)

    def wrongly_said(self, *, allowed: str = "") -> list[str]:
        """Return the lines of any process that no process may say; `allowed` is part of a line."""
        return [
            f"{running.name} (process {running.process.pid}) said: {line}"
            for running in self.processes
            for line in (running.said() + running.out.read_text(encoding="utf-8")).splitlines()
            if _NEVER_SAID.search(line) and not (allowed and allowed in line)
        ]

    def figures(self, since: float) -> str:
        """Return what it has cost since a time of the monotonic clock, in one line."""
        stats = self.simulator.stats()
        [(runs, attempts, refreshes)] = self.query(
            "SELECT count(*), sum(attempts), sum(refreshes) FROM runs"
        )
        histories = truth.Snapshot.of(self.database).histories.values()
        lost = [pid for history in histories for pid in truth.losers(history)]
        numbers = {
            "runs": runs,
            "processes": len(self.processes),
            "killed or frozen": len(self.killed),
            "attempts": attempts,
            "new URLs": refreshes,
            "storage requests": stats["storage"]["requests"],
            "API requests": stats["api"]["requests"],
            "faults": sum(stats["faults"].values()),
            "leases run out": len(lost),
            "of living processes": sum(pid not in self.killed for pid in lost),
        }
        told = [f"{name} {number}" for name, number in numbers.items()]
        return ", ".join([*told, f"seconds {time.monotonic() - since:.1f}"])
