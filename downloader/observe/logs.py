"""Logs: to standard error, one line an event, never with a key or a signed URL in it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

from downloader.rules.redaction import redact_text

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


def configure(verbosity: int) -> None:
    """Send logs to standard error: warnings and worse at 0, information at 1, all at 2 and up.

    httpx and httpcore are kept silent whatever the level: they log whole signed URLs.
    """
    terminal = sys.stderr.isatty()
    level = _LEVELS[min(max(verbosity, 0), 2)]
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).disabled = True
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            # A person wants the clock on the wall; a file wants to be sorted and compared.
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if terminal else "iso", utc=not terminal
            ),
            _redact,
            structlog.dev.ConsoleRenderer(
                colors=False, pad_event_to=0, sort_keys=False, timestamp_key="timestamp"
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=False,
    )


class _Lines:
    """Writes lines to standard error, around a progress bar if one is there."""

    def __init__(self, *_: object) -> None:
        pass

    def msg(self, message: str) -> None:
        """Write one line."""
        if "tqdm" in sys.modules:  # whoever draws bars has imported it
            from tqdm import tqdm  # noqa: PLC0415 - loaded already

            tqdm.write(message, file=sys.stderr)
        else:
            sys.stderr.write(message + "\n")
        sys.stderr.flush()

    debug = info = warning = error = critical = exception = msg


def _redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take signatures and keys out of every text, whoever put them there."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact_text(value)
    return event
