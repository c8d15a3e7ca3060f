"""Every command, with good and with bad arguments, at its loudest: no key and no signature."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from spilling import API_KEY, files_of, rows_text, signed

from downloader.cli.main import _COMMANDS
from downloader.simulator.catalogue import FAULTS, Place

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from harness import Program, StartSimulator
    from spilling import Secrets

# Every logger speaks to standard error, at its loudest, whoever turns it down later.
LOUD = """
import logging
logging.basicConfig(level=logging.DEBUG)
logging.Logger.setLevel = lambda *_: None
"""


@pytest.fixture
def loud(keyed_program: Program, tmp_path: Path) -> Program:
    """Give the program loggers that all speak, and Python's own debugging."""
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "sitecustomize.py").write_text(LOUD, encoding="utf-8")
    paths = [str(tmp_path / "loud"), *filter(None, [os.environ.get("PYTHONPATH")])]
    keyed_program.env |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONASYNCIODEBUG": "1",
        "DOWNLOADER_VERBOSE": "2",
        "DOWNLOADER_MIN_POLL": "0.05",
        "DOWNLOADER_MAX_POLL": "0.2",
    }
    return keyed_program


@pytest.fixture
def api(watched: StartSimulator, loud: Program, secrets: Secrets) -> str:
    """Run a simulator of which some runs fail, some are slow, and all it says is spiteful."""

    def speech() -> str:
        return f"{API_KEY}, {secrets.also(signed('https://storage.example/1.wav'))}"

    def rule(run: int, where: Place, kind: str, **more: object) -> dict[str, object]:
        assert kind in FAULTS[where]
        return {"runs": [run], "where": where.value, "fault": {"kind": kind, **more}, "times": 1}

    simulator = watched(
        rules=[
            rule(1, Place.API, "word", reason=speech()),
            rule(2, Place.STORAGE, "redirect"),
            rule(3, Place.STORAGE, "status", status=403, message=speech()),
            rule(4, Place.STORAGE, "redirect", to=secrets.also(signed("ftp://127.0.0.1/1.wav"))),
            rule(5, Place.STORAGE, "truncate"),
            rule(6, Place.API, "url-lifetime"),
            rule(7, Place.API, "status", status=500, detail=speech()),
        ]
    )
    loud.env["DOWNLOADER_API_URL"] = simulator.api_url
    return simulator.api_url


