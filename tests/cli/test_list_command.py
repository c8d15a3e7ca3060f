from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store.driving import OTHER_TYPE, SIGNATURE, Driver, at, key
from terminal import Terminal

from downloader.clock import utc_now
from downloader.rules.states import State
from downloader.rules.steps import TransferFailed
from downloader.store import control
from downloader.store.schema import to_text

if TYPE_CHECKING:
    from cli.calling import Caller
    from harness import Program

NOON = "2026-03-01 12:00:00.000000"


def test_lists(call: Caller, driver: Driver) -> None:
    """A list has a line for each run, the last changed first: its name, its file or why not."""
    driver.done(4, seconds=4)
    driver.failed(5, seconds=3)
    driver.submit(1, seconds=1)
    driver.submit(2, seconds=2, run_type=OTHER_TYPE)
    lines = [line.split(maxsplit=2) for line in call("list").out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["4", "done"],
        ["5", "failed"],
        ["tts/2", "pending"],
        ["1", "pending"],
    ]
    assert lines[0][2].split() == ["1000", "/audio/4.wav"]
    assert lines[1][2] == "provider_failed: Out of credit"
    rows = [json.loads(line) for line in call("list", "--json").out.splitlines()]
    assert [row["run_id"] for row in rows] == [4, 5, 2, 1]
    assert rows[0]["done_at"] == "2026-03-01 12:00:04.000000"


def test_what_is_listed(call: Caller, driver: Driver) -> None:
    """A list can be of one state and one type, and as long as asked for: off a terminal of all."""
    driver.one_of_each_state()
    driver.submit(*range(10, 160))
    driver.submit(7, run_type=OTHER_TYPE)

    def count(*arguments: str) -> int:
        return len(call("list", *arguments).out.splitlines())

    assert count() == 157
    assert count("--limit", "0") == 157
    assert count("--limit", "3") == 3
    assert count("--state", "failed") == 1
    assert count("--state", "pending", "--limit", "0") == 152
    assert count("--type", OTHER_TYPE) == 1
    for wrong in (["--state", "lost"], ["--type", "x"], ["--limit", "-1"], ["--limit", "x"]):
        assert call("list", *wrong).code == 2


def test_show(call: Caller, driver: Driver) -> None:
    """A run is shown with all that is known of it, and everything it went through."""
    driver.done(4)
    lines = call("show", "4").out.splitlines()
    assert "state             done" in lines
    assert "location          /audio/4.wav" in lines
    assert lines[lines.index("events (times are UTC)") + 1 :] == [
        f"  {NOON}  pending  (submitted)",
        f"  {NOON}  pending → ready  (url_received: SUCCESS)",
        lines[-2],
        f"  {NOON}  downloading → done  (published: /audio/4.wav)",
    ]
    assert lines[-2].startswith(f"  {NOON}  ready → downloading  (claimed: ")
    found = call("show", "4", "--json").json
    assert (found["state"], found["bytes"], found["run_id"]) == ("done", 1000, 4)
    assert found["events"][-1] == {
        "at": NOON,
        "from_state": "downloading",
        "to_state": "done",
        "reason": "published",
        "detail": "/audio/4.wav",
    }


def test_show_of_what_is_not_there(call: Caller, driver: Driver) -> None:
    """A run that is not tracked, of another type, or no run id at all ends in 2."""
    driver.submit(1)
    answer = call("show", "99")
    assert (answer.code, answer.out) == (2, "")
    assert "Run 99 (text-to-sound) is not tracked; `downloader submit` tracks it." in answer.err
    answer = call("show", "1", "--type", OTHER_TYPE)
    assert answer.code == 2
    assert "Run 1 (tts) is not tracked, but text-to-sound/1 is: name it so." in answer.err
    assert call("show", "text-to-sound/1", "--type", OTHER_TYPE).code == 0
    answer = call("show", "ttts/1")
    assert answer.code == 2
    assert "'ttts/1' is of no run type: there are text-to-sound and tts." in answer.err
    answer = call("show", "abc")
    assert answer.code == 2
    assert "'abc' is not a run id" in answer.err
    assert call("show").code == 2


@pytest.mark.parametrize("command", ["status", "list", "show 2", "show 3", "show 20", "cancel 2"])
@pytest.mark.parametrize("as_json", [True, False])
def test_no_url_is_shown(call: Caller, driver: Driver, command: str, as_json: bool) -> None:  # noqa: FBT001 - a parameter
    """No command shows a URL, its query, or a column for it."""
    driver.one_of_each_state()
    driver.ready(20)
    claims = driver.claim_ready().claimed
    driver.end(claims, TransferFailed("http_404", "Gone.", attempts=8, refreshes=0))
    control.retry(driver.database, [key(20)], at(1))
    answer = call(*command.split(), *(["--json"] if as_json else []))
    assert answer.code == 0
    assert SIGNATURE not in answer.out + answer.err
    assert "https://" not in answer.out + answer.err
    assert '"url"' not in answer.out
    assert not any(line.startswith("url ") for line in answer.out.splitlines())


