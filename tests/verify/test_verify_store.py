from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from store.driving import OTHER_TYPE, Driver, at, key

from downloader.rules.audio import AudioFormat
from downloader.rules.states import MAX_RUN_ID, State
from downloader.rules.steps import Published
from downloader.store import verification
from downloader.store.migrate import open_database
from downloader.transfer.layout import Layout, run_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from downloader.store.verification import SavedRun

ADOPTED = Published("/audio/1.wav", 7, "0" * 64, "wav", None, adopted=True)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """Drive runs through a new database."""
    with closing(open_database(tmp_path / "runs.sqlite3")) as database:
        yield Driver(database)


def _fill(driver: Driver, count: int) -> None:
    """Make some runs of two types, of which every third is not done."""
    with driver.database.write() as connection:
        for run_type in (OTHER_TYPE, "text-to-sound"):
            for run_id in range(1, count + 1):
                connection.exec_driver_sql(
                    "INSERT INTO runs (run_type, run_id, state, location, bytes, sha256,"
                    " audio_format, submitted_at, done_at, updated_at)"
                    " VALUES (?, ?, 'done', ?, 1, ?, 'wav', ?, ?, ?)",
                    (run_type, run_id, f"/{run_type}/{run_id}.wav", "0" * 64)
                    + ("2026-01-01 00:00:00.000000",) * 3,
                )
        connection.exec_driver_sql(
            "UPDATE runs SET state = 'cancelled', location = NULL, sha256 = NULL, done_at = NULL"
            " WHERE run_id % 3 = 0"
        )


@pytest.mark.parametrize("count", [0, 1, 375, 376, 377, 1000])
def test_every_done_run_is_read_once(driver: Driver, count: int) -> None:
    """Pages of any number end to end hold each done run once, in the order of type and id."""
    _fill(driver, count)
    found = [run.key for run in verification.saved_runs(driver.database)]
    assert found == [
        key(run_id, run_type)
        for run_type in ("text-to-sound", OTHER_TYPE)
        for run_id in range(1, count + 1)
        if run_id % 3
    ]


def test_reading_goes_on_while_runs_change(driver: Driver) -> None:
    """No transaction lasts between pages: others write, and what they finish ahead is seen."""
    _fill(driver, 900)
    runs = verification.saved_runs(driver.database)
    first = next(runs)
    driver.execute("DELETE FROM runs WHERE run_type = 'tts' AND run_id > 10")
    driver.execute("UPDATE runs SET run_id = 5000 WHERE run_type = 'tts' AND run_id = 1")
    left = [run.key for run in runs if run.key.run_type == OTHER_TYPE]
    assert first.key == key(1)
    assert left == [key(run_id, OTHER_TYPE) for run_id in (2, 4, 5, 7, 8, 10, 5000)]


def test_pages_are_found_by_the_key(driver: Driver) -> None:
    """A page is read from where the last one ended, by the key's index and without sorting."""
    seen: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's event
        seen.append((event[2], event[3]))

    _fill(driver, 600)
    sa.event.listen(driver.database.engine, "before_cursor_execute", note)
    assert sum(1 for _ in verification.saved_runs(driver.database)) == 800
    verification.tracked(driver.database, [key(1), key(2, OTHER_TYPE)])
    sa.event.remove(driver.database.engine, "before_cursor_execute", note)
    queries = [(statement, values) for statement, values in seen if " runs" in statement]
    assert len(queries) == 4
    for statement, values in queries:
        for row in driver.query("EXPLAIN QUERY PLAN " + statement, *values):
            assert row[3].startswith("SEARCH runs USING INDEX sqlite_autoindex_runs_1 "), row


def test_the_folders_of_saved_files(driver: Driver) -> None:
    """Files and bytes are counted by the folder they are recorded in, whatever its name."""
    _fill(driver, 3)
    odd = ["/a b/ä.wav/1.wav", "/a b/ä.wav/2.wav", "/3.wav", "/wav/w/a.v"]
    for run_id, location in enumerate(odd, 100):
        driver.execute(
            "INSERT INTO runs (run_type, run_id, state, location, bytes, sha256, audio_format,"
            " submitted_at, done_at, updated_at) SELECT run_type, ?, state, ?, 10, sha256,"
            " audio_format, submitted_at, done_at, updated_at"
            " FROM runs WHERE run_type = 'tts' AND run_id = 1",
            run_id,
            location,
        )
    folders = verification.saved_folders(driver.database)
    assert {(folder.path, folder.files, folder.bytes) for folder in folders} == {
        ("/tts", 2, 2),
        ("/text-to-sound", 2, 2),
        ("/a b/ä.wav", 2, 20),
        ("/", 1, 10),
        ("/wav/w", 1, 10),
    }
    for folder in folders:
        runs = list(verification.saved_runs(driver.database, folder))
        assert len(runs) == folder.files
        assert {str(Path(run.location).parent) for run in runs} == {folder.path}


