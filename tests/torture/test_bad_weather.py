"""Trouble that is everybody's costs no run anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from torture.bad_weather import OPTIONS, SHORT, Lane, bad_weather
from torture.rig import QUICK, Rig
from torture.truth import assert_nothing

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = (*QUICK, "--attempts", "4", "--refreshes", "4")
"""Few enough tries that an outage of a second would spend them, if it spent any."""


@pytest.mark.parametrize("place", SHORT)
def test_bad_weather(tmp_path: Path, place: str) -> None:
    """Whatever a service answers to all for a while, in the end every run is saved and right."""
    names = [f"{place}-{name}" for name in SHORT[place]]
    lane = Lane(names, runs=12 * len(names), outage=1.2, calm=1.2, settings=SETTINGS)
    with Rig(tmp_path / "rig", **OPTIONS) as rig:
        assert_nothing(bad_weather(rig, lane))
