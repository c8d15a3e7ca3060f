"""The units under a real systemd: it is booted in a container that keeps nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from harness import KEY
from pages import ROOT, block, command

pytestmark = pytest.mark.needs("root", "unshare", "systemd-nspawn")

UNITS: Final = ROOT / "docs/systemd"
BOOT_SECONDS: Final = 240
# Told of by what this test brings about: a stop, a run that fails, a bad configuration.
EXPECTED: Final = {
    ("warning", "service.stopping"),
    ("error", "run.failed"),
    ("error", "configuration.refused"),
}
API: Final = "http://127.0.0.1:8400/apis"

SIMULATOR: Final = f"""
[Service]
ExecStart=/opt/downloader/bin/downloader simulate --port 8400 --api-key {KEY} --fail 99
"""
# ProtectHome= and PrivateTmp= would hide the program where it is, in a home or below /tmp.
SEEN: Final = f"ProtectHome=no\nBindReadOnlyPaths={ROOT} {sys.prefix} {sys.base_prefix}"
# Nothing of the unit is changed but what the test needs: where the API is, no minutes of waiting,
# and that the program may be where it is not when installed.
DROP_IN: Final = f"""
[Service]
WatchdogSec=3s
RestartSec=100ms
{SEEN}
"""
TRIAL: Final = f"""
[Service]
Type=oneshot
Environment="PREFIX={sys.prefix}"
ExecStart=/bin/bash /trial/booted.sh
ExecStopPost=/bin/systemctl exit 0 --force
"""
BOOT: Final = """
mount --make-rprivate / && mount --bind / "$1/root" || exit
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --volatile=overlay \
    --directory="$1/root" --bind="$1/trial:/trial" "${@:2}" --boot systemd.unit=trial.service
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Boot, install by the page, and go through a service's life; return what was told, by part."""
    folder = tmp_path_factory.mktemp("booted")
    trial = folder / "trial"
    (folder / "root").mkdir()
    trial.mkdir()
    seen = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    inside = "\n".join(
        str(parent) for one in sorted(seen) for parent in (*reversed(one.parents), one)
    )
    for name, content in {
        "booted.sh": Path(__file__).with_name("booted.sh").read_text(encoding="utf-8"),
        "folders": inside + "\n",
        "key": f"{KEY}\n",
        "config.toml": block("docs/operations.md", "file: config.toml") + f'\napi-url = "{API}"\n',
        "installation": re.sub(r"^.*-m venv .*\n", "", command("docs/operations.md", "install")),
        "asking": command("docs/operations.md", "ask"),
        "simulator.service": SIMULATOR,
        "trial.service": TRIAL,
        "drop-in.conf": DROP_IN,
        "once.conf": f"[Service]\n{SEEN}\n",
    }.items():
        (trial / name).write_text(content, encoding="utf-8")
    (trial / "docs").symlink_to(ROOT / "docs")
    bound = {
        "simulator.service": "simulator.service",
        "trial.service": "trial.service",
        "drop-in.conf": "downloader.service.d/trial.conf",
        "once.conf": "downloader-once.service.d/trial.conf",
    }
    options = [f"--bind-ro={trial / name}:/etc/systemd/system/{at}" for name, at in bound.items()]
    options += [f"--bind-ro={one}" for one in sorted(seen)]
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", BOOT, "boot", str(folder), *options],  # noqa: S607 - the system's own
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_SECONDS,
        check=False,
    )
    assert (trial / "told").exists(), done.stdout + done.stderr
    written = (trial / "told").read_text(encoding="utf-8")
    return dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", written, re.MULTILINE | re.DOTALL))


def test_it_is_installed_as_the_page_says(told: dict[str, str]) -> None:
    """The page's commands leave a service that is running."""
    assert told["installed"].endswith("active\n")


