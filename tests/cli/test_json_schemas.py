"""The JSON that commands print, held to the schemas that the documentation has of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator
from store.driving import Driver, at

from downloader.rules.steps import PollLater
from downloader.store import blocks
from downloader.store.listing import MANIFEST, SHOWN

if TYPE_CHECKING:
    from cli.calling import Caller

SCHEMAS = Path(__file__).resolve().parents[2] / "docs/json"


def schema(name: str) -> dict[str, Any]:
    """Return a schema of the documentation."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    return found


def hold(name: str, *printed: Any) -> None:  # noqa: ANN401 - JSON
    """Hold what was printed to a schema, to its formats and to its having no other key."""
    validator = Draft202012Validator(schema(name))
    for one in printed:
        validator.validate(one)


@pytest.fixture
def full(driver: Driver) -> Driver:
    """Give the database a run in each state, some saved of late, trouble, and a block."""
    driver.done(*range(100, 120))
    driver.failed(*range(200, 205))
    driver.one_of_each_state()
    driver.poll(1, step=PollLater(at(2), None, "unavailable", "It answers 503."))
    blocks.block(
        driver.database, "disk", "disk_full", "Full.", now=at(0), pause_seconds=lambda _: 1
    )
    return driver


@pytest.mark.parametrize("path", sorted(SCHEMAS.iterdir()), ids=lambda path: path.name)
def test_schemas_are_valid(path: Path) -> None:
    """Each schema is one by its own standard."""
    Draft202012Validator.check_schema(json.loads(path.read_text("utf-8")))


def test_status(call: Caller, driver: Driver) -> None:
    """`status --json` is as described, with nothing tracked, with everything, and when blocked."""
    hold("status", call("status", "--json").json)
    driver.submit(1)
    hold("status", call("status", "--json").json)


@pytest.mark.usefixtures("full")
def test_status_of_much(call: Caller) -> None:
    """`status --json` is as described with a run in each state, and blocked."""
    found = call("status", "--json").json
    assert found["blocked"]
    assert found["unfinished_errors"]
    assert len(found["last_failures"]) == 3
    hold("status", found)


@pytest.mark.usefixtures("full")
def test_runs(call: Caller) -> None:
    """`list`, `show` and `export` print each run as described, whatever its state."""
    rows = [json.loads(line) for line in call("list", "--json").out.splitlines()]
    assert len({row["state"] for row in rows}) == 6
    hold("list", *rows)
    hold("show", *(call("show", str(row["run_id"]), "--json").json for row in rows[:12]))
    saved = call("export", "--format", "jsonl").out.splitlines()
    hold("export", *map(json.loads, saved))


def test_schemas_have_every_column() -> None:
    """The schemas describe the columns that there are, each of them, in their order."""
    columns = [column.name for column in SHOWN]
    assert list(schema("list")["properties"]) == columns
    assert list(schema("show")["properties"]) == [*columns, "events"]
    assert list(schema("export")["properties"]) == [column.name for column in MANIFEST]


def test_what_no_schema_allows(call: Caller) -> None:
    """The schemas are no rubber stamps: a missing, another or a strange key is told."""
    found = call("status", "--json").json
    validator = Draft202012Validator(schema("status"))
    assert validator.is_valid(found)
    for wrong in (
        found | {"more": 1},
        {key: value for key, value in found.items() if key != "bytes"},
        found | {"bytes": "1"},
        found | {"at": "2026-03-01T12:00:00Z"},
    ):
        assert not validator.is_valid(wrong)
