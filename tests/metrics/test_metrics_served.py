from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import sqlite3
import struct
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from harness import wait_until
from metrics.scraping import Scrape, address, assert_lint_free, scrape

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from harness import Program, StartSimulator

RUNS = 60
FAULTS = [
    {"runs": [1], "where": "api", "fault": {"kind": "word", "word": "ERROR"}},
    {"runs": [2, 3], "where": "storage", "fault": {"kind": "status", "status": 500}, "times": 1},
    {"runs": [4], "where": "storage", "fault": {"kind": "expired"}, "times": 1},
]


@contextlib.contextmanager
def daemon(program: Program, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a daemon that serves its metrics; at the end it is told to stop, and must in peace."""
    with program.start("run", "--metrics-port", "0", *arguments) as process:
        url = address(process)
        yield process, url
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err


def counters(found: Scrape) -> dict[tuple[str, str], float]:
    """Return every value that may only grow."""
    return {
        (name, str(sorted(labels.items()))): value
        for family in found.families.values()
        if family.type in ("counter", "histogram")
        for name, labels, value in ((s.name, s.labels, s.value) for s in family.samples)
    }


def test_a_daemon_tells_what_the_database_has(
    quick: Program, start_simulator: StartSimulator
) -> None:
    """Scraped while it works, counters only grow; at the end they are what the database says."""
    simulator = start_simulator(rules=FAULTS, finish_after=0.5)
    quick.env["DOWNLOADER_API_URL"] = simulator.api_url
    quick.submit(range(1, RUNS + 1))
    with daemon(quick) as (process, url):
        seen = [scrape(url)]

        def finished() -> bool:
            seen.append(scrape(url))
            runs = seen[-1].of("runs", "state")
            return runs.get("done", 0) + runs.get("failed", 0) == RUNS

        wait_until(finished, process)
        found = seen[-1]
        for earlier, later in itertools.pairwise(seen):
            grown = counters(later)
            assert not {name for name, value in counters(earlier).items() if grown[name] < value}
        tracked = dict(quick.query("SELECT state, count(*) FROM runs GROUP BY 1"))
        assert found.of("runs", "state") == tracked == {"done": RUNS - 1, "failed": 1}
        [(size,)] = quick.query("SELECT sum(bytes) FROM runs")
        assert found("stored_bytes") == found("saved_bytes_total") == size
        assert found("received_bytes_total") >= size
        assert found("transfers_total", outcome="done") == tracked["done"]
        assert found("transfer_duration_seconds_count") == tracked["done"]
        assert found.of("transfer_errors_total", "error_code") == {
            "storage_error": 2,
            "url_expired": 1,
        }
        assert found.of("run_failures_total", "error_code") == {"provider_failed": 1}
        requests = simulator.stats()["api"]["requests"]
        assert (
            found("api_requests_total") == requests == found("api_request_duration_seconds_count")
        )
        assert found("oldest_unfinished_age_seconds") == 0
        assert found("transfers_active") == 0
        assert found("concurrency_limit") >= 1
        assert (found("blocked"), found("database_up")) == (0, 1)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.needs("promtool")
def test_prometheus_reads_what_a_daemon_tells(
    quick: Program, start_simulator: StartSimulator
) -> None:
    """Prometheus' own tool has nothing to say against it, with errors and failures among it."""
    quick.env["DOWNLOADER_API_URL"] = start_simulator(rules=FAULTS).api_url
    quick.submit(range(1, RUNS + 1))
    with daemon(quick) as (process, url):
        finished = {"done": RUNS - 1, "failed": 1}
        wait_until(lambda: scrape(url).of("runs", "state") == finished, process)
        assert_lint_free(scrape(url))


def test_each_of_two_processes_tells_its_share(
    quick: Program, start_simulator: StartSimulator
) -> None:
    """Of two daemons on one database each counts its own work, and both know all the runs."""
    simulator = start_simulator(min_size=100_000, max_size=200_000)
    quick.env["DOWNLOADER_API_URL"] = simulator.api_url
    quick.submit(range(1, 201))
    with daemon(quick) as (one, first), daemon(quick) as (two, second):
        done = {"done": 200.0}
        wait_until(
            lambda: all(scrape(url).of("runs", "state") == done for url in (first, second)),
            one,
            two,
        )
        both = [scrape(url) for url in (first, second)]
        assert sum(found("transfers_total", outcome="done") for found in both) == 200
        [(size,)] = quick.query("SELECT sum(bytes) FROM runs")
        assert sum(found("saved_bytes_total") for found in both) == size
        assert [found("stored_bytes") for found in both] == [size, size]


def test_a_block_is_told_with_its_reason(quick: Program, start_simulator: StartSimulator) -> None:
    """A refused key is 1 under its scope and reason, and 0 again when the key is good."""
    simulator = start_simulator(api_key="another")
    quick.env["DOWNLOADER_API_URL"] = simulator.api_url
    quick.submit(range(1, 4))
    with daemon(quick) as (process, url):
        wait_until(lambda: scrape(url)("blocked") == 1, process)
        found = scrape(url)
        assert found("blocked", scope="api", reason="key_refused") == 1
        assert found("api_requests_total", outcome="blocked") >= 1
        assert found("oldest_unfinished_age_seconds") > 0
        simulator.set_options(type(simulator.options)(min_size=2_000, max_size=30_000))
        with contextlib.closing(sqlite3.connect(quick.database, timeout=30)) as raw, raw:
            raw.execute("UPDATE blocks SET until = '2020-01-01 00:00:00.000000'")  # probe now
        wait_until(lambda: scrape(url).of("runs", "state") == {"done": 3}, process)
        assert scrape(url)("blocked") == 0


def test_who_asks_badly_holds_up_nobody(quick: Program, start_simulator: StartSimulator) -> None:
    """A client that is silent, or talks nonsense, or goes away, delays nobody and is no news."""
    quick.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    quick.submit([1])
    with daemon(quick) as (process, url), contextlib.ExitStack() as stack:
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        where = (parts.hostname, parts.port or 0)
        silent = [stack.enter_context(socket.create_connection(where)) for _ in range(20)]
        for said in (b"\x16\x03\x01\x02\x00\x01" * 20, b"GET /metrics HTTP/1.1\r\n", b"\r\n\r\n"):
            with socket.create_connection(where) as gone:
                gone.sendall(said)
                # Closed by a reset, whatever has been read of it.
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: scrape(url).of("runs", "state") == {"done": 1}, process)
        answers: list[Scrape] = []
        asking = [
            threading.Thread(target=lambda: answers.append(scrape(url)), daemon=True)
            for _ in range(10)
        ]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert len(answers) == 10
        assert len(silent) == 20


