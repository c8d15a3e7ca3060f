"""One call of a hook: real programs that behave in every way a program can."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from hooks.scripts import is_gone, script, wait_until_gone
from hypothesis import given
from hypothesis import strategies as st

from downloader.hooks.output import Output
from downloader.hooks.process import HookCall, HookResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY = "test-key-0123456789"
SIGNATURE = "5ec2e7d05ec2e7d05ec2e7d0"
LONG = 120.0
"""A time-out that no test waits for."""


def call(*command: str, told: bytes = b"{}\n", timeout: float = LONG) -> HookCall:
    """Return a call of a hook, not begun."""
    return HookCall(command, dict(os.environb), told, timeout, KEY)


def shell(text: str, timeout: float = LONG) -> HookResult:
    """Run a script to its end."""
    return call("/bin/sh", "-c", text, timeout=timeout).run()


def python(text: str, told: bytes = b"{}\n") -> HookResult:
    """Run a program in Python to its end."""
    return call(sys.executable, "-c", text, told=told).run()


def pids(path: Path) -> list[int]:
    """Return the processes that a hook has listed."""
    return [int(line) for line in path.read_text().split()]


def test_success() -> None:
    """A hook that ends with 0 is done; its arguments and what it printed are as they were."""
    found = call("/bin/sh", "-c", 'printf "%s|" "$@"', "-", "a b", "$HOME", "*", "").run()
    assert (found.reason, found.output) == ("hook_done", "a b|$HOME|*||")
    assert found.detail.startswith("exit 0, ")


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("exit 3", "exit 3, "),
        ("exit 127", "exit 127, "),
        ("kill -KILL $$", "signal SIGKILL, "),
        ("kill -TERM $$", "signal SIGTERM, "),
    ],
)
def test_failure(text: str, how: str) -> None:
    """An exit code or a signal makes a failed hook, and what it printed last is kept."""
    found = shell(f"echo out; echo err >&2; {text}")
    assert found.reason == "hook_failed"
    assert found.detail.startswith(how)
    assert found.output == "out err"


def test_what_cannot_be_started(tmp_path: Path) -> None:
    """A file that the system cannot execute, or that is gone since the start, is a failed hook."""
    path = tmp_path / "no-shebang"
    path.write_text("echo never\n")
    path.chmod(0o755)
    assert call(str(path)).run() == HookResult(
        "hook_failed", "cannot be started: Exec format error"
    )
    gone = call(str(tmp_path / "gone")).run()
    assert gone == HookResult("hook_failed", "cannot be started: No such file or directory")


def test_standard_input_is_told_whole() -> None:
    """A hook gets all of a text that no pipe holds at once, however late it begins to read."""
    told = os.urandom(300_000).hex().encode()
    found = python(
        "import sys, time; time.sleep(0.3); print(len(sys.stdin.buffer.read()))", told=told
    )
    assert (found.reason, found.output) == ("hook_done", "600000")


@pytest.mark.parametrize("text", ["pass", "import os; os.close(0); print('closed')"])
def test_standard_input_that_nobody_reads(text: str) -> None:
    """A hook that ends or closes its standard input without reading it is as good as another."""
    assert python(text, told=b"x" * 1_000_000).reason == "hook_done"


def test_a_background_process_is_not_waited_for(tmp_path: Path) -> None:
    """What a hook leaves in the background, its output still open, goes on and holds nobody up."""
    found = shell(f"sleep 1000 & echo $! > {tmp_path}/pids; echo done")
    assert (found.reason, found.output) == ("hook_done", "done")
    [left] = pids(tmp_path / "pids")
    assert not is_gone(left)
    os.kill(left, 9)


def test_a_background_process_that_prints_for_ever(tmp_path: Path) -> None:
    """It does not either: what it prints after the hook's end is not read."""
    found = shell(f"yes & echo $! > {tmp_path}/pids")
    assert found.reason == "hook_done"
    wait_until_gone(pids(tmp_path / "pids"))  # by SIGPIPE


FAMILY = """
trap '' TERM
(trap '' TERM; exec sleep 1000) & echo $! >> {pids}
(trap '' TERM; exec sleep 1000 >/dev/null 2>&1) & echo $! >> {pids}
sleep 1000 & echo $! >> {pids}
echo $$ >> {pids}
echo begun
while :; do sleep 1 || :; done
"""


