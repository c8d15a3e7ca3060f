"""Options that commands share, and where their values come from.

A value comes from the flag, else from `DOWNLOADER_<OPTION>` in the environment, else from
the configuration file, else it is the default.
"""

from __future__ import annotations

import difflib
import errno
import math
import os
import re
import select
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES
from downloader.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any] | click.Command")

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")

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
        "grace",
        "max-duration",
        "attempts",
        "refreshes",
        "give-up-after",
        "min-poll",
        "max-poll",
        "stall",
        "min-free",
        "max-file-size",
        "type",
        "verbose",
    }
)
"""What a configuration file may set: the options that describe an installation."""


class Duration(click.ParamType[float]):
    """A duration: seconds, or a number with s, m, h or d."""

    name = "duration"

    def __init__(self, minimum: float = 0.0, maximum: float = math.inf) -> None:
        self._minimum = minimum
        self._maximum = maximum

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the duration in seconds."""
        match = _DURATION.fullmatch(str(value).strip().lower())
        if match is None:
            self.fail(
                f"{value!r} is not a duration: give seconds, or 90s, 5m, 24h, 2d.", param, ctx
            )
        seconds = float(match[1]) * _UNITS[match[2]]
        if not self._minimum <= seconds <= min(self._maximum, 10 * 365 * 86400.0):
            self.fail(
                f"{value!r} is out of range: at least {self._minimum:g} seconds, "
                "at most ten years.",
                param,
                ctx,
            )
        return seconds


def option(name: str, *declarations: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own attributes
    """Return a click option that is also an environment variable, shown in its help."""
    variable = "DOWNLOADER_" + name.removeprefix("--").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    attributes.setdefault("show_envvar", True)
    return click.option(name, *declarations, **attributes)


class Command(click.Command):
    """A command whose options may also come from the configuration file."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> click.Context:
        """Lay the file's values under those of the command line and the environment."""
        own = {parameter.name for parameter in self.params}
        values = {} if parent is None else dict(parent.obj or {})
        extra["default_map"] = {
            name: value for key, value in values.items() if (name := _parameter_name(key)) in own
        }
        return super().make_context(info_name, args, parent, **extra)


def _parameter_name(key: str) -> str:
    return "run_type" if key == "type" else key.replace("-", "_")


def read_configuration(named: str | None) -> dict[str, str]:
    """Return what the configuration file sets; nothing where none is named and none is there.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or has an unknown key or a
            value that no option could have.

    """
    if named is None:
        import platformdirs  # noqa: PLC0415 - start-up time

        path = platformdirs.user_config_path("downloader", appauthor=False) / "config.toml"
        if not path.is_file():
            return {}
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
    for key in values:
        if key.replace("_", "-") not in FILE_KEYS:
            near = difflib.get_close_matches(key.replace("_", "-"), FILE_KEYS, 1)
            meant = f" Did you mean {near[0]}?" if near else ""
            if "key" in key:
                meant = " The API key belongs in CAMB_API_KEY or in CAMB_API_KEY_FILE's file."
            raise ConfigurationError(f"{path} has an unknown setting {key[:60]!r}.{meant}")
        if isinstance(values[key], bool) or not isinstance(values[key], str | int | float):
            raise ConfigurationError(f"{path}: {key} must be a text or a number.")
        if not str(values[key]).isprintable():
            raise ConfigurationError(f"{path}: {key} has characters that cannot be printed.")
    # As text, so that a value of the file is judged as one of the environment is.
    return {key.replace("_", "-"): str(value) for key, value in values.items()}


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


def database_option(command: F) -> F:
    """Add `--database`."""
    return option(
        "--database",
        metavar="PATH|URL",
        help="The database that tracks the runs. Default: in your data directory.",
    )(command)


def output_option(command: F) -> F:
    """Add `--output`."""
    return option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder for saved files. Default: audio, beside the database.",
    )(command)


def type_option(command: F) -> F:
    """Add `--type`."""
    return option(
        "--type",
        "run_type",
        type=click.Choice(sorted(RUN_TYPES)),
        default=DEFAULT_RUN_TYPE,
        show_default=True,
        help="The kind of run the ids are of.",
        envvar="DOWNLOADER_TYPE",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def verbose_option(command: F) -> F:
    """Add `--verbose`."""
    return option(
        "--verbose",
        "-v",
        count=True,
        help="Log more to standard error: -v what is done, -vv everything.",
    )(command)
