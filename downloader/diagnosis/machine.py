"""Checks of the program on this machine: versions, engine, limits, and what it is told."""

from __future__ import annotations

import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from downloader import __version__
from downloader.diagnosis.findings import Check, ok, problem, warning
from downloader.http import words_of
from downloader.store.checkup import SQLITE_VERSION
from downloader.transfer.choice import why_no_curl
from downloader.transfer.files import files_needed

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_program() -> Check:
    """Tell the versions that a report of an error should name."""
    return ok(
        "program",
        f"downloader {__version__}, Python {platform.python_version()}, "
        f"SQLite {SQLITE_VERSION}, httpx {_version('httpx')}, {platform.system()} "
        f"{platform.release()} {platform.machine()}",
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a program frozen into one file has no metadata
        return "(unknown)"


def check_environment(unknown: Mapping[str, str | None]) -> Check:
    """Tell of variables that look like ours and that nothing reads, with what may be meant."""
    if not unknown:
        return ok("environment", "every variable DOWNLOADER_* is one that the program knows")
    said = ", ".join(
        name if near is None else f"{name} (did you mean {near}?)" for name, near in unknown.items()
    )
    return warning("environment", f"nothing reads {said}", "correct the name, or unset it")


def check_engine(wanted: str) -> Check:
    """Tell what would move the bytes, and why."""
    if wanted == "httpx":
        return ok("engine", f"httpx {_version('httpx')}, as --engine asks")
    missed = why_no_curl()
    if missed is None:
        from downloader.transfer.curl_library import pycurl  # noqa: PLC0415 - may be missing

        found = pycurl.version_info()
        return ok("engine", f"libcurl {found[1]} with {found[5]}, by pycurl {_version('pycurl')}")
    advice = "pip install pycurl"
    why = missed.why if missed.missing else f"it cannot be used ({words_of(missed.error)})"
    if wanted == "curl":
        return problem("engine", f"--engine curl needs pycurl, and {why}", advice)
    finding = f"httpx {_version('httpx')}, the slower one: of pycurl, {why}"
    # Where there is no pycurl for a machine, nothing is wrong with it.
    return ok("engine", finding) if missed.missing else warning("engine", finding, advice)


def check_open_files(concurrency: int, engine: str) -> Check:
    """See that so many transfers at a time can have their files and connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # With libcurl the program raises its own limit as far as it may.
    limit = hard if engine != "httpx" and why_no_curl() is None else soft
    needed = files_needed(concurrency)
    if limit == resource.RLIM_INFINITY:
        return ok("open_files", "as many as are wanted")
    if limit >= needed:
        return ok(
            "open_files", f"{limit} at a time, of which --concurrency {concurrency} needs {needed}"
        )
    return warning(
        "open_files",
        f"{limit} at a time (ulimit -n), and --concurrency {concurrency} may need {needed}",
        f"allow more (ulimit -n {needed}), or lower --concurrency",
    )
