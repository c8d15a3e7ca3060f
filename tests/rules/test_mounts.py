from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.mounts import mount_of

LINES = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv rw - nfs4 server:/srv rw,vers=4.2
31 30 0:41 / /srv/local rw shared:3 master:2 - xfs /dev/vdb rw
32 22 0:42 / /mnt/with\040space rw - fuse.sshfs me@server: rw
33 22 0:43 / /over rw - ext4 /dev/vdc rw
34 22 0:44 / /over rw - cifs //server/share rw
nonsense
35 22 0:45 / relative rw - nfs x rw
""".splitlines()


@pytest.mark.parametrize(
    ("path", "folder", "type_", "network"),
    [
        ("/", "/", "ext4", False),
        ("/home/ada", "/", "ext4", False),
        ("/srv", "/srv", "nfs4", True),
        ("/srv/audio/1.wav", "/srv", "nfs4", True),
        ("/srv/local/audio", "/srv/local", "xfs", False),
        ("/srv2/audio", "/", "ext4", False),
        ("/mnt/with space/audio", "/mnt/with space", "fuse.sshfs", True),
        ("/over/audio", "/over", "cifs", True),
    ],
)
def test_mount_of(path: str, folder: str, type_: str, network: bool) -> None:  # noqa: FBT001 - of the table
    """The narrowest mount holds, and of two in one place the later one."""
    mount = mount_of(path, LINES)
    assert mount is not None
    assert (mount.folder, mount.type, mount.is_network) == (folder, type_, network)


@given(st.lists(st.text()), st.text())
def test_mount_of_never_raises(lines: list[str], path: str) -> None:
    """Whatever the system lists, there is an answer or none."""
    mount = mount_of("/" + path, lines)
    assert mount is None or mount.folder.startswith("/")
