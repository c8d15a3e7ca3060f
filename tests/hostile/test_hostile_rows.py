"""Rows as only a person's own hand could have made them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hostile.hostile_values import assert_told
from hypothesis import given
from hypothesis import strategies as st

from downloader.session import Mode
from downloader.store import schema
from downloader.store.schema import UNREADABLE, from_text, to_text

if TYPE_CHECKING:
    from pathlib import Path

    from cli.calling import Answer, Caller
    from harness import MakeService, StartSimulator

TIME = "2026-03-01 12:00:00.000000"
NO_TIME = "abcd-ef-gh ij:kl:mn.opqrst"
EARLY_NO_TIME = "!!!!-..-.. ..:..:.!!!!!!"
YEAR_ZERO = "0000-00-00 00:00:00.000000"
FIRST_YEAR = "0001-01-01 00:00:00.000000"
LAST_YEAR = "9999-12-31 23:59:59.999999"
FAR_TIMES = (NO_TIME, EARLY_NO_TIME, YEAR_ZERO, FIRST_YEAR, LAST_YEAR)
MOST = 2**63 - 1
SIGNED = "http://127.0.0.1:9/a?X-Amz-Signature=5ec2e7"

PENDING = {"state": "pending", "next_attempt_at": TIME}
READY = {"state": "ready", "next_attempt_at": TIME, "url": SIGNED, "ready_at": TIME}
DOWNLOADING = {
    "state": "downloading",
    "url": SIGNED,
    "lease_owner": "nowhere:1:x:1",
    "lease_expires_at": TIME,
}
DONE = {
    "state": "done",
    "location": "/etc/passwd",
    "bytes": 5,
    "sha256": "x" * 64,
    "audio_format": "exe",
    "done_at": TIME,
}
FAILED = {"state": "failed", "error_code": "network", "error_message": "It broke off."}

ROWS: dict[str, dict[str, Any]] = {
    **{
        f"{column} is {text[:6]}": PENDING | {column: text}
        for column in ("next_attempt_at", "submitted_at", "updated_at")
        for text in (NO_TIME, EARLY_NO_TIME, YEAR_ZERO, LAST_YEAR, "2026-02-31 12:00:00.000000")
    },
    **{
        f"{column} of a URL is {text[:6]}": READY | {column: text}
        for column in ("url_expires_at", "ready_at", "next_attempt_at")
        for text in (NO_TIME, EARLY_NO_TIME, YEAR_ZERO, LAST_YEAR)
    },
    **{
        f"the lease ends at {text[:6]}": DOWNLOADING | {"lease_expires_at": text}
        for text in (TIME, EARLY_NO_TIME, NO_TIME, LAST_YEAR)
    },
    **{
        f"the URL is {url[:20]!r}": READY | {"url": url}
        for url in (
            *("", " ", "not a url", "http://h/\r\nX: y", "http://h/\0", "http://[", "http://xn--/"),
            *("file:///etc/passwd", "http://u:p@127.0.0.1:9/", "http://h:99999/", "//h/"),
            *("http://\u2028/", "javascript:x", "http://h/" + "a" * 1_000_000),
        )
    },
    **{
        f"{column} is 2**63 - 1": READY | {column: MOST}
        for column in ("attempts", "refreshes", "bytes")
    },
    **{
        f"updated_at of a {row['state']} run is {text[:6]}": row | {"updated_at": text}
        for row in (DONE, FAILED, {"state": "cancelled"})
        for text in FAR_TIMES
    },
    **{
        f"{column} of a {row['state']} run is {text[:6]}": row | {column: text}
        for row in (READY, DOWNLOADING)
        for column in ("submitted_at", "updated_at")
        for text in (FIRST_YEAR, LAST_YEAR)
    },
    **{f"done at {text[:6]}": DONE | {"done_at": text} for text in FAR_TIMES},
    **{
        f"{column} of a {row['state']} run is NULL": row | {column: None}
        for row in (PENDING, READY, DOWNLOADING, DONE, FAILED)
        for column in row
        if column.endswith("_at")
    },
    **{
        f"{column} is {text[:6]}": PENDING | {column: text}
        for column in ("failing_since", "unknown_since")
        for text in FAR_TIMES
    },
    "next in the first year": PENDING | {"next_attempt_at": FIRST_YEAR},
    "a URL until the first year": READY | {"url_expires_at": FIRST_YEAR},
    "leased until the first year": DOWNLOADING | {"lease_expires_at": FIRST_YEAR},
    "the URL has expired and refreshes are many": READY
    | {"url_expires_at": TIME, "refreshes": MOST},
    "done elsewhere": DONE | {"bytes": 2**62},
    "done nowhere": DONE | {"location": "", "done_at": NO_TIME},
    "a message of 1 MB": FAILED | {"error_code": "x" * 99_999, "error_message": "m" * 1_000_000},
    "a message with escapes": FAILED | {"error_message": "\x1b[2J\x07\r\n\0", "error_code": "\n"},
    "an ETag that is a header": READY | {"etag": '"\r\nX: y"'},
    "the largest run id": PENDING | {"run_id": MOST},
    "a run type of another age": PENDING | {"run_type": "video"},
    "a run type that is a path": PENDING | {"run_type": "../../etc"},
}


def edit(path: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    """Edit a database as a person with a shell does who does not ask what may be written."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA ignore_check_constraints=ON")
        for statement, values in statements:
            raw.execute(statement, values)
        raw.commit()


