"""`downloader demo`: the whole job on this machine, with nothing but a simulator behind it."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from downloader.cli.execution import execute
from downloader.cli.options import Command
from downloader.cli.quantities import Whole
from downloader.errors import ConfigurationError, InputError
from downloader.rules.decisions import Limits
from downloader.rules.states import State
from downloader.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.service import Result

_FIRST_RUN_ID: Final = 100_001
_SHOWN: Final = 100


@click.command(
    cls=Command,
    short_help="See it work, against a simulator.",
    epilog="Example: downloader demo --runs 100",
)
@click.option(
    "--runs",
    "count",
    type=Whole(8, 100_000),
    default=24,
    show_default=True,
    help="How many runs to submit.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder for the database and the files. Default: a temporary one.",
)
def demo(*, count: int, directory: Path | None) -> int:
    """Start a simulator, submit runs, save their files, and show what became of them.

    Some runs finish late, one fails at the provider, some URLs expire before they are used.
    Nothing leaves this machine, and no account is needed.
    """
    simulator_module = _simulator_module()
    folder = _new_folder(directory)
    ids = range(_FIRST_RUN_ID, _FIRST_RUN_ID + count)
    late, failing, expiring = list(ids[2::4]), [ids[4]], [ids[1], *ids[7::6]]
    options = simulator_module.SimulatorOptions(
        audio_format="mixed", min_size=200_000, max_size=3_000_000, bandwidth=4_000_000
    )
    rules: list[dict[str, Any]] = [
        {
            "runs": failing,
            "where": "api",
            "fault": {"kind": "word", "word": "ERROR", "reason": "The prompt was rejected."},
        },
        {"runs": late, "where": "api", "fault": {"kind": "pending"}, "during": [0, 4]},
        {
            "runs": expiring,
            "where": "api",
            "fault": {"kind": "url-lifetime", "seconds": -1},
            "times": 1,
        },
    ]
    with simulator_module.Simulator(options) as simulator:
        simulator.set_rules(rules)
        click.echo(f"For this demo a simulator of the service runs at {simulator.api_url}.")
        database = folder / "downloader.sqlite3"
        _submit(database, ids)
        click.echo(
            f"Submitted {count} runs: {len(late)} finish late, {len(failing)} fails at the "
            f"provider, {len(set(expiring) - set(failing))} get a URL that expires before use. "
            "All of that is planned."
        )
        started = time.monotonic()
        from downloader.session import Mode  # noqa: PLC0415 - start-up time

        result = execute(
            Settings(
                output=folder / "audio",
                api_key="any-key-will-do",
                api_url=simulator.api_url,
                min_free_bytes=0,  # a few megabytes, of a machine with which nothing need be right
                limits=Limits(min_poll_seconds=0.5, max_poll_seconds=2.0),
            ),
            str(database),
            Mode.DRAIN,
            verbose=0,
        )
        seconds = time.monotonic() - started
    _tell(database, result, seconds)
    return 4 if result.work_left else 0


def _simulator_module() -> Any:  # noqa: ANN401 - a module, imported late
    try:
        from downloader.simulator import server  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigurationError(
            f"The demo needs the simulator, and {error.name} is not installed: "
            "pip install fastapi uvicorn."
        ) from error
    return server


def _new_folder(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="downloader-demo-"))
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        raise InputError(
            f"{directory} exists: the demo wants a folder of its own. Name another."
        ) from None
    except OSError as error:
        raise InputError(f"{directory} cannot be made: {error.strerror}.") from error
    return directory.absolute()


def _submit(database: Path, ids: range) -> None:
    from downloader.clock import utc_now  # noqa: PLC0415 - start-up time
    from downloader.store.intake import submit  # noqa: PLC0415 - as above
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    with closing(open_database(database)) as opened:
        submit(opened, "text-to-sound", ids, utc_now())


def _tell(database: Path, result: Result, seconds: float) -> None:
    """Print what was saved, what failed and why, and where to look."""
    from downloader.store import listing  # noqa: PLC0415 - start-up time
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above

    with closing(open_database(database)) as opened:
        rows = {
            state: sorted(
                listing.list_runs(opened, listing.Filter((state,)), limit=_SHOWN),
                key=lambda row: int(row["run_id"]),
            )
            for state in (State.DONE, State.FAILED)
        }
    tally = result.tally
    click.echo(
        f"\nSaved {tally.done} files, {tally.bytes / 1e6:.1f} MB, in {seconds:.1f} seconds; "
        "each is verified and its SHA-256 recorded."
    )
    for row in rows[State.DONE]:
        click.echo(f"  {row['run_id']}  {row['bytes'] / 1e6:4.1f} MB  {row['location']}")
    if tally.done > _SHOWN:
        click.echo(f"  … and {tally.done - _SHOWN} more")
    click.echo(f"Failed: {tally.failed} (as planned)")
    for row in rows[State.FAILED]:
        click.echo(f"  {row['run_id']}  {row['error_code']}: {row['error_message']}")
    click.echo(f"New URLs asked for because one had expired: {tally.refreshed}")
    if result.work_left:
        click.echo("It was stopped early; runs are left.")
    click.echo("\nWhat next:")
    for what, line in _next(database, rows[State.DONE], rows[State.FAILED]):
        click.echo(f"  {what:<14}  {line}")


def _next(
    database: Path, saved: list[dict[str, Any]], failed: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Yield what a person may want to do now, each with what to type."""
    program = Path(sys.argv[0])
    on_path = shutil.which("downloader")
    found = on_path is not None and Path(on_path).resolve() == program.resolve()
    name = "downloader" if found or program.name != "downloader" else shlex.quote(str(program))
    given = f"--database {shlex.quote(str(database))}"
    if saved:
        play = "open" if sys.platform == "darwin" else "xdg-open"
        yield "play one", f"{play} {shlex.quote(str(saved[0]['location']))}"
    yield "how it stands", f"{name} status {given}"
    yield "every run", f"{name} list {given}"
    if failed:
        yield "why one failed", f"{name} show {failed[0]['run_id']} {given}"
    yield "in a browser", f"{name} inspect {given}"
    yield "remove it all", f"rm -r {shlex.quote(str(database.parent))}"
