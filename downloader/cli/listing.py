"""`downloader list` and `show`: runs one by one."""

from __future__ import annotations

import difflib
import json
import sys
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from downloader.camb.run_types import RUN_TYPES
from downloader.cli.hints import typed
from downloader.cli.options import Command, database_option, json_option, type_option
from downloader.cli.quantities import Duration, Whole
from downloader.cli.screen import Screen, screen
from downloader.cli.suggestions import error_codes, ids_of
from downloader.cli.words import run_name, size, span, write_csv
from downloader.clock import utc_now
from downloader.errors import InputError
from downloader.rules.error_codes import API_ERRORS, REMEDIES, RUN_ERRORS
from downloader.rules.ids import parse_id, show_id
from downloader.rules.plain import moment, plain
from downloader.rules.redaction import clean_text
from downloader.rules.states import RunKey, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from downloader.store.listing import Filter

_MOST_FOR_EYES: Final = 100
"""How many runs are listed on a terminal where nobody says."""

_HEADING: Final = ("RUN", "STATE", "SIZE", "CHANGED")


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which runs, whatever their state."""
    for add in (
        click.option(
            "--newer-than",
            type=Duration(),
            metavar="AGE",
            help="Only those submitted since so long ago, such as 30m, 12h, 2d.",
        ),
        click.option(
            "--older-than",
            type=Duration(),
            metavar="AGE",
            help="Only those submitted so long ago, or longer.",
        ),
        click.option(
            "--saved-within",
            type=Duration(),
            metavar="AGE",
            help="Only those whose file was saved since so long ago.",
        ),
        click.option(
            "--type", "run_type", type=click.Choice(sorted(RUN_TYPES)), help="Only these."
        ),
    ):
        command = add(command)
    return command


def _known_codes(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a code that no run can have: a list that is empty looks as if all were well."""
    known = RUN_ERRORS | API_ERRORS
    for code in given:
        if code not in known:
            near = difflib.get_close_matches(code, known, 1)
            hint = f"did you mean {near[0]}?" if near else "docs/sql.md lists them."
            raise click.BadParameter(f"{clean_text(code, 60)!r} is no error code; {hint}")
    return given


@click.command(
    "list", cls=Command, epilog="Example: downloader list --state failed --older-than 1d"
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State]),
    help="Only these; may be given more than once.",
)
@click.option(
    "--error",
    "error_codes",
    multiple=True,
    metavar="CODE",
    callback=_known_codes,
    shell_complete=error_codes,
    help="Only those whose last error this is; may be given more than once.",
)
@filter_options
@click.option(
    "--limit",
    type=Whole(min=0),
    metavar="N",
    help="At most so many; 0: all. Default: on a terminal 100, else all.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with a heading.")
