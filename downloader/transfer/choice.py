"""Whether libcurl can be had on this machine, and why not."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple


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