@pytest.mark.parametrize(
    "encoding",
    [
        {"LC_ALL": "C", "LANG": "C"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_output_in_any_encoding(program: Program, driver: Driver, encoding: dict[str, str]) -> None:
    """Arrows, ellipses and foreign names never end a command, whatever the encoding can write."""
    environment = program.environment() | encoding
    path = Path(sys.executable).with_name("downloader")

    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        answer = subprocess.run(
            [path, *arguments], env=environment, input=stdin, capture_output=True, check=False
        )
        return answer.returncode, answer.stdout, answer.stderr

    driver.cancelled(1)
    code, out, err = run("show", "1")
    assert (code, err) == (0, b"")
    assert b"cancelled  (cancel)" in out
    code, _, err = run("submit", "--file", "-", stdin="ø\n".encode() * 12)
    assert code == 2
    assert b"12 bad run ids" in err
    assert err.count(b"whole number") == 10


def test_a_reader_that_has_seen_enough(program: Program) -> None:
    """`downloader list | head` ends in peace."""
    ids = "\n".join(map(str, range(1, 3001)))
    assert program("submit", "--file", "-", stdin=ids).returncode == 0
    with program.start("list", "--limit", "0", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["run_id"] == 3000
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_no_output_at_all(program: Program) -> None:
    """With its output closed a command does its work all the same."""
    close_and_run = 'exec "$0" submit 1 2 >&-'
    path = Path(sys.executable).with_name("downloader")
    answer = subprocess.run(
        ["/bin/sh", "-c", close_and_run, path],
        env=program.environment(),
        capture_output=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert program.query("SELECT count(*) FROM runs") == [(2,)]


def test_a_code_that_is_none(call: Caller, driver: Driver) -> None:
    """A mistyped error code is refused, with the nearest one: no row would look like no trouble."""
    driver.one_of_each_state()
    for code, said in (("provider_faild", "did you mean provider_failed?"), ("☃", "docs/sql.md")):
        answer = call("list", "--error", code)
        assert (answer.code, answer.out) == (2, "")
        assert "is no error code" in answer.err
        assert said in answer.err


def test_filters(call: Caller, driver: Driver) -> None:
    """A list can be of several states, of an error code, and by age."""
    driver.one_of_each_state()

    def states(*arguments: str) -> set[str]:
        lines = call("list", "--json", *arguments).out.splitlines()
        return {json.loads(line)["state"] for line in lines}

    assert states("--state", "done", "--state", "failed") == {"done", "failed"}
    assert states("--error", "provider_failed") == {"failed"}
    assert states("--error", "too_large") == set()
    assert states("--older-than", "1d") == {state.value for state in State}
    assert states("--newer-than", "1d") == set()
    assert states("--saved-within", "1h") == set()
    driver.execute("UPDATE runs SET done_at = ? WHERE state = 'done'", to_text(utc_now()))
    assert states("--saved-within", "1h") == {"done"}
    assert call("list", "--older-than", "yesterday").code == 2


def test_csv(call: Caller, driver: Driver) -> None:
    """A list in CSV has every column but the URL, and quotes what needs it."""
    driver.failed(3, message='One, "two"\nthree')
    answer = call("list", "--csv")
    [row] = csv.DictReader(io.StringIO(answer.out))
    assert (row["run_id"], row["state"], row["done_at"]) == ("3", "failed", "")
    assert "url" not in row
    assert '"' in row["error_message"]
    assert call("list", "--csv", "--json").code == 2


def test_table_on_a_terminal(program: Program, driver: Driver) -> None:
    """On a terminal a list has a heading, and no line is wider than the window."""
    driver.done(4, size=2_500_000)
    driver.failed(3, message="For a reason that takes far more words than any line will hold.")
    with Terminal(program, "list", columns=80) as terminal:
        assert terminal.end() == 0
    heading, second, first = terminal.lines
    assert heading.split() == ["RUN", "STATE", "SIZE", "CHANGED", "FILE,", "OR", "WHY", "NOT"]
    assert re.match(r" +3  failed +\S.* ago  provider_failed: For", first)
    assert first.endswith("…")
    assert re.match(r" +4  done +2\.5 MB +.* ago  /audio/4.wav", second)
    assert len(first) == 80
    program.env["PYTHONIOENCODING"] = "ascii"
    with Terminal(program, "list", columns=60) as terminal:
        assert terminal.end() == 0
    assert terminal.lines[2].endswith("...")
    assert len(terminal.lines[2]) == 60


def test_of_a_path_the_end_is_shown(program: Program, driver: Driver) -> None:
    """Where a path does not fit, its end does: the file's name tells more than the root."""
    driver.done(1234)
    for columns, shown in ((62, "…o/1234.wav"), (70, "/audio/1234.wav"), (40, None)):
        with Terminal(program, "list", columns=columns) as terminal:
            assert terminal.end() == 0
        [line] = terminal.lines[1:]
        assert len(line) <= columns
        if shown is not None:
            assert line.endswith(f"  {shown}")


def test_a_long_list_on_a_terminal(program: Program, driver: Driver) -> None:
    """On a terminal the last hundred are listed, and that there are more is said."""
    driver.submit(*range(1, 102))
    with Terminal(program, "list", rows=120) as terminal:
        assert terminal.end() == 0
    assert terminal.lines[101:] == ["and more: these 100 changed last; --limit 0 lists all"]
    driver.cancelled(1)
    for command, number in ((["list", "--limit", "0"], 102), (["list", "--state", "pending"], 101)):
        with Terminal(program, *command, rows=120) as terminal:
            assert terminal.end() == 0
        assert len(terminal.lines) == number
