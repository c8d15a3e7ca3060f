"""Which file system a path is on, of what Linux tells of its mounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_NETWORK: Final = frozenset(
    {
        "afs",
        "ceph",
        "cifs",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.juicefs",
        "fuse.mount.davfs2",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mounted file system: where, and of which type."""

    folder: str
    type: str

    @property
    def is_network(self) -> bool:
        """Whether what is written there goes to another machine, or another kernel."""
        return self.type in _NETWORK


def mount_of(path: str, lines: Iterable[str]) -> Mount | None:
    """Return the mount that an absolute path without links is on; the last mounted covers others.

    `lines` are those of /proc/self/mountinfo (proc(5)); what cannot be read of them is passed over.
    """
    found = None
    for line in lines:
        mount = _parse(line)
        if mount is None or not _is_below(path, mount.folder):
            continue
        if found is None or len(mount.folder) >= len(found.folder):
            found = mount
    return found


def _parse(line: str) -> Mount | None:
    fields, dash, rest = line.partition(" - ")
    words, types = fields.split(" "), rest.split(" ")
    if not dash or len(words) < 6:
        return None
    folder = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), words[4])
    return Mount(folder, types[0]) if folder.startswith("/") else None


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
