"""What a call of the service says at its end, and its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from downloader.cli.hints import typed
from downloader.cli.words import size
from downloader.observe import journal
from downloader.rules.error_codes import REMEDIES

if TYPE_CHECKING:
    from downloader.service import Result
    from downloader.session import Mode


def conclude(result: Result, mode: Mode, *, quiet: bool = False) -> int:
    """Tell how it ended where somebody looks, and return the exit code."""
    from downloader.session import Mode  # noqa: PLC0415 - start-up time

    tally, trouble = result.tally, result.trouble
    terminal = sys.stderr.isatty()
    if not quiet and (terminal or mode is Mode.DRAIN):
        click.echo(_done(result), err=terminal)
    if trouble is not None and mode is not Mode.FOREVER:
        journal.tell("error", f"downloader: {trouble.message}")
        return 3
    left = _counted(result.unfinished, "is left", "are left")
    them = "it" if result.unfinished == 1 else "them"
    again = typed(f"`downloader run{_FLAGS[mode.value]}` continues with {them}.")
    if mode is Mode.FOREVER:
        if terminal and not quiet and result.work_left:
            click.echo(f"{left}; {again}", err=True)
        return 0
    if result.work_left and (result.stopped is not None or mode is Mode.DRAIN):
        why = "submitted as it ended" if result.stopped is None else result.stopped
        journal.tell("warning", f"downloader: stopped early ({why}), {left}; {again}")
        return 4
    if tally.failed:
        for code, number in tally.failures.most_common(_CODES_TOLD):
            journal.tell("error", f"{code} ({number}): {typed(REMEDIES.get(code, _UNKNOWN))}")
        journal.tell(
            "error",
            f"downloader: {_counted(tally.failed, 'failed', 'failed')}; "
            + typed("see `downloader list --state failed`."),
        )
        return 1
    return 0


_FLAGS: Final = {"once": " --once", "drain": " --drain", "forever": ""}
_CODES_TOLD: Final = 3
_UNKNOWN: Final = "see docs/sql.md"


def _done(result: Result) -> str:
    """Say what was done, and where the files are."""
    tally, standing = result.tally, result.standing
    if standing is not None:
        return f"nothing to do: {standing['done']:,} saved, {standing['failed']:,} failed"
    where = f" ({size(tally.bytes)}) in {result.output}" if tally.done else ""
    return f"{tally.done:,} saved{where}, {tally.failed:,} failed"


def _counted(runs: int, one: str, many: str) -> str:
    return f"{runs:,} {'run' if runs == 1 else 'runs'} {one if runs == 1 else many}"
