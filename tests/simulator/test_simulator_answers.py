from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx
import pytest
from simulator.asking import ask, ask_one

from downloader.simulator.rules import Rule

if TYPE_CHECKING:
    from simulator.asking import StartSim


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("null", {"1": None}),
        ("url-null", {"1": {"output_url": None}}),
        ("url-empty", {"1": {"output_url": ""}}),
        ("url-missing", {"1": {}}),
        ("status", {"1": {"status": "PENDING"}}),
        ("omit", {}),
    ],
)
def test_an_unfinished_run_in_every_shape(
    start_sim: StartSim, shape: str, expected: dict[str, object]
) -> None:
    """One run is unfinished in the shape asked for; the other one has its URL."""
    answer = ask(start_sim(Rule.of(1, "api", "pending", shape=shape)), 1, 2).json()

    assert answer.pop("2")["output_url"].startswith("http")
    assert answer == expected


def test_a_run_is_finished_after_some_polls(start_sim: StartSim) -> None:
    """`times` counts a run's own polls, whatever is asked beside it."""
    sim = start_sim(Rule.of(1, "api", "pending", times=2))

    assert [set(ask(sim, 1, other).json()) for other in (2, 3, 4)] == [{"2"}, {"3"}, {"1", "4"}]


def test_a_run_is_finished_after_some_time(start_sim: StartSim) -> None:
    """`during` ends a pending rule by the clock: here one has passed before the first poll."""
    sim = start_sim(
        Rule.of(1, "api", "pending", during=(0, 1e-9)), Rule.of(2, "api", "pending", during=(0, 60))
    )

    assert set(ask(sim, 1, 2).json()) == {"1"}


@pytest.mark.parametrize("word", ["ERROR", "TIMEOUT", "PAYMENT_REQUIRED", "SOMETHING_NEW"])
def test_the_providers_word_stands_in_place_of_the_url(start_sim: StartSim, word: str) -> None:
    """A failed run carries the word and the reason, in bulk and alone."""
    sim = start_sim(Rule.of(1, "api", "word", word=word, reason="too loud"))
    expected = {"status": word, "exception_reason": "too loud"}

    assert ask(sim, 1, 2).json()["1"] == expected
    assert ask_one(sim, 1).json() == expected


def test_a_plain_string_is_the_url(start_sim: StartSim) -> None:
    """`plain-string` puts the URL where an object is expected, as the tts endpoint does."""
    sim = start_sim(Rule.of(1, "api", "plain-string"))

    assert httpx.get(ask(sim, 1, 2).json()["1"]).content == sim.audio(1)
    assert ask_one(sim, 1).json().startswith("http")


def test_any_json_can_stand_in_a_runs_place(start_sim: StartSim) -> None:
    """`value` and `url` put anything into the answer."""
    sim = start_sim(
        Rule.of(1, "api", "value", value=[1, {"a": None}]),
        Rule.of(2, "api", "url", url="file:///etc/passwd"),
    )

    assert ask(sim, 1, 2).json() == {
        "1": [1, {"a": None}],
        "2": {"output_url": "file:///etc/passwd"},
    }


def test_a_run_nobody_asked_for(start_sim: StartSim) -> None:
    """`extra-id` adds another run to the answer."""
    assert set(ask(start_sim(Rule.of(1, "api", "extra-id")), 1, 2).json()) == {"1", "2", "1000001"}


def test_a_url_may_have_expired_when_it_is_handed_out(start_sim: StartSim) -> None:
    """`url-lifetime` overrides the lifetime of one run's URL."""
    sim = start_sim(Rule.of(1, "api", "url-lifetime", seconds=-5))
    answer = ask(sim, 1, 2).json()

    assert httpx.get(answer["1"]["output_url"]).status_code == 403
    assert httpx.get(answer["2"]["output_url"]).status_code == 200


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 425, 500, 502, 503, 504])
def test_a_whole_batch_is_refused_because_of_one_run(start_sim: StartSim, status: int) -> None:
    """A batch with the run in it is refused, so is the run alone, and nothing else is."""
    sim = start_sim(Rule.of(3, "api", "status", status=status))

    for refused in (ask(sim, 1, 2, 3), ask_one(sim, 3)):
        assert refused.status_code == status
        assert isinstance(refused.json()["detail"], str)
    assert ask(sim, 1, 2).status_code == 200


