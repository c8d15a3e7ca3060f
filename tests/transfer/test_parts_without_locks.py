"""Parts where the file system has no locks: nobody writes to what another may be writing to."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from downloader.rules.states import RunKey
from downloader.transfer.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from downloader.transfer.part import Part

KEY = RunKey("text-to-sound", 7)
ETAG = '"object-1"'
TOTAL = 10**7
DATA = bytes(range(256)) * 8000
LATER = 2 * 3600


def refuse_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no lock granted any more."""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    """Give an output folder without locks, prepared."""
    refuse_locks(monkeypatch)
    output = Output(tmp_path / "audio", KEY.run_type)
    output.prepare()
    return output


def begun(output: Output) -> Part:
    """Begin a part that can be gone on with, and leave it open, as a frozen process does."""
    part = output.open_part(KEY, None, None)
    part.belongs_to(ETAG, TOTAL)
    part.write(DATA)
    return part


def test_a_part_is_copied(output: Output) -> None:
    """What another may be writing to is copied: its bytes are kept, and not written to."""
    with closing(begun(output)) as theirs:
        assert ".u" in theirs.name
        inode = theirs.path.stat().st_ino
        with closing(output.open_part(KEY, ETAG, TOTAL)) as ours:
            assert (ours.size, ours.hashed()) == (len(DATA), theirs.hashed())
            assert ours.path.stat().st_ino != inode
            theirs.write(b"theirs")
            ours.write(b"ours")
            assert ours.path.read_bytes() == DATA + b"ours"
            assert [one.name for one in ours.path.parent.iterdir()] == [ours.name]
            with pytest.raises(FileNotFoundError):
                theirs.publish(output.final(KEY, "wav"))
            theirs.let_go()  # has nothing to say of its own
            assert ours.publish(output.final(KEY, "wav"))
        assert output.final(KEY, "wav").read_bytes() == DATA + b"ours"


def test_a_part_that_another_process_could_not_lock(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is given locks there does not take one for a proof of anything."""
    with closing(begun(output)) as theirs:
        inode = theirs.path.stat().st_ino
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        assert output.discard_parts({KEY}) == 0
        with closing(output.open_part(KEY, ETAG, TOTAL)) as ours:
            assert ours.size == len(DATA)
            assert ours.path.stat().st_ino != inode
            assert ".u" not in ours.name


@pytest.mark.parametrize("when", ["while it is read", "before its new name"])
def test_a_part_that_begins_anew_while_it_is_copied(
    output: Output, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The start of one object is never joined to the end of another."""
    theirs, read = begun(output), os.read

    def restarting(descriptor: int, size: int) -> bytes:
        monkeypatch.setattr(os, "read", read)
        found = read(descriptor, 1000)
        theirs.restart()
        theirs.write(b"another object" * 1000)
        if when == "before its new name":
            return found
        return found + read(descriptor, size)

    monkeypatch.setattr(os, "read", restarting)
    with closing(theirs), closing(output.open_part(KEY, ETAG, TOTAL)) as ours:
        assert ours.size == 0
        assert ours.path.read_bytes() == b""


def test_a_part_of_another_object(output: Output) -> None:
    """Bytes of another object are not copied, and go."""
    with closing(begun(output)), closing(output.open_part(KEY, '"object-2"', TOTAL)) as ours:
        assert ours.size == 0
        assert [one.name for one in ours.path.parent.iterdir()] == [ours.name]


def test_what_is_left_of_a_run_that_is_over(output: Output) -> None:
    """A part that nobody has written to for an hour goes with the next sweep, and none before."""
    part = begun(output)
    part.close()
    assert output.discard_parts({KEY}) == 0
    then = part.path.stat().st_mtime - LATER
    os.utime(part.path, (then, then))
    assert output.discard_parts({KEY}) == 1


def test_a_published_file_is_adopted(output: Output) -> None:
    """A file whose commit was lost is proved by its part, lock or no lock."""
    part = begun(output)
    part.publish(output.final(KEY, "wav"))
    part.close()
    with closing(output.open_part(KEY, ETAG, TOTAL)) as ours:
        assert ours.linked
        found = ours.published()
        assert found is not None
        assert found[0] == output.final(KEY, "wav")
