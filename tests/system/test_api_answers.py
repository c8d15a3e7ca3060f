"""Every shape of answer, through the whole service: what becomes of the run that it is about."""

from __future__ import annotations

import signal
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from harness import KEY

from downloader import service as program
from downloader.session import Mode

if TYPE_CHECKING:
    from harness import MakeService, Program, StartSimulator

IDS = (1, 2, 3, 4, 5)


def about(run_id: int, kind: str, *, times: int | None = None, **fault: object) -> dict[str, Any]:
    """Return a rule of the simulator's about one run at the API."""
    rule: dict[str, Any] = {
        "runs": [run_id],
        "where": "api",
        "fault": {"kind": kind, **fault},
    }
    return rule if times is None else rule | {"times": times}


@pytest.mark.parametrize(
    "rule",
    [
        *(
            pytest.param(about(3, "pending", shape=shape, times=1), id=f"pending-{shape}")
            for shape in ("omit", "null", "url-null", "url-empty", "url-missing", "status")
        ),
        pytest.param(about(3, "value", value={"status": "REHEARSING"}, times=1), id="unknown-word"),
        pytest.param(about(3, "url", url="ftp://127.0.0.1/3.wav", times=1), id="unusable-url"),
        pytest.param(about(3, "value", value=[[{}]], times=1), id="value-of-another-shape"),
        pytest.param(about(3, "plain-string"), id="plain-string"),
        pytest.param(about(3, "extra-id"), id="id-not-asked-for"),
        pytest.param(about(3, "results-list"), id="results-list"),
        pytest.param(about(3, "empty", times=1), id="empty-object"),
        pytest.param(about(3, "not-json", times=1), id="not-json"),
        pytest.param(about(3, "other-shape", times=1), id="other-shape"),
        pytest.param(about(3, "truncate", times=1), id="truncated"),
        pytest.param(about(3, "reset", times=1), id="reset"),
        pytest.param(about(3, "slow", seconds=0.2, times=1), id="slow"),
        pytest.param(about(3, "redirect", times=1), id="redirect"),
        *(
            pytest.param(about(3, "status", status=status, times=1), id=f"{status}-once")
            for status in (400, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504)
        ),
    ],
)
def test_answers_that_pass(
    start_simulator: StartSimulator, make_service: MakeService, rule: dict[str, Any]
) -> None:
    """Whatever a passing answer looks like, every run is saved in the end and none is blamed."""
    simulator = start_simulator(rules=[rule])
    service = make_service(simulator)
    service.submit(*IDS)
    result = service.run()
    assert (result.tally.done, result.tally.failed) == (5, 0)
    service.assert_saved(simulator, *IDS)
    assert service.rows("attempts") == [(1,)] * 5
    assert simulator.stats()["storage_requests_with_api_key"] == 0


@pytest.mark.parametrize("word", ["ERROR", "TIMEOUT", "PAYMENT_REQUIRED"])
@pytest.mark.parametrize("ids", [IDS, (3,)], ids=["in-a-batch", "alone"])
def test_failed_at_the_provider(
    start_simulator: StartSimulator, make_service: MakeService, word: str, ids: tuple[int, ...]
) -> None:
    """The provider's word for a failure is kept verbatim, and the run is not asked for again."""
    simulator = start_simulator(rules=[about(3, "word", word=word, reason="So it is")])
    service = make_service(simulator)
    service.submit(*ids)
    service.run()
    [row] = service.rows("state, error_code, remote_status, polls", "run_id = 3")
    assert row == ("failed", "provider_failed", word, 1)
    service.assert_saved(simulator, *(run_id for run_id in ids if run_id != 3))


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500])
@pytest.mark.parametrize("culprit", IDS)
def test_a_refused_batch_is_split(
    start_simulator: StartSimulator, make_service: MakeService, status: int, culprit: int
) -> None:
    """One run that has its whole batch refused is found, and the others are saved in that pass."""
    simulator = start_simulator(rules=[about(culprit, "status", status=status)])
    service = make_service(simulator)
    service.submit(*IDS)
    service.run(Mode.ONCE)
    service.assert_saved(simulator, *(run_id for run_id in IDS if run_id != culprit))
    [(state, code)] = service.rows("state, error_code", f"run_id = {culprit}")
    expected = {
        400: ("failed", "bad_run"),
        403: ("failed", "forbidden"),
        404: ("pending", "unknown_run"),  # and may be known later
        422: ("failed", "bad_run"),
        500: ("pending", "server_error"),
    }
    assert (state, code) == expected[status]


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "key_refused"), (402, "payment_required"), (403, "key_refused")]
)
def test_blocked(
    start_simulator: StartSimulator, make_service: MakeService, status: int, reason: str
) -> None:
    """A refused key or payment stops the service, blames no run and spends nothing."""
    simulator = start_simulator(
        rules=[{"runs": "*", "where": "api", "fault": {"kind": "status", "status": status}}]
    )
    service = make_service(simulator)
    service.submit(*IDS, 6, 7)
    for mode in (Mode.ONCE, Mode.DRAIN):
        result = service.run(mode)
        assert result.trouble is not None
        assert result.trouble.reason == reason
        assert result.tally.failed == 0
        assert service.rows("state, polls, attempts", "1") == [("pending", 0, 0)] * 7
    simulator.set_rules([])
    assert service.run().tally.done == 7
    assert service.count("blocks") == 0


