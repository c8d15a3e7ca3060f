"""Hooks as a person sets them up: the real program, real scripts, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from harness import KEY, wait_until
from hooks.scripts import WAIT_FOR_GO, script, wait_until_gone
from jsonschema import Draft202012Validator
from sql import page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness import Program, StartSimulator

ROOT: Final = Path(__file__).resolve().parents[2]
QUERIES: Final = {query.name: query.sql for query in page.queries()}
OWED: Final = QUERIES["hooks-owed"]
LOST: Final = QUERIES["hooks-lost"]

FAILS: Final = {"runs": [3], "where": "api", "fault": {"kind": "word", "word": "ERROR"}}
NO_AUDIO: Final = {"runs": [4], "where": "storage", "fault": {"kind": "wrong-magic"}}

TELL: Final = """
cat > "stdin-$RUN_ID"
env > "env-$RUN_ID"
downloader show --json --type "$RUN_TYPE" "$RUN_ID" > "show-$RUN_ID"
echo "$RUN_STATE" >> "calls-$RUN_ID"
"""


@pytest.fixture
def on_path(program: Program) -> Program:
    """Have the program on the PATH, as hooks that call it need it."""
    binaries = Path(sys.executable).parent
    program.env["PATH"] = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    return program


def events(program: Program) -> dict[int, list[tuple[Any, ...]]]:
    """Return the rows of hooks by run: reason and both states."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for run_id, *row in program.query(
        "SELECT run_id, reason, from_state, to_state FROM run_events"
        " WHERE reason LIKE 'hook%' ORDER BY event_id"
    ):
        found.setdefault(run_id, []).append(tuple(row))
    return found


def reasons(program: Program) -> dict[int, list[str]]:
    """Return how hooks ended, by run."""
    return {run_id: [row[0] for row in rows] for run_id, rows in events(program).items()}


def left_by(program: Program, what: str) -> set[int]:
    """Return the runs whose hook has left such a file."""
    return {int(path.name.rpartition("-")[2]) for path in program.folder.glob(f"{what}-*")}


def environment_of(program: Program, run_id: int) -> dict[str, str]:
    """Return the environment that a run's hook had."""
    lines = (program.folder / f"env-{run_id}").read_text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_what_a_hook_is_told(on_path: Program, start_simulator: StartSimulator) -> None:
    """After a run is committed its hook runs once, and is told of it in every way, but no secret.

    Runs fail by the API's word, and by the storage's: either has its hook.
    """
    program = on_path
    simulator = start_simulator(rules=[FAILS, NO_AUDIO])
    hook = script(program.folder, TELL)
    program.env |= {"MY_COPY": f"key={KEY}", "CREDENTIALS_DIRECTORY": "/run/credentials/x"}
    program.env |= {"RUN_LOCATION": "/somewhere/else", "DOWNLOADER_TYPE": "text-to-sound"}
    program.submit(range(1, 7))
    done = program(
        *(
            "run",
            "--drain",
            "--api-url",
            simulator.api_url,
            "--attempts",
            "1",
            "--min-poll",
            "0.05",
        ),
        *("--on-done", f"'{hook}' an argument", "--on-failed", hook),
    )
    assert (done.returncode, done.stdout[:9]) == (1, "4 saved (")
    states = {1: "done", 2: "done", 3: "failed", 4: "failed", 5: "done", 6: "done"}
    assert events(program) == {
        run_id: [("hook_done", state, state)] for run_id, state in states.items()
    }
    listed = {row["run_id"]: row for state in ("done", "failed") for row in program.runs(state)}
    schema = Draft202012Validator(json.loads((ROOT / "docs/json/list.schema.json").read_text()))
    for run_id, state in states.items():
        assert (program.folder / f"calls-{run_id}").read_text() == f"{state}\n"
        told = json.loads((program.folder / f"stdin-{run_id}").read_text())
        schema.validate(told)
        assert told == listed[run_id]
        shown = json.loads((program.folder / f"show-{run_id}").read_text())
        assert shown["state"] == state
        assert not shown["events"][-1]["reason"].startswith("hook")
        variables = environment_of(program, run_id)
        for column, value in told.items():
            name = "RUN_" + column.removeprefix("run_").upper()
            assert variables[name] == ("" if value is None else str(value))
        assert variables["DOWNLOADER_DATABASE"] == str(program.database)
        assert not {"CAMB_API_KEY", "CAMB_API_KEY_FILE", "CREDENTIALS_DIRECTORY"} & set(variables)
        everything = "\n".join(
            (program.folder / f"{what}-{run_id}").read_text() for what in ("env", "stdin", "show")
        )
        assert KEY not in everything
        assert "X-Amz" not in everything
    assert program.query(OWED) == []


