"""Rules: which runs meet which fault, how often, and how likely.

A rule file is JSON::

    {"rules": [
      {"runs": "100-120", "where": "storage", "fault": {"kind": "truncate", "after": 1000},
       "times": 1},
      {"runs": {"modulo": 7, "remainder": 3}, "where": "api", "fault": {"kind": "word"}},
      {"where": "storage", "fault": {"kind": "status", "status": 503}, "during": [30, 90]}
    ]}

The first rule that applies wins, for each place. A rule that has been used up (`times`), is
still being skipped (`skip`), loses its throw (`probability`) or is not on (`during`) lets the
next one have its turn.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from downloader.simulator.catalogue import Place
from downloader.simulator.errors import SimulatorError, shown
from downloader.simulator.faults import Fault
from downloader.simulator.parameters import MOST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def chance(seed: int, *what: object) -> float:
    """Return a pseudo-random number in [0, 1) that depends on nothing but the arguments."""
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(frozen=True)
class Runs:
    """A set of run ids: ranges, or a remainder, or all of them (neither)."""

    ranges: tuple[tuple[int, int], ...] | None = None
    modulo: int | None = None
    remainder: int = 0

    def __contains__(self, run_id: object) -> bool:
        if not isinstance(run_id, int):
            return False
        if self.modulo is not None:
            return run_id % self.modulo == self.remainder
        return self.ranges is None or any(low <= run_id <= high for low, high in self.ranges)

    @classmethod
    def parse(cls, value: object) -> Runs:
        """Read `"*"`, `"7"`, `"1-5,9"`, a number, a list of numbers, or modulo and remainder."""
        match value:
            case "*":
                return cls()
            case str():
                return cls(tuple(_range(part) for part in value.split(",")))
            case bool():
                pass
            case int():
                return cls(((value, value),))
            case list() | tuple() if value and all(type(item) is int for item in value):
                return cls(tuple((item, item) for item in value))
            case {"modulo": int(modulo), **rest} if modulo > 0 and set(rest) <= {"remainder"}:
                remainder = rest.get("remainder", 0)
                if isinstance(remainder, int) and 0 <= remainder < modulo:
                    return cls(modulo=modulo, remainder=remainder)
        raise SimulatorError(
            f'runs must be "*", "7", "1-5,9", a list of whole numbers or '
            f'{{"modulo": 7, "remainder": 3}}, not {shown(value)}'
        )


def _range(text: str) -> tuple[int, int]:
    low, dash, high = text.strip().partition("-")
    if _is_number(low) and (_is_number(high) or not dash):
        first, last = int(low), int(high) if dash else int(low)
        if first <= last:
            return first, last
    raise SimulatorError(
        f"{shown(text.strip())} is neither a run id nor a range of them such as 1-5"
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


_MOST_DIGITS: Final = 30
_WHEN: Final = ("run_type", "times", "skip", "probability", "during", "endpoint")
_KEYS: Final = {"runs", "where", "fault", *_WHEN}
ENDPOINTS: Final = ("bulk", "single")


@dataclass(frozen=True)
class Rule:
    """One line of a rule file."""

    runs: Runs
    fault: Fault
    run_type: str | None = None
    """Only runs of this type; None means all."""
    times: int | None = None
    """Only so many of a run's requests; None means all."""
    skip: int = 0
    """Not the first so many of a run's requests."""
    probability: float = 1.0
    """Of each request; decided by seed, rule, run and count, so that it can be repeated."""
    during: tuple[float, float | None] | None = None
    """Only from this second to before that one (None: for ever) after the rules were given."""
    endpoint: str | None = None
    """Only requests to this one of the API's endpoints; None means both."""

    def __post_init__(self) -> None:
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise SimulatorError(f"times must be a whole number from 1, not {shown(self.times)}")
        if type(self.skip) is not int or self.skip < 0:
            raise SimulatorError(f"skip must be a whole number from 0, not {shown(self.skip)}")
        if type(self.probability) not in (int, float) or not 0 <= self.probability <= 1:
            raise SimulatorError(f"probability must be 0 to 1, not {shown(self.probability)}")
        if self.run_type is not None and not isinstance(self.run_type, str):
            raise SimulatorError(f"run_type must be a string, not {shown(self.run_type)}")
        if self.during is not None:
            object.__setattr__(self, "during", _window(self.during))
        if self.endpoint is not None and (
            self.fault.place is not Place.API or self.endpoint not in ENDPOINTS
        ):
            raise SimulatorError(
                f"endpoint is bulk or single, and of the api only; not {shown(self.endpoint)}"
            )
        if self.fault.entry.connection and _conditions(self) != (Runs(), None, None, 0, 1, None):
            raise SimulatorError(
                f"fault {self.fault.kind!r} befalls connections, whatever run they are for: "
                "its rule has `during` and no other condition"
            )

    @classmethod
    def of(cls, runs: object, where: str, kind: str, **more: object) -> Rule:
        """Make a rule in one line: `Rule.of("1-5", "storage", "truncate", times=1, after=100)`.

        `more` has conditions, as in a rule file, and parameters of the fault.
        """
        when = {name: more.pop(name) for name in _WHEN if name in more}
        fault: dict[str, object] = {"kind": kind} | more
        return cls.parse({"runs": runs, "where": where, "fault": fault} | when)

    @classmethod
    def parse(cls, value: object) -> Rule:
        """Read one rule of a rule file; raise `SimulatorError` where it is not one."""
        if not isinstance(value, dict):
            raise SimulatorError(f"a rule must be an object, not {shown(value)}")
        if unknown := sorted(set(value) - _KEYS):
            raise SimulatorError(
                f"unknown key {shown(unknown[0])} in a rule; known: {', '.join(sorted(_KEYS))}"
            )
        if missing := sorted({"where", "fault"} - set(value)):
            raise SimulatorError(f"a rule needs {missing[0]!r}: {shown(value)}")
        fault: object = value["fault"]
        if isinstance(fault, str):
            fault = {"kind": fault}
        if not isinstance(fault, dict) or not isinstance(fault.get("kind"), str):
            raise SimulatorError(
                f'fault must be {{"kind": NAME, ...}}, not {shown(value["fault"])}'
            )
        parameters = {key: item for key, item in fault.items() if key != "kind"}
        when: dict[str, Any] = {name: value[name] for name in _WHEN if name in value}
        runs = Runs.parse(value.get("runs", "*"))
        return cls(runs, Fault(_place(value["where"]), fault["kind"], parameters), **when)


