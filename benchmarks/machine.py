"""The machine and the versions that figures are of; what is missing of either."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import ssl
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PACKAGES: Final = {
    "curl": "curl",
    "wget2": "wget2",
    "aria2c": "aria2",
    "nginx": "nginx-light",
    "sqlite3": "sqlite3",
    "sha256sum": "coreutils",
}
"""The Debian package of each peer's command."""

LUA_MODULE: Final = "ngx_http_lua_module.so"
LUA_PACKAGE: Final = "libnginx-mod-http-lua"

_VERSION_OPTIONS: Final[Mapping[str, str]] = {"nginx": "-v"}
_LIBRARIES: Final = ("httpx", "pycurl", "sqlalchemy", "anyio", "camb-sdk")


def check_peers(commands: Iterable[str], *, paced: bool) -> None:
    """Refuse to start without the commands that are to be compared with.

    Raises:
        BenchmarkError: one or more are missing; the message names their packages.

    """
    missing = {PACKAGES[name] for name in commands if find(name) is None}
    if paced and lua_module() is None:
        missing.add(LUA_PACKAGE)
    if missing:
        raise BenchmarkError(
            f"missing: {', '.join(sorted(missing))}. Install with "
            f"`apt-get install --no-install-recommends {' '.join(sorted(missing))}`, "
            "or leave a peer out with --without."
        )


def find(command: str) -> str | None:
    """Return where a command is; servers are where only root's PATH leads."""
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")


def lua_module() -> Path | None:
    """Return where nginx's Lua module is."""
    for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
        path = Path(folder, LUA_MODULE)
        if path.exists():
            return path
    return None


def describe(folder: Path) -> dict[str, str]:
    """Return what a reader needs to know of the machine, `folder`'s file system and versions."""
    found = {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{_memory_bytes() / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "file system": _file_system(folder),
        "load before": f"{os.getloadavg()[0]:.1f}, the mean of a minute",
        "downloader": f"{metadata.version('downloader')}{_commit()}",
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}, "
        f"SQLite {sqlite3.sqlite_version}",
    }
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for name in PACKAGES:
        if find(name) is not None:
            found[name] = _version(name)
    return found


def _cpu() -> str:
    text = Path("/proc/cpuinfo").read_text("utf-8")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1].strip() if name else platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _file_system(folder: Path) -> str:
    """Return the type and options of the file system that a folder is on."""
    device = folder.stat().st_dev
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        major, minor = fields.split()[2].split(":")
        if os.makedev(int(major), int(minor)) == device:
            kind = rest.split()[0]
            return f"{kind} ({fields.split()[5]})"
    return "?"


def _commit() -> str:
    """Return the commit of the checkout, and whether there is more than it in it."""
    root = Path(__file__).resolve().parent.parent
    git = find("git")
    if git is None or not (root / ".git").exists():
        return ""

    def ask(*arguments: str) -> str:
        done = subprocess.run(
            [git, *arguments], cwd=root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = ask("rev-parse", "--short", "HEAD")
    changed = ask("status", "--porcelain", "downloader", "pyproject.toml")
    return f" at {commit}{' and changes' if changed else ''}"


def _version(command: str) -> str:
    done = subprocess.run(
        [find(command) or command, _VERSION_OPTIONS.get(command, "--version")],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (done.stdout or done.stderr).strip().splitlines()
    numbers = re.search(
        r"\d+\.[\w.+-]*(?: \([^)]*\))?", lines[0].replace(command, "") if lines else ""
    )
    return numbers[0] if numbers else "?"
