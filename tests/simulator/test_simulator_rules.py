from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from downloader.simulator.catalogue import FAULTS, Place
from downloader.simulator.errors import SimulatorError
from downloader.simulator.faults import describe
from downloader.simulator.options import SimulatorOptions, loopback
from downloader.simulator.rules import Rule, RuleBook, Runs, one_rule, parse_rules, read_rules

if TYPE_CHECKING:
    from downloader.simulator.faults import Fault


def rule(**changes: object) -> dict[str, object]:
    """One rule as it stands in a file."""
    return {"runs": "*", "where": "storage", "fault": {"kind": "reset"}, **changes}


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("*", [1, 10**18], []),
        ("7", [7], [6, 8]),
        ("100-120", [100, 110, 120], [99, 121]),
        ("1, 3,7-9", [1, 3, 8], [2, 10]),
        (5, [5], [4]),
        ([1, 2, 9], [1, 9], [3]),
        ({"modulo": 7, "remainder": 3}, [3, 10], [7]),
        ({"modulo": 7}, [7, 14], [3]),
    ],
)
def test_runs_are_chosen_by_range_list_or_remainder(
    text: object, inside: list[int], outside: list[int]
) -> None:
    """Each way to name runs names those and no others."""
    runs = Runs.parse(text)

    assert all(run_id in runs for run_id in inside)
    assert not any(run_id in runs for run_id in outside)


@pytest.mark.parametrize(
    "text", ["", "a", "5-1", "1-", [], [1, "2"], {"modulo": 0}, {"modulo": 2, "x": 1}, None, True]
)
def test_what_names_no_runs_is_an_error(text: object) -> None:
    """Nonsense in `runs` is refused."""
    with pytest.raises(SimulatorError):
        Runs.parse(text)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (rule(often=1), "unknown key 'often' in a rule"),
        (rule(where="disk"), "where must be api or storage"),
        (rule(fault={"kind": "explode"}), "unknown fault 'explode' at the storage"),
        (rule(fault={"kind": "reset", "when": 1}), "has no parameter 'when'; it has: at, after"),
        (rule(fault={"kind": "reset", "after": "x"}), "after of fault 'reset' must be a whole"),
        (rule(fault={"kind": "reset", "after": -1}), "must be 0 or more"),
        (rule(fault={"kind": "reset", "at": "end"}), "must be one of headers, body"),
        (rule(fault={"kind": "status", "status": 200}), "must be 400 to 599"),
        (rule(fault={"kind": "redirect", "to": "a\r\nb: c"}), "must be printable"),
        (rule(fault=7), "fault must be"),
        (rule(times=0), "times must be"),
        (rule(skip=-1), "skip must be"),
        (rule(probability=2), "probability must be"),
        ({"runs": "*", "where": "api"}, "a rule needs 'fault'"),
        ("reset everything", "a rule must be an object"),
    ],
)
def test_a_wrong_rule_is_a_clear_error(wrong: object, says: str) -> None:
    """The error names the rule by its number and says what is wrong."""
    with pytest.raises(SimulatorError, match=r"^rule 2: ") as error:
        parse_rules({"rules": [rule(), wrong]})

    assert says in str(error.value)


@pytest.mark.parametrize("wrong", [{}, {"rules": [], "more": 1}, {"rules": {}}, 7])
def test_a_file_of_another_shape_is_a_clear_error(wrong: object) -> None:
    """A rule file has `rules` and nothing else."""
    with pytest.raises(SimulatorError, match="a rule file is"):
        parse_rules(wrong)


def test_a_rule_file_is_read(tmp_path: Path) -> None:
    """A file gives the rules that the one-line form gives; errors name the file."""
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [rule(times=2), rule(fault="empty")]}))

    assert read_rules(path) == (
        Rule.of("*", "storage", "reset", times=2),
        Rule.of("*", "storage", "empty"),
    )
    path.write_text("{")
    with pytest.raises(SimulatorError, match=r"rules\.json: it is not JSON"):
        read_rules(path)
    with pytest.raises(SimulatorError, match=r"none\.json: No such file"):
        read_rules(tmp_path / "none.json")


