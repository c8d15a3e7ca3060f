"""A process killed at any place there is loses nothing, and the next one goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torture.killed_steps import SCENARIOS, Passes, options_of
from torture.rig import Rig

from downloader.failpoints import At

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("at", At)
def test_killed_at_every_step(tmp_path: Path, at: At) -> None:
    """Whatever place a process dies at, the database tells the truth and the rest gets done."""
    assert at in SCENARIOS, f"nothing reaches {at}: give it a scenario in killed_steps.py"
    with Rig(tmp_path / "rig", **options_of(at)) as rig:
        SCENARIOS[at](rig, at, Passes())
