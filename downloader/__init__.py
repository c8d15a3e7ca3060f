"""Bulk downloader with persistent job tracking for Camb.ai Sound and Music runs.

For programs that create runs::

    with downloader.open("runs.sqlite3") as tracker:
        tracker.submit([1, 2, 3])
        downloader.drain(tracker, api_key=...)
        for saved in tracker.saved():
            print(saved.run_id, saved.location)

docs/python.md has the rest. What `__all__` names is all that is promised to stay.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downloader.api.drain import Drained, Options, adrain, arun, drain
    from downloader.api.tracker import (
        Failed,
        Progress,
        Run,
        Saved,
        Submission,
        Tracker,
        open,  # noqa: A004 - as gzip.open: used as downloader.open
    )
    from downloader.errors import (
        BlockedError,
        BusyDatabaseError,
        ConfigurationError,
        DownloaderError,
        FullDatabaseError,
        InputError,
        NewerDatabaseError,
        StoreError,
    )

__version__ = "0.1.0"

__all__ = [
    "BlockedError",
    "BusyDatabaseError",
    "ConfigurationError",
    "DownloaderError",
    "Drained",
    "Failed",
    "FullDatabaseError",
    "InputError",
    "NewerDatabaseError",
    "Options",
    "Progress",
    "Run",
    "Saved",
    "StoreError",
    "Submission",
    "Tracker",
    "__version__",
    "adrain",
    "arun",
    "drain",
    "open",
]

_TRACKER = frozenset({"Failed", "Progress", "Run", "Saved", "Submission", "Tracker", "open"})
_DRAIN = frozenset({"Drained", "Options", "adrain", "arun", "drain"})


def __getattr__(name: str) -> object:
    """Load what is used: the command line shall not wait for it, nor whoever only submits."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as is said above

    module = "api.tracker" if name in _TRACKER else "api.drain" if name in _DRAIN else "errors"
    found: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
