"""What a hook is told of its run: in its environment, and as JSON on its standard input.

The variables begin with `RUN_`. With `DOWNLOADER_` a `downloader` that the hook calls would take
them for its own options.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from downloader.rules.plain import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KEYS: Final = ("CAMB_API_KEY", "CAMB_API_KEY_FILE", "CREDENTIALS_DIRECTORY")
"""Where the API key is, or leads to it: no hook's affair."""

_PREFIX: Final = "RUN_"


def environment(row: Mapping[str, Any], database: Path, api_key: str) -> dict[bytes, bytes]:
    """Return a hook's environment: ours without the API key, and a variable for each column.

    What is NULL is the empty text. `DOWNLOADER_DATABASE` is the database that the run is in.
    """
    secret = api_key.encode()
    inherited = {
        name: value
        for name, value in os.environb.items()
        if name.decode("latin-1") not in _KEYS and secret not in value
    }
    told = {
        _PREFIX + name.removeprefix("run_").upper(): "" if value is None else str(value)
        for name, value in plain(dict(row)).items()
    }
    told["DOWNLOADER_DATABASE"] = str(database)
    return inherited | {name.encode(): _value(text) for name, text in told.items()}


def standard_input(row: Mapping[str, Any]) -> bytes:
    """Return a run as `list --json` prints it: one object, on one line."""
    return json.dumps(plain(dict(row))).encode() + b"\n"


def _value(text: str) -> bytes:
    """Return a text as the environment can have it; a path keeps the bytes that it has."""
    text = text.replace("\0", "")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
