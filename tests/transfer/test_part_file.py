"""Part files on a real disk: whose they are, what they hold, and how they get their final name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import Child
from hypothesis import given
from hypothesis import strategies as st

from downloader.rules.audio import AudioFormat
from downloader.rules.states import RunKey
from downloader.transfer.files import Hashed
from downloader.transfer.layout import PARTIAL
from downloader.transfer.output import Output
from downloader.transfer.part import HEAD_BYTES, NameTakenError
from downloader.transfer.unusable import DiskError, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.transfer.part import Part

DEFAULT = "text-to-sound"
KEY = RunKey(DEFAULT, 7)
OTHER_TYPE = RunKey("tts", 7)
ETAG = '"object-1"'
DATA = bytes(range(256)) * 1000


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Give an output folder, prepared."""
    output = Output(tmp_path / "audio", DEFAULT)
    output.prepare()
    return output


def parts_of(output: Output) -> list[Path]:
    """Return what is in the folder of parts."""
    return sorted((output.folder / PARTIAL).iterdir())


def only_part(output: Output) -> Path:
    """Return the one file in the folder of parts."""
    [path] = parts_of(output)
    return path


def begun(output: Output, data: bytes = DATA, etag: str = ETAG, total: int = 10**6) -> Path:
    """Leave a part that can be resumed; return its path."""
    with closing(output.open_part(KEY, None, None)) as part:
        part.belongs_to(etag, total)
        part.write(data)
        return part.path


def hashed(data: bytes) -> Hashed:
    """Return what is recorded of a file with these bytes."""
    return Hashed(len(data), hashlib.sha256(data).hexdigest())


def written(output: Output, data: bytes = DATA, key: RunKey = KEY) -> Part:
    """Begin a part and write to it."""
    part = output.open_part(key, None, None)
    part.write(data)
    return part


# ------------------------------------------------------------------------------- names


def test_folders(tmp_path: Path) -> None:
    """Preparing makes the output folder and, for us alone, the folder of parts."""
    output = Output(tmp_path / "a" / "b", DEFAULT)
    output.prepare()
    output.prepare()
    assert stat.S_IMODE((output.folder / PARTIAL).stat().st_mode) & 0o077 == 0
    assert parts_of(output) == []


def test_final_names(tmp_path: Path) -> None:
    """A file is named after its run id and format; other run types have a folder of their own."""
    output = Output(tmp_path, DEFAULT)
    assert output.final(KEY, "wav") == tmp_path / "7.wav"
    assert output.final(OTHER_TYPE, "flac") == tmp_path / "tts" / "7.flac"
    assert list(AudioFormat) == ["wav", "flac", "mp3", "ogg"]


