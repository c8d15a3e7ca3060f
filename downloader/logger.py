"""Where this package's own events go: to whoever has said so, and never to the terminal unasked.

The command line configures structlog (`observe/logs.py`), and so may a program that uses this
package; events then go there. Where nobody has, they go to the loggers of the standard library
below `downloader`, as a library's should: silent until the program listens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import structlog

from downloader.rules.redaction import redact_text

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

TELLTALES: Final = (
    "httpx",
    "httpcore",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "sqlalchemy.engine",
    "sqlalchemy.engine.Engine",
)
"""The loggers that tell secrets: whole URLs, the headers of redirects, rows with a URL in them.

Each has a level and listeners of its own, and so is switched off by itself: by the command line for
good, in somebody else's program for what is said on our behalf alone.
"""


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take signatures and keys out of every value, whoever put them there."""
    for name, value in event.items():
        text = value if isinstance(value, str) else repr(value)
        shown = redact_text(text)
        if shown != text:
            event[name] = shown
    return event


def _as_line(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return what a logger is given: the event and its values in a line, and apart as `extra`."""
    name = event.pop("event")
    line = " ".join([str(name), *(f"{key}={value!r}" for key, value in event.items())])
    extra = {"event": name, "values": dict(event)}
    return ("%s", line), {"extra": extra}


_PROCESSORS: Final[list[Callable[..., Any]]] = [structlog.stdlib.filter_by_level, redact, _as_line]

# Without a handler of its own, Python would write a library's warnings to standard error.
logging.getLogger("downloader").addHandler(logging.NullHandler())


class Logger:
    """Tells of events, each a name and its values, with those that are bound."""

    def __init__(self, name: str, bound: dict[str, object] | None = None) -> None:
        self._name = name
        self._bound = bound or {}

    def bind(self, **values: object) -> Logger:
        """Return a logger that adds these values to each event."""
        return Logger(self._name, {**self._bound, **values})

    def debug(self, event: str, **values: object) -> None:
        """Tell of what is of interest to whoever looks for a fault."""
        self._listener().debug(event, **values)

    def info(self, event: str, **values: object) -> None:
        """Tell of what went as it should."""
        self._listener().info(event, **values)

    def warning(self, event: str, **values: object) -> None:
        """Tell of what a person may have to look into."""
        self._listener().warning(event, **values)

    def error(self, event: str, **values: object) -> None:
        """Tell of what a person has to look into."""
        self._listener().error(event, **values)

    def _listener(self) -> Any:  # noqa: ANN401 - structlog's own, of whatever class is configured
        # Asked each time: it may be configured later than this module is imported.
        if structlog.is_configured():
            return structlog.get_logger(self._name, **self._bound)  # noqa: TID251 - this is it
        return structlog.wrap_logger(
            logging.getLogger(self._name),
            processors=_PROCESSORS,
            wrapper_class=structlog.stdlib.BoundLogger,
            context_class=dict,
        ).bind(**self._bound)


def get_logger(name: str) -> Logger:
    """Return the logger of a module."""
    return Logger(name)
