"""`downloader status`, `list` and `show`: look into the database."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import datetime
from typing import Any

import click

from downloader.camb.run_types import RUN_TYPES
from downloader.cli.options import Command, database_option, json_option, option, type_option
from downloader.errors import InputError
from downloader.rules.ids import parse_id, show_id
from downloader.rules.states import RunKey, State


@click.command(cls=Command, epilog="Example: downloader status --json")
@database_option
@json_option
def status(*, database: str | None, as_json: bool) -> None:
    """Show how many runs are in which state, what is saved, and what is blocked."""
    from downloader.store import inspection  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    with closing(open_database(database)) as opened:
        found = inspection.status(opened)
        path = str(opened.path)
    blocked = found.blocked[0] if found.blocked else None
    if as_json:
        click.echo(
            json.dumps(
                {
                    "runs": found.runs,
                    "bytes": found.bytes,
                    "blocked": blocked
                    and {
                        "reason": blocked.reason,
                        "message": blocked.message,
                        "since": text(blocked.since),
                        "until": text(blocked.until),
                    },
                    "oldest_unfinished_at": text(found.oldest_unfinished_at),
                    "database": path,
                }
            )
        )
        return
    for state, number in found.runs.items():
        saved = f"   {found.bytes / 1e6:,.1f} MB" if state == State.DONE else ""
        click.echo(f"{state:<12}{number:>10}{saved}")
    if found.oldest_unfinished_at is not None:
        click.echo(f"the oldest unfinished was submitted {text(found.oldest_unfinished_at)} UTC")
    for one in found.blocked:
        click.echo(
            f"BLOCKED ({one.reason}) since {text(one.since)}, next try {text(one.until)} UTC: "
            f"{one.message}"
        )
    click.echo(f"database: {path}")


@click.command("list", cls=Command, epilog="Example: downloader list --state failed")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only these.")
@option("--type", "run_type", type=click.Choice(sorted(RUN_TYPES)), help="Only these.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="At most so many; 0: all.",
)
@database_option
@json_option
def list_runs(
    *, state: str | None, run_type: str | None, limit: int, database: str | None, as_json: bool
) -> None:
    """List runs, the last changed first; with --json one object a line."""
    from downloader.store import inspection  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    with closing(open_database(database)) as opened:
        for row in inspection.list_runs(
            opened,
            state=None if state is None else State(state),
            run_type=run_type,
            limit=limit or None,
        ):
            click.echo(json.dumps(plain(row)) if as_json else _line(row))


@click.command(cls=Command, epilog="Example: downloader show 12345")
@click.argument("run_id")
@type_option
@database_option
@json_option
def show(*, run_id: str, run_type: str, database: str | None, as_json: bool) -> int:
    """Show one run, and everything it went through."""
    from downloader.store import inspection  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    key = run_key(run_type, run_id)
    with closing(open_database(database)) as opened:
        found = inspection.show_run(opened, key)
    if found is None:
        raise InputError(f"Run {run_id} ({run_type}) is not tracked: submit it first.")
    run, events = found
    if as_json:
        history = [plain(event._asdict()) for event in events]
        click.echo(json.dumps({**plain(run), "events": history}))
        return 0
    for name, value in plain(run).items():
        if value is not None:
            click.echo(f"{name:<18}{value}")
    click.echo("events")
    for event in events:
        detail = f": {event.detail}" if event.detail else ""
        before = f"{event.from_state} → " if event.from_state else ""
        click.echo(f"  {text(event.at)}  {before}{event.to_state}  ({event.reason}{detail})")
    return 0


def run_key(run_type: str, run_id: str) -> RunKey:
    """Return the key of a run that was typed.

    Raises:
        InputError: the id is none.

    """
    found = parse_id(run_id)
    if isinstance(found, str):
        raise InputError(f"{show_id(run_id)!r} {found}.")
    return RunKey(run_type, found)


def text(moment: datetime | None) -> str | None:
    """Return a moment as the database has it."""
    return None if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can have it, also one of a damaged database."""
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return text(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _line(row: dict[str, Any]) -> str:
    """Return a run in a line: what it is, where it stands, and where its file is or why not."""
    what = row["location"] or (
        f"{row['error_code']}: {row['error_message']}" if row["error_code"] else ""
    )
    size = "" if row["bytes"] is None else str(row["bytes"])
    # As text: what a damaged database holds in their place is anything at all.
    return f"{row['run_id']!s:>12}  {row['state']!s:<12}{size:>12}  {what}".rstrip()