def inserted(row: dict[str, Any], run_id: int) -> tuple[str, tuple[object, ...]]:
    """Return the statement that writes a row of `runs`."""
    whole = {
        "run_type": "text-to-sound",
        "run_id": run_id,
        "submitted_at": TIME,
        "updated_at": TIME,
    } | row
    names, marks = ", ".join(whole), ", ".join("?" * len(whole))
    return f"INSERT INTO runs ({names}) VALUES ({marks})", tuple(whole.values())  # noqa: S608 - the tests' own text


def assert_no_secret(answer: Answer) -> None:
    """Assert that no URL's signature is shown."""
    assert "5ec2e7" not in answer.out + answer.err


KEYS = {
    name: (row.get("run_type", "text-to-sound"), row.get("run_id", 1000 + number))
    for number, (name, row) in enumerate(ROWS.items())
}


def edit_all(path: Path) -> None:
    """Write every one of the rows."""
    edit(path, *(inserted(row, 1000 + number) for number, row in enumerate(ROWS.values())))


@pytest.fixture
def edited(call: Caller) -> Caller:
    """Call the command line with all of these rows in its database, and two runs beside them."""
    edit_all(call.database)
    assert_told(call("submit", "98", "99"), 0)
    return call


@pytest.mark.parametrize(
    "arguments",
    [
        *("status", "status --json", "list", "list --json --limit 0", "list --state failed"),
        *("retry --failed", "db current", "db upgrade", "db backup copy.sqlite3"),
    ],
)
def test_commands_on_edited_rows(edited: Caller, arguments: str) -> None:
    """Whatever rows say, every command does its work."""
    answer = edited(*arguments.split())
    assert_told(answer, 0)
    assert_no_secret(answer)


def test_commands_on_an_edited_row(edited: Caller) -> None:
    """Whatever a row says, it is shown, can be cancelled, and put back."""
    for name, (run_type, run_id) in KEYS.items():
        for command in ("show", "cancel", "retry"):
            word, *flags = command.split()
            answer = edited(word, *flags, str(run_id))
            assert_no_secret(answer)
            if run_type == "text-to-sound":
                assert_told(answer, 0)
            else:
                assert_told(answer, 2)
                assert "is not tracked" in answer.err, name


