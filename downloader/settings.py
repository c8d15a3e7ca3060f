"""The program's settings, checked: what the command line, environment and file add up to."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from downloader.errors import ConfigurationError
from downloader.rules.decisions import Limits

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_API_URL: Final = "https://client.camb.ai/apis"


DEFAULT_CONCURRENCY: Final = 16
ENGINES: Final = ("auto", "httpx", "curl")
DEFAULT_MIN_FREE_BYTES: Final = 500_000_000
DEFAULT_MAX_FILE_BYTES: Final = 10_000_000_000
DEFAULT_METRICS_HOST: Final = "127.0.0.1"
DEFAULT_HOOK_CONCURRENCY: Final = 2
DEFAULT_HOOK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run of the service needs to know; durations in seconds, sizes in bytes.

    Raises:
        ConfigurationError: a value that cannot be worked with, named as its option is.

    """

    output: Path
    api_key: str = field(repr=False)
    api_url: str = DEFAULT_API_URL
    concurrency: int = DEFAULT_CONCURRENCY
    lease_seconds: float = 60.0
    grace_seconds: float = 30.0
    max_duration_seconds: float | None = None
    stall_seconds: float = 30.0
    engine: str = "auto"
    min_free_bytes: int = DEFAULT_MIN_FREE_BYTES
    max_file_bytes: int = DEFAULT_MAX_FILE_BYTES
    max_bytes_per_second: int | None = None
    api_requests_per_second: float | None = None
    metrics_host: str = DEFAULT_METRICS_HOST
    metrics_port: int | None = None
    metrics_textfile: Path | None = None
    on_done: tuple[str, ...] = ()
    """Program and arguments of what is run after a run is done; empty: nothing."""
    on_failed: tuple[str, ...] = ()
    hook_concurrency: int = DEFAULT_HOOK_CONCURRENCY
    hook_timeout_seconds: float = DEFAULT_HOOK_SECONDS
    prune_events_after_seconds: float | None = None
    limits: Limits = field(default_factory=Limits)
    verbosity: int = 0
    logs_as_json: bool = False
    owns_process: bool = False
    """Whether the process is our own: signals end it, and its limit of open files is raised."""

    def __post_init__(self) -> None:
        """Check what no single option can."""
        check_output(self.output)
        check_api_url(self.api_url)
        check_api_key(self.api_key)
        check_polls(self.limits.min_poll_seconds, self.limits.max_poll_seconds)


def check_output(folder: Path) -> None:
    """Refuse an output folder whose path is no text: where files are is recorded as text.

    Raises:
        ConfigurationError: it has bytes that are not UTF-8.

    """
    path = os.fsencode(folder.absolute())
    try:
        path.decode()
    except UnicodeDecodeError:
        shown = path.decode(errors="backslashreplace")
        raise ConfigurationError(
            lambda say: (
                f"The output folder {shown} has bytes in its name that are not UTF-8, and where "
                f"files are is recorded as text: name another with {say.setting('output')}."
            )
        ) from None


def check_polls(min_poll_seconds: float, max_poll_seconds: float) -> None:
    """Refuse pauses of which the longest is shorter than the shortest.

    Raises:
        ConfigurationError: they are so.

    """
    if max_poll_seconds < min_poll_seconds:
        raise ConfigurationError(
            lambda say: (
                f"{say.setting('max-poll')} {max_poll_seconds:g} is less than "
                f"{say.setting('min-poll')} {min_poll_seconds:g}."
            )
        )


@dataclass(frozen=True, slots=True)
class Reread:
    """The settings, read again; `elsewhere` names options that have changed and are in none."""

    settings: Settings
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What a running service makes of settings that were read again.

    `taken` and `kept` name the options that have changed: those that hold from now on, and those
    that only a new start takes. `now` is what holds.
    """

    now: Settings
    taken: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


_LIVE: Final = {
    "api_key": "the API key",
    "concurrency": "concurrency",
    "grace_seconds": "grace",
    "min_free_bytes": "min-free",
    "max_file_bytes": "max-file-size",
    "max_bytes_per_second": "max-rate",
    "api_requests_per_second": "api-rate",
    "verbosity": "verbose",
    "attempts": "attempts",
    "refreshes": "refreshes",
    "give_up_after_seconds": "give-up-after",
    "unknown_after_seconds": "unknown-after",
    "patience_seconds": "patience",  # no option
    "min_poll_seconds": "min-poll",
    "max_poll_seconds": "max-poll",
}
_AT_THE_START: Final = {
    "output": "output",
    "api_url": "api-url",
    "lease_seconds": "lease",
    "max_duration_seconds": "max-duration",
    "stall_seconds": "stall",
    "engine": "engine",
    "metrics_host": "metrics-host",
    "metrics_port": "metrics-port",
    "metrics_textfile": "metrics-textfile",
    "logs_as_json": "log-format",
    "on_done": "on-done",
    "on_failed": "on-failed",
    "hook_concurrency": "hook-concurrency",
    "hook_timeout_seconds": "hook-timeout",
    "prune_events_after_seconds": "prune-events-after",
    "owns_process": "",  # no option: it never changes
}
"""What folders, clients and clocks were made from. Each field is in one of the two."""
FIELD_OF: Final = {option: name for name, option in (_LIVE | _AT_THE_START).items()}
"""The field of each option, which is what Python calls it."""


def change(before: Settings, read: Settings) -> Change:
    """Return what a running service takes of settings that were read again."""
    changed = {
        one.name
        for holder, other in ((before, read), (before.limits, read.limits))
        for one in fields(holder)
        if one.name != "limits" and getattr(holder, one.name) != getattr(other, one.name)
    }
    at_the_start = _AT_THE_START
    if "api_url" in changed:  # the key is one for that API, and not for the one asked now
        at_the_start = {**_AT_THE_START, "api_key": _LIVE["api_key"]}
    live = (changed & _LIVE.keys()) - at_the_start.keys()
    values = {name: getattr(read, name) for name in live if hasattr(read, name)}
    return Change(
        replace(before, limits=read.limits, **values),
        tuple(option for name, option in _LIVE.items() if name in live),
        tuple(option for name, option in at_the_start.items() if name in changed),
    )


def check_api_url(url: str) -> None:
    """Refuse an API URL that is none, or that would send the key in the clear.

    Raises:
        ConfigurationError: it is one of these.

    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(lambda say: f"{say.setting('api-url')} is not a URL.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(
            lambda say: f"{say.setting('api-url')} must be a URL such as {DEFAULT_API_URL}."
        )
    if parts.query or parts.fragment or parts.username is not None:
        raise ConfigurationError(
            lambda say: f"{say.setting('api-url')} takes no query, no fragment and no user name."
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigurationError(
            lambda say: (
                f"{say.setting('api-url')} would send the API key to {host} in the clear: use "
                "https. (http is for a simulator on this machine.)"
            )
        )


def _is_loopback(host: str) -> bool:
    """Return whether a host is this machine; a name that only begins like one is not."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_api_key(key: str) -> None:
    """Refuse a key that cannot go into a header, without showing it.

    Raises:
        ConfigurationError: it is empty, or has white space or other such characters.

    """
    if not key:
        raise ConfigurationError(lambda say: f"{say.api_key} is empty: {say.check_key}.")
    if not all("!" <= character <= "~" for character in key):
        raise ConfigurationError(
            lambda say: (
                f"{say.api_key} has white space or characters that no key has: {say.check_key}."
            )
        )
