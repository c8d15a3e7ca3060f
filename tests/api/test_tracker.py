"""What a program gets by `import downloader`: the record of its runs, errors, types, and speed."""

from __future__ import annotations

import asyncio
import pickle
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from harness import KEY
from store.driving import Driver

import downloader
from downloader.api.drain import _RANGES
from downloader.cli.quantities import Duration, Rate, Size
from downloader.cli.run import run as run_command
from downloader.store import database

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


class Number:
    """What `operator.index` takes, as numpy's integers are; or what only looks so."""

    def __init__(self, number: object) -> None:
        self._number = number

    def __index__(self) -> Any:  # noqa: ANN401 - wrong on purpose
        return self._number if type(self._number) is int else str(self._number)


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[downloader.Tracker]:
    """Open a tracker on a new database."""
    with downloader.open(tmp_path / "runs.sqlite3") as opened:
        yield opened


def test_submit(tracker: downloader.Tracker) -> None:
    """Ids are tracked once, of each type apart; those that are known are counted."""
    assert tracker.submit([1, 2, 3]) == downloader.Submission(submitted=3, known=0)
    assert tracker.submit(iter([3, 4, 4])) == downloader.Submission(submitted=1, known=2)
    assert tracker.submit([1], run_type="tts") == downloader.Submission(submitted=1, known=0)
    assert tracker.submit([]) == downloader.Submission(submitted=0, known=0)
    found = tracker.progress()
    assert (found.pending, found.unfinished, found.done, found.bytes) == (5, 5, 0, 0)
    assert found.blocked is None


@pytest.mark.parametrize(
    ("run_ids", "said"),
    [
        ([1, 0], r"run_ids\[1\] \(0\) is zero: run ids start at 1\. Nothing was changed\."),
        ([-5], r"\(-5\) is negative"),
        ([True], "is of type bool: a run id is an int"),
        (["1"], "is of type str: a run id is an int"),
        ("123", "is of type str"),
        ([1.0], "is of type float"),
        ([None], "is of type NoneType"),
        ([2**63], "is too large: the largest run id is 9223372036854775807"),
        ([10**9999], "has more digits than any run id"),
        ([Number(None)], "is of type Number: a run id is an int"),
        ([Number(0)], r"\(0\) is zero"),
        (12345, r"give a list of them, such as \[12345\]"),
    ],
)
def test_bad_ids(tracker: downloader.Tracker, run_ids: Any, said: str) -> None:  # noqa: ANN401 - wrong on purpose
    """What is no run id is refused, by its place; then nothing is recorded."""
    with pytest.raises(downloader.InputError, match=said):
        tracker.submit(run_ids)
    with pytest.raises(downloader.InputError, match=said):
        tracker.cancel(run_ids)
    assert tracker.progress().unfinished == 0


def test_ids_of_other_types(tracker: downloader.Tracker) -> None:
    """Whatever Python takes for an integer is a run id."""
    assert tracker.submit([Number(11), 12]) == downloader.Submission(submitted=2, known=0)
    assert [one.run_id for one in tracker.unfinished()] == [11, 12]
    assert tracker.cancel([Number(11)]) == 1
    assert tracker.get(Number(11)) == tracker.get(11)


def test_a_source_that_fails(tracker: downloader.Tracker) -> None:
    """What a generator of ids raises goes through, and none of its ids is recorded."""

    def ids() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tracker.submit(ids())
    assert tracker.progress().unfinished == 0


def test_unknown_types(tracker: downloader.Tracker) -> None:
    """A run type that there is not is refused everywhere, with those that there are."""
    said = "'text-to-speech' is no run type: it is 'text-to-sound' or 'tts'"
    for call in (
        lambda: tracker.submit([1], run_type="text-to-speech"),
        lambda: tracker.cancel([1], run_type="text-to-speech"),
        lambda: tracker.retry_failed(run_type="text-to-speech"),
        lambda: list(tracker.saved(run_type="text-to-speech")),
        lambda: list(tracker.failed(run_type="text-to-speech")),
        lambda: list(tracker.unfinished(run_type="text-to-speech")),
        lambda: tracker.get(1, run_type="text-to-speech"),
    ):
        with pytest.raises(downloader.InputError, match=said):
            call()
    unhashable: Any = ["tts"]
    with pytest.raises(downloader.InputError, match="is no run type"):
        tracker.submit([1], run_type=unhashable)


