"""The examples of docs/python.md, run as a reader would, and checked by mypy."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import mypy.api as mypy_api
import pytest
from harness import KEY
from pages import text_of

import downloader

if TYPE_CHECKING:
    from pathlib import Path

    from harness import StartSimulator

    from downloader.simulator.server import Simulator

PAGE: Final = text_of("docs/python.md")
EXAMPLES: Final[dict[str, str]] = dict(
    re.findall(r"<!-- python: (\w+) -->\n```python\n(.+?\n)```", PAGE, re.DOTALL)
)

YOUR_PROGRAM: Final = """
import itertools

_numbers = itertools.count(1)


async def create_run(prompt: str) -> int:
    assert prompt
    return next(_numbers)
"""


def start(
    name: str, folder: Path, simulator: Simulator, key: str = KEY
) -> subprocess.CompletedProcess[str]:
    """Run an example in a folder, asking a simulator."""
    text = EXAMPLES[name]
    assert "api_key=KEY" in text
    (folder / "your_program.py").write_text(YOUR_PROGRAM)
    (folder / "example.py").write_text(
        text.replace("api_key=KEY", f"api_key=KEY, api_url={simulator.api_url!r}")
    )
    return subprocess.run(
        [sys.executable, "example.py"],
        cwd=folder,
        env={"CAMB_API_KEY": key},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def run(name: str, folder: Path, simulator: Simulator) -> str:
    """Run an example in a folder, asking a simulator; return what it printed."""
    done = start(name, folder, simulator)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_are_examples() -> None:
    """The page has an example for each way to use the package, and no block without a mark."""
    assert list(EXAMPLES) == ["script", "asyncio", "trio", "creating"]
    assert PAGE.count("```python") == len(EXAMPLES)


def test_script(tmp_path: Path, start_simulator: StartSimulator) -> None:
    """The script submits, drains, and prints every saved file, and every failure."""
    rules = [{"runs": [2], "where": "api", "fault": {"kind": "word"}}]
    simulator = start_simulator(rules=rules)
    first, *lines = run("script", tmp_path, simulator).splitlines()
    assert first == "2 saved, 1 failed"
    saved, failed = lines[:2], lines[2:]
    for run_id, line in zip((1, 3), saved, strict=True):
        shown, location, size, digest = line.split()
        assert int(shown) == run_id
        assert (tmp_path / location).read_bytes() == simulator.audio(run_id)
        assert (int(size), len(digest)) == (len(simulator.audio(run_id)), 64)
    [line] = failed
    assert line.startswith("2 provider_failed ")


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_event_loops(tmp_path: Path, start_simulator: StartSimulator, name: str) -> None:
    """The examples for event loops drain what is tracked."""
    with downloader.open(tmp_path / "runs.sqlite3") as tracker:
        tracker.submit([1, 2, 3])
    assert run(name, tmp_path, start_simulator()) == "3 saved\n"


def test_creating(tmp_path: Path, start_simulator: StartSimulator) -> None:
    """The example that creates runs has each of them saved."""
    lines = run("creating", tmp_path, start_simulator(finish_after=0.5)).splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all((tmp_path / line.split()[1]).is_file() for line in lines)


def test_creating_with_a_wrong_key(tmp_path: Path, start_simulator: StartSimulator) -> None:
    """Where the key is refused the example ends and says so; with the right one nothing is lost."""
    simulator = start_simulator(api_key=KEY)
    refused = start("creating", tmp_path, simulator, key="wrong")
    assert refused.returncode == 1
    assert "BlockedError: " in refused.stderr.splitlines()[-1]
    assert "refused" in refused.stderr.splitlines()[-1]
    lines = run("creating", tmp_path, simulator).splitlines()
    assert [line.split()[0] for line in lines if "wait" not in line] == ["1", "2", "3"]


def test_types(tmp_path: Path) -> None:
    """By mypy --strict there is nothing wrong in the examples, and what is misused is."""
    (tmp_path / "your_program.py").write_text(YOUR_PROGRAM)
    for name, text in EXAMPLES.items():
        (tmp_path / f"{name}_example.py").write_text(text)
    (tmp_path / "misuse.py").write_text(
        "import downloader\n"
        "downloader.open('x').submit('123')\n"
        "downloader.drain('x', api_key='k', concurency=1)\n"
        "downloader.drain('x', api_key='k', engine='wget')\n"
        "downloader.drain('x')\n"
        "downloader.drain(None, api_key='k')\n"
        "downloader.open('x').get('5')\n"
        "reveal_type(next(downloader.open().saved()).location)\n"
        "reveal_type(downloader.BlockedError().reason)\n"
        "reveal_type(next(downloader.open().unfinished()))\n"
    )
    out, err, _ = mypy_api.run(
        ["--strict", "--cache-dir", str(tmp_path / "cache"), *map(str, tmp_path.glob("*.py"))]
    )
    assert err == ""
    wrong = re.findall(r"(\w+\.py):(\d+): error", out)
    assert wrong == [("misuse.py", str(line)) for line in range(2, 8)], out
    assert 'Revealed type is "pathlib.Path"' in out
    assert re.search(r'Revealed type is "tuple\[.*Run\]"', out), out
    assert re.search(r'Revealed type is "(str \| None|Union\[.*str, None\])"', out), out
