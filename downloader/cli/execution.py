"""How the service is run from the command line: its settings, logs, progress and database."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downloader.cli.key import load_api_key
from downloader.cli.options import hidden, read_again
from downloader.errors import ConfigurationError
from downloader.hooks.command import find_command
from downloader.rules.decisions import Limits
from downloader.settings import Reread, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

    from downloader.service import Result
    from downloader.session import Mode

LOG_FORMATS = ("auto", "text", "json")


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
            unknown_after_seconds=options["unknown_after"],
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
        # A daemon may be there before the first run; for a call a new one would be a typo's.
        existing = mode is not Mode.FOREVER
        opened = stack.enter_context(closing(open_database(database, existing=existing)))
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
