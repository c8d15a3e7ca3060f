"""Rows and files that once stopped the program, or all other runs."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hostile.hostile_values import assert_told
from hostile.test_hostile_database_files import VIEWS, answers, changed
from hostile.test_hostile_rows import DONE, MOST, PENDING, READY, edit, inserted

from downloader.session import Mode

if TYPE_CHECKING:
    from cli.calling import Caller
    from harness import MakeService, StartSimulator

_COLUMNS = "run_type, run_id, state, url, next_attempt_at, submitted_at, updated_at"
_TIME = "'2026-03-01 12:00:00.000000'"


def with_bytes(run_type: str, url: str) -> tuple[str, tuple[object, ...]]:
    """Return the statement that writes a ready run with texts that are not UTF-8."""
    values = f"CAST({run_type} AS TEXT), 1, 'ready', CAST({url} AS TEXT), {_TIME}, {_TIME}, {_TIME}"
    return f"INSERT INTO runs ({_COLUMNS}) VALUES ({values})", ()  # noqa: S608 - the tests' own text


SIGNED = "x'" + b"http://127.0.0.1:9/?X-Amz-Signature=5ec2e7\xff".hex() + "'"


def test_texts_that_are_not_utf_8(call: Caller, start_simulator: StartSimulator) -> None:
    """A text that is not UTF-8 is read as well as can be, and never quoted in an error."""
    call.set(DOWNLOADER_API_URL=start_simulator().api_url)
    assert_told(call("submit", "98", "99"), 0)
    edit(
        call.database,
        with_bytes("'text-to-sound'", SIGNED),
        with_bytes("x'61ff'", "'http://127.0.0.1:9/'"),
    )
    for command in ("status", "list", "show 1", "run --once", "list --json"):
        answer = call(*command.split())
        assert_told(answer, 0, 1, 3)  # nobody is at that address
        assert "5ec2e7" not in answer.out + answer.err
    assert call("status", "--json").json["runs"]["done"] == 2


@pytest.mark.parametrize(
    "run_type", ["a/b", "../../x", "/nonexistent/x", "a\0b", "a" * 300, "a\nb"]
)
def test_runs_of_no_known_type(
    start_simulator: StartSimulator, make_service: MakeService, run_type: str
) -> None:
    """Runs whose type is no name hold nobody up: the others are saved, and `--drain` ends."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(98, 99)
    edit(
        service.database.path,
        inserted(READY | {"run_type": run_type}, 1),
        inserted(PENDING | {"run_type": run_type}, 2),
    )
    result = service.run(Mode.DRAIN, max_duration_seconds=60)
    assert (result.stopped, result.trouble) == (None, None)
    service.assert_saved(simulator, 98, 99)
    assert service.rows("state", "run_id < 3") == [("failed",), ("pending",)]
    assert sorted(path.name for path in service.settings.output.iterdir()) == [
        *(".partial", "98.wav", "99.wav")
    ]


def test_counters_at_their_end(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A counter that is as large as can be stays so, and its run is saved."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(98, 99)
    edit(service.database.path, inserted(PENDING | {"polls": MOST, "attempts": MOST}, 1))
    service.run(Mode.DRAIN)
    service.assert_saved(simulator, 1, 98, 99)
    assert service.rows("polls, attempts", "run_id = 1") == [(MOST, MOST)]


def test_sums_beyond_64_bits(call: Caller) -> None:
    """Sizes that add up to more than 64 bits are no reason to show nothing."""
    edit(call.database, *(inserted(DONE | {"bytes": MOST}, run_id) for run_id in (1, 2)))
    assert_told(call("status"), 0)
    assert call("status", "--json").json["bytes"] == 2 * 2**63


@pytest.mark.parametrize("value", ["NULL", "x'ff00'"])
def test_tables_with_nothing_in_them(call: Caller, value: str) -> None:
    """A `runs` without types may hold nothing, or bytes, where there should be numbers."""
    with closing(sqlite3.connect(call.database)) as raw:
        names = [row[1] for row in raw.execute("PRAGMA table_info(runs)")]
    changed(
        call.database,
        *(f"DROP VIEW {view}" for view in VIEWS),
        "DROP TABLE runs",
        f"CREATE TABLE runs ({', '.join(names)})",
        f"INSERT INTO runs VALUES ({', '.join([value] * len(names))})",  # noqa: S608 - the tests' own text
    )
    for command, answer in answers(call):
        assert_told(answer, 0, 2, 3)
        if command == "list --json":
            assert json.loads(answer.out)


@pytest.mark.parametrize("byte", [0xFF, 0x80, 0xC3])
def test_a_schema_that_is_not_utf_8(call: Caller, byte: int) -> None:
    """A schema that is damaged within a name is told of, though nothing can quote it."""
    content = bytearray(call.database.read_bytes())
    place = content.index(b"CREATE INDEX ix_runs_pending")
    content[place + 8 : place + 12] = bytes([byte] * 4)
    call.database.write_bytes(content)
    for _, answer in answers(call):
        assert_told(answer, 2)
        assert str(call.database) in answer.err


def test_the_home_of_nobody(call: Caller) -> None:
    """A database in the home of a user that there is not is told as such."""
    for command in ("status", "submit 5", "db current"):
        answer = call(*command.split(), "--database", "~nobody-of-that-name/runs.sqlite3")
        assert_told(answer, 2)
        assert "~nobody-of-that-name" in answer.err
