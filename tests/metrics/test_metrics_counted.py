"""What a service goes through, and how it is counted: the service in this process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from harness import wait_until
from metrics.scraping import Scrape
from prometheus_client import generate_latest

from downloader import service
from downloader.clock import utc_now
from downloader.observe.export import Export
from downloader.observe.progress import Silent
from downloader.rules.states import RunKey
from downloader.rules.steps import UrlReceived
from downloader.session import Mode
from downloader.store import control, polling, transfers
from downloader.store.leases import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness import MakeService, Service, StartSimulator

TYPE = "text-to-sound"


def measured(made: Service, mode: Mode = Mode.DRAIN, **changes: Any) -> Scrape:  # noqa: ANN401 - fields of Settings
    """Run a service to its end; return what it has told at last."""
    settings = replace(made.settings, **changes)
    with Export(host="127.0.0.1", port=None, textfile=None) as export:
        service.run(settings, made.database, mode, Silent(), metrics=export)
        return Scrape(generate_latest(export._written).decode())


STATUS = {"kind": "status"}


@pytest.mark.parametrize(
    ("where", "fault", "counted"),
    [
        ("storage", STATUS | {"status": 503}, ("transfers_total", "retry|blocked")),
        ("storage", STATUS | {"status": 503}, ("transfer_errors_total", "storage_busy")),
        ("storage", {"kind": "truncate"}, ("transfer_errors_total", "network")),
        ("storage", {"kind": "expired"}, ("transfers_total", "new_url")),
        ("storage", {"kind": "expired"}, ("url_refreshes_total", "expired")),
        ("storage", STATUS | {"status": 403}, ("url_refreshes_total", "refused")),
        ("storage", STATUS | {"status": 404}, ("url_refreshes_total", "other")),
        ("api", {"kind": "word", "word": "ERROR"}, ("run_failures_total", "provider_failed")),
        ("api", STATUS | {"status": 429}, ("api_requests_total", "no_answer")),
        ("api", STATUS | {"status": 429}, ("api_request_errors_total", "throttled")),
        ("api", STATUS | {"status": 422}, ("api_requests_total", "refused")),
        ("api", STATUS | {"status": 403}, ("api_requests_total", "forbidden")),
    ],
)
def test_a_fault_has_its_count(
    start_simulator: StartSimulator,
    make_service: MakeService,
    where: str,
    fault: dict[str, Any],
    counted: tuple[str, str],
) -> None:
    """One fault of one run of three is counted once, under its word."""
    rule = {"runs": [1], "where": where, "fault": fault, "times": 1}
    made = make_service(start_simulator(rules=[rule]))
    made.submit(1, 2, 3)
    found = measured(made)
    name, word = counted
    [label] = {label for sample, has, _ in found.samples() for label in has if name in sample}
    # Whose fault it is may not be told yet by what the others have got.
    assert sum(found(name, **{label: one}) for one in word.split("|")) == 1
    assert found("transfers_total", outcome="done") + found("run_failures_total") == 3


def test_a_transfer_that_fails_for_good(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A run whose last attempt has failed counts as one, under the code of that."""
    rule = {"runs": [1], "where": "storage", "fault": {"kind": "status", "status": 500}}
    made = make_service(start_simulator(rules=[rule]))
    made.submit(1, 2)
    found = measured(made, limits=replace(made.settings.limits, attempts=1, patience_seconds=0))
    assert found.of("run_failures_total", "error_code") == {"storage_error": 1}
    outcomes = found.of("transfers_total", "outcome")
    assert outcomes | {"blocked": 0} == {"failed": 1, "done": 1, "blocked": 0}


def claimed_by_nobody(made: Service, run_id: int, seconds: float, *, expired: bool = False) -> None:
    """Leave a run as a process does that was killed, its claim to end in so many seconds."""
    now, owner = utc_now(), Owner()
    [batch] = polling.claim_due(
        made.database,
        owner,
        [TYPE],
        wanted=polling.Wanted(1),
        now=now,
        cutoff=now,
        soon_seconds=0,
        lease_until=now + timedelta(seconds=60),
    )
    expires = now - timedelta(seconds=1) if expired else None
    received = UrlReceived("http://127.0.0.1:1/1.wav?X-Amz-Signature=1", expires, "SUCCESS")
    assert polling.record_polls(
        made.database, [(RunKey(TYPE, run_id), batch.lease, received)], now
    ) == [True]
    if not expired:
        claim = transfers.Claim(
            owner, 1, now, None, now + timedelta(seconds=seconds), lambda _: None
        )
        assert len(transfers.claim_ready(made.database, claim).claimed) == 1


