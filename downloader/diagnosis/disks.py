"""Checks of folders and disks: is there a place to write to, and of which kind."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from downloader.diagnosis.findings import Check, ok, problem, warning
from downloader.durable import UNTOLD_BYTES, closed_on_the_way, free_bytes, is_folder
from downloader.rules.mounts import Mount, mount_of
from downloader.transfer.files import opened_folder
from downloader.transfer.layout import PARTIAL
from downloader.transfer.trial import Lacking, try_out
from downloader.transfer.unusable import FULL, advice

if TYPE_CHECKING:
    from collections.abc import Iterator

_FEW_FILES: Final = 1000
_MOUNTS: Final = Path("/proc/self/mountinfo")


def nearest_folder(path: Path) -> Path:
    """Return a path, or the nearest above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def cannot_be_made(path: Path) -> str | None:
    """Return why what is not there cannot be made, None where nothing speaks against it."""
    above = nearest_folder(path)
    if not is_folder(above):
        return f"{above} is not a folder"
    closed = closed_on_the_way(above)
    if closed is not None:
        return f"{closed} may not be searched (chmod u+x allows its owner to)"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"{above} may not be written to"
    return None


def check_output(folder: Path, *, probe: bool) -> Iterator[Check]:
    """See that files can be saved; a `probe` is written and removed, else rights are looked at."""
    if not os.path.lexists(folder):
        why = cannot_be_made(folder)
        closed = closed_on_the_way(folder)
        if closed is not None:
            yield problem(
                "output",
                f"{folder} cannot be looked at: {closed} may not be searched",
                f"chmod u+x {shlex.quote(str(closed))}, as its owner, or name another folder with "
                "--output",
            )
        elif why is None:
            yield ok("output", f"{folder} will be created")
        else:
            yield problem(
                "output",
                f"{folder} is not there and cannot be created: {why}",
                "create it, or name another folder with --output",
            )
        return
    said, lacking = _why_closed(folder), None
    if said is None and probe:
        try:
            lacking = _try_out(folder)
        except OSError as error:
            if error.errno not in FULL:  # of that another check tells
                said = _said(folder, error)
    if said is not None:
        yield problem(
            "output",
            f"{folder} cannot be written to: {said}",
            "check its permissions, or name another folder with --output",
        )
        return
    yield ok("output", f"{folder} can be written to")
    if probe:
        yield from _check_lacking(folder, lacking)


def _why_closed(folder: Path) -> str | None:
    """Say why files cannot be made in a folder, by what is there and the rights alone."""
    for one in (folder, folder / PARTIAL):
        where = "" if one is folder else f", in {PARTIAL}"
        if one is not folder and not os.path.lexists(one):
            continue
        try:
            _must_be_writable(one)
        except NotADirectoryError:
            return f"{'it' if one is folder else f'{PARTIAL} in it'} is not a folder"
        except OSError as error:
            return _said(one, error, where)
    return None


def _said(folder: Path, error: OSError, where: str = "") -> str:
    return f"{error.strerror}{where}.{advice(folder, error.errno)}".removesuffix(".")


def _must_be_writable(folder: Path) -> None:
    """Raise what the operating system says where files cannot be made in a folder."""
    if not stat.S_ISDIR(folder.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


def _try_out(folder: Path) -> Lacking:
    """Save a little file, by way of the folder of parts where there is one; none is made."""
    partial = folder / PARTIAL
    with (
        opened_folder(folder, may_be_link=True) as target,
        opened_folder(partial if is_folder(partial) else folder, may_be_link=True) as source,
    ):
        return try_out(source, target)


def _check_lacking(folder: Path, lacking: Lacking | None) -> Iterator[Check]:
    """Tell what saving files has to do without, and what that costs."""
    if lacking is None:
        for name in ("hard_links", "file_locks", "forced_writes"):
            yield ok(name, "not known: the disk is full")
        return
    yield _found(
        lacking.links,
        "hard_links",
        "a file can have two names, as publishing it needs",
        f"a file in {folder} cannot have two names",
        "files are renamed instead, which works; but where the program is killed in between, "
        "a file is fetched again, and a file that another program makes at that very moment "
        "may be overwritten",
    )
    yield _found(
        lacking.locks,
        "file_locks",
        "a file can be locked, as going on with what was cut off needs",
        f"a file in {folder} cannot be locked",
        "what was cut off is copied before it is gone on with, which works; it takes the disk "
        "once more to read and write, and what is left of it may stay for an hour",
    )
    yield _found(
        lacking.forcing,
        "forced_writes",
        "files and names can be forced to the disk (fsync)",
        f"what is written in {folder} cannot be forced to the disk (fsync)",
        "files are saved all the same; but a power cut may take some that are recorded as saved: "
        "after one, `downloader verify --repair` has them fetched again",
    )


def _found(error: OSError | None, name: str, there: str, not_there: str, advice: str) -> Check:
    if error is None:
        return ok(name, there)
    return warning(name, f"{not_there}: {error.strerror}", advice)


def check_room(name: str, folder: Path, min_free_bytes: int) -> Check:
    """See that a disk has the bytes that are to stay free, and room for more files."""
    place = nearest_folder(folder)
    place = place if is_folder(place) else place.parent
    try:
        free = free_bytes(place)
        if free == UNTOLD_BYTES:
            return ok(name, f"not known: the file system of {place} does not tell what is free")
        found = os.statvfs(place)
    except OSError as error:
        return problem(
            name, f"the disk of {place} cannot be looked at: {error.strerror}", "check the disk"
        )
    left = f"{_megabytes(free)} free on the disk of {place}"
    if free < min_free_bytes or free == 0:
        return problem(
            name,
            f"{left}, and {_megabytes(min_free_bytes)} are to stay free (--min-free)",
            "make room: until then nothing is saved",
        )
    if found.f_files and found.f_favail < _FEW_FILES:
        few = f"room for {found.f_favail} more files (inodes) on the disk of {place}"
        advice = "remove files that are not needed: each saved file takes one"
        return (warning if found.f_favail else problem)(name, few, advice)
    return ok(name, left)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def check_output_file_system(folder: Path) -> Check:
    """See whether files are saved on this machine."""
    mount = _mount_of(folder)
    if mount is None or not mount.is_network:
        return ok("output_file_system", _described(mount))
    return warning(
        "output_file_system",
        f"{folder} is on a network file system ({mount.type}, mounted at {mount.folder})",
        "this works as far as that keeps its promises: a power cut there may lose files that are "
        "recorded as saved, and locks may not hold between machines; `downloader verify` compares",
    )


def check_database_file_system(path: Path) -> Check:
    """See that the database is on this machine: SQLite's WAL needs memory that is shared."""
    mount = _mount_of(path)
    if mount is None or not mount.is_network:
        return ok("database_file_system", _described(mount))
    return problem(
        "database_file_system",
        f"the database is on a network file system ({mount.type}, mounted at {mount.folder}), "
        "where SQLite's WAL does not work: it may be damaged",
        "move it to a local disk while nothing runs, and name it with --database",
    )


def _mount_of(path: Path) -> Mount | None:
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        return mount_of(os.path.realpath(nearest_folder(path)), lines)
    except OSError:  # no Linux
        return None


def _described(mount: Mount | None) -> str:
    if mount is None:
        return "not known: this system does not tell which file systems are of the network"
    return f"{mount.type}, mounted at {mount.folder}: no network file system that is known"