def test_what_is_saved_and_what_failed(
    tracker: downloader.Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved and failed runs come in order, whole, of one type if asked, across all pages."""
    monkeypatch.setattr("downloader.api.tracker._PAGE", 2)
    driver = Driver(tracker.database)
    driver.done(1, 2, 3, 4, 5)
    driver.failed(6, 7, 8)
    names = [name for _, name, *_ in driver.query("PRAGMA table_info(runs)") if name != "run_type"]
    copied = ", ".join("location || '.tts'" if name == "location" else name for name in names)
    driver.execute(
        f"INSERT INTO runs (run_type, {', '.join(names)}) SELECT 'tts', {copied} FROM runs"  # noqa: S608 - names of columns
    )
    keys = [("text-to-sound", run_id) for run_id in range(1, 6)]
    assert [one[:2] for one in tracker.saved(run_type="text-to-sound")] == keys
    assert [one[:2] for one in tracker.saved()] == keys + [("tts", run_id) for _, run_id in keys]
    one = next(tracker.saved())
    assert isinstance(one.location, Path)
    assert (len(one.sha256), one.bytes > 0, one.done_at >= one.submitted_at) == (64, True, True)
    failed = list(tracker.failed(run_type="tts"))
    assert [one.run_id for one in failed] == [6, 7, 8]
    assert all(one.error_code and one.error_message and one.failed_at.tzinfo for one in failed)
    assert tracker.retry_failed(run_type="tts") == 3
    assert list(tracker.failed(run_type="tts")) == []
    assert tracker.cancel([6, 7, 1], run_type="tts") == 2
    with pytest.raises(downloader.InputError, match="not tracked"):
        tracker.cancel([8, 99], run_type="tts")
    found = tracker.progress()
    assert (found.done, found.failed, found.cancelled, found.pending) == (10, 3, 2, 1)


def test_one_run(tracker: downloader.Tracker) -> None:
    """Of one run its state is told, its file and its error; of one that is not tracked nothing."""
    driver = Driver(tracker.database)
    driver.done(1)
    driver.failed(2)
    driver.submit(3)
    done, failed, pending = (tracker.get(run_id) for run_id in (1, 2, 3))
    assert done is not None
    assert failed is not None
    assert pending is not None
    [saved], [given_up] = tracker.saved(), tracker.failed()
    assert (done.state, done.location, done.error_code) == ("done", saved.location, None)
    assert (failed.state, failed.location) == ("failed", None)
    assert (failed.error_code, failed.error_message) == given_up[2:4]
    assert pending[:4] == ("text-to-sound", 3, "pending", None)
    assert pending.submitted_at.tzinfo
    assert pending.updated_at >= pending.submitted_at
    assert tracker.get(3, run_type="tts") is None
    assert tracker.get(4) is None
    wrong: Any = "3"
    with pytest.raises(downloader.InputError, match=r"^run_id is of type str: a run id is an int"):
        tracker.get(wrong)
    with pytest.raises(downloader.InputError, match=r"^run_id \(0\) is zero"):
        tracker.get(0)


def test_what_is_unfinished(tracker: downloader.Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are neither saved nor given up come in order, across all pages, of each state."""
    monkeypatch.setattr("downloader.api.tracker._PAGE", 2)
    driver = Driver(tracker.database)
    driver.done(1)
    driver.failed(2)
    driver.downloading(6)
    driver.ready(5)
    tracker.submit([3, 4, 7, 8])
    tracker.submit([3], run_type="tts")
    tracker.cancel([8])
    ours = [(3, "pending"), (4, "pending"), (5, "ready"), (6, "downloading"), (7, "pending")]
    found = list(tracker.unfinished())
    assert [one[1:3] for one in found] == [*ours, (3, "pending")]
    assert [one.run_type for one in found] == ["text-to-sound"] * 5 + ["tts"]
    assert list(tracker.unfinished(run_type="tts")) == [tracker.get(3, run_type="tts")]


def test_a_reader_that_takes_its_time(tracker: downloader.Tracker) -> None:
    """Whoever stays in the middle of what is saved keeps no transaction open."""
    driver = Driver(tracker.database)
    driver.done(1, 2)
    saved = tracker.saved()
    next(saved)
    assert tracker.database.empty_log()
    assert next(saved).run_id == 2


def test_closed(tmp_path: Path) -> None:
    """A closed tracker says so; closing it again does no harm."""
    tracker = downloader.open(tmp_path / "runs.sqlite3")
    tracker.close()
    tracker.close()
    for call in (
        lambda: tracker.submit([1]),
        tracker.progress,
        lambda: list(tracker.saved()),
        lambda: downloader.drain(tracker, api_key=KEY),
    ):
        with pytest.raises(downloader.StoreError, match="has been closed: open it again"):
            call()
    assert tracker.path == tmp_path / "runs.sqlite3"


def test_many_threads_at_once(tmp_path: Path) -> None:
    """Threads may open new databases at the same time, and share one."""
    with ThreadPoolExecutor(8) as threads:
        opened = list(
            threads.map(downloader.open, [tmp_path / f"{n % 4}.sqlite3" for n in range(8)])
        )
        counts = list(threads.map(lambda n: opened[0].submit([n, n + 1]).submitted, range(1, 9)))
    assert sum(counts) == 9
    assert opened[4].progress().pending == 9
    for one in opened:
        one.close()


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    """What is no database of ours is told by a documented error, and so is a folder."""
    (tmp_path / "text").write_text("This is not a database. " * 100)
    for path in (tmp_path / "text", tmp_path):
        with pytest.raises(downloader.StoreError, match=str(path)) as raised:
            downloader.open(path)
        assert str(raised.value).endswith(", or name another database.")
        copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301 - our own; as another process gets it
        assert (type(copy), str(copy)) == (downloader.StoreError, str(raised.value))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (":memory:", "The database must be a file"),
        ("file:runs.sqlite3?mode=ro", "The database must be a file"),
        ("postgresql://ada:5ecret@db/runs", "postgresql databases are not supported"),
        (Path("postgresql://ada:5ecret@db/runs"), "is a URL: give the path of a file"),
        (5, "must be a .*[pP]ath.*, and is of type int"),
    ],
)
def test_what_names_no_database(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: Any,  # noqa: ANN401 - wrong on purpose
    said: str,
) -> None:
    """What is no path of a file is refused everywhere, without a password, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    for call in (
        downloader.open,
        partial(downloader.drain, api_key=KEY),
        lambda path: asyncio.run(downloader.arun(path, api_key=KEY)),
    ):
        with pytest.raises(downloader.ConfigurationError, match=said) as raised:
            call(named)
        assert "5ecret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_drain_of_no_database(tmp_path: Path) -> None:
    """A drain of a database that is not there is an error, and makes none: it may be a typo."""
    missing = tmp_path / "typo.sqlite3"
    said = rf"There is no database at {missing}: check the path; downloader\.open\(path\) makes one"
    with pytest.raises(downloader.StoreError, match=said):
        downloader.drain(missing, api_key=KEY)
    with pytest.raises(downloader.StoreError, match=said):
        asyncio.run(downloader.adrain(missing, api_key=KEY))
    nobody: Any = None
    with pytest.raises(downloader.ConfigurationError, match="tracker must be a Tracker or"):
        downloader.drain(nobody, api_key=KEY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": 0}, "concurrency is 0: it must be from 1 to 256"),
        ({"concurrency": 1.5}, "concurrency must be a whole number, and is of type float"),
        ({"concurrency": True}, "concurrency must be a whole number"),
        ({"attempts": "8"}, "attempts must be a whole number, and is of type str"),
        ({"stall_seconds": float("nan")}, "stall_seconds must be a number"),
        ({"stall_seconds": float("inf")}, "stall_seconds is inf"),
        ({"max_bytes_per_second": 10}, "max_bytes_per_second is 10: it must be from 1000"),
        ({"engine": "wget"}, "engine must be one of auto, httpx, curl"),
        (
            {"min_poll_seconds": 9.0, "max_poll_seconds": 1.0},
            "max_poll_seconds 1 is less than min_poll_seconds 9",
        ),
        ({"api_url": "http://example.com"}, "api_url would send the API key .* in the clear"),
        ({"api_url": "foo"}, "api_url must be a URL such as"),
        ({"api_url": "https://[::1"}, "api_url is not a URL"),
        ({"api_url": "https://example.com/?a=1"}, "api_url takes no query"),
        ({"api_url": 5}, "api_url must be a text, and is of type int"),
        ({"output": 5}, r"output must be a str or an os\.PathLike, and is of type int"),
        ({"output": "a\0b"}, "output has a null byte"),
        ({"output": "/dev/null/audio"}, r"cannot be made: .* another folder with output\."),
        ({"api_key": ""}, "api_key is empty"),
        ({"api_key": None}, "api_key must be a text, and is of type NoneType"),
        ({"api_key": "5ecret key"}, "api_key has white space"),
    ],
)
def test_bad_options(tracker: downloader.Tracker, options: dict[str, Any], said: str) -> None:
    """An option that cannot be is refused by its name, before anything is done."""
    with pytest.raises(downloader.ConfigurationError, match=said) as raised:
        downloader.drain(tracker, **{"api_key": KEY, **options})
    assert "5ecret" not in str(raised.value)
    assert not re.search(r"--[a-z]|CAMB_|DOWNLOADER_", str(raised.value))
    assert not (tracker.path.parent / "audio").exists()


def test_an_address_that_cannot_be_asked(tracker: downloader.Tracker) -> None:
    """What only the HTTP client finds wrong with an option is told by the option's name, too."""
    with pytest.raises(downloader.ConfigurationError, match=r"^api_url cannot be asked"):
        downloader.drain(tracker, api_key=KEY, api_url="https://xn--zzzzzz/")


