"""The unit files that are shipped: systemd's own tools find nothing wrong with them."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from harness import KEY, wait_until
from needs import needed
from operating.listening import listening
from pages import ROOT, block

if TYPE_CHECKING:
    from harness import Program, StartSimulator

UNITS: Final = ROOT / "docs/systemd"
SERVICES: Final = ("downloader.service", "downloader-once.service")
MOST_EXPOSURE: Final = 2.0


def analyze(*arguments: str | Path) -> str:
    """Run systemd-analyze; return what it says."""
    done = subprocess.run(
        [needed("systemd-analyze"), *arguments],
        env={**os.environ, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Copy the units, with the program where it is here: systemd looks whether it is there."""
    program = str(Path(sys.executable).with_name("downloader"))
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/downloader/bin/downloader", program)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.needs("systemd-analyze")
def test_they_are_well_formed(units: Path) -> None:
    """`systemd-analyze verify` finds no mistake in any of them."""
    names = sorted(unit.name for unit in UNITS.iterdir())
    assert names == ["downloader-once.service", "downloader-once.timer", "downloader.service"]
    assert analyze("verify", *(units / name for name in names)) == ""


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", SERVICES)
def test_how_exposed_they_are(units: Path, name: str) -> None:
    """`systemd-analyze security` rates what a service could do below 2.0 of 10."""
    said = analyze("security", "--offline=true", "--no-pager", units / name)
    found = re.search(rf"Overall exposure level for {re.escape(name)}: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) < MOST_EXPOSURE


def section(name: str) -> configparser.SectionProxy:
    """Return what a unit says of its service; of a setting that is there twice the last."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # as its documentation has it
    parser.read(UNITS / name, encoding="utf-8")
    return parser["Service"]


def test_what_the_daemon_relies_on() -> None:
    """The daemon's unit has it watched, reloaded, given its key, and not restarted in vain."""
    unit = section("downloader.service")
    assert unit["Type"] == "notify"
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    text = (UNITS / "downloader.service").read_text("utf-8")
    [check] = re.findall(r"\nExecReload=(.+ config --check)\nExecReload=/bin/kill", text)
    assert check.split()[:3] == unit["ExecStart"].split()[:3]  # what it checks is what is run
    assert unit["RestartPreventExitStatus"] == "2"
    assert unit["LoadCredential"].startswith("camb-api-key:")
    assert unit["WatchdogSec"] == "60s"
    assert section("downloader-once.service")["Type"] == "oneshot"


@pytest.mark.parametrize("name", SERVICES)
def test_its_commands(
    program: Program, start_simulator: StartSimulator, name: str, tmp_path: Path
) -> None:
    """What a unit starts, with the configuration and the credential that the page says, works."""
    simulator = start_simulator(api_key=KEY)
    config = block("docs/operations.md", "file: config.toml")
    (tmp_path / "config.toml").write_text(
        config.replace("/var/lib/downloader/downloader.sqlite3", str(program.database)).replace(
            "/var/lib/downloader/audio", str(program.output)
        ),
        encoding="utf-8",
    )
    (tmp_path / "camb-api-key").write_text(f"{KEY}\n", encoding="utf-8")
    program.env |= dict.fromkeys(("DOWNLOADER_DATABASE", "DOWNLOADER_OUTPUT", "CAMB_API_KEY"), "")
    program.env |= {
        "DOWNLOADER_API_URL": simulator.api_url,
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    unit = section(name)
    _, *arguments = unit["ExecStart"].replace("/etc/downloader", shlex.quote(str(tmp_path))).split()
    assert program(*arguments[:2], "submit", "1", "2", "3").returncode == 0
    if unit["Type"] == "oneshot":
        done = program(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    else:
        with listening(tmp_path) as told:
            program.env["NOTIFY_SOCKET"] = told.address
            with program.start(*arguments) as process:
                wait_until(lambda: told.order() == ["READY"], process)
                reload = unit["ExecReload"].replace("$MAINPID", str(process.pid))
                subprocess.run(shlex.split(reload), check=True)
                wait_until(lambda: told.order() == ["READY", "RELOADING", "READY"], process)
                wait_until(lambda: any("3 saved" in one for one in told.values("STATUS")), process)
                process.terminate()
                process.communicate()
            assert process.returncode == 0
    program.env["DOWNLOADER_DATABASE"] = str(program.database)  # for those who look
    program.assert_saved(simulator, range(1, 4))


def test_continuous_integration_installs_the_tools() -> None:
    """CI installs what these tests run, so that none is skipped there."""
    [packages] = re.findall(
        r"^packages=\((.+?)\)$",
        (ROOT / ".ci/run").read_text("utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert {"systemd", "procps", "util-linux"} <= set(packages.split())
