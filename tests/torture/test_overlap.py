"""Processes that share the work ask for nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torture.overlap import OPTIONS, overlap, too_many_requests
from torture.rig import Rig
from torture.truth import assert_nothing

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 400


def test_overlap(tmp_path: Path) -> None:
    """Four processes fetch each file once, and hardly ask more often than a single one does."""
    asked = []
    for processes in (1, 4):
        with Rig(tmp_path / str(processes), **OPTIONS) as rig:
            assert_nothing(overlap(rig, RUNS, processes=processes))
            asked.append(rig.simulator.stats()["api"]["requests"])
    assert_nothing(too_many_requests(asked[1], baseline=asked[0]))