def _conditions(rule: Rule) -> tuple[object, ...]:
    """Return all that makes a rule apply to some requests and not to others, but the time."""
    return (rule.runs, rule.run_type, rule.times, rule.skip, rule.probability, rule.endpoint)


def _window(value: object) -> tuple[float, float | None]:
    """Check what is given as `during`."""
    match value:
        case [int() | float() as begin, int() | float() | None as end] if (
            0 <= begin <= MOST_SECONDS and (end is None or begin < end)
        ):
            return begin, end
    raise SimulatorError(
        f"during must be [from, until] in seconds, such as [30, 90] or [30, null], "
        f"not {shown(value)}"
    )


def _place(value: object) -> Place:
    if isinstance(value, str) and value in tuple(Place):
        return Place(value)
    raise SimulatorError(f"where must be api or storage, not {shown(value)}")


def parse_rules(value: object) -> tuple[Rule, ...]:
    """Read the contents of a rule file: `{"rules": [...]}`, or only the list."""
    if isinstance(value, dict):
        if set(value) != {"rules"}:
            raise SimulatorError('a rule file is {"rules": [...]} and has no other key')
        value = value["rules"]
    if not isinstance(value, list):
        raise SimulatorError(f'a rule file is {{"rules": [...]}}, not {type(value).__name__}')
    rules = []
    for number, item in enumerate(value, 1):
        try:
            rules.append(Rule.parse(item))
        except SimulatorError as error:
            raise SimulatorError(f"rule {number}: {error}") from None
    return tuple(rules)


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise SimulatorError("a rule file has at most 16 MB")
    return content.decode("utf-8-sig")


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a rule file; raise `SimulatorError` naming it where it cannot be."""
    try:
        return parse_rules(_from_json(_text_of(path)))
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SimulatorError(f"{path} is not JSON: {error}") from error
    except SimulatorError as error:
        raise SimulatorError(f"{path}: {error}") from None


def one_rule(text: str) -> Rule:
    """Read one rule from its JSON; raise `SimulatorError` naming it where it cannot be."""
    try:
        return Rule.parse(_from_json(text))
    except SimulatorError as error:
        raise SimulatorError(f"rule {shown(text)}: {error}") from None


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise SimulatorError("it is not JSON: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise SimulatorError(f"it is not JSON: {error}") from error
    except ValueError as error:
        raise SimulatorError("it has a number with thousands of digits") from error


_MOST_BYTES: Final = 16_000_000

# What `fault_rate` throws: each is transient, and a client that tries again gets through.
_RANDOM_FAULTS: Final[Mapping[Place, tuple[Fault, ...]]] = {
    Place.API: (
        Fault(Place.API, "status", {"status": 500}),
        Fault(Place.API, "status", {"status": 503, "retry_after": 1}),
        Fault(Place.API, "status", {"status": 429, "retry_after": 1}),
        Fault(Place.API, "reset"),
        Fault(Place.API, "not-json", {"status": 502}),
    ),
    Place.STORAGE: (
        Fault(Place.STORAGE, "status", {"status": 500}),
        Fault(Place.STORAGE, "status", {"status": 503}),
        Fault(Place.STORAGE, "expired"),
        Fault(Place.STORAGE, "truncate"),
        Fault(Place.STORAGE, "reset"),
        Fault(Place.STORAGE, "ignore-range"),
    ),
}


class RuleBook:
    """The rules in force, with the count of how often each has met each run."""

    def __init__(self, rules: Sequence[Rule], *, seed: int = 0, fault_rate: float = 0.0) -> None:
        self._rules = tuple(rules)
        self._seed = seed
        self._fault_rate = fault_rate
        self._met: Counter[tuple[int | Place, str, int]] = Counter()
        self._lock = threading.Lock()
        self.kinds = frozenset(rule.fault.kind for rule in rules)
        """The kinds of faults that are in the rules."""

    def connection_fault(self, place: Place | None, elapsed: float) -> Fault | None:
        """Return what befalls each connection to a place, `elapsed` seconds after the start."""
        for rule in self._rules:
            fault = rule.fault
            if fault.entry.connection and fault.place is place and _is_on(rule, elapsed):
                return fault
        return None

    def fault(
        self,
        place: Place,
        run_type: str,
        run_id: int,
        *,
        elapsed: float = 0.0,
        endpoint: str | None = None,
    ) -> Fault | None:
        """Return what this request of a run meets, `elapsed` seconds after the start; count it."""
        with self._lock:
            for number, rule in enumerate(self._rules):
                if rule.fault.place is not place or run_id not in rule.runs:
                    continue
                if rule.run_type not in (None, run_type) or rule.endpoint not in (None, endpoint):
                    continue
                if rule.fault.entry.connection or not _is_on(rule, elapsed):
                    continue
                if self._applies(number, rule, run_type, run_id):
                    return rule.fault
        return None

    def _applies(self, number: int, rule: Rule, run_type: str, run_id: int) -> bool:
        count = self._met[number, run_type, run_id]
        self._met[number, run_type, run_id] += 1
        if count < rule.skip or (rule.times is not None and count >= rule.skip + rule.times):
            return False
        return rule.probability >= 1 or rule.probability > chance(
            self._seed, number, run_type, run_id, count
        )

    def random_fault(self, place: Place, run_type: str, run_id: int) -> Fault | None:
        """Return what the fault rate throws at this request, decided by seed, run and count."""
        if not self._fault_rate:
            return None
        with self._lock:
            count = self._met[place, run_type, run_id]
            self._met[place, run_type, run_id] += 1
        if chance(self._seed, place, run_type, run_id, count) >= self._fault_rate:
            return None
        faults = _RANDOM_FAULTS[place]
        return faults[int(chance(self._seed, "which", run_type, run_id, count) * len(faults))]


def _is_on(rule: Rule, elapsed: float) -> bool:
    begin, end = rule.during or (0.0, None)
    return begin <= elapsed and (end is None or elapsed < end)
