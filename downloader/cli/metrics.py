"""Metrics as the command line asks for them."""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING

import click

from downloader.errors import ConfigurationError
from downloader.logger import get_logger
from downloader.observe.metrics import Unmeasured
from downloader.rules.redaction import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from downloader.observe.metrics import Metrics
    from downloader.settings import Settings

_log = get_logger(__name__)


@contextlib.contextmanager
def exported(settings: Settings, *, tell: bool) -> Iterator[Metrics]:
    """Serve and write metrics as the settings say; where they are served is told.

    Raises:
        ConfigurationError: prometheus-client is missing, or an address or a path cannot be used.

    """
    port, textfile = settings.metrics_port, settings.metrics_textfile
    if port is None and textfile is None:
        yield Unmeasured()
        return
    check(settings)
    from downloader.observe.export import Export  # noqa: PLC0415 - may be missing, and is slow

    with Export(host=settings.metrics_host, port=port, textfile=textfile) as export:
        if export.url is not None:
            _log.info("metrics.served", url=export.url)
            if tell or port == 0:  # a free port that nobody knows is of no use
                click.echo(f"Metrics: {export.url}", err=True)
        yield export


def check(settings: Settings) -> None:
    """See that what the settings ask for can be had, but for a port, which may be taken by then.

    Raises:
        ConfigurationError: prometheus-client is missing, or a path cannot be used.

    """
    port, textfile = settings.metrics_port, settings.metrics_textfile
    if port is None and textfile is None:
        return
    if textfile is not None:
        _check(textfile)
    try:
        import downloader.observe.export  # noqa: F401, PLC0415 - as above
    except ImportError as error:
        named = "--metrics-port" if port is not None else "--metrics-textfile"
        missing = isinstance(error, ModuleNotFoundError) and error.name == "prometheus_client"
        why = "it is not installed" if missing else f"it cannot be used ({error})"
        raise ConfigurationError(
            f"{named} needs prometheus-client, and {why}: pip install prometheus-client."
        ) from error


def _check(path: Path) -> None:
    """Refuse to put a file in place of a device, a pipe, a folder or a link."""
    try:
        kind = path.lstat().st_mode
    except OSError:
        return  # nothing is there, or nobody can say: that is told when it is written
    except ValueError:  # a null byte
        kind = 0
    if not stat.S_ISREG(kind):
        raise ConfigurationError(
            f"--metrics-textfile {clean_text(str(path), 200)} is something else than a file: "
            "name one, or none that is there yet."
        )
