"""Every fault of the storage, through the whole service: the file is saved all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from downloader.session import Mode

if TYPE_CHECKING:
    from harness import MakeService, StartSimulator

STORES = ("s3", "s3-temporary", "s3-v2", "cloudfront", "r2", "gcs", "azure", "b2")


def fault(kind: str, **details: object) -> dict[str, Any]:
    """Return a fault of the simulator's."""
    return {"kind": kind, **details}


PASSING: dict[str, dict[str, Any]] = {
    "reset-headers": fault("reset", at="headers"),
    "reset-body": fault("reset", at="body"),
    "stall-headers": fault("stall", at="headers"),
    "stall-body": fault("stall", at="body"),
    "slow": fault("slow", seconds=0.1),
    "truncated": fault("truncate"),
    "truncated-chunked": fault("truncate", framing="chunked"),
    "truncated-close": fault("truncate", framing="close"),
    "wrong-length": fault("wrong-length"),
    "gzip": fault("gzip"),
    "error-page-xml": fault("error-page", form="xml"),
    "error-page-html": fault("error-page", form="html"),
    "error-page-json": fault("error-page", form="json"),
    "error-page-as-audio": fault("error-page", form="html", content_type="audio/wav"),
    "empty": fault("empty"),
    "wrong-magic": fault("wrong-magic"),
    "404": fault("status", status=404, code="NoSuchKey"),
    "403": fault("status", status=403, code="SignatureDoesNotMatch"),
    "429": fault("status", status=429, retry_after=1),
    "500": fault("status", status=500),
    "503": fault("status", status=503),
    "redirect-file": fault("redirect", to="file:///etc/passwd"),
    "redirect-ftp": fault("redirect", to="ftp://127.0.0.1/x"),
}
HARMLESS: dict[str, dict[str, Any]] = {
    "redirect-same": fault("redirect", to="same"),
    "redirect-other": fault("redirect", to="other", status=307),
    "framing-chunked": fault("framing", form="chunked"),
    "framing-close": fault("framing", form="close"),
    "weak-etag": fault("weak-etag"),
    "no-etag": fault("no-etag"),
    "generic-type": fault("headers", headers={"content-type": "application/octet-stream"}),
    "evil-name": fault(
        "headers", headers={"content-disposition": 'attachment; filename="../../evil.wav"'}
    ),
}


def at_storage(faults: dict[str, dict[str, Any]], **more: object) -> list[dict[str, Any]]:
    """Return a rule for each fault: the first is about run 1, the next about run 2."""
    return [
        {"runs": [number], "where": "storage", "fault": one, **more}
        for number, one in enumerate(faults.values(), 1)
    ]