@pytest.mark.parametrize("host", ["localhost", "::1", "0.0.0.0"])  # noqa: S104 - meant
def test_another_address(quick: Program, start_simulator: StartSimulator, host: str) -> None:
    """--metrics-host takes a name, an address of IPv6 where the machine has it, and every one."""
    quick.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    if host == "::1" and not has_ipv6():
        assert quick("run", "--metrics-port", "0", "--metrics-host", host).returncode == 2
        return
    quick.submit([1])
    with daemon(quick, "--metrics-host", host) as (process, url):
        wait_until(lambda: scrape(url).of("runs", "state") == {"done": 1}, process)


def has_ipv6() -> bool:
    """Return whether this machine can be spoken to by IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_free_port_is_told_in_a_log_too(quick: Program, start_simulator: StartSimulator) -> None:
    """The log has the address; a drain off a terminal says nothing of a port that it was given."""
    quick.env["DOWNLOADER_API_URL"] = start_simulator().api_url
    quick.submit([1])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    done = quick("run", "--drain", "--metrics-port", port)
    assert (done.returncode, done.stdout[:7], done.stderr) == (0, "1 saved", "")
    done = quick("run", "--drain", "--metrics-port", port, "-v")
    assert f"http://127.0.0.1:{port}/metrics" in done.stderr
