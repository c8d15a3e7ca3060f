"""Which engine moves the bytes: whether libcurl can be had on this machine, and why not."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from downloader.errors import ConfigurationError
from downloader.logger import get_logger
from downloader.transfer.engine import Engine, Timing

if TYPE_CHECKING:
    from downloader.settings import Settings
    from downloader.transfer.rate_limit import RateLimit

_log = get_logger(__name__)


class NoCurl(NamedTuple):
    """Why pycurl is of no use; one that is only `missing` is nobody's mistake."""

    why: str
    missing: bool
    error: ImportError


def why_no_curl() -> NoCurl | None:
    """Return why libcurl cannot be used here, None where it can."""
    try:
        import_module("downloader.transfer.curl_library")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "pycurl"
        why = "it is not installed" if missing else f"it cannot be used ({error})"
        return NoCurl(why, missing, error)
    return None


def make_engine(settings: Settings, rate_limit: RateLimit | None = None) -> Engine:
    """Return the transfer engine: the one that is asked for, or the best there is.

    Its transfers keep to the limit together.

    Raises:
        ConfigurationError: it cannot be had, or the environment's settings cannot be used.

    """
    timing = Timing(stall_seconds=settings.stall_seconds)
    if settings.engine != "httpx":
        missed = check_engine(settings)
        if missed is None:
            from downloader.transfer.curl_engine import CurlEngine  # noqa: PLC0415 - may be missing

            return CurlEngine(
                timing,
                connections=settings.concurrency,
                rate_limit=rate_limit,
                raise_limit=settings.owns_process,
            )
        if not missed.missing:
            _log.warning("engine.curl_unusable", error=str(missed.error), used="httpx")
    from downloader.transfer.httpx_engine import (  # noqa: PLC0415 - only where it is needed
        HttpxEngine,
    )

    return HttpxEngine(timing, connections=settings.concurrency, rate_limit=rate_limit)


def check_engine(settings: Settings) -> NoCurl | None:
    """Return why libcurl cannot be used; None: it can.

    Raises:
        ConfigurationError: it cannot, and is asked for.

    """
    missed = why_no_curl()
    if missed is not None and settings.engine == "curl":
        raise ConfigurationError(
            lambda say: (
                f"{say.setting('engine')} curl needs pycurl, and {missed.why}: pip install pycurl."
            )
        ) from missed.error
    return missed
