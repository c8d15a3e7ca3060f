"""`downloader status`: how everything stands, once or again and again."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from downloader.cli.options import Command, database_option, json_option
from downloader.cli.quantities import Duration
from downloader.cli.screen import Screen, screen
from downloader.cli.words import minute, rate, run_name, size, span
from downloader.clock import utc_now
from downloader.rules.decisions import UNKNOWN, UNREACHABLE
from downloader.rules.error_codes import API_ERRORS
from downloader.rules.plain import moment
from downloader.rules.states import State

if TYPE_CHECKING:
    from pathlib import Path

    from downloader.store.blocks import Block
    from downloader.store.status import Failure, Status, Trouble

_FROM_THE_TOP: Final = "\x1b[H\x1b[J"
_SHARE: Final = 4
"""How many times as long as a look at the database took `--watch` leaves it alone, at least."""


@click.command(cls=Command, epilog="Example: downloader status --watch")
@click.option(
    "--watch",
    is_flag=False,
    flag_value="2s",
    type=Duration(0.1),
    metavar="[INTERVAL]",
    help="Show it again and again, every 2 seconds or so often, until Ctrl-C.",
)
@database_option
@json_option
def status(*, watch: float | None, database: str | None, as_json: bool) -> None:
    """Show how many runs are in which state, how fast they are saved, and what is in the way."""
    from downloader.store.migrate import open_database  # noqa: PLC0415 - start-up time
    from downloader.store.status import status as look  # noqa: PLC0415 - as above

    with closing(open_database(database, existing=True)) as opened:
        if watch is None:
            _show(look(opened, utc_now()), opened.path, screen(), as_json=as_json)
            return
        try:
            while True:
                began_at = time.monotonic()
                found = look(opened, utc_now())
                took = time.monotonic() - began_at
                _show(found, opened.path, screen(), as_json=as_json, again=True)
                time.sleep(max(watch, took * _SHARE))
        except KeyboardInterrupt:
            return


def _show(found: Status, path: Path, on: Screen, *, as_json: bool, again: bool = False) -> None:
    if as_json:
        click.echo(json.dumps(as_object(found, path)))
        return
    lines = describe(found, path, on)
    if again and on.redraws:
        click.echo(_FROM_THE_TOP, nl=False, color=True)
    elif again:
        lines = [f"{moment(found.at)} UTC", *lines, ""]
    click.echo("\n".join(lines), color=on.colours)


def as_object(found: Status, path: Path) -> dict[str, Any]:
    """Return what `--json` prints; docs/json/status.schema.json describes it."""
    blocked = found.blocked[0] if found.blocked else None
    return {
        "at": moment(found.at),
        "runs": found.runs,
        "bytes": found.bytes,
        "recent": {
            "seconds": round(found.recent.seconds, 3),
            "runs": found.recent.runs,
            "bytes": found.recent.bytes,
        },
        "estimated_end_at": None if found.blocked else moment(found.expected_at),
        "blocked": blocked
        and {
            "reason": blocked.reason,
            "message": blocked.message,
            "since": moment(blocked.since),
            "until": moment(blocked.until),
        },
        "unfinished_errors": [trouble._asdict() for trouble in found.troubles],
        "last_failures": [
            failure._asdict() | {"failed_at": moment(failure.failed_at)}
            for failure in found.failures
        ],
        "oldest_unfinished_at": moment(found.oldest_unfinished_at),
        "database": str(path),
    }


def describe(found: Status, path: Path, on: Screen) -> list[str]:
    """Return what a person is told, in lines."""
    lines = []
    for state, number in found.runs.items():
        saved = f"   {size(found.bytes)}" if state == State.DONE else ""
        line = f"{state:<12}{number:>12,}{saved}"
        lines.append(on.styled(line, "red") if state == State.FAILED and number else line)
    for block in found.blocked:
        lines += [on.styled(line, "red") for line in on.wrapped(_blocked(block, found))]
    for text in _progress(found):
        lines += on.wrapped(text)
    if found.troubles:
        lines.append("unfinished runs have met:")
        for trouble in found.troubles:
            lines += on.wrapped(f"  {_met(trouble)}", "    ")
    if found.failures:
        lines.append("failed last:")
        for failure in found.failures:
            lines += on.wrapped(f"  {_failed(failure, found)}", "    ")
    lines.append(on.cut(f"database: {path}"))
    return lines


def _progress(found: Status) -> list[str]:
    """Say how fast it goes, and how long it will take."""
    of_late, ends_at, lines = found.recent, found.expected_at, []
    if found.unfinished and of_late.per_second is not None:
        files, received = of_late.per_second
        lines.append(
            f"in the last {span(of_late.seconds)}: {of_late.runs:,} saved, {size(of_late.bytes)}; "
            f"{rate(files, 'files')}, {size(received)} a second"
        )
    if found.unfinished and not found.blocked and not _is_down(found):
        lines.append(
            "no estimate of the end: too little was saved within the last hour"
            if ends_at is None
            else f"all saved in {span(max(0.0, (ends_at - found.at).total_seconds()))} "
            f"if it goes on so, at {minute(ends_at)}"
        )
    if found.oldest_unfinished_at is not None:
        age = span((found.at - found.oldest_unfinished_at).total_seconds())
        lines.append(
            f"the oldest unfinished was submitted {moment(found.oldest_unfinished_at)} UTC, "
            f"{age} ago"
        )
    return lines


def _is_down(found: Status) -> bool:
    """Return whether all that is left has met what no pace of before says anything of."""
    down = API_ERRORS | {UNREACHABLE, UNKNOWN}
    met = sum(one.runs for one in found.troubles if one.error_code in down)
    return met >= found.unfinished


def _blocked(block: Block, found: Status) -> str:
    left = (block.until - found.at).total_seconds()
    when = f"in {span(left)}" if left > 0 else "now"
    return (
        f"BLOCKED ({block.reason}) since {moment(block.since)}, next try {when}, at "
        f"{moment(block.until)} UTC: {block.message}"
    )


def _met(trouble: Trouble) -> str:
    number = f"{trouble.runs:,} run{'s' * (trouble.runs != 1)}"
    return f"{number}: {trouble.error_message} ({trouble.error_code})"


def _failed(failure: Failure, found: Status) -> str:
    ago = span((found.at - failure.failed_at).total_seconds())
    run = run_name(failure.run_type, failure.run_id)
    return f"{run}, {ago} ago: {failure.error_message} ({failure.error_code})"