def test_a_refusal_with_422_has_fastapis_detail(start_sim: StartSim) -> None:
    """A simulated 422 looks like a real one, unless a detail is given."""
    sim = start_sim(
        Rule.of(1, "api", "status", status=422),
        Rule.of(2, "api", "status", status=422, detail="no"),
    )

    assert set(ask_one(sim, 1).json()["detail"][0]) == {"loc", "msg", "type"}
    assert ask_one(sim, 2).json() == {"detail": "no"}


def test_three_ways_to_say_wait(start_sim: StartSim) -> None:
    """429 tells the wait in seconds, as a date, as X-RateLimit-Reset, or not at all."""
    sim = start_sim(
        Rule.of(1, "api", "status", status=429, retry_after=7),
        Rule.of(2, "api", "status", status=429, retry_after=7, form="date"),
        Rule.of(3, "api", "status", status=429, retry_after=7, form="reset"),
        Rule.of(4, "api", "status", status=429),
    )
    before = time.time()
    seconds, date, reset, untold = (ask_one(sim, run_id).headers for run_id in (1, 2, 3, 4))

    assert seconds["retry-after"] == "7"
    assert 6 <= parsedate_to_datetime(date["retry-after"]).timestamp() - before <= 17
    assert 7 <= int(reset["x-ratelimit-reset"]) - before <= 17
    assert "retry-after" not in reset
    assert not {"retry-after", "x-ratelimit-reset"} & set(untold)


def test_answers_of_another_shape(start_sim: StartSim) -> None:
    """The whole answer can be empty, a list of results, not JSON, or anything."""
    sim = start_sim(
        Rule.of(1, "api", "empty"),
        Rule.of(2, "api", "results-list"),
        Rule.of(3, "api", "not-json"),
        Rule.of(4, "api", "other-shape", body=["what"]),
    )

    assert ask(sim, 1, 9).json() == {}
    assert [item["run_id"] for item in ask(sim, 2, 9).json()["results"]] == [2, 9]
    assert ask(sim, 3, 9).headers["content-type"].startswith("text/html")
    assert ask(sim, 3, 9).status_code == 200
    assert ask(sim, 4, 9).json() == ["what"]


def test_connections_break(start_sim: StartSim) -> None:
    """A reset is a reset, a truncated answer ends early, a stall says nothing."""
    sim = start_sim(
        Rule.of(1, "api", "reset"), Rule.of(2, "api", "truncate"), Rule.of(3, "api", "stall")
    )

    with pytest.raises(httpx.ReadError):
        ask(sim, 1, 9)
    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        ask(sim, 2, 9)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{sim.api_url}/text-to-sound-result/3", headers={"x-api-key": "k"}, timeout=0.2)


def test_a_stall_may_end(start_sim: StartSim) -> None:
    """A stall with an end, and a slow answer, are whole answers in the end."""
    sim = start_sim(
        Rule.of(1, "api", "stall", seconds=0.05), Rule.of(2, "api", "slow", seconds=0.05)
    )

    for run_id in (1, 2):
        begun = time.monotonic()
        assert str(run_id) in ask(sim, run_id, 9).json()
        assert time.monotonic() - begun >= 0.05


def test_a_redirect_leads_to_another_origin_and_a_leaked_key_is_noticed(
    start_sim: StartSim,
) -> None:
    """A client that follows the API's redirect with its key is caught by the counters."""
    sim = start_sim(Rule.of(1, "api", "redirect"))

    answer = ask(sim, 1, 2)
    assert answer.status_code == 307
    assert answer.headers["location"].startswith(sim.storage_url)
    assert sim.stats()["storage_requests_with_api_key"] == 0

    httpx.post(answer.headers["location"], headers={"x-api-key": "leaked"}, json={})
    assert sim.stats()["storage_requests_with_api_key"] == 1


def test_the_rate_limit_is_a_429_with_retry_after(start_sim: StartSim) -> None:
    """Beyond `rate_limit` requests per second the API says how long to wait."""
    sim = start_sim(rate_limit=0.01)

    first, second = ask(sim, 1, 2), ask(sim, 1, 2)

    assert (first.status_code, second.status_code) == (200, 429)
    assert 1 <= int(second.headers["retry-after"]) <= 100


def test_runs_finish_one_after_the_other(start_sim: StartSim) -> None:
    """`finish_spread` gives each run its own moment."""
    sim = start_sim(finish_spread=1_000_000)

    assert ask(sim, 1, 2, 3, 4, 5).json() == {}
