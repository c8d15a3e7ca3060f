"""The configuration file: TOML, small, with settings named as the options are."""

from __future__ import annotations

import difflib
import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import Final

from downloader.errors import ConfigurationError

_MAX_FILE_BYTES: Final = 64 * 1024
_MAX_LINE_CHARACTERS: Final = 8192
"""The time that a key takes to be read grows with the square of its parts."""

_PIPE_SECONDS: Final = 10.0

FILE_KEYS: Final = frozenset(
    {
        "database",
        "output",
        "api-url",
        "concurrency",
        "lease",
        "log-format",
        "grace",
        "max-duration",
        "attempts",
        "refreshes",
        "give-up-after",
        "unknown-after",
        "min-poll",
        "max-poll",
        "stall",
        "engine",
        "min-free",
        "max-file-size",
        "max-rate",
        "api-rate",
        "metrics-host",
        "metrics-port",
        "metrics-textfile",
        "on-done",
        "on-failed",
        "hook-concurrency",
        "hook-timeout",
        "prune-events-after",
        "type",
        "verbose",
    }
)
"""What a configuration file may set: the options that describe an installation."""


_TEXTS: Final = frozenset(
    {
        *("api-url", "database", "engine", "log-format", "metrics-host", "metrics-textfile"),
        *("on-done", "on-failed", "output", "type"),
    }
)
"""Settings that a number would be a slip for."""


class Configuration(dict[str, str]):
    """What a configuration file sets, and the file; its path is None where there is none."""

    path: Path | None = None


def read_configuration(named: str | None) -> Configuration:
    """Return what the configuration file sets; nothing where none is named and none is there.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or has an unknown key or a
            value that no option could have.

    """
    if named is None:
        import platformdirs  # noqa: PLC0415 - start-up time

        path = platformdirs.user_config_path("downloader", appauthor=False) / "config.toml"
        if not path.is_file():
            return Configuration()
    else:
        path = expanded(named)
    import tomllib  # noqa: PLC0415 - most calls read no file

    try:
        text = read_small_file(path).decode("utf-8")
        if any(len(line) > _MAX_LINE_CHARACTERS for line in text.split("\n")):
            raise ConfigurationError(f"{path} is no file of settings: it has a line too long.")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path} is not valid TOML: it is nested too deeply.") from error
    except ValueError as error:  # UnicodeDecodeError, TOMLDecodeError, an endless number
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error
    for key, value in values.items():
        if (wrong := _what_is_wrong(key, value)) is not None:
            raise ConfigurationError(f"{path}{wrong}")
    # As text, so that a value of the file is judged as one of the environment is.
    found = Configuration((key.replace("_", "-"), str(value)) for key, value in values.items())
    found.path = path
    return found


def _what_is_wrong(key: str, value: object) -> str | None:
    """Say, behind the file's path, what no option could make of a setting; None: nothing."""
    name = key.replace("_", "-")
    if name not in FILE_KEYS:
        near = difflib.get_close_matches(name, FILE_KEYS, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        if "key" in key:
            meant = " The API key belongs in CAMB_API_KEY or in CAMB_API_KEY_FILE's file."
        return f" has an unknown setting {key[:60]!r}.{meant}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return f": {key} must be a text or a number."
    if name in _TEXTS and not isinstance(value, str):
        return f": {key} must be a text, in quotes."
    if not str(value).isprintable():
        return f": {key} has characters that cannot be printed."
    return None


def expanded(named: str) -> Path:
    """Return a path that was typed, its `~` replaced.

    Raises:
        ConfigurationError: `~` stands for somebody who is not known here.

    """
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{named[:200]} is no path: whose folder ~ is, is not known."
        ) from None


def read_small_file(path: Path) -> bytes:
    """Read a file of settings, or what a process writes into a pipe: a whole one, and soon.

    Raises:
        OSError: it cannot be read, has more than 64 KiB, or is a pipe that nobody writes to.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(descriptor).st_mode
        waited_for = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stat.S_ISCHR(kind)
        ends_at = time.monotonic() + _PIPE_SECONDS
        content = b""
        while len(content) <= _MAX_FILE_BYTES:
            if waited_for:
                left = max(0.0, ends_at - time.monotonic())
                if not select.select([descriptor], [], [], left)[0]:
                    raise OSError(errno.ETIMEDOUT, f"nothing came in {_PIPE_SECONDS:g} seconds")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return content
            content += chunk
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, "it is larger than a file of settings can be")