def test_part_names(output: Output) -> None:
    """A part's name tells its run, a token of the claim, and the object once that is known."""
    with closing(output.open_part(KEY, None, None)) as part:
        names = [only_part(output).name]
        part.belongs_to(ETAG, 100)
        names.append(only_part(output).name)
        part.belongs_to(ETAG, 200)
        names.append(only_part(output).name)
        part.restart()
        names.append(only_part(output).name)
        assert only_part(output) == part.path
    pattern = re.compile(r"text-to-sound-7\.([0-9a-f]{12})\.([0-9a-f]+)\.part")
    found = [pattern.fullmatch(name) for name in names]
    assert len({match[1] for match in found if match}) == 1
    digests = [match[2] for match in found if match]
    assert digests[0] == digests[3] == "0"
    assert len(set(digests)) == 3


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative output folder means the one of the start, wherever the process goes later."""
    monkeypatch.chdir(tmp_path)
    output = Output(Path("audio"), DEFAULT)
    output.prepare()
    monkeypatch.chdir("/")
    with closing(written(output)) as part:
        part.publish(output.final(KEY, "wav"))
    assert (tmp_path / "audio" / "7.wav").read_bytes() == DATA


# --------------------------------------------------------------------------- take-over


def test_take_over_of_the_same_object(output: Output) -> None:
    """A part that nobody holds, of the object wanted, is gone on with, under a new token."""
    left = begun(output)
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert (part.size, part.head, part.linked) == (len(DATA), DATA[:HEAD_BYTES], False)
        assert only_part(output) == part.path != left
        part.write(b"more")
        assert part.hashed() == hashed(DATA + b"more")
    assert only_part(output).read_bytes() == DATA + b"more"


@pytest.mark.parametrize(
    ("etag", "total"), [('"object-2"', 10**6), (ETAG, 10**6 + 1), (ETAG, None), (None, None)]
)
def test_no_take_over_of_another_object(
    output: Output, etag: str | None, total: int | None
) -> None:
    """A part of another object, by ETag or by length, is never added to: it goes."""
    begun(output)
    with closing(output.open_part(KEY, etag, total)) as part:
        assert (part.size, part.head) == (0, b"")
        assert only_part(output) == part.path
        assert part.path.read_bytes() == b""


def test_no_take_over_of_unknown_objects(output: Output) -> None:
    """Bytes of an object without a name are never added to."""
    written(output).close()
    with closing(output.open_part(KEY, None, None)) as part:
        assert part.size == 0


def test_no_take_over_of_another_run(output: Output) -> None:
    """Parts of other runs, or of the same id under another type, are neither used nor touched."""
    others = [RunKey(DEFAULT, 77), RunKey(DEFAULT, 1), OTHER_TYPE, RunKey("x-text-to-sound", 7)]
    for key in others:
        with closing(output.open_part(key, None, None)) as other:
            other.belongs_to(ETAG, 10**6)
            other.write(DATA)
    before = parts_of(output)
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.size == 0
        assert parts_of(output) == sorted([*before, part.path])
    assert output.runs_with_parts() == {KEY, *others}


def test_several_parts_of_a_run(output: Output) -> None:
    """Of several parts that nobody holds one at most is gone on with, and the others go."""
    first = begun(output)
    second = first.with_name(first.name.replace(first.name.split(".")[1], "abcdef012345"))
    second.write_bytes(DATA)
    assert len(parts_of(output)) == 2
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.size == len(DATA)
        assert only_part(output) == part.path


@given(
    size=st.sampled_from([0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, 200_000]),
    cuts=st.lists(st.integers(0, 200_000), max_size=6),
    stops=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_hash_over_any_split(size: int, cuts: list[int], stops: list[bool]) -> None:
    """However the bytes come in, over chunks and over processes, hash, size and head are right."""
    data = (DATA * 2)[:size]
    places = [0, *sorted(min(cut, size) for cut in cuts), size]
    with tempfile.TemporaryDirectory() as folder:
        output = Output(Path(folder), DEFAULT)
        output.prepare()
        part = output.open_part(KEY, None, None)
        part.belongs_to(ETAG, size)
        for number, (start, stop) in enumerate(pairwise(places)):
            part.write(data[start:stop])
            if stops[number % len(stops)]:
                part.close()
                part = output.open_part(KEY, ETAG, size)
                assert part.size == stop
        with closing(part):
            assert part.hashed() == hashed(data)
            assert part.head == data[:HEAD_BYTES]
            part.publish(output.final(KEY, "wav"))
        assert output.final(KEY, "wav").read_bytes() == data


def test_restart(output: Output) -> None:
    """Beginning from zero forgets the bytes, the head and the hash."""
    begun(output)
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        part.restart()
        assert (part.size, part.head) == (0, b"")
        part.write(b"other")
        assert part.hashed() == hashed(b"other")
        assert part.path.read_bytes() == b"other"


def test_let_go(output: Output) -> None:
    """Bytes that can be continued stay when the work ends, others go, a published file stays."""
    unnamed = written(output)
    unnamed.let_go()
    assert parts_of(output) == []
    named = output.open_part(KEY, None, None)
    named.belongs_to(ETAG, 100)
    named.let_go()
    assert only_part(output) == named.path
    published = written(output)
    published.publish(output.final(KEY, "wav"))
    published.let_go()
    assert only_part(output) == published.path
    assert output.final(KEY, "wav").read_bytes() == DATA


# ---------------------------------------------------------------------- other processes

HOLDER = """
import sys
from pathlib import Path
from downloader.rules.states import RunKey
from downloader.transfer.output import Output
from downloader.transfer.part import NameTakenError

output = Output(Path(sys.argv[1]), "text-to-sound")
part = output.open_part(RunKey("text-to-sound", 7), None, None)
part.belongs_to(sys.argv[2], 10**6)
part.write(b"theirs")
print("held", flush=True)
for line in sys.stdin:
    part.write(b"!")
    part.sync()
    try:
        print(part.publish(output.final(RunKey("text-to-sound", 7), "wav")), flush=True)
    except NameTakenError:
        print("taken", flush=True)