def test_a_time_out_takes_the_whole_family(tmp_path: Path) -> None:
    """After the time-out nothing is left of a hook and its children, though they ignore SIGTERM."""
    listed = tmp_path / "pids"
    found = shell(FAMILY.format(pids=listed), timeout=2.0)
    assert found.reason == "hook_timeout"
    assert found.detail.startswith("signal SIGKILL, ")
    assert "begun" in found.output
    assert len(pids(listed)) == 4
    wait_until_gone(pids(listed))


def test_a_hook_may_tidy_up_after_a_time_out(tmp_path: Path) -> None:
    """SIGTERM comes first: a hook that heeds it ends as it likes, and its children are told too."""
    found = shell(
        f"sleep 1000 & echo $! > {tmp_path}/pids\ntrap 'echo tidy; exit 5' TERM\nwait",
        timeout=2.0,
    )
    assert (found.reason, found.output) == ("hook_timeout", "tidy")
    assert found.detail.startswith("exit 5, ")
    wait_until_gone(pids(tmp_path / "pids"))


def _started(hook: HookCall, listed: Path, lines: int) -> tuple[threading.Thread, list[HookResult]]:
    """Start a hook in a thread, and wait until it has listed so many processes."""
    results: list[HookResult] = []
    thread = threading.Thread(target=lambda: results.append(hook.run()))
    thread.start()
    pause = threading.Event()
    while not listed.exists() or len(pids(listed)) < lines:
        pause.wait(0.02)
    return thread, results


@pytest.mark.parametrize("how", ["cut_off", "kill"])
def test_a_hook_that_is_cut_off(tmp_path: Path, how: str) -> None:
    """From another thread a hook is ended before its time, and its children with it."""
    listed = tmp_path / "pids"
    hook = call("/bin/sh", "-c", FAMILY.format(pids=listed))
    thread, results = _started(hook, listed, 4)
    getattr(hook, how)()
    thread.join()
    [found] = results
    assert found.reason == "hook_interrupted"
    wait_until_gone(pids(listed))


def test_a_hook_that_is_cut_off_before_it_begins(tmp_path: Path) -> None:
    """What is cut off before its turn is never started."""
    hook = call(script(tmp_path, f"touch {tmp_path}/begun"))
    hook.cut_off()
    assert hook.run() == HookResult("hook_interrupted", "not begun")
    assert not (tmp_path / "begun").exists()


def test_an_output_without_end() -> None:
    """Of a huge output the end is kept, cut to a bounded size."""
    found = shell("yes 'so many words' | head -c 30000000; echo; echo the last word")
    assert found.reason == "hook_done"
    assert found.output.endswith("the last word")
    assert found.output.startswith("... ")
    assert len(found.output) <= 2010


def test_an_output_that_is_no_text() -> None:
    """Bytes of any kind become one line of printable characters."""
    found = python(
        "import os, sys; sys.stdout.buffer.write(bytes(range(256)) * 50 + os.urandom(9999))"
    )
    assert found.reason == "hook_done"
    assert found.output.isprintable()
    assert found.output


@pytest.mark.parametrize(
    "text",
    [
        f"https://storage.example/a.wav?X-Amz-Signature={SIGNATURE}",
        f"x-api-key: {KEY}",
        f"the key is {KEY}, isn't it",
        f'{{"signature": "{SIGNATURE}"}}',
    ],
)
def test_secrets_in_an_output(text: str) -> None:
    """Neither the key nor a signature that a hook prints is handed on."""
    output = Output(KEY)
    output.add(text.encode() + b"\n")
    assert KEY not in output.shown()
    assert SIGNATURE not in output.shown()


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=40), st.integers(1, 5000))
def test_an_output_cut_anywhere(words: Sequence[int], chunk: int) -> None:
    """Wherever a long output is cut, no piece of a signature or of the key is shown."""
    text = "".join(
        f"{'w' * length} https://s.example/a?X-Amz-Signature={SIGNATURE} {KEY}\n"
        for length in words
    ).encode()
    output = Output(KEY)
    for start in range(0, len(text), chunk):
        output.add(text[start : start + chunk])
    shown = output.shown()
    assert output.bytes == len(text)
    assert [one for one in (SIGNATURE[:8], KEY[:8], KEY[-8:]) if one in shown] == []
    assert len(shown) <= 2010
