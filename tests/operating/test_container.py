"""The recipe for a container, as far as it can be tested without one.

Its commands are run in a folder instead of an image, and the program they install as a user
without rights, on a file system that is read-only but for the data. Nothing here builds the image.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from children import Child
from harness import KEY, wait_until
from pages import command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import StartSimulator

ROOT: Final = Path(__file__).resolve().parents[2]
RECIPE: Final = ROOT / "docs/container/Dockerfile"


@dataclass
class Stage:
    """One stage of the recipe: its instructions in order, and its environment."""

    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """Return what follows each instruction of this name."""
        return [value for found, value in self.instructions if found == name]

    def exec_form(self, name: str) -> list[str]:
        """Return the one instruction of this name, which is to be in the form without a shell."""
        [value] = self.values(name)
        words = json.loads(value)
        assert all(isinstance(word, str) for word in words)
        return list(words)

    @property
    def environment(self) -> dict[str, str]:
        """What the image sets."""
        return dict(
            pair.split("=", 1) for value in self.values("ENV") for pair in shlex.split(value)
        )


def stages() -> list[Stage]:
    """Read the recipe."""
    lines = [line for line in RECIPE.read_text("utf-8").splitlines() if not line.startswith("#")]
    found: list[Stage] = []
    for line in filter(None, "\n".join(lines).replace("\\\n", " ").splitlines()):
        name, value = line.split(None, 1)
        if name == "FROM":
            found.append(Stage())
        found[-1].instructions.append((name, value.strip()))
    return found


def test_the_recipe() -> None:
    """The image has an own user, no shell in its way, one folder to write to, a health check."""
    build, final = stages()
    assert [one.values("FROM")[0].split()[0] for one in (build, final)] == ["python:3.11-slim"] * 2
    assert final.exec_form("ENTRYPOINT") == ["downloader"]
    assert final.exec_form("CMD") == ["run"]
    assert final.values("STOPSIGNAL") == ["SIGTERM"]
    [user] = final.values("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)  # a number: an orchestrator can see it
    assert final.values("VOLUME") == ["/data"]
    [health] = final.values("HEALTHCHECK")
    # Docker reserves 2, with which wrong settings end.
    assert health.endswith("CMD downloader doctor --quick || exit 1")
    written = {"DOWNLOADER_DATABASE", "DOWNLOADER_OUTPUT", "HOME"}
    assert all(final.environment[name].startswith("/data") for name in written)
    assert not any("KEY" in name and "FILE" not in name for name in final.environment)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    for value in build.values("COPY"):
        for source in value.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source.removeprefix('./')}" in ignored
    assert command("docs/commands.md", "health") == f"HEALTHCHECK {health}"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Make a folder that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="downloader-image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def image(place: Path) -> Path:
    """Do what the first stage does, in a folder; return where the program was installed."""
    build, _ = stages()
    source, target = place / "src", place / "downloader"
    source.mkdir()
    for value in build.values("COPY"):
        *names, into = value.split()
        for name in names:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, source / into, ignore=ignored)
            else:
                shutil.copy(ROOT / name, source / into / name)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOWNLOADER_", "CAMB_", "PYTHON", "VIRTUAL_ENV"))
    }
    for value in build.values("RUN"):
        command = value.replace("/opt/downloader", str(target))
        command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
        done = subprocess.run(
            ["/bin/sh", "-euc", command],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return target


# The rights to look at everything, which this user's interpreter may need, are none to write.
_CONFINE: Final = """
set -eu
mount --bind "$DATA" "$DATA"
mount -o remount,bind,ro /
for other in /tmp /var/tmp /run /dev/shm; do
    mountpoint -q "$other" && mount -o remount,bind,ro "$other"
done
exec setpriv --reuid "$ID" --regid "$ID" --clear-groups --no-new-privs \\
    --bounding-set=-all,+dac_read_search --inh-caps=-all,+dac_read_search \\
    --ambient-caps=-all,+dac_read_search -- "$@"
"""


def confined(image: Path, data: Path, extra: dict[str, str], *command: str) -> list[str]:
    """Return the command that runs another as the image would, in a read-only file system."""
    _, final = stages()
    [user] = final.values("USER")
    environment = final.environment | extra
    environment = {
        name: value.replace("/opt/downloader", str(image)).replace("/data", str(data))
        for name, value in environment.items()
    }
    own = [f"{name}={value}" for name, value in environment.items()]
    rights = ["env", f"DATA={data}", f"ID={user.partition(':')[0]}"]
    return [
        *rights,
        *("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _CONFINE, "sh"),
        *("env", "-i", *own, *command),
    ]


@pytest.mark.needs("root", "unshare", "setpriv", "mountpoint")
def test_a_user_without_rights_on_a_read_only_disk(
    image: Path, place: Path, start_simulator: StartSimulator
) -> None:
    """The daemon saves everything though only the data is writable, and hears signals itself."""
    simulator = start_simulator()
    _, final = stages()
    [user] = final.values("USER")
    data, key = place / "data", place / "camb-api-key"
    data.mkdir()
    key.write_text(KEY, encoding="utf-8")
    os.chown(data, *map(int, user.split(":")))
    extra = {"CAMB_API_KEY_FILE": str(key), "DOWNLOADER_API_URL": simulator.api_url}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            confined(image, data, extra, *command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    for elsewhere in (image, place, "/tmp", "/"):  # noqa: S108 - that it cannot be written to
        refused = run("/usr/bin/touch", f"{elsewhere}/written")
        assert "Read-only file system" in refused.stderr or "Permission" in refused.stderr
    entry = final.exec_form("ENTRYPOINT")
    done = run(*entry, "submit", "1", "2", "3")
    assert (done.returncode, done.stderr) == (0, "")
    command = confined(image, data, extra, *entry, *final.exec_form("CMD"))

    with Child(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: _saved(data) == 3, process)
        assert _user_of(process.pid) == int(user.partition(":")[0])  # exec all along: one process
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 0, err
    for run_id in (1, 2, 3):
        [file] = (data / "audio").glob(f"{run_id}.*")
        assert file.read_bytes() == simulator.audio(run_id)
    assert {path.name for path in data.iterdir()} <= {
        "audio",
        "downloader.sqlite3",
        "downloader.sqlite3-wal",
        "downloader.sqlite3-shm",
        "downloader.sqlite3.lock",
    }


def _saved(data: Path) -> int:
    return len([path for path in (data / "audio").glob("*.*") if path.is_file()])


def _user_of(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"^Uid:\t\d+\t(\d+)", status, re.MULTILINE)
    assert found
    return int(found[1])