def test_unknown_options(tracker: downloader.Tracker) -> None:
    """An option that there is not is Python's own error, with the function and the nearest name."""
    unknown: dict[str, Any] = {"owns_process": True}
    with pytest.raises(TypeError, match=r"downloader\.drain\(\) got .* argument 'owns_process'$"):
        downloader.drain(tracker, api_key=KEY, **unknown)
    misspelt: dict[str, Any] = {"concurency": 8}
    said = r"downloader\.{}\(\) got an unexpected .* 'concurency'\. Did you mean 'concurrency'\?"
    with pytest.raises(TypeError, match=said.format("drain")):
        downloader.drain(tracker, api_key=KEY, **misspelt)
    for function in (downloader.adrain, downloader.arun):
        with pytest.raises(TypeError, match=said.format(function.__name__)):
            asyncio.run(function(tracker, api_key=KEY, **misspelt))


def test_numbers_are_those_of_the_command() -> None:
    """What a number may be is the same here and on the command line."""
    names = {
        "max_rate": "max_bytes_per_second",
        "api_rate": "api_requests_per_second",
        "min_free": "min_free_bytes",
        "max_file_size": "max_file_bytes",
    }
    compared = set()
    for parameter in run_command.params:
        name = str(parameter.name)
        known = next(
            (one for one in (names.get(name), name, f"{name}_seconds") if one in _RANGES), None
        )
        if known is None:
            continue
        _, least, most = _RANGES[known]
        kind = parameter.type
        if isinstance(kind, click.IntRange):
            assert (kind.min, kind.max) == (least, most), known
        else:
            assert isinstance(kind, Duration | Size | Rate)
            assert kind._minimum == least, known
        compared.add(known)
    assert compared == set(_RANGES)


