"""Logs: to standard error, one line an event, never with a key or a signed URL in it.

docs/logs.md lists the events; a test holds it to the source.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
import sys
import textwrap
from functools import partial, partialmethod
from typing import TYPE_CHECKING, Any, Final

import structlog

from downloader.logger import TELLTALES, get_logger, redact
from downloader.observe import journal
from downloader.observe.painted import write_above
from downloader.observe.words import in_words

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)


def configure(verbosity: int, *, as_json: bool = False) -> None:
    """Send logs to standard error: warnings and worse at 0, information at 1, all at 2 and up.

    Lines are for people, or JSON objects with `event`, `level` and `timestamp` (UTC).
    On a terminal, at 0, they are sentences where there is one for the event (`observe/words.py`).

    Of the libraries' own logs only warnings and worse are shown, and of those that tell secrets
    nothing, whatever the level and whoever listens.
    """
    for_eyes = sys.stderr.isatty() and not as_json
    as_fields = structlog.dev.ConsoleRenderer(
        colors=False, pad_event_to=0, sort_keys=False, timestamp_key="timestamp"
    )
    level = _LEVELS[min(max(verbosity, 0), 2)]
    for name in TELLTALES:
        _silence(logging.getLogger(name))
    logging.getLogger().addHandler(_LIBRARIES)  # once: a handler that is there is not added again
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            # A person wants the clock on the wall; a file wants to be sorted and compared.
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if for_eyes else "iso", utc=not for_eyes
            ),
            redact,
            _json_line
            if as_json
            else partial(_sentence, as_fields)
            if for_eyes and verbosity == 0
            else as_fields,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )


def leave_terminal() -> None:
    """Write nowhere from now on, where that was a terminal: it is gone, and would refuse."""
    for stream in range(3):
        with contextlib.suppress(OSError):
            # One that was hung up no longer says that it is a terminal; a device it still is.
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def _silence(telltale: logging.Logger) -> None:
    """Have a logger say nothing, whoever listens to it; and of its family nothing come through."""
    telltale.disabled = True
    telltale.propagate = False  # for one of its family that a later version has
    if not telltale.handlers:
        telltale.addHandler(logging.NullHandler())  # without any, warnings would go to stderr


class _Lines:
    """Writes lines to standard error, around a progress bar if one is there."""

    def __init__(self, *_: object) -> None:
        pass

    def _write(self, level: str, message: str) -> None:
        """Write one line."""
        write_above(journal.prefix(level) + message, sys.stderr)

    msg = info = partialmethod(_write, "info")
    debug = partialmethod(_write, "debug")
    warning = partialmethod(_write, "warning")
    error = exception = partialmethod(_write, "error")
    critical = partialmethod(_write, "critical")


class _Libraries(logging.Handler):
    """Shows what libraries warn of as one line of ours: redacted, and without a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = " ".join(record.getMessage().split())
        except (TypeError, ValueError, KeyError):  # the library's arguments do not fit its text
            said = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        log = get_logger(record.name)
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        tell(
            "library.warning",
            library=record.name,
            message=said if error is None else f"{said}: {type(error).__name__}: {error}",
        )


_LIBRARIES: Final = _Libraries(logging.WARNING)


def _sentence(
    as_fields: structlog.dev.ConsoleRenderer,
    logger: object,
    method: str,
    event: MutableMapping[str, Any],
) -> str:
    """Return what a person reads of an event, wrapped between words."""
    said = in_words(event)
    if said is None:
        return as_fields(logger, method, event)
    columns = max(40, shutil.get_terminal_size().columns - 1)
    return textwrap.fill(said, columns, subsequent_indent="  ", break_on_hyphens=False)


def _json_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return an event as a JSON object, what it is and when first."""
    first: dict[str, Any] = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return json.dumps(first | dict(event), default=str)