def test_hooks_that_fail(program: Program, start_simulator: StartSimulator) -> None:
    """A hook that fails changes neither run nor exit code; one warning for each tells of it."""
    simulator = start_simulator()
    said = f"key {KEY} and https://s.example/a?X-Amz-Signature=5ec2e7d05ec2e7d0"
    hook = script(program.folder, f"echo '{said}'; exit \"$(($RUN_ID % 3))\"")
    program.submit(range(1, 10))
    done = program("run", "--once", "--api-url", simulator.api_url, "--on-done", hook)
    assert (done.returncode, done.stdout) == (0, "")
    program.assert_saved(simulator, range(1, 10))
    assert program.query("SELECT DISTINCT attempts, error_code FROM runs") == [(1, None)]
    expected = {run_id: ["hook_failed" if run_id % 3 else "hook_done"] for run_id in range(1, 10)}
    assert reasons(program) == expected
    warned = re.findall(r"hook\.failed +run_id=(\d+)", done.stderr)
    assert sorted(map(int, warned)) == [1, 2, 4, 5, 7, 8]
    assert len(done.stderr.splitlines()) == 6
    assert "key ... and https://s.example/a?" in done.stderr
    everything = done.stderr + str(program.query("SELECT * FROM run_events"))
    assert KEY not in everything
    assert "5ec2e7d0" not in everything
    assert program("status", "--json").returncode == 0
    assert program.status()["recent"]["runs"] == 9
    assert program.query("SELECT sum(saved) FROM transfers_by_run") == [(9,)]


def test_hooks_that_take_too_long(program: Program, start_simulator: StartSimulator) -> None:
    """A hook is ended after `--hook-timeout`, with the process it waits for."""
    simulator = start_simulator()
    hook = script(program.folder, 'sleep 1000 & echo $! > "pid-$RUN_ID"; wait')
    program.submit([1, 2])
    done = program(
        *("run", "--drain", "--api-url", simulator.api_url),
        *("--on-done", hook, "--hook-timeout", "2s"),
    )
    assert done.returncode == 0
    assert reasons(program) == {1: ["hook_timeout"], 2: ["hook_timeout"]}
    assert done.stderr.count("hook.timeout") == 2
    wait_until_gone([int((program.folder / f"pid-{one}").read_text()) for one in (1, 2)])


def test_slow_hooks_hold_up_no_transfer(program: Program, start_simulator: StartSimulator) -> None:
    """While the hooks that may run at a time go on, all runs are saved; then all hooks are run."""
    simulator = start_simulator()
    hook = script(program.folder, WAIT_FOR_GO)
    ids = range(1, 41)
    program.submit(ids)
    with program.start(
        *("run", "--drain", "--api-url", simulator.api_url, "--min-poll", "0.05"),
        *("--on-done", hook, "--hook-concurrency", "3"),
    ) as process:
        wait_until(
            lambda: program.query("SELECT count(*) FROM runs WHERE state = 'done'") == [(40,)],
            process,
        )
        wait_until(lambda: len(left_by(program, "begun")) == 3, process)
        assert left_by(program, "ended") == set()
        assert events(program) == {}
        assert len(program.query(OWED)) == 37
        assert len(program.query(LOST)) == 3
        (program.folder / "go").touch()
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert left_by(program, "ended") == set(ids)
    assert reasons(program) == {run_id: ["hook_done"] for run_id in ids}
    [(first_hook, last_saved)] = program.query(
        "SELECT min(at) FILTER (WHERE reason = 'hook_done'),"
        " max(at) FILTER (WHERE reason = 'published') FROM run_events"
    )
    assert last_saved < first_hook