def _must_not(run: SavedRun) -> str:
    raise AssertionError(run)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE runs SET sha256 = '1' || substr(sha256, 2)",
        "UPDATE runs SET location = location || 'x'",
        "UPDATE runs SET done_at = '2026-02-01 00:00:00.000000'",
    ],
)
def test_a_run_that_is_not_the_same_is_not_put_back(driver: Driver, change: str) -> None:
    """Where the row has changed since it was read, nothing is moved, changed or told."""
    driver.done(1)
    [run] = verification.saved_runs(driver.database)
    assert verification.unchanged(driver.database, [run]) == {key(1)}
    driver.execute(change)
    assert verification.unchanged(driver.database, [run]) == set()
    before = (driver.row(1), driver.reasons(1))
    verification.put_back(driver.database, [(run, "damaged")], at(1), _must_not)
    assert (driver.row(1), driver.reasons(1)) == before


def test_a_run_is_left_if_there_is_no_way(driver: Driver) -> None:
    """A run whose file cannot be moved out of the way stays done; the others are put back."""
    driver.done(1, 2)
    runs = list(verification.saved_runs(driver.database))
    verification.put_back(
        driver.database,
        [(run, "damaged") for run in runs],
        at(1),
        lambda run: None if run.key.run_id == 1 else "Edited.",
    )
    assert driver.states() == {1: "done", 2: "pending"}
    assert driver.query("SELECT detail FROM run_events WHERE reason = 'damaged'") == [("Edited.",)]


@pytest.mark.parametrize(
    ("state", "adopted"),
    [(state, state in ("pending", "ready", "failed", "downloading")) for state in State],
)
@pytest.mark.parametrize("expired", [True, False])
def test_what_may_be_adopted(
    driver: Driver,
    state: State,
    adopted: bool,  # noqa: FBT001 - a parameter of the test
    expired: bool,  # noqa: FBT001 - as above
) -> None:
    """Any run may be but a done one, a cancelled one, and one whose claim lasts."""
    driver.one_of_each_state()
    [(run_id,)] = driver.query("SELECT run_id FROM runs WHERE state = ?", state.value)
    before = driver.row(run_id)
    now = at(60) + timedelta(microseconds=1 if expired else 0)
    expected = adopted and (expired or state is not State.DOWNLOADING)
    assert verification.adopt(driver.database, key(run_id), ADOPTED, now) == expected
    after = driver.row(run_id)
    if not expected:
        assert after == before
        return
    assert (after["state"], after["location"], after["bytes"]) == ("done", "/audio/1.wav", 7)
    assert after["attempts"] == before["attempts"] + 1
    assert driver.reasons(run_id)[-1] == "adopted"


def test_a_worker_whose_run_was_adopted_writes_nothing(driver: Driver) -> None:
    """A process that comes back after its claim has run out finds that the run is not its own."""
    claims = driver.downloading(1)
    assert verification.adopt(driver.database, key(1), ADOPTED, at(61))
    row = driver.row(1)
    other = Published("/audio/1.flac", 8, "1" * 64, "flac", None)
    assert driver.end(claims, other, 62) == [False]
    assert driver.row(1) == row


@given(st.integers(1, MAX_RUN_ID), st.sampled_from(AudioFormat))
def test_the_name_of_a_saved_file_tells_its_run(run_id: int, audio_format: AudioFormat) -> None:
    """The name that a run's file gets is understood as that run's."""
    layout = Layout(Path("/audio"), "text-to-sound")
    assert run_id_of(layout.final(key(run_id), audio_format.value).name) == run_id


@given(st.one_of(st.text(), st.from_regex(r"\A[0-9]{1,22}\.(wav|flac|mp3|ogg|WAV|aac)\Z")))
def test_no_other_name_is_a_saved_files(name: str) -> None:
    """A name that is understood is exactly the one that the run's file gets."""
    run_id = run_id_of(name)
    if run_id is not None:
        assert 1 <= run_id <= MAX_RUN_ID
        assert name in {f"{run_id}.{audio_format.value}" for audio_format in AudioFormat}
