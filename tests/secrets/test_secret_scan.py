"""Every fault of the simulator, every logger at its loudest: no key and no signature comes out."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from spilling import API_KEY, chain_of, files_of, rows_text, signed, told_by

from downloader.clock import utc_now
from downloader.errors import DownloaderError
from downloader.rules.decisions import Limits
from downloader.rules.states import RunKey
from downloader.session import Mode
from downloader.simulator.catalogue import FAULTS, Kind, Place
from downloader.simulator.options import STORES
from downloader.store.control import cancel
from downloader.transfer.engine import TransferError
from downloader.transfer.guard import Interrupted
from downloader.transfer.unusable import DiskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness import Service, StartSimulator
    from spilling import Listener, Secrets

    from downloader.simulator.server import Simulator

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 416, 418, 422, 429, 500, 502, 503)

# What a fault needs so as not to take long; all else is the catalogue's default.
QUICK: dict[tuple[Place, str], dict[str, Any]] = {
    (Place.API, "stall"): {"seconds": 0.1},
    (Place.API, "slow"): {"seconds": 0.05},
    (Place.STORAGE, "slow"): {"seconds": 0.05},
    (Place.STORAGE, "drip"): {"rate": 100_000},
}


class Issue:
    """Issues URLs as a spiteful service would, each with a signature of its own."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def __call__(self, address: str) -> str:
        """Return a signed URL."""
        return self._secrets.also(signed(address, len(self._secrets.urls)))

    def speech(self) -> str:
        """Return what quotes a URL, and the key."""
        return f"x-api-key: {API_KEY} and {self('https://storage.example/1.wav')} are refused"


def spiteful(place: Place, kind: str, issue: Issue) -> list[dict[str, Any]]:
    """Return parameters of a fault that have the service say what it had better not."""
    addresses = [
        "ftp://127.0.0.1/1.wav",
        "http://127.0.0.1:1/1.wav",
        f"http://user:{API_KEY}@127.0.0.1:1/1.wav",
        "http://nobody.invalid/1.wav",
        "http://[::1/1.wav",
        "http://127.0.0.1:99999/1.wav",
        "http://" + "a" * 70 + ".example/1.wav",
        "//127.0.0.1:1/1.wav",
        "/1.wav",
        "1.wav",
    ]
    speeches: dict[tuple[Place, str], Callable[[], list[dict[str, Any]]]] = {
        (Place.API, "status"): lambda: [
            *({"status": status, "detail": issue.speech()} for status in STATUSES),
            *({"status": status, "retry_after": 1} for status in (429, 503)),
        ],
        (Place.API, "word"): lambda: [
            {"word": "ERROR", "reason": issue.speech()},
            {"word": issue.speech(), "reason": issue.speech()},
            {"word": "PAYMENT_REQUIRED", "reason": issue.speech()},
        ],
        (Place.API, "url"): lambda: [{"url": issue(address)} for address in addresses],
        (Place.API, "value"): lambda: [
            {"value": value}
            for value in (
                [issue("https://storage.example/1.wav")],
                {"output_url": [issue("https://storage.example/1.wav")]},
                {"output_url": {"url": issue("https://storage.example/1.wav")}},
                {"status": issue.speech(), "message": issue.speech()},
                {"error": issue.speech()},
                issue.speech(),
                7,
            )
        ],
        (Place.API, "other-shape"): lambda: [
            {"body": issue.speech()},
            {"body": {"detail": issue.speech()}},
            {"body": {"results": issue.speech()}},
        ],
        (Place.API, "redirect"): lambda: [{"to": issue(address)} for address in addresses[1:3]],
        (Place.STORAGE, "status"): lambda: [
            *({"status": status, "message": issue.speech()} for status in STATUSES),
            {"status": 503, "retry_after": 0, "form": "date"},
        ],
        (Place.STORAGE, "redirect"): lambda: [
            *({"to": issue(address)} for address in addresses),
            *({"to": place} for place in ("same", "other", "loop")),
        ],
        (Place.STORAGE, "headers"): lambda: [
            {"headers": {"content-disposition": f"attachment; filename={issue.speech()}"}},
            {"headers": {"content-type": issue.speech()}},
            {"headers": {"content-range": issue.speech(), "retry-after": issue.speech()}},
            {"headers": {"content-encoding": issue.speech()}},
        ],
    }
    return speeches.get((place, kind), list)()


