"""`downloader run`: poll and save, once, until drained, or for ever."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from downloader.cli.hints import typed
from downloader.cli.key import load_api_key
from downloader.cli.options import (
    Command,
    database_option,
    hidden,
    option,
    output_option,
    read_again,
    verbose_option,
)
from downloader.cli.quantities import Duration, Rate, Size, Whole
from downloader.cli.words import size
from downloader.errors import ConfigurationError
from downloader.hooks.command import find_command
from downloader.observe import journal
from downloader.rules.decisions import Limits
from downloader.rules.error_codes import REMEDIES
from downloader.settings import (
    DEFAULT_API_URL,
    DEFAULT_CONCURRENCY,
    DEFAULT_HOOK_CONCURRENCY,
    DEFAULT_HOOK_SECONDS,
    DEFAULT_MAX_FILE_BYTES,
    DEFAULT_METRICS_HOST,
    DEFAULT_MIN_FREE_BYTES,
    ENGINES,
    Reread,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from downloader.service import Result
    from downloader.session import Mode

_DEFAULTS = Limits()

LOG_FORMATS = ("auto", "text", "json")


@click.command(
    cls=Command,
    short_help="Save the audio of tracked runs.",
    epilog="Example: downloader run --drain --output audio --concurrency 16",
    sections={
        "How much at a time": ("concurrency", "max_rate", "api_rate", "engine"),
        "How often and how long": (
            "attempts",
            "refreshes",
            "give_up_after",
            "min_poll",
            "max_poll",
            "stall",
            "lease",
            "grace",
            "max_duration",
        ),
        "Disk": ("min_free", "max_file_size"),
        "Metrics": ("metrics_port", "metrics_host", "metrics_textfile"),
    },
)
@click.option("--once", is_flag=True, help="Do everything that is due now, once; for cron.")
@click.option("--drain", is_flag=True, help="Stop when no run is unfinished.")
@option(
    "--concurrency",
    type=Whole(1, 256),
    default=DEFAULT_CONCURRENCY,
    show_default=True,
    help="The most transfers at a time; how many help is found out.",
)
@option(
    "--max-rate",
    type=Size(1000),
    help="The most bytes a second for all transfers together, such as 10M.",
)
@option(
    "--api-rate",
    type=Rate(0.01, 1000),
    help="The most requests a second to the API, such as 2 or 0.5.",
)
@option("--max-duration", type=Duration(0.1), help="Stop after this long, in peace.")
@option(
    "--api-url",
    default=DEFAULT_API_URL,
    show_default=True,
    metavar="URL",
    help="Where the API is; the simulator prints its own.",
)
@option(
    "--attempts",
    type=Whole(1, 1000),
    default=_DEFAULTS.attempts,
    show_default=True,
    help="How often a transfer is tried before its run counts as failed.",
)
@option(
    "--refreshes",
    type=Whole(0, 1000),
    default=_DEFAULTS.refreshes,
    show_default=True,
    help="How often a run is asked for a new URL after the last one expired.",
)
@option(
    "--give-up-after",
    type=Duration(),
    default=f"{_DEFAULTS.give_up_after_seconds / 3600:g}h",
    show_default=True,
    help="How long a run may stay unfinished at the provider, or its storage out of reach.",
)
@option(
    "--min-poll",
    type=Duration(0.05),
    default=f"{_DEFAULTS.min_poll_seconds:g}s",
    show_default=True,
    help="The shortest pause before asking for a run again; it grows with the run's age.",
)
@option(
    "--max-poll",
    type=Duration(0.05),
    default=f"{_DEFAULTS.max_poll_seconds:g}s",
    show_default=True,
    help="The longest such pause: each unfinished run is asked for at least so often.",
)
@option(
    "--lease",
    type=Duration(1),
    default="60s",
    show_default=True,
    help="How long a claim on a run lasts when its process dies.",
)
@option(
    "--grace",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long running transfers may go on after SIGTERM or Ctrl-C.",
)
@option(
    "--stall",
    type=Duration(0.1),
    default="30s",
    show_default=True,
    help="How long a transfer may go without a byte.",
)
@option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="What moves the bytes: curl is the faster, httpx always there; auto takes curl if it is.",
)
@option(
    "--min-free",
    type=Size(),
    default=f"{DEFAULT_MIN_FREE_BYTES // 10**6}M",
    show_default=True,
    help="Stop before a disk has less left than this: the database needs some.",
)
@option(
    "--max-file-size",
    type=Size(1),
    default=f"{DEFAULT_MAX_FILE_BYTES // 10**9}G",
    show_default=True,
    help="A run whose file is larger counts as failed.",
)
@option(
    "--metrics-port",
    type=Whole(0, 65535),
    help="Serve metrics for Prometheus on this port; 0 takes a free one, and says which.",
)
@option(
    "--metrics-host",
    default=DEFAULT_METRICS_HOST,
    show_default=True,
    metavar="HOST",
    help="The address of this machine that --metrics-port is of.",
)
@option(
    "--metrics-textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write metrics to this file, for node_exporter: every 15 seconds, and at the end.",
)
@option(
    "--on-done",
    metavar="CMD",
    help="Run this after a run is recorded as done, with the run in RUN_* variables.",
)
@option("--on-failed", metavar="CMD", help="The same after a run is recorded as failed.")
@option(
    "--hook-concurrency",
    type=Whole(1, 64),
    default=DEFAULT_HOOK_CONCURRENCY,
    show_default=True,
    help="The most such commands at a time.",
)
@option(
    "--hook-timeout",
    type=Duration(0.1),
    default=f"{DEFAULT_HOOK_SECONDS:g}s",
    show_default=True,
    help="How long each may take before it is ended, with its children.",
)
@option(
    "--prune-events-after",
    type=Duration(1, needs_unit=True),  # a forgotten `d` would delete all but seconds
    metavar="AGE",
    help="Delete the history of finished runs that is older, but for its end; such as 30d.",
)
@output_option
@database_option
@verbose_option
@option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default=LOG_FORMATS[0],
    show_default=True,
    help="How logs are written: auto is json for a daemon without a terminal, else text.",
)
@option("--quiet", "-q", is_flag=True, help="No bars and no progress: only what goes wrong.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    once: bool,
    drain: bool,
    database: str | None,
    verbose: int,
    log_format: str,
    quiet: bool,
    **options: Any,  # noqa: ANN401 - click's values; `settings_of` names them
) -> int:
    """Ask for the results of tracked runs, save their audio files, and keep the record.

    Without --once or --drain it runs for ever, as a daemon. Several may run on one database
    at a time: each run is claimed by one of them. Ctrl-C ends it in peace; twice, at once.
    On SIGHUP it reads its configuration again, unless a terminal was closed: that ends it.

    The API key is read from CAMB_API_KEY or the file that CAMB_API_KEY_FILE names.

    Exit codes: 0 nothing is left undone, 1 a run failed, 2 usage, 3 blocked (key refused,
    payment, disk; with --once also an API that gives no answer, or a storage out of reach),
    4 stopped early with work left.
    """
    if once and drain:
        raise click.UsageError("--once and --drain exclude each other.")
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    settings = settings_of(options)
    from downloader.session import Mode  # noqa: PLC0415 - usage errors come first, and fast

    mode = Mode.ONCE if once else Mode.DRAIN if drain else Mode.FOREVER
    result = execute(
        settings,
        database,
        mode,
        verbose=verbose,
        log_format=log_format,
        quiet=quiet,
        default_output=options["output"] is None,
        context=ctx,
    )
    return conclude(result, mode, quiet=quiet)


def settings_of(options: Mapping[str, Any], api_key: str | None = None) -> Settings:
    """Return the settings that the options of `run` add up to, with the key that is found."""
    output: Path | None = options["output"]
    return Settings(
        output=output if output is not None else Path(),
        api_key=load_api_key() if api_key is None else api_key,
        api_url=options["api_url"],
        concurrency=options["concurrency"],
        lease_seconds=options["lease"],
        grace_seconds=options["grace"],
        max_duration_seconds=options["max_duration"],
        stall_seconds=options["stall"],
        engine=options["engine"],
        min_free_bytes=options["min_free"],
        max_file_bytes=options["max_file_size"],
        max_bytes_per_second=options["max_rate"],
        api_requests_per_second=options["api_rate"],
        metrics_host=options["metrics_host"],
        metrics_port=options["metrics_port"],
        metrics_textfile=options["metrics_textfile"],
        on_done=_hook("--on-done", options["on_done"]),
        on_failed=_hook("--on-failed", options["on_failed"]),
        hook_concurrency=options["hook_concurrency"],
        hook_timeout_seconds=options["hook_timeout"],
        prune_events_after_seconds=options["prune_events_after"],
        limits=Limits(
            attempts=options["attempts"],
            refreshes=options["refreshes"],
            give_up_after_seconds=options["give_up_after"],
            min_poll_seconds=options["min_poll"],
            max_poll_seconds=options["max_poll"],
        ),
    )


def _hook(option: str, command: str | None) -> tuple[str, ...]:
    try:
        return () if command is None else find_command(option, command)
    except ConfigurationError as error:
        raise ConfigurationError(hidden(str(error))) from error


def execute(
    settings: Settings,
    database: str | None,
    mode: Mode,
    *,
    verbose: int,
    log_format: str = LOG_FORMATS[0],
    quiet: bool = False,
    default_output: bool = False,
    context: click.Context | None = None,
) -> Result:
    """Run the service with its logs and progress where a person or a log file wants them.

    `context` is that of a command whose options can be read again, on SIGHUP.
    """
    from dataclasses import replace  # noqa: PLC0415 - start-up time, as below

    from downloader import service  # noqa: PLC0415 - as above
    from downloader.cli.metrics import exported  # noqa: PLC0415 - as above
    from downloader.observe import logs, progress  # noqa: PLC0415 - as above
    from downloader.observe.notify import Notifier  # noqa: PLC0415 - as above
    from downloader.session import Mode  # noqa: PLC0415 - as above
    from downloader.store.migrate import open_database  # noqa: PLC0415 - as above
    from downloader.supervision import Manager  # noqa: PLC0415 - as above

    terminal = sys.stderr.isatty()
    # A daemon's log tells what it does; cron must stay silent; on a terminal the bars tell.
    daemon = mode is Mode.FOREVER and not terminal
    settings = _with_logs(settings, verbose, log_format, quiet=quiet, daemon=daemon)
    settings = replace(settings, owns_process=True)
    logs.configure(settings.verbosity, as_json=settings.logs_as_json)
    rereads = context is not None and not _ends_on_hangup()
    if rereads:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to tell
    with ExitStack() as stack:
        metrics = stack.enter_context(exported(settings, tell=terminal and not quiet))
        notifier = stack.enter_context(closing(Notifier.from_environment(os.environ)))
        opened = stack.enter_context(closing(open_database(database)))
        beside = opened.path.parent / "audio"
        if default_output:
            settings = replace(settings, output=beside)
        reporter: progress.Reporter
        if quiet:
            reporter = progress.Silent()
        elif terminal:
            reporter = stack.enter_context(progress.Bars())
        elif daemon or verbose:
            reporter = progress.LogLines()
        else:
            reporter = progress.Silent()
        reread = None
        if context is not None and rereads:
            reread = partial(_read_again, context, opened.path, beside, daemon=daemon)
        gc.freeze()  # what was imported stays: no collection need look at it again
        manager = Manager(notifier, reread)
        return service.run(settings, opened, mode, reporter, metrics=metrics, manager=manager)


def _with_logs(
    settings: Settings, verbose: int, log_format: str, *, quiet: bool, daemon: bool
) -> Settings:
    """Add how much is logged, and in what form: a daemon's log tells what it does."""
    from dataclasses import replace  # noqa: PLC0415 - as above

    return replace(
        settings,
        verbosity=max(verbose, 1) if daemon and not quiet else verbose,
        logs_as_json=log_format == "json" or (log_format == "auto" and daemon),
    )


