"""Rules: which runs meet which fault, how often, and how likely.

A rule file is JSON::

    {"rules": [
      {"runs": "100-120", "where": "storage", "fault": {"kind": "truncate", "after": 1000},
       "times": 1},
      {"runs": {"modulo": 7, "remainder": 3}, "where": "api", "fault": {"kind": "word"}}
    ]}

The first rule that applies wins, for each place. A rule that has been used up (`times`), is
still being skipped (`skip`) or loses its throw (`probability`) lets the next one have its turn.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from downloader.simulator.catalogue import Place
from downloader.simulator.errors import SimulatorError, shown
from downloader.simulator.faults import Fault

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
_KEYS: Final = {"runs", "where", "fault", "run_type", "times", "skip", "probability"}


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

    def __post_init__(self) -> None:
        if self.times is not None and (type(self.times) is not int or self.times < 1):
            raise SimulatorError(f"times must be a whole number from 1, not {shown(self.times)}")
        if type(self.skip) is not int or self.skip < 0:
            raise SimulatorError(f"skip must be a whole number from 0, not {shown(self.skip)}")
        if type(self.probability) not in (int, float) or not 0 <= self.probability <= 1:
            raise SimulatorError(f"probability must be 0 to 1, not {shown(self.probability)}")
        if self.run_type is not None and not isinstance(self.run_type, str):
            raise SimulatorError(f"run_type must be a string, not {shown(self.run_type)}")

    @classmethod
    def of(
        cls,
        runs: object,
        where: str,
        kind: str,
        *,
        run_type: str | None = None,
        times: int | None = None,
        skip: int = 0,
        probability: float = 1.0,
        **parameters: object,
    ) -> Rule:
        """Make a rule in one line: `Rule.of("1-5", "storage", "truncate", times=1, after=100)`."""
        return cls(
            Runs.parse(runs),
            Fault(_place(where), kind, parameters),
            run_type=run_type,
            times=times,
            skip=skip,
            probability=probability,
        )

    @classmethod
    def parse(cls, value: object) -> Rule:
        """Read one rule of a rule file; raise `SimulatorError` where it is not one."""
        if not isinstance(value, dict):
            raise SimulatorError(f"a rule must be an object, not {shown(value)}")
        if unknown := sorted(set(value) - _KEYS):
            raise SimulatorError(
                f"unknown key {shown(unknown[0])} in a rule; known: {', '.join(sorted(_KEYS))}"
            )
        if missing := sorted({"runs", "where", "fault"} - set(value)):
            raise SimulatorError(f"a rule needs {missing[0]!r}: {shown(value)}")
        fault = {"kind": value["fault"]} if isinstance(value["fault"], str) else value["fault"]
        if not isinstance(fault, dict) or not isinstance(fault.get("kind"), str):
            raise SimulatorError(
                f'fault must be {{"kind": NAME, ...}}, not {shown(value["fault"])}'
            )
        parameters = {key: item for key, item in fault.items() if key != "kind"}
        return cls(
            Runs.parse(value["runs"]),
            Fault(_place(value["where"]), fault["kind"], parameters),
            run_type=value.get("run_type"),
            times=value.get("times"),
            skip=value.get("skip", 0),
            probability=value.get("probability", 1.0),
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
        return parse_rules(json.loads(_text_of(path)))
    except RecursionError as error:
        raise SimulatorError(f"{path} is not JSON: it is nested too deeply") from error
    except OSError as error:
        raise SimulatorError(f"{path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SimulatorError(f"{path} is not JSON: {error}") from error
    except ValueError as error:
        raise SimulatorError(f"{path} has a number with thousands of digits") from error
    except SimulatorError as error:
        raise SimulatorError(f"{path}: {error}") from None


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

    def fault(
        self, place: Place, run_type: str, run_id: int, *, elapsed: float = 0.0
    ) -> Fault | None:
        """Return what this request of a run meets, `elapsed` seconds after the start; count it."""
        with self._lock:
            for number, rule in enumerate(self._rules):
                if rule.fault.place is not place or run_id not in rule.runs:
                    continue
                if rule.run_type not in (None, run_type):
                    continue
                if self._applies(number, rule, run_type, run_id, elapsed):
                    return rule.fault
        return None

    def _applies(self, number: int, rule: Rule, run_type: str, run_id: int, elapsed: float) -> bool:
        count = self._met[number, run_type, run_id]
        self._met[number, run_type, run_id] += 1
        if count < rule.skip or (rule.times is not None and count >= rule.skip + rule.times):
            return False
        if rule.fault.place is Place.API and rule.fault.kind == "pending":
            until = rule.fault.number("until")
            if until is not None and elapsed >= until:
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