def test_a_service_with_edited_rows(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Whatever rows say, the service saves the files of the others, and is wrong of none."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(98, 99)
    edit_all(service.database.path)
    service.run(Mode.ONCE)
    service.run(Mode.ONCE)
    service.assert_saved(simulator, 98, 99)
    told = {
        (kind, run_id): state for kind, run_id, state in service.rows("run_type, run_id, state")
    }
    for name, key in KEYS.items():
        if told[key] == "done" and ROWS[name]["state"] != "done":
            service.assert_saved(simulator, key[1])
        assert told[key] != "downloading" or ROWS[name]["state"] == "downloading", name


_BLOCK = "INSERT INTO blocks (scope, subject, reason, message, since, until, probes)"
_EVENT = "INSERT INTO run_events (run_type, run_id, at, to_state, reason)"
OTHER_TABLES: dict[str, tuple[str, tuple[object, ...]]] = {
    **{
        f"blocked until {text[:6]}": (
            f"{_BLOCK} VALUES ('api', 'nobody', 'nonsense', 'x' || char(10), ?, ?, ?)",
            (text, text, MOST),
        )
        for text in (TIME, NO_TIME, EARLY_NO_TIME, YEAR_ZERO, LAST_YEAR)
    },
    "an event at no time": (
        f"{_EVENT} VALUES ('text-to-sound', 98, ?, 'nonsense', '')",
        (NO_TIME,),
    ),
    "an event of nobody": (
        f"{_EVENT} VALUES ('nonsense', 5, ?, 'pending', 'x')",
        (TIME,),
    ),
}


@pytest.mark.parametrize("name", OTHER_TABLES)
def test_other_tables_edited_by_hand(
    call: Caller, start_simulator: StartSimulator, name: str
) -> None:
    """Whatever stands in the tables beside `runs`, runs are shown and saved."""
    simulator = start_simulator()
    call.set(DOWNLOADER_API_URL=simulator.api_url)
    assert_told(call("submit", "98", "99"), 0)
    edit(call.database, OTHER_TABLES[name])
    for arguments in (("status",), ("status", "--json"), ("list",), ("show", "98")):
        assert_told(call(*arguments), 0)
    assert_told(call("run", "--drain"), 0)
    assert call("status", "--json").json["runs"]["done"] == 2


def test_a_time_that_is_none_is_told(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text in the place of a time is named once, so that its row can be found."""
    monkeypatch.setattr(schema, "_told", set())  # of this process, by other tests
    edit(call.database, inserted(PENDING | {"submitted_at": "edit-ed-by hand:not:a.time!!"}, 1))
    answer = call("list", "--json")
    assert answer.err.count("edit-ed-by hand:not:a.time!!") == 1
    assert answer.json["submitted_at"] == to_text(UNREADABLE)


@given(text=st.text(max_size=40))
def test_any_text_is_a_time(text: str) -> None:
    """Whatever text stands for a time, it is read as one that can be written again."""
    found = from_text(text)
    assert found.tzinfo is UTC
    assert from_text(to_text(found)) == found or found.year < 1000


@given(moment=st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds the zone
def test_times_come_back(moment: datetime) -> None:
    """A time that the store writes is read as the same."""
    assert from_text(to_text(moment)) == moment


edited_times = st.sampled_from(FAR_TIMES) | st.datetimes().map(str) | st.text(max_size=30)
lengths = st.timedeltas(timedelta(days=-40_000), timedelta(days=40_000))
clocks = st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as above


@given(text=edited_times, length=lengths, now=clocks)
def test_no_arithmetic_with_a_time_fails(text: str, length: timedelta, now: datetime) -> None:
    """Whatever is read as a time: sums, differences, and what is made of those, are times."""
    found = from_text(text)
    for moment in (found + length, length + found, found - length):
        assert from_text(to_text(moment)) == moment
    for age in (now - found, found - now):
        assert now - age * 2 < now + age * 2 or age <= timedelta()
    assert found - found == timedelta()
    assert (now - found > timedelta()) == (now > found)


@pytest.mark.parametrize("text", FAR_TIMES)
def test_a_row_is_found_by_the_time_that_was_read(text: str) -> None:
    """A time is written as it was read, so that a row with an edited one can be changed."""
    assert schema.UTCText().process_bind_param(from_text(text), None) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("text", FAR_TIMES)
def test_verify_of_a_run_done_at_no_time(call: Caller, text: str) -> None:
    """A saved file that is damaged or gone is reported and repaired, whenever it was saved."""
    (call.folder / "audio").mkdir()
    (call.folder / "audio" / "2.wav").write_bytes(b"other")
    rows = [
        DONE | {"done_at": text, "location": str(call.folder / "audio" / name), "updated_at": text}
        for name in ("1.wav", "2.wav")
    ]
    edit(call.database, *(inserted(row, number) for number, row in enumerate(rows, 1)))
    found = call("verify", "--output", call.folder / "audio")
    assert found.code == 1
    assert "missing 1" in found.out
    assert "damaged 2" in found.out
    found = call("verify", "--repair", "--output", call.folder / "audio")
    assert "2 repaired" in found.out
    assert call("status", "--json").json["runs"]["pending"] == 2
