"""Processes that are killed at random lose nothing between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torture.random_kills import OPTIONS, Plan, random_kills
from torture.rig import Rig
from torture.truth import assert_nothing

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_at_random(tmp_path: Path) -> None:
    """Daemons and cron jobs, killed at random under faults, save every file whole and once."""
    with Rig(tmp_path / "rig", **OPTIONS) as rig:
        assert_nothing(random_kills(rig, Plan(runs=150, kills=12, seed=1)))
