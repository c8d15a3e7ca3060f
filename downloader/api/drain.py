"""Saving what is tracked, inside somebody else's program: a script, asyncio or trio."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, Unpack

import anyio
import anyio.to_thread

from downloader import service
from downloader.api import tracker as tracking
from downloader.api.arguments import (
    check_names,
    database_of,
    path_of,
    told_in_python,
    wrong_type,
)
from downloader.errors import BlockedError, ConfigurationError
from downloader.observe.metrics import Unmeasured
from downloader.observe.progress import Silent
from downloader.rules.decisions import Limits
from downloader.session import Mode
from downloader.settings import ENGINES, Settings
from downloader.supervision import Manager

if TYPE_CHECKING:
    import os

    from downloader.service import Result
    from downloader.store.database import Database


class Options(TypedDict, total=False):
    """What may be said of how runs are saved; what is left out is as it is for `downloader run`.

    output: the folder for saved files; by default `audio`, beside the database.
    api_url: where the API is; for a simulator, or a service of your own.
    concurrency: the most transfers at a time, 1 to 256; how many help is found out.
    engine: what moves the bytes; "auto" takes libcurl where pycurl is installed, else httpx.
    max_duration_seconds: stop after this long, in peace.
    max_bytes_per_second: for all transfers of this call together, at least 1000.
    api_requests_per_second: 0.01 to 1000.
    attempts: how often a transfer is tried before its run counts as failed.
    refreshes: how often a run is asked for a new URL after the last one expired.
    give_up_after_seconds: how long after its submission a run may stay unfinished.
    unknown_after_seconds: how long the service may not know a run before that counts as failed.
    min_poll_seconds: the shortest pause before a run is asked for again.
    max_poll_seconds: the longest such pause.
    stall_seconds: how long a transfer may go without a byte.
    lease_seconds: how long a claim on a run lasts when its process dies.
    grace_seconds: how long transfers may go on after max_duration_seconds.
    min_free_bytes: stop before a disk has less left than this.
    max_file_bytes: a run whose file is larger counts as failed.
    """

    output: str | os.PathLike[str]
    api_url: str
    concurrency: int
    engine: Literal["auto", "httpx", "curl"]
    max_duration_seconds: float
    max_bytes_per_second: int
    api_requests_per_second: float
    attempts: int
    refreshes: int
    give_up_after_seconds: float
    unknown_after_seconds: float
    min_poll_seconds: float
    max_poll_seconds: float
    stall_seconds: float
    lease_seconds: float
    grace_seconds: float
    min_free_bytes: int
    max_file_bytes: int


_NAMES: Final = frozenset({"api_key", *Options.__annotations__})
_TEN_YEARS: Final = 10 * 365 * 86400.0
_RANGES: Final[dict[str, tuple[type, float, float]]] = {
    "concurrency": (int, 1, 256),
    "max_duration_seconds": (float, 0.1, _TEN_YEARS),
    "max_bytes_per_second": (int, 1000, 2**60),
    "api_requests_per_second": (float, 0.01, 1000),
    "attempts": (int, 1, 1000),
    "refreshes": (int, 0, 1000),
    "give_up_after_seconds": (float, 0, _TEN_YEARS),
    "unknown_after_seconds": (float, 0, _TEN_YEARS),
    "min_poll_seconds": (float, 0.05, _TEN_YEARS),
    "max_poll_seconds": (float, 0.05, _TEN_YEARS),
    "stall_seconds": (float, 0.1, _TEN_YEARS),
    "lease_seconds": (float, 1, _TEN_YEARS),
    "grace_seconds": (float, 0, _TEN_YEARS),
    "min_free_bytes": (int, 0, 2**60),
    "max_file_bytes": (int, 1, 2**60),
}
"""What a number is and between what it lies: the same as the command's options, a test says."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What one call has done.

    `complete` says that no run was left unfinished; where it is False the call was ended by
    `max_duration_seconds`, or runs were submitted as it ended. Runs that failed are finished:
    `Tracker.failed` tells of them.
    """

    saved: int
    failed: int
    bytes: int
    complete: bool


def drain(
    tracker: tracking.Tracker | str | os.PathLike[str],
    /,
    *,
    api_key: str,
    **options: Unpack[Options],
) -> Drained:
    """Save everything that is or gets finished, until no run is unfinished; blocking.

    For a plain script, in any thread. It runs an event loop of its own: where one runs already,
    await `adrain`. A path stands for the database there, opened for this call alone; there must be
    one. Ctrl-C ends it in peace, as a cancelled `adrain`, and then raises KeyboardInterrupt.

    Raises:
        ConfigurationError: an option is wrong, or an event loop runs in this thread.
        TypeError: an option is unknown.
        BlockedError: the service as a whole cannot go on: the key is refused, payment is due, the
            disk is full, the output folder cannot be used. What was saved until then is saved.
        StoreError: the database cannot be used, or is not there.

    """
    check_names("drain", options, _NAMES)
    if _in_event_loop():
        raise ConfigurationError(
            "downloader.drain() blocks, and an event loop runs in this thread: "
            "await downloader.adrain() instead."
        )
    return anyio.run(partial(adrain, tracker, api_key=api_key, **options))


async def adrain(
    tracker: tracking.Tracker | str | os.PathLike[str],
    /,
    *,
    api_key: str,
    **options: Unpack[Options],
) -> Drained:
    """Save everything that is or gets finished, until no run is unfinished; in asyncio or trio.

    Cancel it to end it early: transfers are told to stop, what they have stays for another time,
    and their runs are given back, which takes a second at the most and a commit.

    Raises:
        ConfigurationError, TypeError, BlockedError, StoreError: as `drain`.

    """
    check_names("adrain", options, _NAMES)
    result = await _serve(tracker, api_key, options, Mode.DRAIN)
    if result.trouble is not None:
        raise BlockedError(result.trouble.message, reason=result.trouble.reason)
    tally = result.tally
    return Drained(tally.done, tally.failed, tally.bytes, complete=not result.work_left)


async def arun(
    tracker: tracking.Tracker | str | os.PathLike[str],
    /,
    *,
    api_key: str,
    **options: Unpack[Options],
) -> None:
    """Save whatever is submitted, by this program or another, until cancelled; as `adrain` else.

    What blocks the service, a refused key among it, is waited out where `adrain` would raise
    BlockedError: `Tracker.progress` shows it. A database that is not there is made, since this may
    well begin before the first run is submitted.

    Raises:
        ConfigurationError: an option is wrong.
        TypeError: an option is unknown.
        StoreError: the database cannot be used.

    """
    check_names("arun", options, _NAMES)
    await _serve(tracker, api_key, options, Mode.FOREVER)


async def _serve(
    tracker: tracking.Tracker | str | os.PathLike[str],
    api_key: str,
    options: Options,
    mode: Mode,
) -> Result:
    """Run the service in a task of its own.

    asyncio's own way of cancelling a task cuts off whatever that waits for, and heeds no shield
    of anyio's. It must not meet a task that just records what was saved.
    """
    results: list[Result] = []
    with told_in_python():
        settings = _settings(api_key, options)
        path = None
        if not isinstance(tracker, tracking.Tracker):
            path = database_of("tracker", tracker, "a Tracker or the path of a database")

        async def work() -> None:
            if isinstance(tracker, tracking.Tracker):
                results.append(await _serve_on(tracker.database, settings, options, mode))
                return
            existing = mode is not Mode.FOREVER
            opening = partial(tracking.opened, path, existing=existing)
            with closing(await anyio.to_thread.run_sync(opening)) as opened:
                results.append(await _serve_on(opened.database, settings, options, mode))

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(work)
        except BaseExceptionGroup as raised:
            _, failures = raised.split(anyio.get_cancelled_exc_class())
            if failures is None:
                raise  # cancelled, and nothing else
            raise service.first_error(failures) from None
    return results[0]


async def _serve_on(database: Database, settings: Settings, options: Options, mode: Mode) -> Result:
    if "output" not in options:
        settings = replace(settings, output=database.path.parent / "audio")
    return await service.serve(
        settings, database, mode, Silent(), metrics=Unmeasured(), manager=Manager()
    )


def _settings(api_key: str, options: Options) -> Settings:
    """Return the settings that options add up to.

    Raises:
        ConfigurationError: one of them is wrong.

    """
    values: dict[str, Any] = dict(options)
    for name, value in values.items():
        if name in _RANGES:
            _check_number(name, value)
    if values.get("engine", "auto") not in ENGINES:
        raise ConfigurationError(f"engine must be one of {', '.join(ENGINES)}.")
    for name, value in (("api_url", values.get("api_url", "")), ("api_key", api_key)):
        if not isinstance(value, str):
            raise wrong_type(name, "a text", value)
    limits = {
        field.name: values.pop(field.name) for field in fields(Limits) if field.name in values
    }
    output = Path(path_of("output", values.pop("output", "")))
    if "\0" in str(output):
        raise ConfigurationError("output has a null byte, which no path has.")
    return Settings(output=output, api_key=api_key.strip(), limits=Limits(**limits), **values)


def _check_number(name: str, value: object) -> None:
    """Refuse what is no number, or one out of range."""
    kind, least, most = _RANGES[name]
    kinds = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or math.isnan(value):
        raise wrong_type(name, "a whole number" if kind is int else "a number", value)
    if not least <= value <= most:
        raise ConfigurationError(f"{name} is {value}: it must be from {least:g} to {most:g}.")


def _in_event_loop() -> bool:
    try:
        anyio.get_cancelled_exc_class()
    except RuntimeError:  # NoEventLoopError, which older versions call by another name
        return False
    return True
