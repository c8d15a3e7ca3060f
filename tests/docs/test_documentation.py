"""What the documentation says, done: its commands, queries, examples and links."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from needs import needed
from pages import PAGES, ROOT, block, blocks, command

from downloader.cli.configuration import read_configuration
from downloader.rules.states import State
from downloader.settings import _LIVE

if TYPE_CHECKING:
    from harness import Program, StartSimulator


BACKEND: Final = str(ROOT / "packaging/backend.py")
_INSTALLS_IT: Final = re.compile(r"pip install\b[^\n`]*?(?<![\w./-])downloader(?![\w./-])")


def shell(program: Program, text: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader of the documentation would, with the program on the PATH."""
    binaries = Path(sys.executable).parent
    environment = program.environment()
    environment["PATH"] = f"{binaries}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607 - bash is what CI needs as well
        env=environment,
        cwd=program.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def check_out(target: Path) -> None:
    """Copy what git tracks, and what it would track, into a fresh folder."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def install(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run the README's first command in a fresh checkout: it builds a wheel and installs it."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOWNLOADER_", "CAMB_", "PYTHON", "VIRTUAL_ENV"))
    }
    # `python3` is the Python that runs the tests: the machine's may be older.
    ours = Path(sys.executable).resolve().parent
    environment["PATH"] = f"{ours}{os.pathsep}{environment['PATH']}"
    text = command("README.md", "demo")
    assert text.startswith("python3 -m venv ")
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607 - as above
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return the environment that the README's first command makes, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    checkout, said = shared / "checkout", shared / "said.json"
    with (shared / "checkout.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes later waits
        if not said.exists():
            check_out(checkout)
            done = install(checkout)
            said.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
        return checkout / ".venv", subprocess.CompletedProcess(*json.loads(said.read_text()))


def test_a_python_that_is_too_old() -> None:
    """With an older Python the installation ends at once, with the one that it needs."""
    old = f"import sys, runpy; sys.version_info = (3, 9, 18); runpy.run_path({BACKEND!r})"
    done = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(
        "downloader needs Python 3.11 or newer, and this is 3.9: make the environment with a newer"
    )
    needed_here = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert needed_here["requires-python"] == ">=3.11"


def assert_demo(done: subprocess.CompletedProcess[str], runs: int, folder: Path) -> None:
    """Assert that a demo has shown what it promises, and that its files are there."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Submitted {runs} runs" in done.stdout
    assert f"Saved {runs - 1} files" in done.stdout
    assert "Failed: 1" in done.stdout
    assert "provider_failed" in done.stdout
    assert "Traceback" not in done.stderr
    _, _, next_ones = done.stdout.partition("What next:\n")
    typed = dict(re.findall(r"^  (\S.+?)  +(\S.+)$", next_ones, re.MULTILINE))
    assert set(typed) == {
        *("play one", "how it stands", "every run", "why one failed", "in a browser"),
        "remove it all",
    }
    database = typed["every run"].split()[-1]
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT run_id, location FROM runs").fetchall()
    connection.close()
    assert len(rows) == runs
    locations = [Path(row[-1]) for row in rows if row[-1] is not None]
    assert len(locations) == runs - 1
    assert all(path.stat().st_size >= 190_000 for path in locations)
    assert {path.suffix for path in locations} <= {".wav", ".flac"}
    assert Path(typed["play one"].split()[-1]) in locations
    for what in ("how it stands", "why one failed", "remove it all"):
        ended = subprocess.run(typed[what], shell=True, cwd=folder, check=False)  # noqa: S602 - as typed
        assert ended.returncode == 0
    assert not Path(database).parent.exists()