def test_faults_that_pass(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """Each fault that happens once costs an attempt or a new URL at most, and the file is saved."""
    simulator = start_simulator(rules=at_storage(PASSING, times=1), audio_format="wav")
    service = make_service(simulator)
    ids = range(1, len(PASSING) + 1)
    service.submit(*ids)
    result = service.run(stall_seconds=1.0, concurrency=16)
    by_id = dict(zip(ids, PASSING, strict=True))
    assert (result.tally.done, result.tally.failed) == (len(PASSING), 0), {
        by_id[run_id]: service.reasons(run_id)
        for run_id, state in service.states().items()
        if state != "done"
    }
    service.assert_saved(simulator, *ids)
    for run_id, name in by_id.items():
        [(attempts, refreshes)] = service.rows("attempts, refreshes", f"run_id = {run_id}")
        expected = {"slow": {(1, 0)}, "gzip": {(1, 0)}, "403": {(1, 1)}}.get(name, {(2, 0)})
        expected.add((1, 0))  # where it could not be told yet whose fault it is
        assert (attempts, refreshes) in expected, f"{name}: {service.reasons(run_id)}"
    assert simulator.stats()["storage_requests_with_api_key"] == 0


def test_harmless_oddities(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """What is odd but not wrong costs nothing: one attempt, and the file under its own name."""
    simulator = start_simulator(rules=at_storage(HARMLESS), audio_format="wav")
    service = make_service(simulator)
    ids = range(1, len(HARMLESS) + 1)
    service.submit(*ids)
    assert service.run().tally.done == len(HARMLESS)
    service.assert_saved(simulator, *ids)
    assert service.rows("attempts") == [(1,)] * len(HARMLESS)
    assert {path.name for path in service.settings.output.iterdir()} == {
        ".partial",
        *(f"{run_id}.wav" for run_id in ids),
    }


@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_streamed_headers(
    start_simulator: StartSimulator, make_service: MakeService, audio_format: str
) -> None:
    """Audio whose header does not know its size is whole when HTTP says where it ends."""
    simulator = start_simulator(
        rules=[{"runs": "*", "where": "storage", "fault": fault("streamed")}],
        audio_format=audio_format,
    )
    service = make_service(simulator)
    service.submit(1, 2)
    assert service.run().tally.done == 2
    for run_id, location in service.rows("run_id, location"):
        with open(location, "rb") as file:  # noqa: PTH123 - a text from the database
            assert file.read() == simulator.audio(run_id, streamed=True)


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (fault("wrong-magic"), "not_audio"),
        (fault("error-page"), "error_page"),
        (fault("empty"), "empty"),
        (fault("status", status=404), "missing"),
        (fault("status", status=403, code="SignatureDoesNotMatch"), "url_refused"),
        (fault("status", status=500), "storage_error"),
        (fault("redirect", to="loop"), "too_many_redirects"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_that_stay(
    start_simulator: StartSimulator, make_service: MakeService, one: dict[str, Any], code: str
) -> None:
    """A fault that stays spends the attempts and ends in `failed` with a code and a sentence."""
    simulator = start_simulator(rules=[{"runs": [2], "where": "storage", "fault": one}])
    service = make_service(simulator)
    service.settings = replace(
        service.settings, limits=replace(service.settings.limits, attempts=2, patience_seconds=0)
    )
    service.submit(1, 2, 3)
    result = service.run()
    assert (result.tally.done, result.tally.failed) == (2, 1)
    service.assert_saved(simulator, 1, 3)
    [(state, error_code, message, attempts)] = service.rows(
        "state, error_code, error_message, attempts", "run_id = 2"
    )
    assert (state, error_code, attempts) == ("failed", code, 2)
    assert message.endswith("(attempt 2 of 2)")
    assert "X-Amz" not in message
    assert [*(service.settings.output / ".partial").iterdir()] == []


@pytest.mark.parametrize("store", STORES)
def test_expired_before_use(
    start_simulator: StartSimulator, make_service: MakeService, store: str
) -> None:
    """Each store's way to say 'expired' brings a new URL, and costs nothing where it is clear."""
    simulator = start_simulator(
        store=store,
        rules=[{"runs": "*", "where": "storage", "fault": fault("expired"), "times": 2}],
    )
    service = make_service(simulator)
    service.submit(1, 2, 3)
    assert service.run().tally.done == 3
    service.assert_saved(simulator, 1, 2, 3)
    if store == "cloudfront":  # which says nothing of expiry: what it refuses to all is its trouble
        spent = service.rows("attempts, refreshes")
        assert all(attempts <= 2 and refreshes == 0 for attempts, refreshes in spent)
    else:
        assert service.rows("attempts, refreshes") == [(1, 2)] * 3


def test_expired_as_the_url_tells(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A URL that says itself that it has expired is not even tried."""
    rule = {"runs": "*", "where": "api", "fault": fault("url-lifetime", seconds=-1), "times": 1}
    simulator = start_simulator(rules=[rule])
    service = make_service(simulator)
    service.submit(1, 2, 3, 4, 5)
    assert service.run().tally.done == 5
    assert simulator.stats()["storage"]["by_status"] == {"200": 5}
    assert service.rows("attempts, refreshes") == [(1, 1)] * 5
    assert "url_expired" in service.reasons(1)


def test_expired_between_attempts(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A URL that expires while its run waits for the storage is replaced first, at no cost."""
    simulator = start_simulator(
        url_lifetime=1.5,
        rules=[
            {
                "runs": "*",
                "where": "storage",
                "fault": fault("status", status=503, retry_after=2),
                "times": 1,
            }
        ],
    )
    service = make_service(simulator)
    service.submit(1, 2, 3)
    assert service.run().tally.done == 3
    service.assert_saved(simulator, 1, 2, 3)
    assert service.rows("attempts, refreshes") == [(1, 0)] * 3
    assert all(service.reasons(run_id).count("url_received") >= 2 for run_id in (1, 2, 3))


def test_refreshes_are_bounded(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """URLs that are always expired end in `failed`, not in a loop."""
    simulator = start_simulator(url_lifetime=-1)
    service = make_service(simulator)
    service.settings = replace(
        service.settings, limits=replace(service.settings.limits, refreshes=2)
    )
    service.submit(1, 2)
    result = service.run()
    assert (result.tally.done, result.tally.failed) == (0, 2)
    assert (
        service.rows("state, error_code, attempts, refreshes")
        == [("failed", "url_expired", 0, 2)] * 2
    )


def test_once_ends_while_the_storage_is_down(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A storage that refuses all holds up the end of `--once` no more than one out of reach."""
    simulator = start_simulator(
        storage_latency=0.3,
        rules=[{"runs": "*", "where": "storage", "fault": fault("status", status=500)}],
    )
    service = make_service(simulator)
    service.submit(*range(1, 41))
    result = service.run(Mode.ONCE, concurrency=2, max_duration_seconds=120)
    assert result.stopped is None
    assert result.trouble is not None
    assert result.trouble.reason == "storage_error"
    assert service.rows("state, attempts") == [("ready", 0)] * 40


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_wrong_local_clock(
    start_simulator: StartSimulator, make_service: MakeService, skew: float
) -> None:
    """Expiry is judged by the server's clock: an hour of difference costs nothing."""
    simulator = start_simulator(clock_skew=skew, url_lifetime=60)
    service = make_service(simulator)
    service.submit(1, 2, 3)
    assert service.run().tally.done == 3
    assert service.rows("attempts, refreshes") == [(1, 0)] * 3


def test_a_name_that_is_taken(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """Something else under a run's name is never overwritten, and the run says what to do."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.settings.output.mkdir()
    taken = service.settings.output / "2.wav"
    taken.write_bytes(b"a song of mine")
    service.submit(1, 2)
    service.run()
    assert taken.read_bytes() == b"a song of mine"
    [(state, code, message)] = service.rows("state, error_code, error_message", "run_id = 2")
    assert (state, code) == ("failed", "name_taken")
    assert str(taken) in message
    assert simulator.stats()["storage"]["by_run"]["2"] == {"full": 1, "ranged": 0}


def test_an_equal_file_is_adopted(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A file whose commit was lost is found again, and recorded as it is."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(1, 2)
    service.settings.output.mkdir()
    (service.settings.output / "2.wav").write_bytes(simulator.audio(2))
    assert service.run(Mode.DRAIN).tally.done == 2
    service.assert_saved(simulator, 1, 2)
