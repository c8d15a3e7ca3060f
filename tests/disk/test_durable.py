"""What a disk answers to being forced, locked and linked: what it lacks, and what it fails in."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

import pytest
from disk.poor_folders import NUMBERS

from downloader import durable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _force(path: Path) -> OSError | None:
    with path.open("rb") as file:
        return durable.force(file.fileno())


def _lock(path: Path) -> OSError | None:
    with path.open("rb") as file:
        return durable.lock(file.fileno(), wait=False)


def _give_name(path: Path) -> OSError | None:
    return durable.give_name(str(path), str(path.with_name("named")))


CALLS = [(_force, os, "fsync"), (_lock, fcntl, "flock"), (_give_name, os, "link")]
FAILURES = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "ESTALE")


def number_of(name: str) -> int:
    """Return an error number by its name, or as it is."""
    return int(name) if name.isdigit() else int(getattr(errno, name))


@pytest.fixture
def answering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[object, str, str], Path]:
    """Return a file, a call on which answers with an error number."""

    def answer(module: object, call: str, name: str) -> Path:
        def fails(*_: object, **__: object) -> None:
            raise OSError(number_of(name), name)

        path = tmp_path / "file"
        path.write_bytes(b"content")
        monkeypatch.setattr(module, call, fails)
        return path

    return answer


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(("call", "module", "function"), CALLS)
def test_what_there_is_not(
    answering: Callable[[object, str, str], Path],
    call: Callable[[Path], OSError | None],
    module: object,
    function: str,
    name: str,
) -> None:
    """By whatever number a file system says that it has no such thing, it is done without."""
    said = call(answering(module, function, name))
    assert said is not None
    assert said.errno == number_of(name)


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize(("call", "module", "function"), CALLS)
def test_a_disk_that_fails(
    answering: Callable[[object, str, str], Path],
    call: Callable[[Path], OSError | None],
    module: object,
    function: str,
    name: str,
) -> None:
    """A disk that fails, is full or read-only is no file system that lacks something."""
    with pytest.raises(OSError, match=name):
        call(answering(module, function, name))


def test_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hard links, nothing is overwritten either, and the file has its new name alone."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", fails)
    first, second, named = (tmp_path / name for name in ("first", "second", "named"))
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    durable.give_name(str(first), str(named))
    with pytest.raises(FileExistsError):
        durable.give_name(str(second), str(named))
    assert (named.read_bytes(), second.read_bytes(), first.exists()) == (b"1", b"2", False)