def test_every_command(loud: Program, api: str, secrets: Secrets, tmp_path: Path) -> None:
    """Nothing that a person, cron or a script may call shows a key or a signature."""
    url = secrets.also(signed(f"{api}/1.wav", 77))
    short = secrets.also(signed("https://h/a", 78))  # not cut off before its signature
    bad_ids = tmp_path / "bad-ids.txt"
    bad_ids.write_text(f"{url}\n12,{url}\n", encoding="utf-8")
    csv = tmp_path / "bad.csv"
    csv.write_text(f"run_id,output_url\n{url},1\n", encoding="utf-8")
    lines = tmp_path / "bad.jsonl"
    lines.write_text(f'{{"run_id": "{url}"}}\n{{"run_id": ["{url}"]}}\n', encoding="utf-8")
    settings = tmp_path / "settings.toml"
    settings.write_text(f'api-key = "{API_KEY}"\n', encoding="utf-8")
    calls: list[tuple[str, ...]] = [
        ("--version",),
        ("--config", str(settings), "status"),
        ("submit", *map(str, range(1, 12))),
        ("submit", "--json", "1", "2"),
        ("submit", url, short),
        ("submit", "--file", str(bad_ids)),
        ("submit", "--file", str(csv)),
        ("submit", "--file", str(lines)),
        ("run", "--once", "-vv"),
        ("run", "--once", "--json"),
        ("run", "--api-key", API_KEY),
        ("run", f"--api-key={API_KEY}"),
        ("run", "--once", "--api-url", f"https://ada:{API_KEY}@127.0.0.1/apis"),
        ("run", "--once", "--api-url", f"https://127.0.0.1:1/apis?key={API_KEY}"),
        ("run", "--once", "--api-url", "http://127.0.0.1:1/apis"),
        ("run", "--once", "--output", str(bad_ids)),
        ("run", "--once", "--database", f"postgresql://ada:{API_KEY}@127.0.0.1/runs"),
        ("run", "--drain", "--once"),
        ("run", "--drain", "-vv"),
        ("status",),
        ("status", "--json"),
        ("list",),
        ("list", "--json", "--limit", "0"),
        *(("show", str(run)) for run in range(1, 9)),
        ("show", "--json", "1"),
        ("show", "999"),
        ("show", short),
        ("retry", "1"),
        ("retry", "--failed", "--json"),
        ("retry", url),
        ("cancel", "1", "2"),
        ("cancel", short),
        ("retry", "1"),
        ("doctor",),
        ("doctor", "--json"),
        ("doctor", "--quick"),
        ("doctor", "--output", url),
        ("doctor", "--api-url", f"https://ada:{API_KEY}@127.0.0.1/apis"),
        ("doctor", "--api-url", "http://127.0.0.1:1/apis"),
        ("config",),
        ("config", "--json"),
        ("config", "--output", url, "--concurrency", API_KEY),
        ("config", "--output", url),
        ("db", "current"),
        ("db", "upgrade"),
        ("db", "backup", str(tmp_path / "runs.sqlite3.backup")),
        ("db", "backup", str(tmp_path / "runs.sqlite3.backup")),
        ("simulate", "--list-faults"),
        ("simulate", "--host", "nowhere.example"),
        ("demo", "--runs", "8", "--directory", str(tmp_path / "demo")),
        ("demo", "--directory", str(tmp_path / "demo")),
        ("verify",),
        ("verify", "--json", "--repair"),
        ("no-such-command", "1"),
        *((name, "--help") for name in _COMMANDS),
    ]
    assert {call[0] for call in calls} >= set(_COMMANDS)
    codes = {}
    for call in calls:
        done = loud(*call)
        codes[call] = done.returncode
        assert secrets(done.stdout + done.stderr) == [], call
        assert "Signature=" not in done.stdout + done.stderr, call
    assert codes["run", "--once", "-vv"] == 1, "run 1 fails"
    assert codes["run", "--drain", "-vv"] == 0
    assert codes["demo", "--runs", "8", "--directory", str(tmp_path / "demo")] == 0
    assert codes["verify",] == 0
    assert codes["doctor",] == 0
    for database in (loud.database, tmp_path / "demo" / "downloader.sqlite3"):
        assert secrets(rows_text(database)) == []
        assert "Signature=" not in rows_text(database)
        for path in files_of(database):
            assert secrets(path.read_bytes(), urls=[]) == [], path
    assert secrets("\n".join(str(path) for path in tmp_path.rglob("*"))) == []


def listened_to(process: subprocess.Popen[str], until: Callable[[str], bool]) -> str:
    """Read a process's standard error until a line that is waited for; return what was read."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if until(line):
            return said
    raise AssertionError(f"it ended: {said[-2000:]}")


@pytest.mark.usefixtures("api")
def test_a_daemon(loud: Program, secrets: Secrets) -> None:
    """A daemon says nothing secret, to its last word, and has no key in its argv."""
    assert loud("submit", *map(str, range(1, 12))).returncode == 0
    with loud.start("run", "-vv") as process:
        finished = threading.Event()

        def all_done(line: str) -> bool:
            if "run.done" in line or "run.failed" in line:
                [(left,)] = loud.query("SELECT count(*) FROM runs WHERE done_at IS NULL")
                if left == 1:
                    finished.set()
            return finished.is_set()

        said = listened_to(process, all_done)
        listed = [" ".join(one.cmdline()) for one in _family(process.pid)]
        process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "DEBUG:asyncio:" in said
    assert "service.stopping" in rest
    assert listed
    assert secrets(" ".join(listed)) == []
    assert secrets(out + said + rest) == []


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def test_a_simulator(loud: Program, secrets: Secrets) -> None:
    """`simulate` keeps to itself what it is asked with and what it hands out."""
    with loud.start("simulate", "--fault-rate", "0.3", "--api-key", API_KEY) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        api = first.removeprefix("API: ").strip()
        headers = {"x-api-key": API_KEY}
        for run_id in range(1, 40):
            with httpx.Client(headers=headers) as client:
                try:
                    answer = client.post(f"{api}/tts-results", json={"run_ids": [run_id, 10**6]})
                except httpx.TransportError:
                    continue  # a fault
            if answer.status_code == 200 and str(run_id) in answer.json():
                url = secrets.also(answer.json()[str(run_id)]["output_url"])
                try:
                    httpx.get(url)
                except httpx.TransportError:
                    continue  # another one
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(secrets.urls) > 5
    assert secrets(first + out + err) == []