def test_it_saves(told: dict[str, str]) -> None:
    """What a person submits as the service's user is saved, and nobody else may read it."""
    submitted, status, *files = told["saved"].splitlines()
    assert submitted == "submitted 20 new, 0 already tracked"
    assert status.startswith("20 saved")
    assert files == [
        "downloader drwxr-x--- /var/lib/downloader",
        "downloader -rw-r----- /var/lib/downloader/audio/7.wav",
    ]


def test_the_key_is_kept(told: dict[str, str]) -> None:
    """The key is in neither the environment nor the command, and its file is root's alone."""
    in_environment, in_command, refused = told["secret"].splitlines()
    assert (in_environment[-2:], in_command[-2:]) == (":0", ":0")
    assert "Permission denied" in refused


def test_it_is_reloaded(told: dict[str, str]) -> None:
    """`systemctl reload` comes back, with the service active and the configuration read."""
    assert told["reloaded"] == "active\n"
    assert '"event": "configuration.read_again"' in told["journal"]


def test_a_bad_configuration_fails_the_reload(told: dict[str, str]) -> None:
    """A reload with a bad file fails, the service goes on, and its status keeps telling."""
    lines = told["kept"].splitlines()
    assert "reload: 1" in lines
    assert "active" in lines
    refused = "the configuration was refused: Invalid value for '--concurrency'"
    assert lines[-1].startswith(refused), lines
    assert "; 20 saved" in lines[-1]
    assert "should not happen" not in told["journal"]


def test_errors_have_their_priority(told: dict[str, str]) -> None:
    """`journalctl -p err` shows what the program told as errors, JSON as it was, and no more."""
    lines = told["errors"].splitlines()
    assert any('"event": "configuration.refused"' in line for line in lines), lines
    assert any("camb-api-key, which is empty" in line for line in lines)
    assert any("--concurrency" in line and not line.startswith("{") for line in lines)
    levels = {json.loads(line)["level"] for line in lines if line.startswith("{")}
    assert levels == {"error"}
    assert re.search(r"^<\d>", told["journal"], re.MULTILINE) is None


def test_a_key_file_that_is_missing(told: dict[str, str]) -> None:
    """A service whose key file is not there ends with 243, as the page's table says."""
    assert told["missing"].splitlines()[-1] == "243"


def test_doctor_is_lent_the_key(told: dict[str, str]) -> None:
    """`doctor`, started as the page says, has the key accepted, and finds nothing wrong."""
    assert re.search(r"^ok +api key: ", told["doctor"], re.MULTILINE), told["doctor"]
    assert told["doctor"].endswith("exit 0\n")
    assert KEY not in told["doctor"]


def test_a_hung_one_is_restarted(told: dict[str, str]) -> None:
    """One that does nothing any more is killed by the watchdog, and started again."""
    assert told["hung"] == "restarted\n"
    assert "Watchdog timeout" in told["journal"]


def test_it_is_stopped(told: dict[str, str]) -> None:
    """It ends on SIGTERM, in peace."""
    assert told["stopped"] == "success\n"
    assert '"stopped": "SIGTERM"' in told["journal"]


def test_without_a_key_it_is_not_restarted(told: dict[str, str]) -> None:
    """A start that only a person can put right fails, says why, and is not tried again."""
    assert told["refused"].splitlines()[-2:] == ["exit-code", "0"]
    assert "camb-api-key, which is empty" in told["journal"]


def test_once(told: dict[str, str]) -> None:
    """The timer's service saves what is due, and has ended well."""
    assert re.search(r"^started\ndone +23 ", told["once"], re.MULTILINE)


def test_a_failed_run_leaves_it_failed(told: dict[str, str]) -> None:
    """Where a run fails, `systemctl --failed` shows the timer's service."""
    assert told["failed"].splitlines()[-1] == "downloader-once.service"
    assert "99" in told["journal"]


def test_the_hardening_is_in_nobodys_way(told: dict[str, str]) -> None:
    """No system call was refused, and nothing was told of but what this test brought about."""
    levels = re.findall(r'"level": "(warning|error)", "event": "([^"]+)"', told["journal"])
    assert set(levels) <= EXPECTED
    assert "SIGSYS" not in told["journal"]
