"""Where the API key comes from: never from the command line, where others could read it."""

from __future__ import annotations

import functools
import os
import shlex
import stat
from pathlib import Path
from typing import Final, NamedTuple

import click

from downloader.errors import ConfigurationError
from downloader.rules.id_encodings import NoText, encoding_of
from downloader.rules.keys import key_in
from downloader.settings import check_api_key

_CREDENTIAL: Final = "camb-api-key"
_MAX_BYTES: Final = 4096
"""More than any key has, and little enough to be read of whatever file was named by mistake."""


class FoundKey(NamedTuple):
    """A key, and where it came from: a variable's name, or the path of a file.

    `readers_warning` is told where others may read that file.
    """

    key: str
    place: str
    readers_warning: str | None = None


def load_api_key() -> str:
    """Return the key from CAMB_API_KEY, CAMB_API_KEY_FILE or systemd's credentials directory.

    Warns once, on standard error, where others may read the file that CAMB_API_KEY_FILE names.

    Raises:
        ConfigurationError: there is none, or its file cannot be read or is none of a key.

    """
    found = find_api_key()
    if found is None:
        raise ConfigurationError(
            "There is no API key; set CAMB_API_KEY, or CAMB_API_KEY_FILE to the path of a file "
            f"with it{_or_credential()}. (The simulator takes any key.)"
        )
    if found.readers_warning is not None:
        _warn_of_readers(found.readers_warning)
    return found.key


def find_api_key() -> FoundKey | None:
    """Return the key with the place that it is in, None where there is none.

    Raises:
        ConfigurationError: its file cannot be read or is none of a key.

    """
    if key := key_in(os.environ.get("CAMB_API_KEY", "")):
        return FoundKey(key, "CAMB_API_KEY")
    credentials = _credentials_folder()
    if named := os.environ.get("CAMB_API_KEY_FILE"):
        path = _expanded(named)
        # Who may read a credential is systemd's affair: its access lists look like group rights.
        ours = credentials is None or path.parent != credentials
        return _read(path, "CAMB_API_KEY_FILE names", warn_of_readers=ours)
    if credentials is not None:
        path = credentials / _CREDENTIAL
        if _is_withheld(path) or path.is_file():
            return _read(path, "systemd's credential is in", warn_of_readers=False)
    return None


def credential_is_withheld() -> bool:
    """Return whether the key is a credential that this process of the service cannot read.

    systemd 252 keeps them from what ExecReload= starts; the service itself has it all the same.
    """
    credentials = _credentials_folder()
    if credentials is None or os.environ.get("CAMB_API_KEY", "").strip():
        return False
    named = os.environ.get("CAMB_API_KEY_FILE")
    path = _expanded(named) if named else credentials / _CREDENTIAL
    return path.parent == credentials and _is_withheld(path)


def _is_withheld(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK)


def _or_credential() -> str:
    """Return what else gives the key to a service that systemd gives credentials to."""
    if _credentials_folder() is None:
        return ""
    return f", or have the unit load the credential {_CREDENTIAL} (LoadCredential=)"


def _credentials_folder() -> Path | None:
    """Return where systemd puts credentials (systemd.exec(5), LoadCredential), if it started us."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _expanded(named: str) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError:  # of a user that there is not
        return Path(named)


def _read(path: Path, what: str, *, warn_of_readers: bool) -> FoundKey:
    """Read the key in a file: a regular one, and no more of it than a key can be."""
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(descriptor).st_mode
            regular = stat.S_ISREG(mode)
            content = os.read(descriptor, _MAX_BYTES + 1) if regular else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(
            f"{what} {path}, which cannot be read: {error.strerror}."
        ) from error
    if not regular:
        raise ConfigurationError(
            f"{what} {path}, which is not a regular file: write the key into one."
        )
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(
            f"{what} {path}, which has more than {_MAX_BYTES} bytes: it is not the file of a key."
        )
    encoding = encoding_of(content)
    # An error of the codec would quote the key.
    key = "" if isinstance(encoding, NoText) else key_in(content.decode(encoding, "replace"))
    if isinstance(encoding, NoText) or "\N{REPLACEMENT CHARACTER}" in key:
        raise ConfigurationError(f"{what} {path}, which cannot be read: it is not text.")
    if not key:
        raise ConfigurationError(f"{what} {path}, which is empty.")
    check_api_key(key)  # of what is refused nothing else need be said
    if not warn_of_readers or not mode & (stat.S_IRGRP | stat.S_IROTH):
        return FoundKey(key, str(path))
    return FoundKey(
        key,
        str(path),
        f"the API key in {path} can be read by other users of this machine: "
        f"chmod 600 {shlex.quote(str(path))}",
    )


@functools.cache
def _warn_of_readers(warning: str) -> None:
    """Say once of a file that others may read it; to cron, too, for it is worth a mail."""
    click.echo(f"downloader: {warning}", err=True)
