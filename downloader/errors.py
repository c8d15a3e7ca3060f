"""The errors a person may meet, each with the exit code its command ends with.

::

    DownloaderError            1
    ├── InputError             2   what was typed or read is wrong; nothing was changed
    ├── ConfigurationError     2   an option, a file or the environment is wrong
    ├── StoreError             2   the database cannot be used
    │   ├── NewerDatabaseError     … because a newer version of the program made it
    │   ├── BusyDatabaseError      … because another program keeps it locked
    │   └── FullDatabaseError  3   … because its disk is full
    └── BlockedError           3   the service as a whole cannot go on for now

Messages are whole sentences: what was wrong, where, what to do. They carry no key and
no query of a URL.
"""

from __future__ import annotations

from typing import ClassVar


class DownloaderError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message if message is not None else type(self).__doc__)


class InputError(DownloaderError):
    """The input is wrong; nothing was changed."""

    exit_code = 2


class ConfigurationError(DownloaderError):
    """The configuration is wrong; nothing was changed."""

    exit_code = 2


class StoreError(DownloaderError):
    """The database cannot be used."""

    exit_code = 2


class NewerDatabaseError(StoreError):
    """The database was made by a newer version of this program."""


class BusyDatabaseError(StoreError):
    """Another program keeps the database locked."""


class FullDatabaseError(StoreError):
    """The disk of the database is full."""

    exit_code = 3


class BlockedError(DownloaderError):
    """The service is blocked for now; `reason` is the word that `status` has for it."""

    exit_code = 3

    def __init__(self, message: str | None = None, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
