"""Options that commands share, and where their values come from.

A value comes from the flag, else from `DOWNLOADER_<OPTION>` in the environment, else from
the configuration file, else it is the default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from downloader.camb.run_types import DEFAULT_RUN_TYPE, RUN_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any] | click.Command")


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
