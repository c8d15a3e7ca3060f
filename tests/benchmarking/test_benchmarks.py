from __future__ import annotations

import itertools
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from benchmarks import children, report, services
from benchmarks.api import presigned
from benchmarks.audio import check_saved, make_set
from benchmarks.children import Used
from benchmarks.cli import GROUPS
from benchmarks.errors import BenchmarkError
from benchmarks.groups.latency import lower_bound_seconds
from benchmarks.machine import LUA_PACKAGE, PACKAGES, check_peers
from benchmarks.rounds import alternate
from benchmarks.tables import Compared, Row, Unit, markdown
from downloader.camb.client import ApiClient
from downloader.clock import utc_now
from downloader.rules.answers import Answered, Finished
from downloader.rules.audio_headers import AudioFormat, read_header
from downloader.rules.batching import Batch
from downloader.rules.expiry import is_usable, url_expires_at

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT: Final = Path(__file__).resolve().parents[2]


class Recorded:
    """A side that only notes when it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name = name
        self._calls = calls

    def prepare(self, folder: Path) -> None:
        """Be first in a fresh folder."""
        assert list(folder.iterdir()) == []
        (folder / "left").write_text("much")

    def run(self, folder: Path) -> Mapping[str, Used]:
        """Take as many seconds as there were calls before."""
        assert (folder / "left").read_text() == "much"
        self._calls.append(self.name)
        return {self.name: Used(float(len(self._calls)), 0.0, 0)}

    def check(self, folder: Path) -> None:
        """Find nothing wrong."""


def test_rounds(tmp_path: Path) -> None:
    """Every side is measured once a round, in a fresh folder, and each begins a round in turn."""
    calls: list[str] = []
    sides = [Recorded(name, calls) for name in "ABC"]
    found = alternate(sides, 6, tmp_path, "a test", synced=False)
    rounds = [calls[start : start + 3] for start in range(0, 18, 3)]
    assert [sorted(one) for one in rounds] == [["A", "B", "C"]] * 6
    assert {one[0] for one in rounds} == {"A", "B", "C"}
    assert {name: len(all_used) for name, all_used in found.items()} == {"A": 6, "B": 6, "C": 6}
    for name, all_used in found.items():
        positions = [number + 1 for number, call in enumerate(calls) if call == name]
        assert [used.wall_seconds for used in all_used] == positions
    # Emptied, not removed: that would slow down whoever comes next.
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in left] == [0] * 18


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    """A slow minute that both sides had changes no ratio."""
    row = Row("work", (1.0, 20.0, 3.0), Unit.SECONDS, "peer", (2.0, 40.0, 3.0), goal=0.5)
    assert row.values == [0.5, 0.5, 1.0]
    assert row.value == 0.5


@pytest.mark.parametrize(
    ("goal", "floor", "verdict"),
    [
        (1.0, 1.3, "met"),
        (0.9, 1.0, "floor met"),
        (0.9, 0.95, "**missed**"),
        (0.9, None, "**missed**"),
        (None, None, ""),
    ],
)
def test_the_verdict(goal: float | None, floor: float | None, verdict: str) -> None:
    """A goal is met or missed, or what is at least bearable was reached."""
    row = Row("work", (2.0,), Unit.SECONDS, "peer", (2.0,), goal=goal, floor=floor)
    assert row.verdict == verdict


def test_a_table() -> None:
    """A table gives medians, the comparison with its range, the goal and the floor, units told."""
    ratio = Row("work", (3.0, 1.0, 2.0), Unit.SECONDS, "a", (2.0, 2.0, 2.0), goal=1.0, floor=1.3)
    more = Row(
        "start", (0.5,), Unit.SECONDS, "b", (0.125,), compared=Compared.MORE, goal=0.5, who="other"
    )
    memory = Row("memory", (58e6,), Unit.BYTES, compared=Compared.ALONE, goal=100e6)
    assert markdown([ratio, ratio, more, memory]).splitlines()[2:] == [
        "| work | a | 2 s | 2 s | 1.00 × (0.50–1.50) | ≤ 1 × (1.3 ×) | met |",
        "|  | a | 2 s | 2 s | 1.00 × (0.50–1.50) | ≤ 1 × (1.3 ×) | met |",
        "| start (other) | b | 0.5 s | 0.125 s | 0.375 s more (0.375–0.375) | ≤ 0.5 s more | met |",
        "| memory |  | 58 MB |  | 58 MB (58–58) | ≤ 100 MB | met |",
    ]


def test_the_page_has_a_place_for_each_table() -> None:
    """What can be measured can be written into the page, and the page waits for nothing else."""
    report.check(GROUPS)
    text = report.PAGE.read_text("utf-8")
    assert set(re.findall(r"<!-- measured: (\S+) -->", text)) == {"machine", *GROUPS}


def test_writing_the_page(tmp_path: Path) -> None:
    """A table takes the place of the one before, the rest of the page stays, pictures beside it."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: machine -->\n<!-- end: machine -->\nb\n")
    page.write_text(page.read_text() + "<!-- measured: x -->\nold\n<!-- end: x -->\nc\n")
    for _ in range(2):
        report.write({"CPU": r"a \1"}, {"x": "new"}, {"growth.svg": "<svg/>"}, page)
    assert page.read_text() == (
        "a\n<!-- measured: machine -->\n- CPU: a \\1\n<!-- end: machine -->\nb\n"
        "<!-- measured: x -->\nnew\n<!-- end: x -->\nc\n"
    )
    assert (tmp_path / "growth.svg").read_text() == "<svg/>"
    with pytest.raises(BenchmarkError, match="0 places"):
        report.check(["y"], page)


