"""`downloader run`: poll and save, once, until drained, or for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from downloader.cli.ending import conclude
from downloader.cli.execution import LOG_FORMATS, execute, settings_of
from downloader.cli.options import (
    Command,
    database_option,
    option,
    output_option,
    verbose_option,
)
from downloader.cli.quantities import Duration, Rate, Size, Whole
from downloader.rules.decisions import Limits
from downloader.settings import (
    DEFAULT_API_URL,
    DEFAULT_CONCURRENCY,
    DEFAULT_HOOK_CONCURRENCY,
    DEFAULT_HOOK_SECONDS,
    DEFAULT_MAX_FILE_BYTES,
    DEFAULT_METRICS_HOST,
    DEFAULT_MIN_FREE_BYTES,
    ENGINES,
)

_DEFAULTS = Limits()


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
            "unknown_after",
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
    "--unknown-after",
    type=Duration(),
    default=f"{_DEFAULTS.unknown_after_seconds / 60:g}m",
    show_default=True,
    help="How long a run may be one that the service does not know, before it counts as failed.",
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
