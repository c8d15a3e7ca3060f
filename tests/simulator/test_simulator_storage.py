from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest
from simulator.asking import url_of

from downloader.simulator.rules import Rule

if TYPE_CHECKING:
    from simulator.asking import StartSim

    from downloader.simulator.server import Simulator


def test_a_file_comes_with_what_a_client_needs(sim: Simulator) -> None:
    """200 carries length, type, strong ETag, dates and the offer of ranges."""
    answer = httpx.get(url_of(sim, 1))

    assert answer.content == sim.audio(1)
    assert answer.headers["content-length"] == "4096"
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')
    assert "date" in answer.headers
    assert "last-modified" in answer.headers


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=4000-", 4000, 4096),
        ("bytes=4000-9999", 4000, 4096),
        ("bytes=-10", 4086, 4096),
        ("bytes=-9999", 0, 4096),
    ],
)
def test_a_range_is_a_206(sim: Simulator, asked: str, start: int, stop: int) -> None:
    """A range gets its bytes, and a Content-Range that says which."""
    answer = httpx.get(url_of(sim, 1), headers={"range": asked})

    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/4096"
    assert answer.content == sim.audio(1)[start:stop]


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=x-"])
def test_what_is_not_one_range_is_ignored(sim: Simulator, asked: str) -> None:
    """Several ranges, other units and nonsense get the whole file."""
    answer = httpx.get(url_of(sim, 1), headers={"range": asked})

    assert (answer.status_code, len(answer.content)) == (200, 4096)


@pytest.mark.parametrize("asked", ["bytes=4096-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_beyond_the_end_is_a_416(sim: Simulator, asked: str) -> None:
    """416 tells the length."""
    answer = httpx.get(url_of(sim, 1), headers={"range": asked})

    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */4096")


def test_if_range_asks_for_the_same_object(sim: Simulator) -> None:
    """If-Range with the strong ETag or the date gets the range; with anything else, all."""
    url = url_of(sim, 1)
    headers = httpx.get(url).headers
    conditions = {
        headers["etag"]: 206,
        headers["last-modified"]: 206,
        '"another"': 200,
        f"W/{headers['etag']}": 200,
        "Thu, 01 Jan 1970 00:00:00 GMT": 200,
    }

    for condition, status in conditions.items():
        answer = httpx.get(url, headers={"range": "bytes=10-", "if-range": condition})
        assert answer.status_code == status, condition


def test_a_large_file_is_never_held_whole(start_sim: StartSim) -> None:
    """200 MB go through a few MB of memory, and their end is at once at hand."""
    size = 200_000_000
    sim = start_sim(min_size=size, max_size=size)
    url = url_of(sim, 1)
    before = psutil.Process().memory_info().rss

    with httpx.stream("GET", url) as answer:
        received = sum(len(chunk) for chunk in answer.iter_raw(1 << 20))
    tail = httpx.get(url, headers={"range": "bytes=-1000"})

    assert received == size
    assert len(tail.content) == 1000
    assert psutil.Process().memory_info().rss - before < 50_000_000


def test_bandwidth_is_limited(start_sim: StartSim) -> None:
    """4096 bytes at 16 KB/s take about a quarter of a second."""
    sim = start_sim(bandwidth=16_384)
    url = url_of(sim, 1)

    begun = time.monotonic()
    answer = httpx.get(url)

    assert answer.content == sim.audio(1)
    assert time.monotonic() - begun >= 0.15


def test_latency_is_before_the_first_byte(start_sim: StartSim) -> None:
    """Both services answer late when told to."""
    sim = start_sim(api_latency=0.05, storage_latency=0.05)

    begun = time.monotonic()
    url = url_of(sim, 1)
    middle = time.monotonic()
    httpx.get(url)

    assert middle - begun >= 0.05
    assert time.monotonic() - middle >= 0.05


def test_counters_tell_what_happened(start_sim: StartSim) -> None:
    """Requests are counted by kind, status and run; reset starts from zero."""
    sim = start_sim(Rule.of(2, "storage", "status", status=500))
    url, broken = url_of(sim, 1), url_of(sim, 2)
    httpx.get(url)
    httpx.get(url, headers={"range": "bytes=5-"})
    httpx.get(broken)

    stats = httpx.get(f"{sim.control_url}/stats").json()
    assert stats == sim.stats()
    assert stats["api"]["bulk"] == {"200": 2}
    assert stats["api"]["requests"] == 2
    assert stats["api"]["ids_asked"] == 4
    assert stats["api"]["asked_by_run"] == {"1": 1, "2": 2, "3": 1}
    assert stats["api"]["batch_sizes"] == {"2": 2}
    assert stats["storage"]["by_status"] == {"200": 1, "206": 1, "500": 1}
    assert stats["storage"]["by_run"]["1"] == {"full": 1, "ranged": 1}
    assert stats["storage"]["bytes_sent"] > 4096 + 4091
    assert stats["faults"] == {"storage:status": 1}
    assert stats["highest_in_flight"] == 1

    assert httpx.post(f"{sim.control_url}/reset").status_code == 204
    assert sim.stats()["api"]["requests"] == 0
    assert sim.stats()["storage"]["by_run"] == {}
