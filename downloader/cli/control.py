"""`downloader retry` and `cancel`: what a person decides about runs."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import click

from downloader.cli.hints import typed
from downloader.cli.listing import run_key
from downloader.cli.options import Command, database_option, json_option, type_option
from downloader.cli.suggestions import ids_of
from downloader.cli.words import run_name
from downloader.clock import utc_now
from downloader.rules.states import UNFINISHED, State

if TYPE_CHECKING:
    from downloader.store.control import Changed


@click.command(cls=Command, epilog="Example: downloader retry --failed")
@click.argument(
    "run_ids",
    nargs=-1,
    metavar="[RUN_ID]...",
    shell_complete=ids_of(State.FAILED, State.CANCELLED),
)
@click.option("--failed", is_flag=True, help="Every failed run of the type.")
@type_option
@database_option
@json_option
def retry(
    *, run_ids: tuple[str, ...], failed: bool, run_type: str, database: str | None, as_json: bool
) -> None:
    """Put failed and cancelled runs back as if submitted anew, with fresh counters."""
    from downloader.store import control  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    if bool(run_ids) == failed:
        raise click.UsageError("Give either run ids or --failed.")
    keys = [run_key(run_type, text) for text in run_ids]
    with closing(open_database(database, existing=True)) as opened:
        if failed:
            number = control.retry_failed(opened, run_type, utc_now())
            click.echo(json.dumps({"retried": number}) if as_json else f"put back {number}")
            _tell_next(number, as_json=as_json)
            return
        changed = control.retry(opened, keys, utc_now())
    _tell(changed, "retried", "put back", "only failed and cancelled ones", as_json=as_json)
    _tell_next(len(changed.changed), as_json=as_json)


def _tell_next(number: int, *, as_json: bool) -> None:
    """Say to whoever looks on what has to be done for runs that were put back."""
    if number and not as_json and sys.stdout.isatty():
        click.echo(typed("unless it runs already, `downloader run --drain` asks for them now"))


@click.command(cls=Command, epilog="Example: downloader cancel 12345")
@click.argument(
    "run_ids",
    nargs=-1,
    required=True,
    metavar="RUN_ID...",
    shell_complete=ids_of(*UNFINISHED),
)
@type_option
@database_option
@json_option
def cancel(*, run_ids: tuple[str, ...], run_type: str, database: str | None, as_json: bool) -> None:
    """End unfinished runs; a transfer that is running stops within seconds."""
    from downloader.store import control  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    keys = [run_key(run_type, text) for text in run_ids]
    with closing(open_database(database, existing=True)) as opened:
        changed = control.cancel(opened, keys, utc_now())
    _tell(changed, "cancelled", "cancelled", "only unfinished ones", as_json=as_json)


def _tell(changed: Changed, name: str, verb: str, rule: str, *, as_json: bool) -> None:
    """Print what changed and what did not."""
    if as_json:
        click.echo(
            json.dumps(
                {
                    name: len(changed.changed),
                    "unchanged": {run_name(*key): s for key, s in changed.unchanged.items()},
                }
            )
        )
    else:
        click.echo(f"{verb} {len(changed.changed)}")
        for key, state in changed.unchanged.items():
            click.echo(f"run {run_name(*key)} is {state}: {rule} can be {name}", err=True)
