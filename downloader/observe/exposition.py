"""What Prometheus reads: each metric with its name, its type and its help.

Names follow https://prometheus.io/docs/practices/naming/. No label tells of a run, a URL or a
host: the values of each are a closed list.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from downloader import __version__
from downloader.observe.tally import OTHER
from downloader.rules.error_codes import API_ERRORS, BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from prometheus_client import Metric

    from downloader.observe.metrics import Figures, Live, Lookout
    from downloader.observe.tally import DetailedTally, Histogram

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)

_NO_ANSWER: Final = "no_answer"
_FULL_DATABASE: Final = ("database", "disk_full")
_BLOCKS: Final = sorted({*BLOCKS, ("api", _NO_ANSWER), _FULL_DATABASE})


class Exposition(Collector):
    """Makes metrics of what one service has counted, and of what its database says."""

    def __init__(self, tally: DetailedTally) -> None:
        self._tally = tally
        self._live: Callable[[], Live] | None = None
        self._lookout: Lookout | None = None
        self._received_bytes = 0

    def watch(self, live: Callable[[], Live], lookout: Lookout) -> None:
        """Ask these from now on."""
        self._live, self._lookout = live, lookout

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it stands now."""
        yield _gauge(
            "build_info", "The version of the program; always 1.", {__version__: 1}, "version"
        )
        live = None if self._live is None else self._live()
        known = None
        if self._lookout is not None:
            self._lookout.look()
            known = self._lookout.known
        yield from self._of_the_database(known)
        yield _blocked(
            {*(() if live is None else live.blocked), *(() if known is None else known.blocked)}
        )
        if live is not None:
            yield from self._of_now(live)
        yield from self._of_transfers()
        yield from self._of_runs()
        yield from self._of_hooks()
        yield from self._of_the_api()

    def _of_the_database(self, known: Figures | None) -> Iterator[Metric]:
        lookout = self._lookout
        yield _gauge(
            "database_up",
            "Whether the database could be read (1) or not (0), the last time.",
            float(lookout is not None and lookout.up),
        )
        if lookout is None or known is None:
            return  # nothing is better than a nought that nobody has read
        yield _gauge(
            "database_read_timestamp_seconds",
            "When the database was read the last time, in seconds since 1970.",
            lookout.known_at or 0.0,
        )
        yield _gauge("runs", "Tracked runs by their state.", known.runs, "state")
        yield _gauge("stored_bytes", "Size of the files of all runs done.", known.stored_bytes)
        oldest = known.oldest_unfinished_at
        yield _gauge(
            "oldest_unfinished_age_seconds",
            "How long ago the oldest unfinished run was submitted; 0 where none is.",
            0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp()),
        )

    def _of_now(self, live: Live) -> Iterator[Metric]:
        yield _gauge("transfers_active", "Transfers under way.", live.transferring)
        yield _gauge("concurrency_limit", "How many transfers there may be now.", live.concurrency)
        # What a transfer has received is for a moment nowhere as it ends: never less than before.
        self._received_bytes = max(self._received_bytes, live.received_bytes)
        yield _counter(
            "received_bytes_total",
            "Bytes of files that have arrived, also of what was fetched again.",
            self._received_bytes,
        )

    def _of_transfers(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter("saved_bytes_total", "Size of the files saved.", tally.bytes)
        yield _counter(
            "transfers_total",
            "Transfers that have ended, by how.",
            tally.transfers.read(),
            "outcome",
        )
        yield _counter(
            "transfer_errors_total",
            "Transfers that have ended without a file, by error code.",
            tally.transfer_errors.read(),
            "error_code",
        )
        yield _histogram(
            "transfer_duration_seconds",
            "How long a file took that was saved, from the claim of its run to the record.",
            tally.transfer_seconds,
        )

    def _of_runs(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter(
            "run_failures_total", "Runs that have failed.", tally.run_errors.read(), "error_code"
        )
        yield _counter(
            "url_refreshes_total",
            "Runs that needed a new URL, by what was wrong with the last.",
            tally.refreshes.read(),
            "reason",
        )
        yield _counter(
            "lease_rescues_total",
            "Runs taken back from a process that had stopped renewing its claim.",
            tally.rescues,
        )

    def _of_hooks(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "downloader_hooks_total", "Hooks that have ended, by how.", labels=["hook", "outcome"]
        )
        for hook, counts in self._tally.hooks.items():
            for outcome, number in counts.read().items():
                family.add_metric([hook, outcome], number)
        yield family

    def _of_the_api(self) -> Iterator[Metric]:
        tally = self._tally
        yield _counter(
            "api_requests_total",
            "Requests to the API, by what they led to.",
            tally.api_requests.read(),
            "outcome",
        )
        yield _counter(
            "api_request_errors_total",
            "Requests that the API refused or did not answer, by error code.",
            tally.api_errors.read(),
            "error_code",
        )
        yield _histogram(
            "api_request_duration_seconds",
            "How long the API took to answer a request, or failed to.",
            tally.api_seconds,
        )


def _gauge(
    name: str, told: str, value: float | Mapping[str, int], label: str | None = None
) -> GaugeMetricFamily:
    labels = None if label is None else [label]
    return _filled(GaugeMetricFamily(f"downloader_{name}", told, labels=labels), value)


def _counter(
    name: str, told: str, value: float | Mapping[str, int], label: str | None = None
) -> CounterMetricFamily:
    labels = None if label is None else [label]
    return _filled(CounterMetricFamily(f"downloader_{name}", told, labels=labels), value)


def _filled(family: Family, value: float | Mapping[str, int]) -> Family:
    if isinstance(value, int | float):
        family.add_metric([], value)
    else:
        for word, number in value.items():
            family.add_metric([word], number)
    return family


def _histogram(name: str, told: str, found: Histogram) -> HistogramMetricFamily:
    buckets = [
        ("+Inf" if bound == float("inf") else f"{bound:g}", number)
        for bound, number in found.read()
    ]
    return HistogramMetricFamily(
        f"downloader_{name}", told, buckets=buckets, sum_value=found.seconds
    )


def _blocked(found: Collection[tuple[str, str]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "downloader_blocked",
        "Whether the service as a whole cannot go on (1), by what is blocked and why.",
        labels=["scope", "reason"],
    )
    told = {_bounded(scope, reason) for scope, reason in found}
    for scope, reason in sorted({*_BLOCKS, *told}):
        family.add_metric([scope, reason], float((scope, reason) in told))
    return family


def _bounded(scope: str, reason: str) -> tuple[str, str]:
    """Return the same in words of a closed list: a row may be edited by hand."""
    if (scope, reason) in _BLOCKS:
        return scope, reason
    if scope == "api" and reason in API_ERRORS:
        return scope, _NO_ANSWER
    return (scope if scope in {"api", "disk"} else OTHER), OTHER
