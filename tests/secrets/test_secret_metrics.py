"""Metrics: no key, no signature, and no label that anybody else than the program words."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from harness import wait_until
from metrics.scraping import Scrape, address, scrape
from spilling import API_KEY, signed

if TYPE_CHECKING:
    from harness import Program, StartSimulator
    from spilling import Secrets

_BOUNDED = re.compile(r"[a-z]+(_[a-z]+)*|\+Inf|[0-9.]+", re.ASCII)


def test_metrics_tell_no_secret(
    keyed_program: Program, watched: StartSimulator, secrets: Secrets
) -> None:
    """Whatever service and storage say, at the address and in the file there are words of ours."""
    url = secrets.also(signed("https://storage.example/1.wav"))
    speech = f"x-api-key: {API_KEY} and {url} are refused"
    said = {"kind": "status", "message": speech}
    simulator = watched(
        rules=[
            {
                "runs": [1],
                "where": "api",
                "fault": {"kind": "word", "word": "ERROR", "reason": speech},
            },
            {"runs": [2], "where": "api", "fault": {"kind": "word", "word": speech}, "times": 1},
            {
                "runs": [3],
                "where": "api",
                "fault": {"kind": "status", "status": 422, "detail": speech},
            },
            {"runs": [4], "where": "storage", "fault": said | {"status": 403}, "times": 2},
            {"runs": [5], "where": "storage", "fault": said | {"status": 500}, "times": 1},
            {
                "runs": [6],
                "where": "storage",
                "fault": {"kind": "redirect", "to": "loop"},
                "times": 1,
            },
        ]
    )  # fmt: skip - a line each
    path = keyed_program.folder / "m.prom"
    keyed_program.env |= {
        "DOWNLOADER_API_URL": simulator.api_url,
        "DOWNLOADER_METRICS_PORT": "0",
        "DOWNLOADER_METRICS_TEXTFILE": str(path),
        "DOWNLOADER_MIN_POLL": "0.05",
        "DOWNLOADER_MAX_POLL": "0.2",
    }
    keyed_program.submit(range(1, 11))
    with keyed_program.start("run") as process:
        where = address(process)
        wait_until(lambda: scrape(where).of("runs", "state") == {"done": 8, "failed": 2}, process)
        texts = [scrape(where).text]
        process.send_signal(signal.SIGTERM)
        process.communicate()
    texts.append(path.read_text(encoding="utf-8"))
    assert len(secrets.urls) > 8
    for text in texts:
        assert secrets(text) == []
        assert "http" not in text
        assert str(keyed_program.folder) not in text
        labels = [value for _, has, _ in Scrape(text).samples() for value in has.values()]
        assert len(labels) > 100
        assert [value for value in labels if not _BOUNDED.fullmatch(value)] == []
