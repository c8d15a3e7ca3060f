"""The command of a hook: read as a shell would split it, and found before anything is begun."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from downloader.durable import closed_on_the_way, is_folder
from downloader.errors import ConfigurationError
from downloader.rules.redaction import clean_text


def find_command(option: str, text: str) -> tuple[str, ...]:
    """Return program and arguments of a command, the program by its absolute path.

    Quotes and backslashes are a POSIX shell's; nothing else of a shell is.

    Raises:
        ConfigurationError: it cannot be split, or its program is not there or not executable.

    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} cannot be read: {error}.") from error
    if not words or not words[0]:
        raise ConfigurationError(f"{option} names no program.")
    program, *arguments = words
    found = shutil.which(program)
    if found is None:
        raise ConfigurationError(f"{option}: {_why_not(program)}")
    return (os.path.abspath(found), *arguments)  # noqa: PTH100 - `..` behind a link stays as it is


def _why_not(program: str) -> str:
    """Say why a program cannot be run, and what to do."""
    shown = clean_text(program, 200)
    if os.sep not in program:
        return f"there is no program {shown} on the PATH: install it, or give its path."
    path = Path(program)
    if is_folder(path):
        return f"{shown} is a folder: give the path of a program."
    if os.path.lexists(path):
        return f"{shown} may not be executed: chmod +x it."
    if (closed := closed_on_the_way(path.parent)) is not None:
        return f"{clean_text(str(closed), 200)} may not be searched: chmod +x it."
    return f"there is no file {shown}: give the path of a program."
