"""Where the API key comes from: never from the command line, where others could read it."""

from __future__ import annotations

import os
from pathlib import Path

from downloader.errors import ConfigurationError

_CREDENTIAL = "camb-api-key"


def load_api_key() -> str:
    """Return the key from CAMB_API_KEY, CAMB_API_KEY_FILE or systemd's credentials directory.

    Raises:
        ConfigurationError: there is none, or its file cannot be read.

    """
    if key := os.environ.get("CAMB_API_KEY", "").strip():
        return key
    if named := os.environ.get("CAMB_API_KEY_FILE"):
        return _read(Path(named).expanduser(), "CAMB_API_KEY_FILE names")
    # systemd.exec(5): LoadCredential puts each credential into a file of this folder.
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / _CREDENTIAL
        if path.is_file():
            return _read(path, "systemd's credential is in")
    raise ConfigurationError(
        "No API key: set CAMB_API_KEY, or CAMB_API_KEY_FILE to the path of a file with it. "
        "(The simulator takes any key.)"
    )


def _read(path: Path, what: str) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"{what} {path}, which cannot be read: {said}.") from error
    if not key:
        raise ConfigurationError(f"{what} {path}, which is empty.")
    return key
