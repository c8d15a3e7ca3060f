"""What a program gave as an argument: judged, and spoken of, by the argument's name."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from downloader.errors import ConfigurationError, DownloaderError, Words
from downloader.settings import FIELD_OF

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PYTHON: Final = Words(
    setting=lambda name: FIELD_OF[name],
    api_key="api_key",
    check_key="check it where it comes from",
    name_another="name another database",
    name_one="check the path; downloader.open(path) makes one",
)

_PATH: Final = "a str or an os.PathLike"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


@contextmanager
def told_in_python() -> Iterator[None]:
    """Have errors name arguments, where they would name a command's options."""
    try:
        yield
    except DownloaderError as error:
        error.tell_in(_PYTHON)
        raise


def path_of(argument: str, value: object, what: str = _PATH) -> str:
    """Return the path that an argument is.

    Raises:
        ConfigurationError: it is of a type that no path is.

    """
    if isinstance(value, str | bytes | os.PathLike):
        return os.fsdecode(value)
    raise wrong_type(argument, what, value)


def database_of(argument: str, value: object, what: str = _PATH) -> str:
    """Return what names a database; the store judges it further.

    Raises:
        ConfigurationError: it is none, such as a URL that a Path was made of: with one slash it
            would pass for a folder, and be made, a password in its name.

    """
    text = path_of(argument, value, what)
    if _SCHEME.match(text):
        raise ConfigurationError(f"{argument} is a URL: give the path of a file.")
    return text


def wrong_type(argument: str, what: str, value: object) -> ConfigurationError:
    """Return the error of an argument of another type than it must be."""
    return ConfigurationError(f"{argument} must be {what}, and is of type {type(value).__name__}.")


def check_names(function: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse arguments that a function does not have, as Python does where it can.

    Raises:
        TypeError: there is one, with the name that is nearest.

    """
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    import difflib  # noqa: PLC0415 - start-up time

    near = difflib.get_close_matches(unknown[0], known, 1)
    meant = f". Did you mean {near[0]!r}?" if near else ""
    raise TypeError(
        f"downloader.{function}() got an unexpected keyword argument {unknown[0]!r}{meant}"
    )
