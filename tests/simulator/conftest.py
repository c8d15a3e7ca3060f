"""What the simulator's own tests share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulator.asking import StartSim

    from downloader.simulator.rules import Rule


@pytest.fixture
def start_sim() -> Iterator[StartSim]:
    """Start simulators with 4 KB files, unless told otherwise."""
    with ExitStack() as stack:

        def start(
            *rules: Rule,
            certfile: Path | None = None,
            keyfile: Path | None = None,
            **options: Any,  # noqa: ANN401 - fields of SimulatorOptions
        ) -> Simulator:
            options = {"min_size": 4096, "max_size": 4096} | options
            return stack.enter_context(
                Simulator(
                    SimulatorOptions(rules=rules, **options), certfile=certfile, keyfile=keyfile
                )
            )

        yield start


@pytest.fixture
def sim(start_sim: StartSim) -> Simulator:
    """Start a simulator without faults."""
    return start_sim()
