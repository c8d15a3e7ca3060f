from __future__ import annotations

import json
import os
import pty
import re
import signal
import termios
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest
from terminal import heed_ctrl_c
from verify.verify_rig import KINDS

if TYPE_CHECKING:
    import subprocess

    from verify.verify_rig import Rig

ROOT: Final = Path(__file__).resolve().parents[2]


def _on_a_terminal(rig: Rig, *options: str, **streams: Any) -> tuple[int, str, str]:  # noqa: ANN401 - Popen's own
    """Verify with standard error on a terminal; return the exit code, output and terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                shown.extend(chunk)
        except OSError:  # Linux says so when the other end is closed
            pass

    with rig.program.start("verify", *options, stderr=theirs, **streams) as process:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        out, _ = process.communicate()
        reader.join()
    os.close(ours)
    return process.returncode, out or "", shown.decode()


@pytest.mark.parametrize(
    ("options", "measure"), [((), r"15\.0k/15\.0k"), (("--quick",), r"3/3 \[")]
)
def test_a_bar_on_a_terminal(rig: Rig, options: tuple[str, ...], measure: str) -> None:
    """On a terminal a bar shows how far it is, in bytes or, with --quick, in files."""
    rig.save(1, 2, 3)
    (rig.output / "9.wav").write_bytes(b"whose?")
    code, out, shown = _on_a_terminal(rig, *options)
    assert code == 1
    assert "\r" not in out
    assert out.startswith("orphan 9: ")
    assert "verify: " in shown
    assert re.search(measure, shown)
    assert "1 found" in shown


def test_a_reader_that_leaves(rig: Rig) -> None:
    """Behind `| head` it ends without a word, and not as if all were well."""
    rig.save(*range(1, 2001))
    for run_id in range(1, 2001):
        rig.path(run_id).write_bytes(b"damaged")
    with rig.program.start("verify") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "damaged 1: 7 bytes instead of 5000\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_repairs_need_no_reader(rig: Rig) -> None:
    """What was to be repaired is repaired though nobody reads the output any more."""
    rig.save(*range(1, 2001))
    for run_id in range(1, 2001, 2):
        rig.path(run_id).unlink()
    with rig.program.start("verify", "--repair") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("missing 1: ")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 1
    counted = rig.program.query("SELECT state, count(*) FROM runs GROUP BY state")
    assert counted == [("done", 1000), ("pending", 1000)]


def test_interrupted(rig: Rig) -> None:
    """Ctrl-C ends it at once, also while a large file is read, with exit 130 and no traceback."""
    rig.save(1, 2)
    rig.path(1).unlink()
    with rig.path(2).open("wb") as sparse:
        sparse.truncate(200_000_000_000)
    rig.execute("UPDATE runs SET bytes = 200000000000 WHERE run_id = 2")
    with rig.program.start("verify", preexec_fn=heed_ctrl_c) as process:
        assert process.stdout is not None
        pause = threading.Event()
        while "2.wav" not in _open_files(process):
            assert process.poll() is None
            pause.wait(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "\nStopped.\n")
    assert rig.states() == {1: "done", 2: "done"}


def _open_files(process: subprocess.Popen[str]) -> str:
    return str([Path(one.path).name for one in psutil.Process(process.pid).open_files()])


def test_the_json_of_the_documentation(rig: Rig) -> None:
    """The documented JSON is what is printed: the same keys, and the same words for the same."""
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```jsonl\n(.+?)\n```", page, re.DOTALL)
    shown = [json.loads(line) for line in example.splitlines()]
    rig.save(12, 13)
    rig.path(12).write_bytes(b"x" * 4000)
    found = rig.verify("--repair")
    [finding], summary = found.findings, found.summary
    text = json.dumps(finding).replace(str(rig.output), "/srv/sounds/audio")
    assert json.loads(text) == shown[0]
    assert [*summary] == [*shown[1]]
    assert [*summary["found"]] == [*shown[1]["found"]]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) >= KINDS


def test_a_folder_with_an_odd_name(rig: Rig) -> None:
    """Another locale finds a folder whose name it cannot write, or says that it cannot look."""
    folder = rig.program.folder / "gr\u00fc\u00dfe\u266b"
    rig.save(1)
    rig.save(2, folder=folder)
    rig.program.env["LC_ALL"] = "C"
    assert rig.verify().code == 0
    (folder / "2.wav").write_bytes(b"damaged")
    assert rig.verify().findings[0]["path"] == str(folder / "2.wav")
    rig.program.env |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = rig.program("verify", "--repair")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nunreadable 2: " in f"\n{done.stdout}"
    assert "cannot be read" in done.stdout
    assert rig.states() == {1: "done", 2: "done"}