@pytest.mark.needs("git")
def test_the_demo_command(installed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The README's first command installs the program and does the main job."""
    assert_demo(installed[1], 24, installed[0].parent)


@pytest.mark.needs("git")
def test_the_wheel_works_from_anywhere(
    installed: tuple[Path, subprocess.CompletedProcess[str]], program: Program
) -> None:
    """The installed wheel has its migrations with it: started from `/`, it does the main job."""
    environment, _ = installed
    where = subprocess.run(
        [environment / "bin/python", "-c", "import downloader; print(downloader.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "site-packages" in where
    done = subprocess.run(
        [environment / "bin/downloader", "demo", "--runs", "8"],
        cwd="/",
        env=program.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert_demo(done, 8, Path("/"))


@pytest.mark.needs("git")
@pytest.mark.needs("man")
def test_the_wheel_brings_its_manual(
    installed: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """`man downloader`, and `man downloader-run`, find the pages once the environment is active."""
    environment, _ = installed
    for name, said in (("downloader", "SEE ALSO"), ("downloader-run", "--concurrency")):
        done = subprocess.run(
            [needed("man"), name],
            cwd=tmp_path,
            env={
                "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(tmp_path),
                "LC_ALL": "C",
                "MANPAGER": "cat",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert said in re.sub(".\b", "", done.stdout)


@pytest.mark.needs("git")
def test_the_wheel_describes_the_database(
    installed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The installed wheel has docs/sql.md, and the pages of `inspect`, with it."""
    code = (
        "from downloader.store.contract import page_path, read_page\n"
        "templates = page_path().parents[1] / 'inspecting' / 'templates'\n"
        "print(page_path(), len(read_page().queries()), len(list(templates.glob('*.html'))))\n"
    )
    path, queries, templates = subprocess.run(
        [installed[0] / "bin/python", "-c", code],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "site-packages" in path
    assert Path(path).read_text("utf-8") == (ROOT / "docs/sql.md").read_text("utf-8")
    assert int(queries) > 10
    assert int(templates) == len(list((ROOT / "downloader/inspecting/templates").glob("*.html")))


def test_the_usage_commands(program: Program, start_simulator: StartSimulator) -> None:
    """The README's commands for the real thing work, line by line."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    (program.folder / "ids.txt").write_text("12345\n67890\n")
    lines = [line for line in command("README.md", "usage").splitlines() if "export" not in line]
    assert len(lines) == 7
    for line in lines:
        done = shell(program, line)
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert dict(program.query("SELECT run_id, state FROM runs")) == {12345: "done", 67890: "done"}


def test_the_export_commands(program: Program, start_simulator: StartSimulator) -> None:
    """The documented manifests are written, and sha256sum agrees with one."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit([1, 2])
    program("run", "--drain")
    for line in command("docs/commands.md", "export").splitlines():
        done = shell(program, line)
        assert (done.returncode, done.stderr) == (0, ""), line
    for name in ("saved.csv", "saved.m3u8", "saved.sha256"):
        text = (program.folder / name).read_text()
        assert str(program.output / "1.") in text
        assert str(program.output / "2.") in text


def test_the_hooks(program: Program, start_simulator: StartSimulator) -> None:
    """The documented hook has a copy of each file, and the other one tells of the failed run."""
    fault = {"kind": "word", "word": "ERROR"}
    simulator = start_simulator(rules=[{"runs": [2], "where": "api", "fault": fault}])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    text = block("docs/hooks.md", "file: keep-a-copy.sh")
    path = program.folder / "keep-a-copy.sh"
    path.write_text(text + "\n")
    path.chmod(0o755)
    # Not every machine has a system log.
    line = command("docs/hooks.md", "hooks")
    assert "logger -t downloader" in line
    program.submit([1, 2, 3])
    done = shell(program, line.replace("logger -t downloader", "tee told.json"))
    assert done.returncode == 1
    assert "hook" not in done.stderr
    rows = {row["run_id"]: row for row in program.runs("done")}
    assert {one.name for one in (program.folder / "copies").iterdir()} == {
        f"{run_id}.{row['audio_format']}" for run_id, row in rows.items()
    }
    for run_id, row in rows.items():
        copy = program.folder / "copies" / f"{run_id}.{row['audio_format']}"
        assert copy.read_bytes() == simulator.audio(run_id)
    assert json.loads((program.folder / "told.json").read_text())["run_id"] == 2


def test_nobody_is_told_to_install_somebody_elses_package() -> None:
    """The name `downloader` is another's on PyPI: neither messages nor pages install it."""
    texts = [*PAGES, *ROOT.glob("docs/container/*"), *(ROOT / "downloader").rglob("*.py")]
    telling = []
    for path in texts:
        text = re.sub(r'"\n\s+f?"', "", path.read_text("utf-8"))  # a message over two lines
        telling += [f"{path.name}: {found}" for found in _INSTALLS_IT.findall(text)]
    assert telling == []
    assert _INSTALLS_IT.search("`.venv/bin/pip install --quiet 'downloader[curl]'`")
    assert _INSTALLS_IT.search("pip install downloader")


def two_free_ports() -> int:
    """Return a port that is free, as is the next one, where no connection takes one meanwhile."""
    for port in range(20_000 + os.getpid() % 5_000 * 2, 32_000, 2):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port
    raise AssertionError


def test_the_simulator_commands(program: Program) -> None:
    """The README's simulator serves a drain with faults."""
    serve, submit, drain = command("README.md", "simulate").splitlines()
    port = str(two_free_ports())
    assert "8400" in serve
    assert "8400" in drain
    arguments = serve.replace("8400", port).split()[1:]
    assert shell(program, submit).returncode == 0
    with program.start(*arguments) as simulator:
        assert simulator.stdout is not None
        while "Ready" not in (line := simulator.stdout.readline()):
            assert line, "the simulator has ended"
        done = shell(program, drain.replace("8400", port))
        simulator.terminate()
        simulator.communicate()
    assert done.returncode == 0, done.stderr
    trial = ("--database", str(program.folder / "trial" / "downloader.sqlite3"), "--json")
    assert json.loads(program("status", *trial).stdout)["runs"]["done"] == 12


def test_the_queries(program: Program, start_simulator: StartSimulator) -> None:
    """Every query of the README runs on a database that has seen work, and finds something."""
    fault = {"kind": "word", "word": "ERROR"}
    simulator = start_simulator(
        rules=[
            {"runs": [2], "where": "api", "fault": fault},
            {"runs": [3], "where": "storage", "fault": {"kind": "status", "status": 500}},
        ]
    )
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program("submit", "3")
    program("run", "--once")  # alone, so that nobody else is waited for to tell whose fault it is
    program("submit", "1", "2", "12345")
    program("run", "--once")
    queries = blocks("README.md", "query")
    assert len(queries) == 6
    for query in queries:
        assert program.query(query), query
    sql = re.search(r'"(SELECT .+?)"', command("docs/commands.md", "query"))
    assert sql
    assert program.query(sql[1])


def test_the_json_examples(program: Program, start_simulator: StartSimulator) -> None:
    """The JSON that the documentation shows has the keys that the program prints."""
    simulator = start_simulator(api_key="another")
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    submitted = json.loads(program("submit", "1", "2", "--json").stdout)
    program("run", "--once")
    status = json.loads(program("status", "--json").stdout)
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    shown = [json.loads(text) for text in re.findall(r"```json\n(.+?)\n```", page, re.DOTALL)]
    doctor = json.loads(program("doctor", "--json").stdout)
    config = json.loads(program("config", "--json").stdout)
    assert [shape(example) for example in shown[:3]] == [
        shape(submitted),
        shape(status),
        shape(doctor),
    ]
    [example] = shown[3:]
    assert shape({**config, "settings": {}}) == shape({**example, "settings": {}})
    for name, setting in example["settings"].items():
        assert shape(config["settings"][name]) == shape(setting)
    assert [shape(one) for one in example["settings"].values()]
    for one in shown[2]["checks"]:
        assert shape(one) == shape(doctor["checks"][0])
        assert one["name"] in {check["name"] for check in doctor["checks"]}
    assert set(status["runs"]) == {state.value for state in State}


def test_the_checks(program: Program, start_simulator: StartSimulator) -> None:
    """The checks that `doctor` makes are those that are documented, in the same order."""
    program.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    program("submit", "1", "2")
    program("run", "--once")
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (yes|no) \|$", page, re.MULTILINE)
    documented = dict(rows)
    for arguments in (("doctor",), ("doctor", "--quick")):
        checks = json.loads(program(*arguments, "--json").stdout)["checks"]
        made = [one["name"] for one in checks]
        quick = "--quick" in arguments
        assert made == [name for name, too in documented.items() if too == "yes" or not quick]


def test_the_health_check(program: Program) -> None:
    """The command of the documented health check is one that works, and fails where it should."""
    check = command("docs/commands.md", "health").partition(" CMD ")[2]
    program.submit([1])
    assert shell(program, check).returncode == 0
    for variable, value in (
        ("DOWNLOADER_OUTPUT", str(program.database)),
        ("DOWNLOADER_MIN_FREE", "100000T"),
    ):
        before = dict(program.env)
        program.env[variable] = value
        assert shell(program, check).returncode == 1
        program.env = before


def shape(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the keys of JSON, without its values."""
    return {key: shape(item) for key, item in value.items()} if isinstance(value, dict) else None


def test_the_configuration_example(tmp_path: Path) -> None:
    """The documented configuration file is one that the program takes."""
    text = block("docs/commands.md", "file: config.toml")
    path = tmp_path / "config.toml"
    path.write_text(text)
    expected = {name: str(value) for name, value in tomllib.loads(text).items()}
    assert read_configuration(str(path)) == expected


def test_continuous_integration_runs_the_test_command() -> None:
    """CI runs the README's own test command, and CONTRIBUTING names the one command for all."""
    assert command("README.md", "test").endswith("&& .venv/bin/pytest")
    assert "readme_command test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert command("CONTRIBUTING.md", "check") == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_tests_that_pages_name_are_there() -> None:
    """What a page says is shown by a test is shown by one that exists."""
    named = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(r"`(?:[^`]* )?(tests/[\w/.]+?)(?: [^`]*)?`", page.read_text("utf-8"))
    }
    assert ("reliability.md", "tests/torture/") in named
    assert [one for one in sorted(named) if not (ROOT / one[1]).exists()] == []


def test_the_operating_commands(program: Program, start_simulator: StartSimulator) -> None:
    """What docs/operations.md says of backup, restore and moving works, and finds nothing wrong."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    page = "docs/operations.md"
    program.submit(range(1, 4))
    assert program("run", "--drain").returncode == 0
    done = shell(program, command(page, "backup"))
    assert done.returncode == 0, done.stderr
    program.submit([4])
    assert program("run", "--drain").returncode == 0
    done = shell(program, command(page, "restore"))
    assert "1 orphan" in done.stdout, done.stdout  # the file of the run that the backup knows not
    program.submit([4])
    assert program("run", "--drain").returncode == 0
    program.assert_saved(simulator, range(1, 5))
    done = shell(program, command(page, "move"))
    assert done.returncode == 0, done.stdout + done.stderr
    program.env["DOWNLOADER_OUTPUT"] = str(program.folder / "sounds")
    program.submit([5])
    assert program("run", "--drain").returncode == 0
    program.assert_saved(simulator, range(1, 6))
    text = block(page, "file: config.toml")
    assert set(tomllib.loads(text)) == {"database", "output"}


def test_the_settings_that_sighup_takes() -> None:
    """The page on operating names the settings that a running service takes, and no others."""
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    [named] = re.findall(r"these are taken: the key, (.+?)\. Where", text, re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", named)) == {*_LIVE.values()} - {
        *("the API key", "patience"),  # which is no option
    }


@pytest.mark.needs("zsh")
def test_the_completion_commands(program: Program) -> None:
    """The documented commands leave a script where each shell looks for it; zsh finds its own."""
    for line in command("docs/commands.md", "completion").splitlines():
        done = shell(program, line)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), line
    home = program.folder / "home"
    for path in (".local/share/bash-completion/completions/downloader", ".zfunc/_downloader"):
        assert "_downloader_completion" in (home / path).read_text()
    assert "complete" in (home / ".config/fish/completions/downloader.fish").read_text()
    loaded = subprocess.run(
        [
            *(needed("zsh"), "-f", "-c"),
            "fpath+=~/.zfunc; autoload -Uz compinit && compinit -u -D; echo $_comps[downloader]",
        ],
        env={**program.environment(), "ZDOTDIR": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout == "_downloader\n"
