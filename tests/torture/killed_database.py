"""Kill what works on the database as a whole: migrations and backups."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from store.scripts import ADD_A_TABLE, NEXT, next_version
from torture import truth
from torture.rig import QUICK
from torture.truth import Expected, assert_nothing

from downloader.failpoints import At
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from pathlib import Path

    from torture.killed_steps import Passes
    from torture.rig import Rig

LAST: Final = NEXT + "1"
_UPGRADE: Final = """
import sys
from pathlib import Path
from downloader import failpoints
from downloader.store.database import Database, database_url
from downloader.store.migrate import upgrade
database = Database(database_url(sys.argv[1]))
failpoints.arm(sys.argv[3])
upgrade(database, Path(sys.argv[2]))
database.close()
"""
_ADD_AND_FILL: Final = (
    ADD_A_TABLE,
    "op.execute('ALTER TABLE run_events ADD COLUMN note TEXT')",
    "op.execute(\"UPDATE run_events SET note = 'kept'\")",
)
_AND_AGAIN: Final = (
    "op.execute('ALTER TABLE runs ADD COLUMN note TEXT')",
    "op.execute(\"UPDATE runs SET note = 'kept'\")",
)
_RUNS_KEPT: Final = 6_000
"""So many rows make a database of more than two times 256 pages, the step of a backup."""


def _two_versions(folder: Path) -> Path:
    """Return scripts with two versions after this one, which change rows, each in its turn."""
    scripts = next_version(folder, *_ADD_AND_FILL)
    first = (scripts / "versions" / f"{NEXT}_of_the_future.py").read_text(encoding="utf-8")
    second = first.replace(f"down_revision = {SCHEMA_REVISION!r}", f"down_revision = {NEXT!r}")
    second = second.replace(f"\nrevision = {NEXT!r}", f"\nrevision = {LAST!r}")
    for before, after in zip(_ADD_AND_FILL, (*_AND_AGAIN, "pass"), strict=True):
        second = second.replace(before, after)
    (scripts / "versions" / f"{LAST}_after_that.py").write_text(second, encoding="utf-8")
    return scripts


def _ours(database: Path) -> tuple[list[Any], list[Any]]:
    """Return the rows and the history, without what the later versions have added."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
        raw.row_factory = sqlite3.Row
        return tuple(  # type: ignore[return-value] # two of them
            [
                {name: row[name] for name in row.keys() if name != "note"}  # noqa: SIM118 - a Row is no dict
                for row in raw.execute(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 - two names of ours
            ]
            for table in ("runs", "run_events")
        )


def revision(database: Path) -> str | None:
    """Return a database's revision, None for an empty one; its schema has to be just that."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        if not tables:
            return None
        [(found,)] = raw.execute("SELECT version_num FROM alembic_version")
        assert ("of_the_future" in tables) == (found in (NEXT, LAST))
        for table, since in (("run_events", (NEXT, LAST)), ("runs", (LAST,))):
            columns = {row[1] for row in raw.execute(f"PRAGMA table_info({table})")}
            assert ("note" in columns) == (found in since), (table, found)
            if found in since:
                query = f"SELECT count(*) FROM {table} WHERE note IS NOT 'kept'"  # noqa: S608 - as above
                assert raw.execute(query).fetchall() == [(0,)]
        return str(found)


def _backups(rig: Rig) -> list[Path]:
    """Return the backups made by migrations that are there under their names."""
    return [p for p in rig.folder.glob("*.backup-*") if ".part" not in p.name]


def _upgrade(rig: Rig, scripts: Path, failpoints: str = "") -> int:
    """Migrate to the newest version of these scripts; return the exit code."""
    running = rig.start_python(_UPGRADE, str(rig.database), str(scripts), failpoints)
    if running.wait() == -signal.SIGKILL:
        rig.killed.add(running.process.pid)
    else:
        assert running.wait() == 0, running.said()
    return running.wait()


def killed_while_migrating(rig: Rig, at: At, _passes: Passes) -> None:
    """Kill a first start, then a later migration: each is whole, or has not happened."""
    if at is At.MIGRATE_APPLIED:
        rig.die("submit", "1", "2", at=at)
        assert revision(rig.database) is None
    rig.succeed("submit", *map(str, range(1, 13)))
    assert revision(rig.database) == SCHEMA_REVISION
    rig.succeed("run", "--drain", *QUICK)
    before = _ours(rig.database)
    scripts = _two_versions(rig.folder)
    reached = {1: SCHEMA_REVISION, 2: NEXT} if at is At.MIGRATE_APPLIED else {1: SCHEMA_REVISION}
    for number, (passes, left) in enumerate(reached.items(), 1):
        assert _upgrade(rig, scripts, f"{at}=kill@{passes}") == -signal.SIGKILL
        assert revision(rig.database) == left
        assert _ours(rig.database) == before
        assert len(_backups(rig)) == number
    if revision(rig.database) == SCHEMA_REVISION:
        # This version's own program goes on with it as if nothing had been.
        rig.succeed("run", "--drain", *QUICK)
    assert _upgrade(rig, scripts) == 0
    assert revision(rig.database) == LAST
    assert _ours(rig.database) == before
    for backup in _backups(rig):
        assert revision(backup) in (SCHEMA_REVISION, NEXT)
        assert _ours(backup) == before
    assert_nothing(rig.wrong(Expected(range(1, 13))))


def killed_while_backing_up(rig: Rig, at: At, _passes: Passes) -> None:
    """Kill backups of a database that a daemon writes to: no name without a whole copy."""
    saved, kept = range(1, 81), range(10_001, 10_001 + _RUNS_KEPT)
    rig.simulator.set_options(
        type(rig.simulator.options)(min_size=2_000, max_size=9_000, finish_spread=2.5)
    )
    rig.submit(kept)
    _cancel_all(rig.database)
    rig.submit(saved)
    daemon = rig.start("run", *QUICK)
    rig.until(lambda: rig.done() > 0, "the first file", daemon)
    target = rig.folder / "copy.sqlite3"
    for passes in (1, 2) if at is At.BACKUP_COPYING else (1,):
        rig.die("db", "backup", str(target), at=f"{at}@{passes}")
        assert not target.exists()
    assert daemon.alive
    rig.succeed("db", "backup", str(target))
    assert revision(target) == SCHEMA_REVISION
    copied = truth.Snapshot.of(target)
    assert copied.rows.keys() == {*saved, *kept}
    truth.assert_nothing(truth.wrong_at_any_moment(target, rig.program.output))
    assert not [*rig.folder.glob("copy.sqlite3.*")]
    rig.until(lambda: rig.done() == len(saved), "every file", daemon)
    daemon.process.terminate()
    assert daemon.wait() == 0, daemon.said()
    if at is At.BACKUP_COPYING:
        _kill_the_backup_of_a_migration(rig, at)
    assert_nothing(rig.wrong(Expected([*saved, *kept], cancelled=kept)))


def _kill_the_backup_of_a_migration(rig: Rig, at: At) -> None:
    before, scripts = _ours(rig.database), _two_versions(rig.folder)
    assert _upgrade(rig, scripts, f"{at}=kill") == -signal.SIGKILL
    assert (_backups(rig), revision(rig.database)) == ([], SCHEMA_REVISION)
    assert _ours(rig.database) == before
    assert _upgrade(rig, scripts) == 0
    assert revision(rig.database) == LAST
    [backup] = _backups(rig)
    assert (revision(backup), _ours(backup)) == (SCHEMA_REVISION, before)
    shutil.rmtree(scripts)


def _cancel_all(database: Path) -> None:
    """Cancel every run at once, as `cancel` does one by one."""
    with contextlib.closing(sqlite3.connect(database)) as raw, raw:
        raw.execute(
            "INSERT INTO run_events (run_type, run_id, at, from_state, to_state, reason)"
            " SELECT run_type, run_id, updated_at, state, 'cancelled', 'cancel' FROM runs"
        )
        raw.execute("UPDATE runs SET state = 'cancelled', next_attempt_at = NULL")
