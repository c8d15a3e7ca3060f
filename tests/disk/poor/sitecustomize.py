"""A file system that lacks some things, for a whole process: Python imports this at its start.

`POOR_FOLDER` is where it is, `POOR` what it answers: `link=EXDEV,flock=524,fsync_folder=EINVAL`.
Every call of the program that reaches that folder is a call of `os` or `fcntl`; those that are
named are refused there with that error number, others and those elsewhere are done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = os.path.realpath(os.environ.get("POOR_FOLDER", "/nonexistent"))
_CWD = -1


def number_of(name: str) -> int:
    """Return the error number of a name, or the number that stands for itself."""
    return int(name) if name.isdecimal() else int(getattr(errno, name))


_ANSWERS = {
    call: number_of(name)
    for call, _, name in (one.partition("=") for one in os.environ.get("POOR", "").split(","))
    if call
}


def _path(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - no path of ours
    except OSError:  # macOS
        raw = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024))  # type: ignore[attr-defined,unused-ignore]
        return os.fsdecode(raw.rstrip(b"\0"))


def _absolute(name: Any, folder: int | None) -> str:  # noqa: ANN401 - as `os` takes it
    if isinstance(name, int):
        return _path(name)
    text = os.fsdecode(name)
    return os.path.join(os.getcwd() if folder is None else _path(folder), text)  # noqa: PTH109, PTH118 - no path of ours


def _is_here(name: Any, folder: int | None = None) -> bool:  # noqa: ANN401 - as above
    path = _absolute(name, folder)
    return path == _ROOT or path.startswith(f"{_ROOT}/")


def _is_open(name: Any, folder: int | None) -> bool:  # noqa: ANN401 - as above
    wanted = _absolute(name, folder)
    for one in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a number
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{one}") == wanted:  # noqa: PTH115 - as above
                return True
    return False


def _refuse(call: str) -> None:
    number = _ANSWERS[call]
    raise OSError(number, os.strerror(number))


def _replace(module: Any, name: str, is_refused: Callable[..., str | None]) -> None:  # noqa: ANN401 - a module
    original = getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the call's own
        refused = is_refused(*args, **kwargs)
        if refused in _ANSWERS:
            _refuse(refused)
        return original(*args, **kwargs)

    setattr(module, name, call)


def _fsync(descriptor: int) -> str | None:
    if not _is_here(descriptor):
        return None
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    return "fsync_folder" if is_folder else "fsync_file"


def _flock(descriptor: int, _operation: int) -> str | None:
    return "flock" if _is_here(descriptor) else None


def _link(_source: Any, target: Any, *, dst_dir_fd: int | None = None, **_: Any) -> str | None:  # noqa: ANN401 - as above
    if not _is_here(target, dst_dir_fd):
        return None
    hidden = os.path.basename(os.fsdecode(target)).startswith(".")  # noqa: PTH119 - a text
    return "link" if hidden or "link_of_saved" not in _ANSWERS else "link_of_saved"


def _rename(
    source: Any,  # noqa: ANN401 - as above
    target: Any,  # noqa: ANN401 - as above
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> str | None:
    if not _is_here(target, dst_dir_fd):
        return None
    if "rename_open" in _ANSWERS and _is_open(source, src_dir_fd):
        return "rename_open"
    before, after = (
        os.path.dirname(_absolute(*one))  # noqa: PTH120 - a text
        for one in ((source, src_dir_fd), (target, dst_dir_fd))
    )
    return "rename_across" if before != after else "rename"


def _unlink(name: Any, *, dir_fd: int | None = None) -> str | None:  # noqa: ANN401 - as above
    refused = "unlink_open" in _ANSWERS and _is_here(name, dir_fd) and _is_open(name, dir_fd)
    return "unlink_open" if refused else None


def _ftruncate(descriptor: int, _length: int) -> str | None:
    return "ftruncate" if _is_here(descriptor) else None


def _statvfs(name: Any) -> str | None:  # noqa: ANN401 - as above
    return "statvfs" if _is_here(name) else None


if _ANSWERS:
    for _module, _name, _rule in (
        (os, "fsync", _fsync),
        (fcntl, "flock", _flock),
        (os, "link", _link),
        (os, "rename", _rename),
        (os, "unlink", _unlink),
        (os, "ftruncate", _ftruncate),
        (os, "statvfs", _statvfs),
    ):
        _replace(_module, _name, _rule)
    if "exclusive_rename" in _ANSWERS:
        from downloader import durable

        durable._exclusive_rename = lambda: lambda *_: _ANSWERS["exclusive_rename"]  # type: ignore[assignment]