def faults_of(place: Place) -> dict[str, Kind]:
    """Return the faults that answer a request; others befall connections, and say nothing."""
    return {name: kind for name, kind in FAULTS[place].items() if not kind.connection}


def every_fault(place: Place, issue: Issue) -> Iterator[dict[str, Any]]:
    """Yield every fault of the catalogue: by default, in each of its forms, and spiteful."""
    for kind, entry in faults_of(place).items():
        plain = {"kind": kind, **QUICK.get((place, kind), {})}
        yield plain
        for name, parameter in entry.parameters.items():
            yield from (plain | {name: choice} for choice in parameter.choices)
        yield from (plain | more for more in spiteful(place, kind, issue))


def rules_of(place: Place, faults: list[dict[str, Any]], **more: object) -> list[dict[str, Any]]:
    """Return a rule for each fault: the first is about run 1, the next about run 2."""
    return [
        {"runs": [number], "where": place.value, "fault": one, **more}
        for number, one in enumerate(faults, 1)
    ]


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Keep every exception of ours that is made, until the test has looked at its chain."""
    made: list[BaseException] = []
    for kind in (DownloaderError, TransferError, DiskError, Interrupted):
        original = kind.__init__

        def keeping(
            self: BaseException,
            *arguments: Any,  # noqa: ANN401 - whatever the exception takes
            _original: Callable[..., None] = original,
        ) -> None:
            made.append(self)
            _original(self, *arguments)

        monkeypatch.setattr(kind, "__init__", keeping)
    return made


@pytest.fixture
def loud_service(
    keyed_service: Callable[[Simulator], Service],
) -> Callable[..., Service]:
    """Make the service for a simulator, impatient and soon discouraged."""

    def make(simulator: Simulator, **limits: Any) -> Service:  # noqa: ANN401 - fields of Limits
        made = keyed_service(simulator)
        made.settings = replace(
            made.settings,
            stall_seconds=0.5,
            concurrency=16,
            min_free_bytes=0,
            limits=Limits(min_poll_seconds=0.05, max_poll_seconds=0.1, **limits),
        )
        return made

    return make


@pytest.fixture
def assert_nothing_spilt(
    listener: Listener,
    secrets: Secrets,
    raised: list[BaseException],
    capsys: pytest.CaptureFixture[str],
) -> Callable[[Service], None]:
    """Assert that nothing a service leaves behind has the key or a signature in it."""

    def check(service: Service) -> None:
        said = capsys.readouterr()
        database = service.database.path
        assert {"httpcore.http11", "httpx"} & listener.speakers == set()
        assert {"asyncio", "alembic.runtime.migration"} & listener.speakers, "nobody listens"
        assert secrets(listener.text) == []
        assert secrets(said.out + said.err) == []
        assert secrets(rows_text(database)) == []
        assert secrets("\n".join(str(path) for path in database.parent.rglob("*"))) == []
        assert secrets("\n".join(map(told_by, raised))) == []
        for path in files_of(database):
            assert secrets(path.read_bytes(), urls=[]) == [], path
        assert len(list(files_of(database))) == 4, "database, WAL, index and lock are there"

    return check


def test_api_faults(
    watched: StartSimulator,
    loud_service: Callable[..., Service],
    secrets: Secrets,
    assert_nothing_spilt: Callable[[Service], None],
) -> None:
    """Whatever the API answers, and however it breaks off, nothing secret comes out."""
    simulator = watched()
    service = loud_service(simulator)
    faults = list(every_fault(Place.API, Issue(secrets)))
    for number, one in enumerate(faults):
        simulator.set_rules([{"runs": "*", "where": "api", "fault": one}])
        pair = (2 * number + 1, 2 * number + 2)
        service.submit(*pair)
        service.run(Mode.ONCE)
        # The next call shall meet the next fault alone.
        cancel(service.database, [RunKey("text-to-sound", run_id) for run_id in pair], utc_now())
    assert set(simulator.stats()["faults"]) == {f"api:{kind}" for kind in faults_of(Place.API)}
    assert service.count("run_events") > 4 * len(faults)
    assert_nothing_spilt(service)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for ever"])
def test_storage_faults(
    watched: StartSimulator,
    loud_service: Callable[..., Service],
    secrets: Secrets,
    assert_nothing_spilt: Callable[[Service], None],
    raised: list[BaseException],
    *,
    lasting: bool,
) -> None:
    """Whatever the storage answers, once or until a run has failed, nothing secret comes out."""
    faults = list(every_fault(Place.STORAGE, Issue(secrets)))
    more = {} if lasting else {"times": 1}
    simulator = watched(rules=rules_of(Place.STORAGE, faults, **more))
    last = {"attempts": 1, "refreshes": 1, "patience_seconds": 0, "give_up_after_seconds": 60}
    limits = last if lasting else {}
    service = loud_service(simulator, **limits)
    # Those that are served first show that the storage is well, and whose the faults are.
    service.submit(*range(1001, 1001 + len(faults)))
    service.submit(*range(1, len(faults) + 1))
    result = service.run()
    assert set(simulator.stats()["faults"]) == {
        f"storage:{kind}" for kind in faults_of(Place.STORAGE)
    }
    assert not result.work_left
    assert len([one for one in raised if isinstance(one, TransferError)]) > len(faults) // 2
    assert (result.tally.failed > len(faults) // 2) == lasting
    assert_nothing_spilt(service)
    assert simulator.stats()["storage_requests_with_api_key"] == 0


@pytest.mark.parametrize("store", STORES)
def test_stores(
    watched: StartSimulator,
    loud_service: Callable[..., Service],
    assert_nothing_spilt: Callable[[Service], None],
    store: str,
) -> None:
    """Whosever signatures they are, refusals that quote them and redirects that carry them do not.

    What a store calls a signature, and where it repeats it, differs from store to store.
    """
    faults: list[dict[str, Any]] = [
        {"kind": "expired"},
        {"kind": "status", "status": 403, "code": "SignatureDoesNotMatch"},
        {"kind": "status", "status": 400},
        {"kind": "redirect"},
        {"kind": "redirect", "to": "other"},
        {"kind": "truncate"},
    ]
    simulator = watched(store=store, rules=rules_of(Place.STORAGE, faults, times=1))
    service = loud_service(simulator)
    service.submit(*range(1, len(faults) + 2))
    assert service.run().tally.done == len(faults) + 1
    assert_nothing_spilt(service)


def test_the_scan_finds_a_signature(
    watched: StartSimulator,
    loud_service: Callable[..., Service],
    listener: Listener,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were the HTTP library not silenced, this scan would find what it says of a redirect."""
    telltale = logging.getLogger("httpcore.http11")
    telltale.disabled = False
    monkeypatch.setattr(telltale, "filters", [])
    fault = {"kind": "redirect"}
    simulator = watched(rules=[{"runs": "*", "where": "storage", "fault": fault, "times": 1}])
    service = loud_service(simulator)
    service.settings = replace(service.settings, engine="httpx")
    service.submit(1, 2)
    service.run()
    assert telltale.name in listener.speakers
    assert secrets(listener.text) != []


def test_the_scan_finds_every_form(secrets: Secrets) -> None:
    """A piece of a secret, or the key encoded, is found; what has nothing of either is not."""
    url = secrets.also(signed("https://storage.example/1.wav"))
    assert secrets(url[-12:]) != []
    assert secrets(API_KEY[3:15]) != []
    assert secrets(API_KEY.encode().hex()) != []
    assert secrets(API_KEY.encode("utf-16-le")) != []
    error = ValueError("harmless")
    error.__context__ = KeyError(API_KEY)
    assert secrets(told_by(error)) != []
    assert len(list(chain_of(error))) == 2
    assert secrets("https://storage.example/1.wav?X-Amz-Signature=…" + API_KEY[:11]) == []