def test_a_stop_with_hooks_under_way(program: Program, start_simulator: StartSimulator) -> None:
    """On SIGTERM hooks under way may end and no other begins; the next start runs what is left."""
    simulator = start_simulator()
    hook = script(program.folder, WAIT_FOR_GO)
    program.submit(range(1, 7))
    arguments = ("--api-url", simulator.api_url, "--min-poll", "0.05", "--on-done", hook)
    with program.start("run", *arguments) as process:
        wait_until(lambda: len(program.query(OWED)) == 4, process)
        wait_until(lambda: len(left_by(program, "begun")) == 2, process)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        while "service.stopping" not in (line := process.stderr.readline()):
            assert line, "the program has ended"
        (program.folder / "go").touch()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    begun = left_by(program, "begun")
    assert len(begun) == 2
    assert left_by(program, "ended") == begun
    assert reasons(program) == {run_id: ["hook_done"] for run_id in begun}
    [left] = [
        line for line in map(json.loads, err.splitlines()) if line["event"] == "hooks.not_run"
    ]
    assert left["runs"] == 4
    assert {row[1] for row in program.query(OWED)} == set(range(1, 7)) - begun
    done = program("run", "--once", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert reasons(program) == {run_id: ["hook_done"] for run_id in range(1, 7)}
    assert program.query(OWED) == []


def test_a_second_signal_ends_hooks(program: Program, start_simulator: StartSimulator) -> None:
    """The second signal ends hooks and their children, also those that ignore SIGTERM."""
    simulator = start_simulator()
    hook = script(
        program.folder,
        "trap '' TERM INT\n(trap '' TERM; exec sleep 1000) &\n"
        'echo $$ $! > "new-$RUN_ID"; mv "new-$RUN_ID" "pids-$RUN_ID"\nwait',
    )
    program.submit([1, 2])
    with program.start("run", "--api-url", simulator.api_url, "--on-done", hook) as process:
        wait_until(lambda: len(left_by(program, "pids")) == 2, process)
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        while "service.stopping" not in (line := process.stderr.readline()):
            assert line, "the program has ended"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    listed = [(program.folder / f"pids-{one}").read_text().split() for one in (1, 2)]
    wait_until_gone([int(pid) for pair in listed for pid in pair])
    assert set(program.query("SELECT state FROM runs")) == {("done",)}
    assert {reason for found in reasons(program).values() for reason in found} <= {
        "hook_interrupted"
    }


def test_two_processes_on_one_database(program: Program, start_simulator: StartSimulator) -> None:
    """However many processes save the runs of a database, each run has one hook in sum."""
    simulator = start_simulator(rules=[FAILS])
    hook = script(program.folder, 'echo "$RUN_STATE" >> "calls-$RUN_ID"')
    ids = range(1, 121)
    program.submit(ids)
    arguments = ("run", "--drain", "--api-url", simulator.api_url, "--min-poll", "0.05")
    hooks = ("--on-done", hook, "--on-failed", hook)
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(program.start(*arguments, *hooks)) for _ in range(2)]
        codes = []
        for process in processes:
            process.communicate(timeout=240)
            codes.append(process.returncode)
    assert sorted(codes) == [0, 1]  # the one that met run 3
    assert reasons(program) == {run_id: ["hook_done"] for run_id in ids}
    calls = {run_id: (program.folder / f"calls-{run_id}").read_text() for run_id in ids}
    assert calls == {run_id: "failed\n" if run_id == 3 else "done\n" for run_id in ids}


