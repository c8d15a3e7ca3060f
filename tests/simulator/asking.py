"""Asking a simulator, as the simulator's own tests do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import httpx

if TYPE_CHECKING:
    from pathlib import Path

    from downloader.simulator.rules import Rule
    from downloader.simulator.server import Simulator

KEY = {"x-api-key": "a key"}


class StartSim(Protocol):
    """Starts a simulator that lives as long as the test."""

    def __call__(
        self,
        *rules: Rule,
        certfile: Path | None = None,
        keyfile: Path | None = None,
        **options: Any,  # noqa: ANN401 - fields of SimulatorOptions
    ) -> Simulator:
        """Start it with these rules and options."""


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
    """Get a presigned URL of a run, from the bulk endpoint."""
    url = ask(sim, run_id, run_id + 1).json()[str(run_id)]["output_url"]
    assert isinstance(url, str)
    return url