"""


@contextmanager
def held_elsewhere(output: Output) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a part of the same object; a line sent to it: publish."""
    with Child(
        [sys.executable, "-c", HOLDER, str(output.folder), ETAG],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def publish_elsewhere(process: subprocess.Popen[str]) -> str:
    """Tell the other process to write on and to publish; return what came of it."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("publish\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_part_held_elsewhere(output: Output) -> None:
    """A part that another process holds is left alone, and that process can publish it yet."""
    with held_elsewhere(output) as process:
        theirs = only_part(output)
        with closing(output.open_part(KEY, ETAG, 10**6)) as part:
            assert part.size == 0
            part.write(b"ours")
            assert parts_of(output) == sorted([theirs, part.path])
            assert theirs.read_bytes() == b"theirs"
            assert publish_elsewhere(process) == "True"
            assert output.final(KEY, "wav").read_bytes() == b"theirs!"
            with pytest.raises(NameTakenError):
                part.publish(output.final(KEY, "wav"))
            assert part.path.read_bytes() == b"ours"
        assert output.final(KEY, "wav").read_bytes() == b"theirs!"


def test_both_publish_the_same(output: Output) -> None:
    """Two processes that fetched the same bytes agree on whichever file was there first."""
    with held_elsewhere(output) as process, closing(output.open_part(KEY, ETAG, 10**6)) as part:
        part.write(b"theirs!")
        assert part.publish(output.final(KEY, "wav"))
        inode = output.final(KEY, "wav").stat().st_ino
        assert publish_elsewhere(process) == "False"
        assert output.final(KEY, "wav").stat().st_ino == inode


def test_part_of_a_killed_process(output: Output) -> None:
    """A part whose process was killed is gone on with at once."""
    with held_elsewhere(output) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with closing(output.open_part(KEY, ETAG, 10**6)) as part:
            assert part.size == len(b"theirs")
            part.write(b" and ours")
            assert part.hashed() == hashed(b"theirs and ours")


def test_discard_leaves_what_is_held(output: Output) -> None:
    """Tidying removes the parts of the runs named that nobody holds, and nothing else."""
    other = RunKey(DEFAULT, 8)
    written(output, key=other).close()
    stranger = output.folder / PARTIAL / "notes.txt"
    stranger.write_text("not a part")
    with held_elsewhere(output) as process:
        theirs = {path.name for path in parts_of(output) if path.name.startswith(f"{DEFAULT}-7.")}
        assert output.discard_parts({KEY}) == 0
        assert output.runs_with_parts() == {KEY, other}
        assert publish_elsewhere(process) == "True"
        assert theirs < {path.name for path in parts_of(output)}
    assert output.discard_parts({KEY}) == 1
    assert output.discard_parts({KEY}) == 0
    assert output.final(KEY, "wav").read_bytes() == b"theirs!"
    assert output.runs_with_parts() == {other}
    assert stranger.read_text() == "not a part"


def test_discard_without_a_folder(tmp_path: Path) -> None:
    """Where there is no folder of parts there are none."""
    output = Output(tmp_path / "nowhere", DEFAULT)
    assert output.discard_parts({KEY}) == 0
    assert output.runs_with_parts() == set()


def test_new_part_tidied_away_before_its_lock(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that somebody removes between its making and its locking is made once more."""
    lock = fcntl.flock

    def tidied_once(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        only_part(output).unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", tidied_once)
    with closing(written(output)) as part:
        assert only_part(output).read_bytes() == DATA
        assert part.publish(output.final(KEY, "wav"))


# --------------------------------------------------------------------------- publishing


def test_publish(output: Output) -> None:
    """A published file is a second name of its part, and stays when the part goes."""
    final = output.final(KEY, "flac")
    with closing(written(output)) as part:
        part.sync()
        assert part.publish(final)
        assert final.stat().st_ino == part.path.stat().st_ino
        assert final.stat().st_nlink == 2
        part.discard()
    assert parts_of(output) == []
    assert final.read_bytes() == DATA
    assert final.stat().st_nlink == 1


def test_publish_forces_the_name_to_disk(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is synced after the file has its name in it, the file itself before."""
    order: list[str] = []
    link, fsync = os.link, os.fsync

    def noted_link(*names: str, **options: int) -> None:
        link(*names, **options)  # type: ignore[arg-type]
        order.append("link")

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(os, "fsync", noted_fsync)
    with closing(written(output)) as part:
        part.sync()
        part.publish(output.final(KEY, "wav"))
    assert order == ["file", "link", "folder"]


def test_publish_of_another_type(output: Output) -> None:
    """The folder of another run type is made when its first file is published."""
    with closing(written(output, key=OTHER_TYPE)) as part:
        part.publish(output.final(OTHER_TYPE, "wav"))
    assert (output.folder / "tts" / "7.wav").read_bytes() == DATA


def test_publish_of_an_equal_file(output: Output) -> None:
    """An equal file that has the name already is as good, and is left as it is."""
    final = output.final(KEY, "wav")
    final.write_bytes(DATA)
    inode = final.stat().st_ino
    with closing(written(output)) as part:
        assert part.publish(final) is False
    assert final.stat().st_ino == inode


OBSTACLES = ("file", "shorter", "empty", "folder", "link", "link to nothing", "pipe")


def obstruct(final: Path, kind: str) -> None:
    """Put something in a file's place."""
    elsewhere = final.with_name("elsewhere")
    match kind:
        case "file":
            final.write_bytes(DATA[::-1])
        case "shorter":
            final.write_bytes(DATA[:-1])
        case "empty":
            final.touch()
        case "folder":
            final.mkdir()
        case "link":
            elsewhere.write_bytes(DATA)  # equal even
            final.symlink_to(elsewhere)
        case "link to nothing":
            final.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(final)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("kind", OBSTACLES)
def test_name_taken(
    output: Output, monkeypatch: pytest.MonkeyPatch, kind: str, *, links: bool
) -> None:
    """Whatever else has the name stays as it is, with hard links and without."""
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    final = output.final(KEY, "wav")
    obstruct(final, kind)
    before = final.lstat()
    with closing(written(output)) as part, disk_errors(output.folder):
        with pytest.raises(NameTakenError):
            part.publish(final)
        assert part.path.read_bytes() == DATA
    after = final.lstat()
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
    )
    if kind == "link to nothing":
        assert not final.with_name("elsewhere").exists()


def failing(number: int) -> object:
    """Return a system call that fails."""

    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_publish_without_links(
    output: Output, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where the file system has no hard links the part is renamed, and an equal file adopted."""
    monkeypatch.setattr(os, "link", failing(number))
    final = output.final(KEY, "wav")
    with closing(written(output)) as part:
        assert part.publish(final)
        assert final.read_bytes() == DATA
        assert parts_of(output) == []
        part.discard()
    assert final.read_bytes() == DATA
    with closing(written(output)) as part:
        assert part.publish(final) is False
    assert final.read_bytes() == DATA


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_publish_that_fails(output: Output, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Any other failure is the disk's, publishes nothing, and leaves the part."""
    monkeypatch.setattr(os, "link", failing(number))
    with closing(written(output)) as part:
        with pytest.raises(DiskError), disk_errors(output.folder):
            part.publish(output.final(KEY, "wav"))
        assert part.path.read_bytes() == DATA
    assert not output.final(KEY, "wav").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_file_mode(output: Output, mask: int, mode: int) -> None:
    """The umask says who may read a saved file."""
    before = os.umask(mask)
    try:
        with closing(written(output)) as part:
            part.publish(output.final(KEY, "wav"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(output.final(KEY, "wav").stat().st_mode) == mode


# ----------------------------------------------------------------------------- adoption


def published(output: Output, audio_format: str = "wav") -> Path:
    """Publish a file and lose the commit: the part stays. Return the part's path."""
    with closing(written(output)) as part:
        part.publish(output.final(KEY, audio_format))
        return part.path


@pytest.mark.parametrize("audio_format", list(AudioFormat))
def test_adoption(output: Output, audio_format: AudioFormat) -> None:
    """A part with two names leads to the file that was published and never recorded."""
    published(output, audio_format)
    with closing(output.open_part(KEY, None, None)) as part:
        assert part.linked
        assert part.published() == (output.final(KEY, audio_format), audio_format, hashed(DATA))
        part.discard()
    assert parts_of(output) == []
    assert output.final(KEY, audio_format).read_bytes() == DATA


@pytest.mark.parametrize("order", ["first", "last"])
def test_adoption_wins_over_a_part_to_resume(
    output: Output, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """A published file is found though a part of the object wanted lies beside it."""
    done = published(output)
    done.rename(output.folder / "kept")
    resumable = begun(output)
    (output.folder / "kept").rename(done)
    names = [resumable.name, done.name]
    monkeypatch.setattr(os, "listdir", lambda _: names if order == "last" else names[::-1])
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.linked
        assert part.published() is not None
    monkeypatch.undo()
    assert only_part(output) == part.path


def test_published_file_that_was_removed(output: Output) -> None:
    """A part whose published file somebody deleted is a part again, and no file is claimed."""
    published(output)
    output.final(KEY, "wav").unlink()
    with closing(output.open_part(KEY, None, None)) as part:
        assert not part.linked
        assert part.size == 0


def test_published_file_that_was_moved(output: Output) -> None:
    """A file that somebody moved away is theirs: it is never written to again."""
    published(output)
    theirs = output.folder / "my favourite.wav"
    output.final(KEY, "wav").rename(theirs)
    with closing(output.open_part(KEY, None, None)) as part:
        assert part.linked
        assert part.published() is None
        part.abandon()
        assert (part.linked, part.size) == (False, 0)
        part.write(b"new bytes")
        part.publish(output.final(KEY, "wav"))
    assert theirs.read_bytes() == DATA
    assert theirs.stat().st_nlink == 1
    assert output.final(KEY, "wav").read_bytes() == b"new bytes"


def test_published_file_that_was_replaced(output: Output) -> None:
    """Another file under the final name is not taken for ours."""
    published(output)
    output.final(KEY, "wav").rename(output.folder / "moved")
    output.final(KEY, "wav").write_bytes(DATA)
    with closing(output.open_part(KEY, None, None)) as part:
        assert part.published() is None


# -------------------------------------------------------------------------------- links


def test_link_in_place_of_a_part(output: Output, tmp_path: Path) -> None:
    """A symbolic link that has a part's name is not followed."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = begun(output)
    path.unlink()
    path.symlink_to(victim)
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.size == 0
        part.write(DATA)
    output.discard_parts({KEY})
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_no_file_in_place_of_a_part(output: Output, kind: str) -> None:
    """What is no file but has a part's name is neither used nor waited for."""
    path = begun(output)
    path.unlink()
    obstruct(path, kind)
    with closing(output.open_part(KEY, ETAG, 10**6)) as part:
        assert part.size == 0


def test_link_in_place_of_the_folder_of_parts(tmp_path: Path) -> None:
    """A symbolic link in place of the folder of parts is refused, not followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    output = Output(tmp_path / "audio", DEFAULT)
    output.folder.mkdir()
    (output.folder / PARTIAL).symlink_to(elsewhere)
    with pytest.raises(DiskError, match=r"output folder .* cannot be (written to|made)"):
        output.prepare()
    with pytest.raises(DiskError):
        output.open_part(KEY, None, None)
    assert list(elsewhere.iterdir()) == []


def test_link_in_place_of_a_types_folder(output: Output, tmp_path: Path) -> None:
    """A symbolic link in place of a run type's folder is refused, not followed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (output.folder / "tts").symlink_to(elsewhere)
    with closing(written(output, key=OTHER_TYPE)) as part:
        with pytest.raises(NameTakenError, match="tts"):
            part.publish(output.final(OTHER_TYPE, "wav"))
        assert part.path.read_bytes() == DATA
    assert list(elsewhere.iterdir()) == []


def test_output_folder_that_is_a_link(tmp_path: Path) -> None:
    """The output folder itself may be a symbolic link: whoever runs the program chose it."""
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "audio").symlink_to(tmp_path / "large-disk")
    output = Output(tmp_path / "audio", DEFAULT)
    output.prepare()
    for key in (KEY, OTHER_TYPE):
        with closing(written(output, key=key)) as part:
            part.publish(output.final(key, "wav"))
        with closing(output.open_part(key, None, None)) as part:
            assert part.published() is not None
    assert (tmp_path / "large-disk" / "7.wav").read_bytes() == DATA
    assert (tmp_path / "large-disk" / "tts" / "7.wav").read_bytes() == DATA


# --------------------------------------------------------------------------------- disk


def test_short_writes(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a part of the bytes at a time gets all of them."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:999]))
    with closing(written(output)) as part:
        assert part.path.read_bytes() == DATA
        assert part.hashed() == hashed(DATA)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(output: Output, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A disk that fills up in the middle of a chunk is said to be full; what fitted is resumed."""
    write = os.write
    room = [150_000]

    def filling(descriptor: int, data: memoryview) -> int:
        taken = data[: room[0]]
        if not taken:
            raise OSError(number, os.strerror(number))
        room[0] -= len(taken)
        return write(descriptor, taken)

    with closing(output.open_part(KEY, None, None)) as part:
        part.belongs_to(ETAG, len(DATA))
        monkeypatch.setattr(os, "write", filling)
        with pytest.raises(DiskError) as raised, disk_errors(output.folder):
            part.write(DATA)
    assert raised.value.reason == "disk_full"
    said = "quota of the disk of" if number == errno.EDQUOT else "disk of"
    assert f"The {said} {output.folder} is " in raised.value.message
    assert "make room" in raised.value.message
    monkeypatch.setattr(os, "write", write)
    with closing(output.open_part(KEY, ETAG, len(DATA))) as part:
        assert part.size == 150_000
        part.write(DATA[part.size :])
        assert part.hashed() == hashed(DATA)


LIMITED = """
import resource, sys
from pathlib import Path
from downloader.rules.states import RunKey
from downloader.transfer.unusable import DiskError, disk_errors
from downloader.transfer.output import Output

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
output = Output(Path(sys.argv[1]), "text-to-sound")
part = output.open_part(RunKey("text-to-sound", 7), None, None)
try:
    with disk_errors(output.folder):
        part.write(bytes(200_000))
except DiskError as error:
    print(error.reason, error.message, part.path.stat().st_size, sep="\\n")
"""


def test_file_size_limit(output: Output) -> None:
    """A limit on the size of files (ulimit -f) is told as what it is, and does not kill."""
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(output.folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    reason, message, size = result.stdout.splitlines()
    assert reason == "output_unusable"
    assert "File too large" in message
    assert int(size) == 100_000


@pytest.mark.parametrize("place", ["file", "below a file", "long name", "device"])
def test_folder_that_cannot_be(tmp_path: Path, place: str) -> None:
    """A folder that cannot be made or written to is told with its path and the system's reason."""
    (tmp_path / "file").write_text("in the way")
    path = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "audio",
        "long name": tmp_path / ("x" * 300),
        "device": Path("/dev/null/audio"),
    }[place]
    output = Output(path, DEFAULT)
    with pytest.raises(DiskError, match=r"cannot be (written to|made)") as raised:
        output.prepare()
    assert raised.value.reason == "output_unusable"
    assert str(path) in raised.value.message
    with pytest.raises(DiskError):
        output.open_part(KEY, None, None)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "output_unusable"),
        (errno.EROFS, "output_unusable"),
        (errno.ENOSPC, "disk_full"),
    ],
)
def test_folder_that_takes_no_files(
    output: Output, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    """Preparing finds out whether files can be made, and says why not."""
    opened = os.open

    def no_new_files(path: str, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", no_new_files)
    for attempt in (output.prepare, lambda: output.open_part(KEY, None, None)):
        with pytest.raises(DiskError) as raised:
            attempt()
        assert raised.value.reason == reason


def test_folder_of_parts_that_was_removed(output: Output) -> None:
    """The folder of parts is made again where somebody tidied it away."""
    (output.folder / PARTIAL).rmdir()
    with closing(written(output)) as part:
        assert part.publish(output.final(KEY, "wav"))


def test_output_folder_that_is_gone(output: Output) -> None:
    """An output folder that vanishes, as an unmounted disk does, is not made anew elsewhere."""
    (output.folder / PARTIAL).rmdir()
    output.folder.rmdir()
    with pytest.raises(DiskError) as raised:
        output.open_part(KEY, None, None)
    assert raised.value.reason == "output_unusable"
    assert not output.folder.exists()


def test_a_folder_that_several_make_at_once(tmp_path: Path) -> None:
    """Transfers that are the first of their run type, at the same moment, share its new folder."""
    together = threading.Barrier(8)

    def publish(output: Output, run_id: int) -> bool:
        key = RunKey("tts", run_id)
        with closing(output.open_part(key, None, None)) as part:
            part.write(DATA)
            together.wait()
            return part.publish(output.final(key, AudioFormat.WAV))

    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            output = Output(tmp_path / str(number), DEFAULT)
            output.prepare()
            assert all(pool.map(publish, [output] * 8, range(1, 9)))