def test_a_rescue(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A run taken back from a process that was killed is counted, by who took it."""
    made = make_service(start_simulator())
    made.submit(1)
    claimed_by_nobody(made, 1, -1)
    # Its URL leads nowhere.
    limits = replace(made.settings.limits, give_up_after_seconds=0)
    found = measured(made, limits=limits)
    assert found("lease_rescues_total") == 1


def test_a_url_that_expired_unused(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A URL that expired before a transfer began costs a refresh, and is no transfer."""
    made = make_service(start_simulator())
    made.submit(1)
    claimed_by_nobody(made, 1, 0, expired=True)
    found = measured(made)
    assert found.of("url_refreshes_total", "reason") == {"expired_unused": 1}
    assert found.of("transfers_total", "outcome") == {"done": 1}


class Watched(Export):
    """Metrics that a test looks at while the service runs."""

    def look(self) -> Scrape:
        """Return what is told now."""
        return Scrape(generate_latest(self._written).decode())


def while_it_runs(made: Service, act: Callable[[Watched], None], **changes: Any) -> Scrape:  # noqa: ANN401 - fields of Settings
    """Drain in this thread, and act in another one meanwhile; return what is told at last."""
    failures: list[BaseException] = []

    def acting() -> None:
        try:
            act(export)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    with contextlib.ExitStack() as stack:
        export = stack.enter_context(Watched(host="127.0.0.1", port=None, textfile=None))
        thread = threading.Thread(target=acting)
        thread.start()
        settings = replace(made.settings, **changes)
        service.run(settings, made.database, Mode.DRAIN, Silent(), metrics=export)
        thread.join()
        if failures:
            raise failures[0]
        return export.look()


def test_what_is_under_way_and_interrupted(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Transfers under way are told while they are, and as interrupted when the service ends."""
    slow = {"runs": "*", "where": "storage", "fault": {"kind": "slow", "seconds": 60}}
    made = make_service(start_simulator(rules=[slow]))
    made.submit(1, 2, 3)
    most: list[float] = []

    def act(export: Watched) -> None:
        def all_begun() -> bool:
            with contextlib.suppress(AssertionError):  # the service is yet to begin
                most.append(export.look()("transfers_active"))
            return bool(most) and most[-1] == 3

        wait_until(all_begun)
        os.kill(os.getpid(), signal.SIGTERM)  # the service listens to it by now

    found = while_it_runs(made, act, grace_seconds=0.1)
    assert max(most) == 3
    assert found("transfers_active") == 0
    assert found.of("transfers_total", "outcome") == {"interrupted": 3}


def test_a_lost_lease(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A run that is cancelled while it is transferred ends its transfer as one that lost it."""
    slow = {"runs": [1], "where": "storage", "fault": {"kind": "slow", "seconds": 60}}
    made = make_service(start_simulator(rules=[slow]))
    made.submit(1)

    def act(_: Watched) -> None:
        wait_until(lambda: made.states() == {1: "downloading"})
        control.cancel(made.database, [RunKey(TYPE, 1)], utc_now())

    found = while_it_runs(made, act)
    assert found.of("transfers_total", "outcome") == {"lease_lost": 1}
    assert found.of("runs", "state") == {"cancelled": 1}


@pytest.mark.parametrize(("hook", "outcome"), [("true", "done"), ("false", "failed")])
def test_hooks(
    make_service: MakeService, start_simulator: StartSimulator, hook: str, outcome: str
) -> None:
    """Each hook is counted by its command and how it ended; all else is there as 0."""
    made = make_service(start_simulator())
    made.submit(1, 2, 3)
    found = measured(made, on_done=(f"/bin/{hook}",))
    counted = {
        (has["hook"], has["outcome"]): value
        for name, has, value in found.samples()
        if name == "downloader_hooks_total"
    }
    assert len(counted) == 8
    assert {key: value for key, value in counted.items() if value} == {("on_done", outcome): 3}