def test_a_crash_between_commit_and_hook(program: Program, start_simulator: StartSimulator) -> None:
    """A hook that a crash prevents is run by the next process that has one, once."""
    simulator = start_simulator()
    hook = script(program.folder, 'echo called >> "calls-$RUN_ID"')
    program.submit([1])
    program.env["DOWNLOADER_FAILPOINTS"] = "record.committed=kill"
    arguments = ("run", "--drain", "--api-url", simulator.api_url, "--on-done", hook)
    assert program(*arguments).returncode == -signal.SIGKILL
    assert [row[1:3] for row in program.query(OWED)] == [(1, "done")]
    program.env.clear()
    for _ in range(2):
        done = program(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert (program.folder / "calls-1").read_text() == "called\n"
    assert reasons(program) == {1: ["hook_done"]}


def test_a_crash_while_hooks_are_under_way(
    program: Program, start_simulator: StartSimulator
) -> None:
    """A process that is killed takes with it the hooks under way, one for each place; no other."""
    simulator = start_simulator()
    hook = script(program.folder, WAIT_FOR_GO)
    ids = range(1, 9)
    program.submit(ids)
    arguments = ("--api-url", simulator.api_url, "--min-poll", "0.05", "--on-done", hook)
    with program.start("run", *arguments, "--hook-concurrency", "3") as process:
        wait_until(lambda: len(left_by(program, "begun")) == 3, process)
        wait_until(lambda: len(program.query(OWED)) == 5, process)
        process.kill()
        process.communicate(timeout=60)
    killed = left_by(program, "begun")
    (program.folder / "go").touch()
    assert program("run", "--drain", *arguments).returncode == 0
    assert reasons(program) == {run_id: ["hook_done"] for run_id in set(ids) - killed}
    assert {row[1] for row in program.query(LOST)} == killed
    assert program.query(OWED) == []
    wait_until(lambda: left_by(program, "ended") == set(ids))  # these go on by themselves


def test_a_drain_saves_what_its_hooks_submit(
    on_path: Program, start_simulator: StartSimulator
) -> None:
    """A drain is over when nothing is unfinished and no hook that might submit more is left."""
    program, simulator = on_path, start_simulator()
    hook = script(
        program.folder,
        'sleep 0.3; [ "$RUN_ID" -ge 40 ] || downloader submit "$(($RUN_ID + 10))" > /dev/null',
    )
    program.submit([1, 2, 3])
    arguments = ("run", "--drain", "--api-url", simulator.api_url, "--min-poll", "0.05")
    done = program(*arguments, "--on-done", hook, "--prune-events-after", "1s")
    ids = {start + ten for start in (1, 2, 3) for ten in (0, 10, 20, 30, 40)}
    assert (done.returncode, done.stdout[:10], done.stderr) == (0, "15 saved (", "")
    program.assert_saved(simulator, ids)
    assert reasons(program) == {run_id: ["hook_done"] for run_id in ids}


def test_a_hook_that_submits_what_the_api_refuses(
    on_path: Program, start_simulator: StartSimulator
) -> None:
    """Where the API refuses the key by then, the drain ends blocked, not as if all were done."""
    program = on_path
    refuse = {"where": "api", "fault": {"kind": "status", "status": 401}, "runs": [11]}
    simulator = start_simulator(rules=[refuse])
    hook = script(program.folder, "downloader submit 11 > /dev/null")
    program.submit([1])
    done = program("run", "--drain", "--api-url", simulator.api_url, "--on-done", hook)
    assert done.returncode == 3
    assert "(401)" in done.stderr


def test_an_end_that_another_process_recorded(
    program: Program, start_simulator: StartSimulator
) -> None:
    """What a process without hooks saves is owed its hook by whichever process has one."""
    simulator = start_simulator(rules=[FAILS])
    hook = script(program.folder, 'echo "$RUN_STATE" >> "calls-$RUN_ID"')
    arguments = ("--api-url", simulator.api_url, "--min-poll", "0.05")
    hooks = ("--on-done", hook, "--on-failed", hook)
    with program.start("run", *arguments, *hooks) as daemon:
        wait_until(
            lambda: (
                program.database.exists()
                and program.query("SELECT count(*) FROM sqlite_master WHERE name = 'hook_cursors'")
                == [(1,)]
                and len(program.query("SELECT * FROM hook_cursors")) == 2
            ),
            daemon,
        )
        daemon.send_signal(signal.SIGSTOP)
        try:
            program.submit([1, 2, 3])
            assert program("run", "--drain", *arguments).returncode == 1
            assert reasons(program) == {}
        finally:
            daemon.send_signal(signal.SIGCONT)
        wait_until(lambda: len(reasons(program)) == 3, daemon)
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=60)
    calls = {run_id: (program.folder / f"calls-{run_id}").read_text() for run_id in (1, 2, 3)}
    assert calls == {1: "done\n", 2: "done\n", 3: "failed\n"}


