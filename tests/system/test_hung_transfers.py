"""A transfer whose thread hangs: its run and its place are others', and it writes nothing late."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from store.driving import Driver

from downloader.transfer import guard
from downloader.transfer.part import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import MakeService, StartSimulator


class _Disk:
    """Lets the first fsync of each of some files hang until it is told to end."""

    def __init__(self, files: int) -> None:
        self._left = files
        self._lock = threading.Lock()
        self._go = threading.Event()
        self._sync = Part.sync
        self.hung = 0
        self.back = threading.Semaphore(0)

    def sync(self, part: Part) -> None:
        """Force a part to the disk."""
        with self._lock:
            hangs = self._left > 0
            self._left -= hangs
            self.hung += hangs
        if hangs:
            self._go.wait()
            self.back.release()
        self._sync(part)

    def answer(self) -> None:
        """Let it all end."""
        self._go.set()


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Disk]:
    """Have three fsyncs hang."""
    disk = _Disk(3)
    monkeypatch.setattr(Part, "sync", lambda part: disk.sync(part))  # noqa: PLW0108 - a method
    monkeypatch.setattr(guard, "HUNG_SECONDS", 0.5)
    yield disk
    disk.answer()


def test_hung_threads(
    start_simulator: StartSimulator, make_service: MakeService, hang: _Disk
) -> None:
    """Runs whose threads hang lose their leases, are saved by others, and a drain ends."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(*range(1, 9))
    service.run(lease_seconds=1.5, concurrency=4)
    assert hang.hung == 3
    service.assert_saved(simulator, *range(1, 9))
    rescued = "SELECT count(*) FROM run_events WHERE reason = 'lease_ran_out'"
    assert Driver(service.database).query(rescued)[0][0] >= 3
    before = service.rows("*")
    hang.answer()
    for _ in range(3):
        assert hang.back.acquire(timeout=30)
    assert service.rows("*") == before
