"""A fault: one entry of the catalogue with its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from downloader.simulator.catalogue import FAULTS, Kind, Place
from downloader.simulator.errors import SimulatorError, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS_RANGES: Final = {
    "status": (400, 599),
    "not-json": (200, 599),
    "error-page": (200, 599),
    "redirect": (301, 308),
}

_PAGES: Final = ("not-json", "error-page")
_WITHOUT_BODY: Final = frozenset({204, 205, 304})


@dataclass(frozen=True)
class Fault:
    """One fault, checked against the catalogue when it is made."""

    place: Place
    kind: str
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = FAULTS[self.place]
        if self.kind not in known:
            raise SimulatorError(
                f"unknown fault {shown(self.kind)} at the {self.place}; known: {', '.join(known)}"
            )
        allowed = known[self.kind].parameters
        for name, value in self.parameters.items():
            if name not in allowed:
                raise SimulatorError(
                    f"fault {self.kind!r} at the {self.place} has no parameter {shown(name)}; "
                    f"it has: {', '.join(allowed) or 'none'}"
                )
            if value is not None:
                allowed[name].check(f"{name} of fault {self.kind!r}", value)
        if (limits := _STATUS_RANGES.get(self.kind)) and not (
            limits[0] <= self.integer("status") <= limits[1]
        ):
            raise SimulatorError(
                f"status of fault {self.kind!r} must be {limits[0]} to {limits[1]}"
            )
        if self.kind in _PAGES and self.integer("status") in _WITHOUT_BODY:
            raise SimulatorError(f"status of fault {self.kind!r} must be one that a page has")

    @property
    def entry(self) -> Kind:
        """What the catalogue says of faults of this kind."""
        return FAULTS[self.place][self.kind]

    def value(self, name: str) -> object:
        """Return a parameter as it was given, or its default."""
        given = self.parameters.get(name)
        return self.entry.parameters[name].default if given is None else given

    def integer(self, name: str, default: int = 0) -> int:
        """Return a parameter that is a whole number; `default` where the catalogue derives it."""
        value = self.value(name)
        return value if isinstance(value, int) else default

    def number(self, name: str) -> float | None:
        """Return a parameter that is a number, or None."""
        value = self.value(name)
        return float(value) if isinstance(value, int | float) else None

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter that is a string; `default` where the catalogue derives it."""
        value = self.value(name)
        return value if isinstance(value, str) else default


def describe() -> str:
    """Return the catalogue as text, for people."""
    lines: list[str] = []
    for place, kinds in FAULTS.items():
        lines.append(f"Faults at the {place}:")
        for name, kind in kinds.items():
            lines.append(f"  {name:<20} {kind.meaning}")
            for key, parameter in kind.parameters.items():
                default = "" if parameter.default is None else f" (default: {parameter.default!r})"
                choices = f" [{', '.join(parameter.choices)}]" if parameter.choices else ""
                lines.append(f"      {key:<14} {parameter.meaning}{choices}{default}")
        lines.append("")
    return "\n".join(lines).rstrip()
