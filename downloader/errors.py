"""The errors a person may meet, each with the exit code its command ends with.

::

    DownloaderError            1
    ├── InputError             2   what was typed or read is wrong; nothing was changed
    ├── ConfigurationError     2   an option, a file or the environment is wrong
    ├── StoreError             2   the database cannot be used
    │   ├── NewerDatabaseError     … because a newer version of the program made it
    │   ├── BusyDatabaseError  3   … because another program keeps it locked
    │   └── FullDatabaseError  3   … because its disk is full
    └── BlockedError           3   the service as a whole cannot go on for now

Messages are whole sentences: what was wrong, where, what to do. They carry no key and
no query of a URL. Where one names what a person may set, it is made of the `Words` of who is spoken
to: a command has options, a call from Python has arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Words:
    """What a front end calls that which is set by it."""

    setting: Callable[[str], str]
    """A setting, by the name that it has in a configuration file."""
    api_key: str
    check_key: str
    """Advice where the key will not do."""
    name_another: str
    """Advice where a database will not do."""
    name_one: str
    """Advice where there is none."""


COMMAND: Final = Words(
    setting=lambda name: f"--{name}",
    api_key="The API key",
    check_key="check CAMB_API_KEY or the file that CAMB_API_KEY_FILE names",
    name_another="name another with --database",
    name_one="name it with --database; `downloader submit` makes one",
)


class DownloaderError(Exception):
    """Something went wrong.

    A message may be given as a function of the words it is to be told in; the command's, at first.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | Callable[[Words], str] | None = None) -> None:
        self._in_words = message if callable(message) else None
        said = message(COMMAND) if callable(message) else message
        super().__init__(said if said is not None else type(self).__doc__)

    def tell_in(self, words: Words) -> None:
        """Say the same in other words; from then on in these."""
        if self._in_words is not None:
            self.args = (self._in_words(words),)
            self._in_words = None  # it would keep the error from being pickled


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

    exit_code = 3


class FullDatabaseError(StoreError):
    """The disk of the database is full."""

    exit_code = 3


class BlockedError(DownloaderError):
    """The service is blocked for now; `reason` is the word that `status` has for it."""

    exit_code = 3

    def __init__(self, message: str | None = None, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
