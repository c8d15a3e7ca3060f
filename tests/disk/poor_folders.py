"""File systems that lack some of what saving a file uses, as whole processes meet them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness import Program

NUMBERS: Final = (
    *("EINVAL", "ENOLCK", "EXDEV", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EPERM", "EACCES"),
    *("EMLINK", "EBADF", "ENOTTY", "EISDIR", "524"),
)
"""By what file systems say that they have no such thing; 524 is Linux's ENOTSUPP."""

KINDS: Final = {
    "CIFS": {"fsync_folder": "EINVAL", "flock": "EACCES", "link": "EOPNOTSUPP"},
    "NFS without its locks": {"flock": "ENOLCK"},
    "NFS 2, of old": {"flock": "EINVAL", "exclusive_rename": "EINVAL", "link": "EPERM"},
    "a pool by FUSE": {"fsync_folder": "ENOSYS", "link": "EXDEV", "exclusive_rename": "EINVAL"},
    "a bucket by FUSE": {
        "fsync_folder": "ENOTSUP",
        "flock": "ENOSYS",
        "link": "ENOSYS",
        "exclusive_rename": "ENOSYS",
        "ftruncate": "EPERM",
        "statvfs": "ENOSYS",
    },
    "Android": {"link": "EACCES", "flock": "ENOSYS", "fsync_folder": "EPERM"},
    "exFAT": {"link": "EPERM", "exclusive_rename": "EINVAL"},
    "a share of VirtualBox": {"link": "EPERM", "fsync_folder": "EINVAL", "fsync_file": "EINVAL"},
    "names that are given with files closed": {
        "link": "EPERM",
        "unlink_open": "EBUSY",
        "rename_open": "ETXTBSY",
    },
    "a folder of parts of its own": {
        "link": "EXDEV",
        "exclusive_rename": "EXDEV",
        "rename_across": "EXDEV",
    },
}
"""Kinds of file systems with what they answer, seen in the field."""


def poor(program: Program, answers: dict[str, str]) -> None:
    """Have the program find its output folder on a file system that answers so."""
    program.env["POOR_FOLDER"] = str(program.output)
    program.env["POOR"] = ",".join(f"{call}={number}" for call, number in answers.items())
    program.env["PYTHONPATH"] = str(Path(__file__).with_name("poor"))