def kinds(book: RuleBook, run_id: int, count: int) -> list[str | None]:
    """Tell what a run's next requests to the storage meet."""
    met: list[Fault | None] = [
        book.fault(Place.STORAGE, "text-to-sound", run_id) for _ in range(count)
    ]
    return [fault.kind if fault else None for fault in met]


def test_the_first_rule_that_applies_wins() -> None:
    """A rule that is used up, or not yet on, lets the next one have its turn."""
    book = RuleBook(
        [
            Rule.of("1", "storage", "expired", times=1),
            Rule.of("*", "storage", "reset", skip=2, times=1),
            Rule.of("*", "api", "reset"),
        ]
    )

    assert kinds(book, 1, 4) == ["expired", None, None, "reset"]
    assert kinds(book, 2, 4) == [None, None, "reset", None]


def test_a_rule_may_be_for_one_run_type() -> None:
    """`run_type` limits a rule."""
    book = RuleBook([Rule.of("*", "storage", "reset", run_type="tts")])

    assert book.fault(Place.STORAGE, "tts", 1) is not None
    assert book.fault(Place.STORAGE, "text-to-sound", 1) is None


def test_chance_can_be_repeated() -> None:
    """`probability` and `fault_rate` hit about as often as they say, by the seed, each time."""

    def hits(seed: int) -> list[bool]:
        book = RuleBook([Rule.of("*", "storage", "reset", probability=0.3)], seed=seed)
        return [kind is not None for run_id in range(100) for kind in kinds(book, run_id, 5)]

    assert hits(1) == hits(1) != hits(2)
    assert 100 < sum(hits(1)) < 200

    book = RuleBook([], seed=1, fault_rate=0.2)
    thrown = [book.random_fault(Place.API, "tts", run_id) for run_id in range(500)]
    assert 50 < sum(fault is not None for fault in thrown) < 150
    assert len({fault.kind for fault in thrown if fault}) > 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_size": 10},
        {"min_size": 2000, "max_size": 1000},
        {"max_size": 10**10},
        {"finish_after": -1.0},
        {"bandwidth": 0.0},
        {"rate_limit": -1.0},
        {"fault_rate": 1.5},
        {"url_lifetime": float("nan")},
        {"store": "floppy"},
        {"audio_format": "mp3"},
        {"unfinished": "maybe"},
    ],
)
def test_wrong_options_are_clear_errors(wrong: dict[str, object]) -> None:
    """An option out of its limits is refused by its name."""
    with pytest.raises(SimulatorError) as error:
        SimulatorOptions(**wrong)  # type: ignore[arg-type]

    assert any(name in str(error.value) for name in wrong)


def test_only_loopback_is_listened_on() -> None:
    """Other addresses are refused, names too."""
    assert loopback("localhost") == "127.0.0.1"
    assert loopback("127.8.0.1") == "127.8.0.1"
    assert loopback("::1") == "::1"
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):  # noqa: S104 - refused
        with pytest.raises(SimulatorError, match="loopback"):
            loopback(host)


def test_the_catalogue_describes_every_fault() -> None:
    """What can be named in a rule is listed, with its parameters."""
    text = describe()

    for kinds_here in FAULTS.values():
        for name, kind in kinds_here.items():
            assert name in text
            assert all(parameter in text for parameter in kind.parameters)


PAGE = (Path(__file__).resolve().parents[2] / "docs/simulator.md").read_text(encoding="utf-8")


def test_the_page_has_rules_that_are_some() -> None:
    """Every example of docs/simulator.md is a rule, and every key of a rule is in its table."""
    examples = re.findall(r"^\|[^|]+\| `(\{.*\})` \|$", PAGE, re.MULTILINE)
    assert len(examples) > 15
    for example in examples:
        one_rule(example)
    [file] = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert parse_rules(json.loads(file))
    told = set(re.findall(r"`(\w+)`", PAGE.partition("## Bad weather")[0]))
    assert told >= {field.name for field in dataclasses.fields(Rule)} - {"fault"} | {"where"}


def test_the_page_names_every_fault_of_connections() -> None:
    """What has no run is told of by name."""
    kinds_of_connections = {
        name for kinds in FAULTS.values() for name, kind in kinds.items() if kind.connection
    }
    assert kinds_of_connections <= set(re.findall(r"`([\w-]+)`", PAGE))
