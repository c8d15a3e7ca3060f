"""Everything that can go wrong at the service, all at once, ends in whole files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torture.fault_storm import OPTIONS, bad_ones_hold_up_nobody, fault_storm
from torture.rig import Rig
from torture.truth import assert_nothing

if TYPE_CHECKING:
    from pathlib import Path


def test_fault_storm(tmp_path: Path) -> None:
    """With a fifth of all answers wrong every good run is saved, and every bad one says why."""
    with Rig(tmp_path / "rig", **OPTIONS) as rig:
        assert_nothing(fault_storm(rig, 250))


def test_bad_ones_hold_up_nobody(tmp_path: Path) -> None:
    """Runs that never get better are tried again and again, and the others are saved meanwhile."""
    with Rig(tmp_path / "rig", min_size=2_000, max_size=30_000) as rig:
        assert_nothing(bad_ones_hold_up_nobody(rig, 40))