def test_hooks_that_are_set_for_the_first_time(
    program: Program, start_simulator: StartSimulator
) -> None:
    """What ended before there was a hook for such an end has none; what ends later always has."""
    simulator = start_simulator(rules=[{**FAILS, "runs": [3, 6]}])
    hook = script(program.folder, 'touch "called-$RUN_ID"')
    arguments = ("run", "--drain", "--api-url", simulator.api_url, "--min-poll", "0.05")

    def drain(*options: str) -> set[int]:
        program(*arguments, *options)
        return left_by(program, "called")

    program.submit([1, 2, 3])
    assert drain() == set()
    assert drain("--on-done", hook) == set()
    program.submit([4, 5, 6])
    assert drain() == set()  # switched off for a while
    assert drain("--on-done", hook, "--on-failed", hook) == {4, 5}
    program.submit([7])
    assert drain() == {4, 5}
    assert drain("--on-done", "true") == {4, 5}  # which is how they are forgotten
    assert drain("--on-done", hook) == {4, 5}
    assert reasons(program) == {4: ["hook_done"], 5: ["hook_done"], 7: ["hook_done"]}


def _commands(folder: Path) -> Iterable[tuple[str, str]]:
    (folder / "plain.txt").write_text("no program\n")
    return [
        ("no-such-program-anywhere", "there is no program no-such-program-anywhere on the PATH"),
        ("./not-there.sh 1 2", "there is no file ./not-there.sh"),
        ("./plain.txt", "./plain.txt may not be executed: chmod +x it."),
        ("./home", "./home is a folder"),
        ("sh -c 'unclosed", "cannot be read: No closing quotation."),
        ("", "names no program."),
        ("''", "names no program."),
    ]


@pytest.mark.parametrize("option", ["--on-done", "--on-failed"])
def test_commands_that_cannot_be(program: Program, option: str) -> None:
    """A command that cannot be run ends the program before anything is begun, and says why."""
    for command, why in _commands(program.folder):
        done = program("run", "--once", option, command)
        assert (done.returncode, done.stdout) == (2, ""), command
        assert done.stderr == f"downloader: {option} {why}\n" or (
            done.stderr.startswith(f"downloader: {option}: ") and why in done.stderr
        )
    assert not program.database.exists()


def test_no_shell_is_asked(program: Program, start_simulator: StartSimulator) -> None:
    """What a shell would expand or run reaches the program as it stands."""
    simulator = start_simulator()
    hook = script(program.folder, 'printf "%s\\n" "$@" > arguments')
    program.submit([1])
    text = f"{hook} '$RUN_ID' \"a b\" ; touch oops && * `id` \\$x"
    assert (
        program("run", "--drain", "--api-url", simulator.api_url, "--on-done", text).returncode == 0
    )
    assert (program.folder / "arguments").read_text().splitlines() == [
        *("$RUN_ID", "a b", ";", "touch", "oops", "&&", "*", "`id`", "$x")
    ]
    assert not (program.folder / "oops").exists()
