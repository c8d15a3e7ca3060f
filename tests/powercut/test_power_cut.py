"""A power cut, played on the system calls of the real program.

The model is the worst that a file system may do: after the cut there is of a file's bytes what
was synced after they were written, of a folder's entries what was synced after they were made,
and nothing else; but of the write-ahead log there may be everything that was ever written to it,
synced or not, or only what was synced, whichever is worse. The cut comes after every single call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from powercut.tracing import Call, traced

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Program, StartSimulator

pytestmark = pytest.mark.needs("strace")

RUNS = range(101, 109)
_PART = re.compile(r"/\.partial/text-to-sound-(\d+)\.[^/]*\.part")
_FINAL = re.compile(r"(\d+)\.(?:wav|flac|mp3|ogg)")


def first_words(calls: list[Call]) -> Call:
    """Return the first write to standard output."""
    return next(call for call in calls if call.name == "write" and call.arguments.startswith("1<"))


class Disk:
    """What would be left of the saved files if the power went now."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._unsynced: set[int] = set()  # runs whose part has bytes that were not synced
        self._named: set[int] = set()  # runs whose final name was made, not synced
        self.parts: set[int] = set()  # runs with a part
        self.whole: set[int] = set()  # runs whose bytes are on the disk
        self.names: set[int] = set()  # runs whose final name is on the disk
        self.recorded: set[int] = set()  # runs that the log may say are done

    def play(self, call: Call) -> None:
        """Take in one call."""
        file = call.files[0] if call.files else ""
        part = _PART.search(file)
        if part and call.is_write:
            run_id = int(part[1])
            self.parts.add(run_id)
            self._unsynced.add(run_id)
            self.whole.discard(run_id)
        elif part and call.is_sync:
            self._unsynced.discard(int(part[1]))
            self.whole.add(int(part[1]))
        elif call.name in ("link", "linkat", "renameat", "rename"):
            final = _FINAL.fullmatch(call.texts[1].rpartition("/")[2])
            if final:
                assert int(final[1]) not in self._unsynced, "named before its bytes were synced"
                self._named.add(int(final[1]))
        elif call.is_sync and file == str(self._output):
            self.names |= self._named
        elif call.is_write and file.endswith("-wal"):
            self.recorded |= {
                int(run_id)
                for text in call.texts
                for run_id in re.findall(rf"{re.escape(str(self._output))}/(\d+)\.", text)
            }


def test_done_is_never_on_the_disk_without_its_file(
    program: Program, start_simulator: StartSimulator
) -> None:
    """Whenever the power goes, a run that the log may say is done has its name and its bytes."""
    simulator = start_simulator(min_size=20_000, max_size=2_500_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(RUNS)
    calls = traced(program, "run", "--drain", "--min-free", "0")
    program.assert_saved(simulator, RUNS)
    disk = Disk(program.output)
    for call in calls:
        disk.play(call)
        assert disk.recorded <= disk.names & disk.whole, call
    assert disk.recorded == disk.names == disk.whole == disk.parts == set(RUNS)


def test_the_order_of_each_file(program: Program, start_simulator: StartSimulator) -> None:
    """Bytes, fsync, name, fsync of the folder, commit, and only then the part goes."""
    simulator = start_simulator(min_size=20_000, max_size=1_500_000)
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(RUNS)
    calls = traced(program, "run", "--drain", "--min-free", "0")
    made = next(call for call in calls if call.name == "mkdir" and "audio" in call.texts[0])
    assert made.texts == [str(program.output)]
    assert any(
        call.is_sync and call.is_of(program.output.parent) and call.began > made.ended
        for call in calls
    )
    for run_id in RUNS:
        of_part = [call for call in calls if call.files and f"sound-{run_id}." in call.files[0]]
        written = max(call.ended for call in of_part if call.is_write)
        synced = next(call for call in of_part if call.is_sync and call.began > written)
        [named] = [
            call
            for call in calls
            if call.name == "linkat" and call.texts[1].startswith(f"{run_id}.")
        ]
        assert synced.ended < named.began
        folder = next(
            call
            for call in calls
            if call.is_sync and call.is_of(program.output) and call.began > named.ended
        )
        location = f"{program.output}/{run_id}."
        committed = next(
            call
            for call in calls
            if call.is_write
            and call.files[0].endswith("-wal")
            and any(location in text for text in call.texts)
        )
        assert folder.ended < committed.began
        [removed] = [
            call
            for call in calls
            if call.name in ("unlink", "unlinkat") and f"sound-{run_id}." in call.texts[0]
        ]
        assert committed.ended < removed.began


@pytest.mark.parametrize("command", ["submit", "retry", "cancel"])
def test_what_is_said_to_be_recorded_is_on_the_disk(program: Program, command: str) -> None:
    """`submit`, `retry` and `cancel` speak only when their commit, and its file, are synced."""
    program.env["DOWNLOADER_DATABASE"] = str(
        database := program.folder / "a" / "b" / "runs.sqlite3"
    )
    if command != "submit":
        program.submit(RUNS)
    if command == "retry":
        program("cancel", *map(str, RUNS))
    calls = traced(program, command, *map(str, RUNS))
    said = first_words(calls)
    log = database.with_name(database.name + "-wal")
    to_log = [call for call in calls if call.is_write and call.is_of(log)]
    written = max(call.ended for call in to_log)
    assert any(
        call.is_sync and call.is_of(log) and written < call.began and call.ended < said.began
        for call in calls
    )
    if command != "submit":
        return
    # A new database: its entry in its folder, that of its log, and those of new folders.
    for path in (database, log, database.parent, database.parent.parent):
        created = next(
            call for call in calls if call.name in ("openat", "mkdir") and call.texts == [str(path)]
        )
        assert any(
            call.is_sync
            and call.is_of(path.parent)
            and created.ended < call.began
            and call.ended < said.began
            for call in calls
        ), f"{path.name} may be gone after a power cut"


def test_the_order_of_a_checkpoint(program: Program, start_simulator: StartSimulator) -> None:
    """The log is synced before the database is written from it, the database before it goes."""
    simulator = start_simulator()
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(RUNS)
    calls = traced(program, "run", "--drain", "--min-free", "0")
    log = program.database.with_name(program.database.name + "-wal")
    checkpoints = 0
    log_synced = database_synced = True
    for call in calls:
        if call.is_write and call.is_of(log):
            log_synced = False
        elif call.is_sync and call.is_of(log):
            log_synced = True
        elif call.is_write and call.is_of(program.database):
            assert log_synced
            checkpoints += 1
            database_synced = False
        elif call.is_sync and call.is_of(program.database):
            database_synced = True
        elif call.name == "unlink" and call.texts == [str(log)]:
            assert database_synced
    assert checkpoints


def test_a_backup_has_its_name_when_it_is_whole(program: Program) -> None:
    """A backup is synced before it has its name, and its name before the command says so."""
    program.submit(RUNS)
    target = program.folder / "copies" / "backup.sqlite3"
    target.parent.mkdir()
    calls = traced(program, "db", "backup", str(target))
    part = target.with_name(target.name + ".part")
    [named] = [
        call for call in calls if call.name.startswith("link") and call.texts[1] == str(target)
    ]
    written = max(call.ended for call in calls if call.is_write and call.is_of(part))
    assert any(
        call.is_sync and call.is_of(part) and written < call.began and call.ended < named.began
        for call in calls
    )
    said = first_words(calls)
    assert any(
        call.is_sync
        and call.is_of(target.parent)
        and named.ended < call.began
        and call.ended < said.began
        for call in calls
    )
