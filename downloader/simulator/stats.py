"""Counting what was asked and answered, so that a test can assert on it."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from downloader.simulator.catalogue import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NO_STATUS = "none"
"""In place of a status: the connection was reset or left without an answer."""


class Stats:
    """Counters of one simulator; safe to read from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: Counter[Place] = Counter()
        self._clear()

    def _clear(self) -> None:
        self._api: dict[str, Counter[str]] = {}
        self._asked: Counter[int] = Counter()
        self._batches: Counter[int] = Counter()
        self._storage: Counter[str] = Counter()
        self._full: Counter[int] = Counter()
        self._ranged: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._bytes_sent = 0
        self._leaked_keys = 0
        self._by_http = 0
        self._highest: Counter[Place] = Counter(self._in_flight)
        self._highest_of_all = self._in_flight.total()

    def reset(self) -> None:
        """Start counting from zero; what is in flight stays in flight."""
        with self._lock:
            self._clear()

    @contextmanager
    def in_flight(self, place: Place) -> Iterator[None]:
        """Count one request as being answered."""
        with self._lock:
            self._in_flight[place] += 1
            self._highest[place] = max(self._highest[place], self._in_flight[place])
            self._highest_of_all = max(self._highest_of_all, self._in_flight.total())
        try:
            yield
        finally:
            with self._lock:
                self._in_flight[place] -= 1

    def api_request(self, kind: str, status: int | None) -> None:
        """Count an answer of the API; `kind` is bulk, single or other."""
        with self._lock:
            self._api.setdefault(kind, Counter())[_word(status)] += 1

    def asked(self, run_ids: Sequence[int], *, bulk: bool) -> None:
        """Count the runs of one request."""
        with self._lock:
            self._asked.update(run_ids)
            if bulk:
                self._batches[len(run_ids)] += 1

    def storage_request(self, status: int | None, *, run_id: int | None, ranged: bool) -> None:
        """Count an answer of the storage."""
        with self._lock:
            self._storage[_word(status)] += 1
            if run_id is not None:
                (self._ranged if ranged else self._full)[run_id] += 1

    def leaked_key(self) -> None:
        """Count a request to the storage that carried the API's key."""
        with self._lock:
            self._leaked_keys += 1

    def by_http(self) -> None:
        """Count a request to the storage by http, where it is to be asked by https."""
        with self._lock:
            self._by_http += 1

    def sent(self, count: int) -> None:
        """Count bytes of bodies that the storage has sent."""
        with self._lock:
            self._bytes_sent += count

    def fault(self, place: Place, kind: str) -> None:
        """Count a fault that was acted out."""
        with self._lock:
            self._faults[f"{place}:{kind}"] += 1

    def snapshot(self) -> dict[str, Any]:
        """All counters as JSON; every key of an object is a string."""
        with self._lock:
            api = {kind: self._api.get(kind, Counter()) for kind in ("bulk", "single", "other")}
            return {
                "api": {
                    "requests": sum(counter.total() for counter in api.values()),
                    **{kind: dict(counter) for kind, counter in api.items()},
                    "ids_asked": self._asked.total(),
                    "asked_by_run": _keyed(self._asked),
                    "batch_sizes": _keyed(self._batches),
                    "highest_in_flight": self._highest[Place.API],
                },
                "storage": {
                    "requests": self._storage.total(),
                    "by_status": dict(self._storage),
                    "by_run": {
                        str(run_id): {"full": self._full[run_id], "ranged": self._ranged[run_id]}
                        for run_id in {**self._full, **self._ranged}
                    },
                    "bytes_sent": self._bytes_sent,
                    "by_http": self._by_http,
                    "highest_in_flight": self._highest[Place.STORAGE],
                },
                "faults": dict(self._faults),
                "storage_requests_with_api_key": self._leaked_keys,
                "highest_in_flight": self._highest_of_all,
            }


def _word(status: int | None) -> str:
    return NO_STATUS if status is None else str(status)


def _keyed(counter: Counter[int]) -> dict[str, int]:
    return {str(key): count for key, count in counter.items()}
