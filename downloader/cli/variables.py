"""The environment variables that the program reads, and those that only look so."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, Final

import click

from downloader import failpoints
from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = "DOWNLOADER_"
_OF_NO_OPTION: Final = frozenset({"DOWNLOADER_TRACEBACK", failpoints.VARIABLE})
# What Kubernetes sets in each container for a service that is named after the program.
_OF_A_SERVICE: Final = re.compile(r"SERVICE_HOST|SERVICE_PORT|PORT_[0-9]+_(?:TCP|UDP|SCTP)")
_SERVICE_ADDRESSES: Final = ("tcp://", "udp://", "sctp://")


def unknown_variables(ctx: click.Context) -> dict[str, str | None]:
    """Return the variables DOWNLOADER_… that nothing reads, with the name that may be meant."""
    root = ctx.find_root()
    known = _OF_NO_OPTION | set(_variables(root.command, root))
    unknown = {}
    for name, value in sorted(os.environ.items()):
        if not name.startswith(_PREFIX) or name in known:
            continue
        if _OF_A_SERVICE.search(name) or value.startswith(_SERVICE_ADDRESSES):
            continue
        unknown[clean_text(name, 100)] = _near(name, known)
    return unknown


def _near(name: str, known: set[str] | frozenset[str]) -> str | None:
    """Return the known name that is most like this one, what all have in common left aside."""
    ends = [one.removeprefix(_PREFIX) for one in known if one.startswith(_PREFIX)]
    near = difflib.get_close_matches(name.removeprefix(_PREFIX), ends, 1)
    return _PREFIX + near[0] if near else None


def _variables(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """Yield the variables of a command's options, and of all the commands below it."""
    for parameter in command.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None:
                yield from _variables(below, ctx)