def test_audio(tmp_path: Path) -> None:
    """The storage's files are whole WAVs of exactly the size, each with other bytes."""
    audio = make_set(tmp_path, "set", 3, 20_000)
    contents = [(tmp_path / "set" / f"{run_id}.wav").read_bytes() for run_id in audio.run_ids]
    for content in contents:
        claim = read_header(content, AudioFormat.WAV)
        assert (len(content), claim.minimum_bytes, claim.vouches) == (20_000, 20_000, True)
    assert len(set(audio.digests)) == 3
    check_saved(tmp_path / "set", audio)
    (tmp_path / "set" / "2.wav").write_bytes(contents[1][:-1])
    with pytest.raises(BenchmarkError, match=r"2\.wav"):
        check_saved(tmp_path / "set", audio)


def test_the_api(tmp_path: Path) -> None:
    """The program's own client reads the API's answers as finished runs, and they are counted."""
    audio = make_set(tmp_path, "set", 3, 20_000)
    with services.api(tmp_path / "api", "https://127.0.0.1:1") as api:
        client = ApiClient(api.base(audio), "benchmark")
        replies = [client.ask(Batch("text-to-sound", ids)) for ids in ((1, 2, 3), (2,))]
        client.close()
        assert api.requests() == 2
    urls = {}
    for reply in replies:
        assert isinstance(reply.judgement, Answered)
        for run_id, verdict in reply.judgement.verdicts.items():
            assert isinstance(verdict, Finished)
            assert is_usable(url_expires_at(verdict.url), utc_now(), 86_400)
            urls[run_id] = verdict.url.partition("?")[0]
    assert urls == {n: f"https://127.0.0.1:1/set/{n}.wav" for n in (1, 2, 3)}


def test_the_api_with_one_file_for_all(tmp_path: Path) -> None:
    """A million runs may have one file, so that a million files need not be made."""
    audio = make_set(tmp_path, "set", 1, 20_000)
    with services.api(tmp_path / "api", "https://127.0.0.1:1") as api:
        client = ApiClient(api.base(audio, one_file=True), "benchmark")
        reply = client.ask(Batch("text-to-sound", (77, 88)))
        client.close()
    assert isinstance(reply.judgement, Answered)
    for verdict in reply.judgement.verdicts.values():
        assert isinstance(verdict, Finished)
        assert verdict.url.startswith("https://127.0.0.1:1/set/1.wav?")


def test_what_a_child_took(tmp_path: Path) -> None:
    """CPU time and peak memory are the child's own; what comes after it adds up."""
    work = "import time\nb = bytearray(80_000_000)\nwhile time.process_time() < 0.3: pass"
    environment = children.plain_environment(tmp_path)
    used = children.run([sys.executable, "-c", work], folder=tmp_path, environment=environment)
    assert used.cpu_seconds >= 0.3
    assert used.peak_bytes >= 80_000_000
    assert used.wall_seconds > 0
    both = used.then(Used(1.0, 2.0, 3))
    assert both == Used(used.wall_seconds + 1, used.cpu_seconds + 2, used.peak_bytes)


def test_a_child_that_fails(tmp_path: Path) -> None:
    """A side that ends with another code than it should is an error, with what it printed."""
    command = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    environment = children.plain_environment(tmp_path)
    with pytest.raises(BenchmarkError, match=r"ended with 1:\nno such luck"):
        children.run(command, folder=tmp_path, environment=environment)
    children.run(command, folder=tmp_path, environment=environment, codes=(1,))


def test_missing_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that are not there are told of by their packages, before anything is measured."""
    monkeypatch.setenv("PATH", str(tmp_path))
    curl = tmp_path / "curl"
    curl.touch()
    curl.chmod(stat.S_IRWXU)
    check_peers(["curl"], paced=False)
    with pytest.raises(BenchmarkError, match=r"missing: aria2, wget2\. .*`apt-get install .*aria2"):
        check_peers(["curl", "aria2c", "wget2"], paced=False)


def test_continuous_integration_installs_the_peers() -> None:
    """CI and the page install every package that the benchmarks ask for, and CI runs them."""
    script = (ROOT / ".ci/run").read_text("utf-8")
    page = report.PAGE.read_text("utf-8")
    packages = {*PACKAGES.values(), LUA_PACKAGE} - {"coreutils"}
    [by_script] = re.findall(r"^packages=\((.+?)\)$", script, re.MULTILINE | re.DOTALL)
    [by_page] = re.findall(r"^apt-get install (.+)$", page, re.MULTILINE)
    assert packages <= set(by_script.split())
    assert packages <= set(by_page.split())
    assert "python -m benchmarks --scale small" in script
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_lower_bound() -> None:
    """500 files, 16 at a time, are 32 turns; each turn waits for a first byte and 1.76 MB."""
    assert lower_bound_seconds(500) == pytest.approx(0.150 + 32 * (0.050 + 0.088))
    assert lower_bound_seconds(16) == pytest.approx(0.150 + 0.138)


def test_urls_look_signed() -> None:
    """No two runs' URLs have the same signature, and none is for another host."""
    urls = [presigned("https://127.0.0.1:1", "set", run_id) for run_id in (1, 2)]
    for one, other in itertools.pairwise(urls):
        assert one.rpartition("=")[2] != other.rpartition("=")[2]