@database_option
@json_option
def list_runs(
    *,
    states: tuple[str, ...],
    error_codes: tuple[str, ...],
    run_type: str | None,
    older_than: float | None,
    newer_than: float | None,
    saved_within: float | None,
    limit: int | None,
    database: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """List runs, the last changed first; with --json one object a line."""
    from downloader.store import listing  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    now = utc_now()
    which = filter_of(run_type, older_than, newer_than, saved_within, now)._replace(
        states=tuple(map(State, states)), error_codes=error_codes
    )
    with closing(open_database(database, existing=True)) as opened:
        on = screen()
        cut = limit is None and on.width is not None and not (as_csv or as_json)
        rows = listing.list_runs(opened, which, limit=_MOST_FOR_EYES + 1 if cut else limit or None)
        if as_csv:
            write_csv([column.name for column in listing.SHOWN], rows, sys.stdout)
        elif as_json:
            for row in rows:
                click.echo(json.dumps(plain(row)))
        else:
            number = 0
            for number, line in enumerate(_table(rows, now, on)):  # the heading is number 0
                if cut and number > _MOST_FOR_EYES:
                    click.echo(
                        f"and more: these {_MOST_FOR_EYES} changed last; --limit 0 lists all"
                    )
                else:
                    click.echo(line)
            if on.width is not None and not number:
                click.echo(f"no run is listed; looked into {opened.path}", err=True)


@click.command(cls=Command, epilog="Example: downloader show 12345")
@click.argument("run_id", shell_complete=ids_of(*State))
@type_option
@database_option
@json_option
def show(*, run_id: str, run_type: str, database: str | None, as_json: bool) -> int:
    """Show one run, and everything it went through."""
    from downloader.store import listing  # noqa: PLC0415 - start-up time
    from downloader.store.inspection import not_tracked  # noqa: PLC0415 - as above
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    key = run_key(run_type, run_id)
    with closing(open_database(database, existing=True)) as opened:
        found = listing.show_run(opened, key)
        if found is None:
            with opened.read() as connection:
                raise InputError(not_tracked(connection, key, "; `downloader submit` tracks it."))
    run, events = found
    if as_json:
        history = [plain(event._asdict()) for event in events]
        click.echo(json.dumps({**plain(run), "events": history}))
        return 0
    on = screen()
    for name, value in plain(run).items():
        if value is not None:
            click.echo(f"{name:<18}{value}")
    if run["state"] == State.FAILED and (remedy := REMEDIES.get(str(run["error_code"]))):
        click.echo(f"{'what_to_do':<18}{typed(remedy)}")
    click.echo("events (times are UTC)")
    for event in events:
        detail = f": {event.detail}" if event.detail else ""
        before = f"{event.from_state} {on.arrow} " if event.from_state else ""
        click.echo(f"  {moment(event.at)}  {before}{event.to_state}  ({event.reason}{detail})")
    return 0


def run_key(run_type: str, run_id: str) -> RunKey:
    """Return the key of a run that was typed: an id, of this type unless it says TYPE/ID.

    Raises:
        InputError: the id is none, or the type.

    """
    given_type, _, number = run_id.rpartition("/")
    if given_type and given_type not in RUN_TYPES:
        raise InputError(
            f"{show_id(run_id)!r} is of no run type: there are {' and '.join(RUN_TYPES)}."
        )
    found = parse_id(number)
    if isinstance(found, str):
        raise InputError(f"{show_id(run_id)!r} {found}.")
    return RunKey(given_type or run_type, found)


def filter_of(
    run_type: str | None,
    older_than: float | None,
    newer_than: float | None,
    saved_within: float | None,
    now: datetime,
) -> Filter:
    """Return the filter that the shared options stand for; ages in seconds."""
    from downloader.store.listing import Filter  # noqa: PLC0415 - start-up time

    def ago(seconds: float | None) -> datetime | None:
        return None if seconds is None else now - timedelta(seconds=seconds)

    return Filter(
        run_type=run_type,
        submitted_before=ago(older_than),
        submitted_after=ago(newer_than),
        done_after=ago(saved_within),
    )


def _table(rows: Iterable[dict[str, Any]], now: datetime, on: Screen) -> Iterator[str]:
    """Yield a line for each run; on a terminal with a heading, and no wider than that is."""
    if on.width is not None:
        yield on.cut(f"{_columns(*_HEADING)}FILE, OR WHY NOT")
    for row in rows:
        line = _line(row, now, on)
        yield on.styled(line, "red") if row["state"] == State.FAILED else line


def _line(row: dict[str, Any], now: datetime, on: Screen) -> str:
    """Return a run in a line: what it is, where it stands, and where its file is or why not."""
    what = row["location"] or (
        f"{row['error_code']}: {row['error_message']}" if row["error_code"] else ""
    )
    # As text: what a damaged database holds in their place is anything at all.
    run = run_name(str(row["run_type"]), row["run_id"])
    if on.width is None:
        number = "" if row["bytes"] is None else str(row["bytes"])
        return f"{run:>12}  {row['state']!s:<12}{number:>12}  {what}".rstrip()
    number, changed = row["bytes"], row["updated_at"]
    saved = size(number) if isinstance(number, int) else ""
    ago = f"{span((now - changed).total_seconds())} ago" if isinstance(changed, datetime) else ""
    before = _columns(run, str(row["state"]), saved, ago)
    return on.cut(f"{before}{on.cut_front(str(what), len(before)) if row['location'] else what}")


def _columns(run: str, state: str, saved: str, changed: str) -> str:
    return f"{run:>10}  {state:<11}  {saved:>8}  {changed:>14}  "