def _ends_on_hangup() -> bool:
    """Return whether SIGHUP says that whoever was looking is gone; not to nohup's children."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return not ignored and any(os.isatty(stream) for stream in range(3))


def _read_again(context: click.Context, database: Path, beside: Path, *, daemon: bool) -> Reread:
    """Return the settings as the configuration and the key's file have them now.

    Raises:
        ConfigurationError: one of these is wrong.

    """
    from dataclasses import replace  # noqa: PLC0415 - as above

    from downloader.store.database import database_url  # noqa: PLC0415 - as above

    options = read_again(context)
    settings = settings_of(options)
    if options["output"] is None:
        settings = replace(settings, output=beside)
    settings = _with_logs(
        replace(settings, owns_process=True),
        options["verbose"],
        options["log_format"],
        quiet=options["quiet"],
        daemon=daemon,
    )
    moved = Path(database_url(options["database"]).database or "").absolute() != database.absolute()
    return Reread(settings, ("database",) if moved else ())


def conclude(result: Result, mode: Mode, *, quiet: bool = False) -> int:
    """Tell how it ended where somebody looks, and return the exit code."""
    from downloader.session import Mode  # noqa: PLC0415 - start-up time

    tally, trouble = result.tally, result.trouble
    terminal = sys.stderr.isatty()
    if not quiet and (terminal or mode is Mode.DRAIN):
        try:
            click.echo(_done(result), err=terminal)
        except OSError:  # whoever read it is gone; the files are saved, and that is what counts
            if not terminal:  # Python must not flush into the pipe at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if trouble is not None and mode is not Mode.FOREVER:
        journal.tell("error", f"downloader: {trouble.message}")
        return 3
    left = _counted(result.unfinished, "is left", "are left")
    again = typed(f"`downloader run{_FLAGS[mode.value]}` goes on.")
    if mode is Mode.FOREVER:
        if terminal and not quiet and result.work_left:
            click.echo(f"{left}; {again}", err=True)
        return 0
    if result.stopped is not None and result.work_left:
        journal.tell("warning", f"downloader: stopped early ({result.stopped}), {left}; {again}")
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