def test_import_is_cheap() -> None:
    """Importing the package loads none of what its parts need, and `submit` nothing of a drain."""
    code = (
        "import sys\n"
        "import downloader\n"
        "print(sorted(name for name in sys.modules if name.startswith('downloader')))\n"
        "assert 'open' in dir(downloader) and downloader.StoreError\n"
        "heavy = {'sqlalchemy', 'httpx', 'anyio', 'alembic', 'structlog', 'click', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "downloader.open\n"
        "print(sorted({'httpx', 'anyio', 'alembic', 'click', 'tqdm'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "['downloader']\n[]\n[]\n"


def test_what_is_public() -> None:
    """Every public name is there, says what it is, and is one of the documented ones."""
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    for name in downloader.__all__:
        found = getattr(downloader, name)
        if name != "__version__":
            assert found.__doc__, name
            assert name in page, name
    for name in vars(downloader.Tracker):
        assert name.startswith("_") or f"`Tracker.{name}" in page, name
    for kind in (downloader.Run, downloader.Saved, downloader.Failed):
        assert f"{kind.__name__}({', '.join(kind._fields)})" in page
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = downloader.nothing
    assert issubclass(downloader.BlockedError, downloader.DownloaderError)


def test_the_wheel_is_typed(tmp_path: Path) -> None:
    """The wheel has the marker by which type checkers read its annotations."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            tmp_path,
            ROOT,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        assert "downloader/py.typed" in files.namelist()


def test_the_log_of_a_tracker_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that submits run by run has no write-ahead log that grows with each."""
    monkeypatch.setattr(database, "SHORT_LOG_BYTES", 300_000)
    with downloader.open(tmp_path / "runs.sqlite3") as tracker:
        largest = 0
        for run_id in range(1, 101):
            tracker.submit([run_id])
            largest = max(largest, tracker.database.log_bytes())
        tracker.cancel(range(1, 101))
        assert largest < 400_000
        with tracker.database.read() as connection:  # it is left while somebody reads
            connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one()
            for run_id in range(101, 151):
                tracker.submit([run_id])
        assert tracker.progress().unfinished == 50
