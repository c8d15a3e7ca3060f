"""What the simulator's own tests share."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from downloader.simulator.options import SimulatorOptions
from downloader.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from downloader.simulator.rules import Rule

KEY = {"x-api-key": "a key"}


class StartSim(Protocol):
    """Starts a simulator that lives as long as the test."""

    def __call__(
        self,
        *rules: Rule,
        certfile: Path | None = None,
        keyfile: Path | None = None,
        **options: Any,
    ) -> Simulator:
        """Start it with these rules and options."""


@pytest.fixture
def start_sim() -> Iterator[StartSim]:
    """Start simulators with 4 KB files, unless told otherwise."""
    with ExitStack() as stack:

        def start(
            *rules: Rule,
            certfile: Path | None = None,
            keyfile: Path | None = None,
            **options: Any,
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
    """A simulator without faults."""
    return start_sim()


def ask(sim: Simulator, *run_ids: int, run_type: str = "text-to-sound") -> httpx.Response:
    """Ask the bulk endpoint."""
    return httpx.post(
        f"{sim.api_url}/{run_type}-results", json={"run_ids": run_ids}, headers=KEY, timeout=10
    )


def ask_one(sim: Simulator, run_id: int, run_type: str = "text-to-sound") -> httpx.Response:
    """Ask the single-run endpoint for a URL."""
    return httpx.get(
        f"{sim.api_url}/{run_type}-result/{run_id}?output_type=file_url", headers=KEY, timeout=10
    )


def url_of(sim: Simulator, run_id: int) -> str:
    """A presigned URL of a run, from the bulk endpoint."""
    url = ask(sim, run_id, run_id + 1).json()[str(run_id)]["output_url"]
    assert isinstance(url, str)
    return url