def test_a_lone_forbidden_run(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A 403 for the only run left is the run's, where the key still opens one saved before."""
    simulator = start_simulator(rules=[about(9, "status", status=403)])
    service = make_service(simulator)
    service.submit(1, 2)
    service.run()
    service.submit(9)
    result = service.run()
    assert (result.trouble, result.tally.failed) == (None, 1)
    assert service.rows("state, error_code", "run_id = 9") == [("failed", "forbidden")]


def test_a_key_that_is_revoked_with_403(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A key that opened everything and now opens nothing blocks the service, and fails no run."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(*IDS)
    service.run()
    simulator.set_rules([{"runs": "*", "where": "api", "fault": {"kind": "status", "status": 403}}])
    service.submit(*range(11, 31))
    result = service.run()
    assert result.trouble is not None
    assert (result.trouble.reason, result.tally.failed) == ("key_refused", 0)
    assert service.rows("state", "run_id > 10") == [("pending",)] * 20


def test_a_block_that_answers_under_way_lift(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Good answers that arrive behind a 401 let a drain go on, and it ends."""
    simulator = start_simulator(
        rules=[
            about(1, "status", status=401, times=1),
            {"runs": "6-40", "where": "api", "fault": {"kind": "slow", "seconds": 0.5}, "times": 1},
        ]
    )
    service = make_service(simulator)
    service.submit(*range(1, 41))
    assert (service.run().tally.done, service.count("blocks")) == (40, 0)


def test_culprits_first(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """Runs that have their requests fail hold up nobody: `--once` saves all the others."""
    simulator = start_simulator(
        rules=[{"runs": "1-6", "where": "api", "fault": {"kind": "status", "status": 500}}]
    )
    service = make_service(simulator)
    service.submit(*range(1, 61))
    result = service.run(Mode.ONCE)
    assert (result.tally.done, result.trouble) == (54, None)


def test_a_culprit_has_a_deadline_too(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A run that the API never answers for, while it does for others, is given up in the end."""
    simulator = start_simulator(rules=[about(2, "status", status=500)])
    service = make_service(simulator)
    service.settings = replace(
        service.settings, limits=replace(service.settings.limits, give_up_after_seconds=0.5)
    )
    service.submit(1, 2, 3)
    result = service.run()
    assert (result.tally.done, result.tally.failed) == (2, 1)
    [(code, message)] = service.rows("error_code, error_message", "run_id = 2")
    assert code == "deadline"
    assert "answers for others but not for this run" in message


def test_the_key_in_an_answer(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A key that the service repeats, in whatever answer, is not recorded."""
    simulator = start_simulator(rules=[about(2, "word", word="ERROR", reason=f"No {KEY} here")])
    service = make_service(simulator)
    service.submit(1, 2)
    service.run()
    [(message,)] = service.rows("error_message", "run_id = 2")
    assert "No (key) here" in message


def test_a_daemon_goes_on_when_the_key_is_accepted_again(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A blocked daemon tries again by itself, and takes up its work where the block ends."""
    simulator = start_simulator(
        rules=[
            {"runs": "*", "where": "api", "fault": {"kind": "status", "status": 401}, "times": 1}
        ]
    )
    service = make_service(simulator)
    service.submit(*IDS)

    class EndsWhenDone:
        """Stands in for the person who ends a daemon: here, once everything is saved."""

        every_seconds = 0.05
        tells_of_waits = False

        def show(self, snapshot: Any) -> None:  # noqa: ANN401 - a Snapshot
            if snapshot.blocked:
                # The pause is half a minute at the least: a person would fix the key meanwhile.
                with service.database.write() as connection:
                    connection.exec_driver_sql(
                        "UPDATE blocks SET until = '2000-01-01 00:00:00.000000'"
                    )
            if snapshot.done == len(IDS):
                signal.raise_signal(signal.SIGTERM)

    result = program.run(service.settings, service.database, Mode.FOREVER, EndsWhenDone())
    assert result.stopped == "SIGTERM"
    service.assert_saved(simulator, *IDS)


@pytest.mark.parametrize("form", ["seconds", "date", "reset"])
def test_retry_after_is_honoured(
    start_simulator: StartSimulator, make_service: MakeService, form: str
) -> None:
    """A 429 holds back every request, also those for other runs, for as long as it says."""
    fault = {"kind": "status", "status": 429, "retry_after": 2, "form": form}
    simulator = start_simulator(rules=[{"runs": [1], "where": "api", "fault": fault, "times": 1}])
    service = make_service(simulator)
    service.submit(*range(1, 41))
    started = time.monotonic()
    assert service.run(concurrency=1).tally.done == 40
    # A date has whole seconds, so up to one of the two may be lost to rounding.
    assert time.monotonic() - started >= 1.0
    assert simulator.stats()["api"]["bulk"]["429"] == 1


def test_the_deadline(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """A run that stays unfinished at the provider is given up after its time."""
    simulator = start_simulator(rules=[about(2, "pending")])
    service = make_service(simulator)
    service.settings = replace(
        service.settings, limits=replace(service.settings.limits, give_up_after_seconds=0.5)
    )
    service.submit(1, 2, 3)
    result = service.run()
    assert (result.tally.done, result.tally.failed) == (2, 1)
    [(state, code)] = service.rows("state, error_code", "run_id = 2")
    assert (state, code) == ("failed", "deadline")


@pytest.mark.parametrize("single_key", ["output_url", "file_url"])
@pytest.mark.parametrize("single_unfinished", ["404", "status"])
def test_one_id(
    start_simulator: StartSimulator,
    make_service: MakeService,
    single_key: str,
    single_unfinished: str,
) -> None:
    """A lone run goes through the single-run endpoint, whichever way that one answers."""
    simulator = start_simulator(
        single_key=single_key, single_unfinished=single_unfinished, finish_after=0.3
    )
    service = make_service(simulator)
    service.submit(7)
    assert service.run().tally.done == 1
    service.assert_saved(simulator, 7)
    assert simulator.stats()["api"]["bulk"] == {}


def test_an_api_that_is_down(start_simulator: StartSimulator, make_service: MakeService) -> None:
    """With no API to be reached, `--once` says so and ends, and every run is still pending."""
    service = make_service(start_simulator())
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    service.submit(*range(1, 101))
    result = service.run(Mode.ONCE, api_url=f"http://127.0.0.1:{port}/apis")
    assert result.trouble is not None
    assert result.trouble.reason == "api_unreachable"
    assert set(service.states().values()) == {"pending"}
    assert service.rows("attempts", "attempts > 0") == []


def test_an_api_that_is_elsewhere(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """A path without an API is no API whose runs are not ready: it is told, and costs no run."""
    simulator = start_simulator()
    service = make_service(simulator)
    service.submit(*range(1, 8))
    result = service.run(Mode.ONCE, api_url=simulator.api_url.removesuffix("/apis"))
    assert result.trouble is not None
    assert result.trouble.reason == "api_not_found"
    assert simulator.api_url.removesuffix("/apis") in result.trouble.message
    assert set(service.rows("state, attempts")) == {("pending", 0)}
    assert ("api_not_found",) in service.rows("DISTINCT error_code")
    assert service.run(Mode.DRAIN).tally.done == 7


def test_an_outage_is_told_twice(start_simulator: StartSimulator, program: Program) -> None:
    """An API that is down for a while is told when it is, and when it is no more; no run pays."""
    down = {"runs": "*", "where": "api", "fault": {"kind": "status", "status": 502}}
    simulator = start_simulator(rules=[down])
    program.env["DOWNLOADER_API_URL"] = simulator.api_url
    program.submit(range(1, 41))
    with program.start("run", "--drain", "--min-poll", "0.1s", "--min-free", "0") as process:
        assert process.stderr is not None
        said = next(iter(process.stderr))
        assert "api.down" in said
        assert "502" in said
        simulator.set_rules([])
        _, rest = process.communicate()
    assert process.returncode == 0, rest
    [back] = rest.splitlines()
    assert "api.back" in back
    program.assert_saved(simulator, range(1, 41))


def test_requests_that_fail_together_are_one_failure(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Four requests that meet one hiccup of the API do not end `--once`: others are asked for."""
    hiccup = {
        "runs": "1-20",
        "where": "api",
        "fault": {"kind": "status", "status": 502},
        "times": 1,
    }
    simulator = start_simulator(rules=[hiccup], api_latency=0.3)
    service = make_service(simulator)
    service.submit(*range(1, 61))
    result = service.run(Mode.ONCE)
    assert result.trouble is None
    assert result.tally.done == 40
    assert set(service.rows("state, error_code", "run_id <= 20")) == {("pending", "unavailable")}


def test_the_only_run_is_refused(
    start_simulator: StartSimulator, make_service: MakeService
) -> None:
    """Where nothing tells whose fault a refusal is, several over a time make it the run's."""
    simulator = start_simulator(rules=[about(3, "status", status=400)])
    service = make_service(simulator)
    service.submit(3)
    assert service.run(Mode.ONCE).trouble is not None
    assert service.rows("state, error_code") == [("pending", "bad_request")]
    limits = replace(service.settings.limits, patience_seconds=2)
    assert service.run(Mode.DRAIN, limits=limits).tally.failed == 1
    assert service.rows("state, error_code") == [("failed", "bad_run")]
    assert simulator.stats()["api"]["requests"] >= 4
