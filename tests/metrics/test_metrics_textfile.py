from __future__ import annotations

import os
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from harness import wait_until
from metrics.scraping import Scrape, assert_lint_free

from downloader import service
from downloader.observe import export, logs
from downloader.observe.export import Export, write_whole
from downloader.observe.metrics import Figures, Live
from downloader.observe.progress import Silent
from downloader.session import Mode

if TYPE_CHECKING:
    from pathlib import Path

    from harness import MakeService, Program, StartSimulator

NOTHING = Figures({}, 0, None, ())
IDLE = Live(0, 8, 0, ())


@pytest.fixture
def path(program: Program) -> Path:
    """Return where the program writes its metrics."""
    folder = program.folder / "collected"
    folder.mkdir()
    program.env["DOWNLOADER_METRICS_TEXTFILE"] = str(folder / "downloader.prom")
    return folder / "downloader.prom"


@pytest.mark.parametrize("mode", ["--once", "--drain"])
def test_what_a_call_leaves(
    program: Program, path: Path, start_simulator: StartSimulator, mode: str
) -> None:
    """A call of cron's leaves a file that all may read, with what it did and the database has."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit(range(1, 21))
    done = program("run", mode, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = Scrape.of_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]
    [(size,)] = program.query("SELECT sum(bytes) FROM runs")
    assert found.of("runs", "state") == {"done": 20}
    assert found("stored_bytes") == found("saved_bytes_total") == size
    assert found("transfers_total", outcome="done") == 20
    # node_exporter has these itself, and refuses to have them twice.
    assert {name for name in found.names if not name.startswith("downloader_")} == set()
    # The next call has nothing to do: its counters begin anew, what the database says does not.
    assert program("run", mode).returncode == 0
    found = Scrape.of_file(path)
    assert (found("transfers_total"), found("stored_bytes")) == (0, size)


@pytest.mark.needs("promtool")
def test_prometheus_reads_what_a_call_leaves(
    program: Program, path: Path, start_simulator: StartSimulator
) -> None:
    """Prometheus' own tool has nothing to say against the file."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit(range(1, 21))
    assert program("run", "--drain").returncode == 0
    assert_lint_free(Scrape.of_file(path))


def test_a_call_that_is_blocked_says_so(
    program: Program, path: Path, start_simulator: StartSimulator
) -> None:
    """What stops a call is in the file that it leaves: a refused key, an API that is not there."""
    program.env["DOWNLOADER_API_URL"] = start_simulator(api_key="another").api_url
    program.submit([1, 2, 3])
    assert program("run", "--once").returncode == 3
    found = Scrape.of_file(path)
    assert found.of("blocked", "reason") == {"key_refused": 1}
    assert found.of("runs", "state") == {"pending": 3}
    assert found("oldest_unfinished_age_seconds") > 0
    program.env["DOWNLOADER_API_URL"] = "http://127.0.0.1:1/apis"
    assert program("run", "--once").returncode == 3
    found = Scrape.of_file(path)
    assert found("blocked", scope="api", reason="no_answer") == 1
    assert set(found.of("api_request_errors_total", "error_code")) == {"api_unreachable"}


def test_a_file_that_cannot_be_written(program: Program, start_simulator: StartSimulator) -> None:
    """It is told in one line, and everything is saved all the same, with the exit code of that."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit([1, 2, 3])
    done = program("run", "--drain", "-q", "--metrics-textfile", "missing/downloader.prom")
    assert (done.returncode, done.stdout) == (0, "")
    [line] = done.stderr.splitlines()
    assert "metrics.not_written" in line
    assert "No such file or directory" in line
    assert "missing/downloader.prom" in line
    assert program.status()["runs"]["done"] == 3


def test_a_call_that_cannot_begin(
    program: Program, path: Path, start_simulator: StartSimulator
) -> None:
    """A call that ends in a wrong configuration leaves what the one before has told."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program.submit([1, 2, 3])
    assert program("run", "--once").returncode == 0
    before = path.read_bytes()
    taken = program.folder / "no folder"
    taken.write_text("")
    done = program("run", "--once", "--output", str(taken / "below"))
    assert done.returncode == 2, done.stderr
    assert path.read_bytes() == before


def test_a_service_writes_every_so_often(
    start_simulator: StartSimulator,
    make_service: MakeService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a service runs its file is written again and again, and once more at the end."""
    monkeypatch.setattr(export, "_WRITE_SECONDS", 0.01)
    made = make_service(start_simulator(finish_after=0.4))
    made.submit(*range(1, 10))
    path = tmp_path / "m.prom"
    seen: list[int] = []
    whole = write_whole

    def noting(where: Path, content: bytes) -> None:
        whole(where, content)
        seen.append(where.stat().st_ino)

    monkeypatch.setattr(export, "write_whole", noting)
    with Export(host="", port=None, textfile=path) as exported:
        service.run(made.settings, made.database, Mode.DRAIN, Silent(), metrics=exported)
    assert len(seen) > 3
    assert Scrape.of_file(path)("transfers_total", outcome="done") == 9
    assert Scrape.of_file(path).of("runs", "state") == {"done": 9}


def test_what_cannot_be_written_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for however many tries in vain; another only where it was written in between."""
    logs.configure(0)
    monkeypatch.setattr(export, "_WRITE_SECONDS", 0.01)
    path = tmp_path / "gone" / "m.prom"
    tries: list[bool] = []
    whole = write_whole

    def noting(where: Path, content: bytes) -> None:
        try:
            whole(where, content)
        except OSError:
            tries.append(False)
            raise
        tries.append(True)

    monkeypatch.setattr(export, "write_whole", noting)
    with Export(host="", port=None, textfile=path) as exported:
        exported.begin(lambda: IDLE, lambda: NOTHING)
        wait_until(lambda: len(tries) > 3)
        path.parent.mkdir()
        wait_until(lambda: tries[-1])
        path.parent.rename(tmp_path / "moved")  # in one step: it may just be written to
        wait_until(lambda: tries[-2:] == [False, False])
        exported.end()
    said = capsys.readouterr()
    assert (said.out + said.err).count("metrics.not_written") == 2


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Whoever has the old file open reads it to its end; all may read it, whatever the umask."""
    path = tmp_path / "m.prom"
    before = os.umask(0o077)
    try:
        write_whole(path, b"old\n" * 10_000)
        with closing(path.open("rb")) as opened:
            assert opened.read(4) == b"old\n"
            write_whole(path, b"new\n")
            assert opened.read() == b"old\n" * 9_999
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_in_vain_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where the name cannot be taken the new file goes again, and what is there stays."""
    path = tmp_path / "m.prom"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        write_whole(path, b"new\n")
    assert list(tmp_path.iterdir()) == [path]
