"""Commands that a text names, completed so that they can be typed as they stand.

Whoever was given `--database trial.sqlite3` needs it in the next command, too: what stands between
backticks as `downloader …` gets what the person gave on this command line, as far as it takes it.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COMMAND: Final = re.compile(r"`downloader ([a-z][^`]*)`")
_REPEATED: Final = ("database", "output")


def typed(text: str, **known: object) -> str:
    """Return a text whose commands repeat what was given on the command line, or is `known`.

    What the environment or a configuration file says holds for the next command anyway.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return text
    root = ctx.find_root()
    given = {**_given(ctx), **{name: str(value) for name, value in known.items()}}
    config = root.params.get("config") if _is_typed(root, "config") else None
    program = "downloader" if config is None else f"downloader --config {shlex.quote(str(config))}"

    def completed(match: re.Match[str]) -> str:
        return f"`{' '.join([f'{program} {match[1]}', *_missing(root, match[1], given)])}`"

    return _COMMAND.sub(completed, text)


def _given(ctx: click.Context) -> dict[str, str]:
    return {
        name: str(ctx.params[name])
        for name in _REPEATED
        if ctx.params.get(name) is not None and _is_typed(ctx, name)
    }


def _is_typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _missing(root: click.Context, words: str, given: Mapping[str, str]) -> Iterator[str]:
    """Yield those options that a command takes and that were given."""
    command: click.Command | None = root.command
    for word in words.split():
        if not isinstance(command, click.Group):
            break
        command = command.get_command(root, word)
    takes = set() if command is None else {parameter.name for parameter in command.params}
    for name, value in given.items():
        if name in takes and f"--{name}" not in words:
            yield f"--{name} {shlex.quote(value)}"
