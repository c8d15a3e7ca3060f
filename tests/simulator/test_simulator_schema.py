from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from camb.client import CambAI
from simulator.asking import KEY, ask, ask_one

if TYPE_CHECKING:
    from simulator.asking import StartSim

    from downloader.simulator.server import Simulator


@pytest.mark.parametrize(
    ("run_ids", "kind", "place"),
    [
        pytest.param([1], "too_short", ["body", "run_ids"], id="one id"),
        pytest.param([1, 2, 3, 4, 5, 6], "too_long", ["body", "run_ids"], id="six ids"),
        pytest.param([1, "abc"], "int_type", ["body", "run_ids", 1], id="a word"),
        pytest.param([1, "12345"], "int_type", ["body", "run_ids", 1], id="digits as a string"),
        pytest.param([1, True], "int_type", ["body", "run_ids", 1], id="a boolean"),
        pytest.param([0, 1], "greater_than", ["body", "run_ids", 0], id="zero"),
        pytest.param([1, -2], "greater_than", ["body", "run_ids", 1], id="a negative number"),
        pytest.param([1, 2, 1], "unique_items", ["body", "run_ids"], id="duplicates"),
        pytest.param("1,2", "list_type", ["body", "run_ids"], id="no list"),
    ],
)
def test_what_the_schema_forbids_is_a_422(
    sim: Simulator, run_ids: object, kind: str, place: list[object]
) -> None:
    """A request that breaks the service's schema gets FastAPI's 422, naming the place."""
    answer = httpx.post(
        f"{sim.api_url}/text-to-sound-results", json={"run_ids": run_ids}, headers=KEY
    )

    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert (detail["type"], detail["loc"]) == (kind, place)
    assert detail["msg"]


def test_without_run_ids_it_is_a_422(sim: Simulator) -> None:
    """`run_ids` is required."""
    answer = httpx.post(f"{sim.api_url}/text-to-sound-results", json={}, headers=KEY)

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "run_ids"]


def test_the_schema_is_the_services_own(sim: Simulator) -> None:
    """The OpenAPI document says of the request what the service's own says."""
    document = httpx.get(f"{sim.api_url.removesuffix('/apis')}/openapi.json").json()

    run_ids = document["components"]["schemas"]["RunIDsRequestPayload"]["properties"]["run_ids"]
    assert run_ids["items"] == {"type": "integer", "exclusiveMinimum": 0}
    assert (run_ids["minItems"], run_ids["maxItems"], run_ids["uniqueItems"]) == (2, 5, True)
    assert run_ids["title"] == "Run IDs"
    scheme = document["components"]["securitySchemes"]["APIKeyHeader"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "x-api-key")
    assert "/apis/text-to-sound-results" in document["paths"]


def test_every_run_is_finished_at_once(sim: Simulator) -> None:
    """Without options any run id has a URL, under its number as a string."""
    answer = ask(sim, 12345, 6789)

    assert answer.status_code == 200
    assert set(answer.json()) == {"12345", "6789"}
    assert all(set(value) == {"output_url"} for value in answer.json().values())


def test_without_a_key_the_request_is_refused(sim: Simulator) -> None:
    """A missing key is refused as FastAPI does it, before the body is looked at."""
    answer = httpx.post(f"{sim.api_url}/text-to-sound-results", json={"run_ids": "nonsense"})

    assert answer.status_code in (401, 403)
    assert answer.json() == {"detail": "Not authenticated"}


def test_only_the_chosen_key_is_accepted(start_sim: StartSim) -> None:
    """With `api_key`, every other key is a 401."""
    sim = start_sim(api_key="the one")

    refused = ask(sim, 1, 2)
    accepted = httpx.post(
        f"{sim.api_url}/text-to-sound-results",
        json={"run_ids": [1, 2]},
        headers={"x-api-key": "the one"},
    )

    assert (refused.status_code, refused.json()) == (401, {"detail": "Invalid API key"})
    assert accepted.status_code == 200


@pytest.mark.parametrize("run_type", ["text-to-sound", "tts"])
def test_both_run_types_have_both_endpoints(sim: Simulator, run_type: str) -> None:
    """The bulk and the single endpoint of each run type hand out that type's files."""
    bulk = ask(sim, 7, 8, run_type=run_type).json()["7"]["output_url"]
    single = ask_one(sim, 7, run_type).json()["output_url"]

    for url in (bulk, single):
        assert httpx.get(url).content == sim.audio(7, run_type)


def test_the_single_endpoint_gives_the_file_itself_when_no_url_is_asked_for(sim: Simulator) -> None:
    """Without `output_type=file_url` the single endpoint streams the audio."""
    answer = httpx.get(f"{sim.api_url}/text-to-sound-result/9", headers=KEY)

    assert answer.headers["content-type"] == "audio/wav"
    assert answer.content == sim.audio(9)


def test_the_key_of_the_single_answer_can_be_chosen(start_sim: StartSim) -> None:
    """The documents disagree on the single answer's key, so it is an option."""
    assert set(ask_one(start_sim(single_key="file_url"), 1).json()) == {"file_url"}


def test_unfinished_runs_are_left_out(start_sim: StartSim) -> None:
    """Before `finish_after` the bulk answer is empty and the single one a 404."""
    sim = start_sim(finish_after=3600)

    assert (ask(sim, 1, 2).status_code, ask(sim, 1, 2).json()) == (200, {})
    assert ask_one(sim, 1).status_code == 404
    assert isinstance(ask_one(sim, 1).json()["detail"], str)


def test_the_single_endpoint_can_say_pending(start_sim: StartSim) -> None:
    """With `single_unfinished=status` an unfinished run is a 200."""
    answer = ask_one(start_sim(finish_after=3600, single_unfinished="status"), 1)

    assert (answer.status_code, answer.json()) == (200, {"status": "PENDING"})


def test_the_official_sdk_reads_the_answers(sim: Simulator) -> None:
    """The service's own SDK finds the URLs in the bulk answer."""
    with httpx.Client() as connection:
        client: Any = CambAI(api_key="any", base_url=sim.api_url, httpx_client=connection)
        results = client.text_to_audio.get_text_to_sound_results(run_ids=[1, 2])

    assert {int(run_id) for run_id in results} == {1, 2}
    for run_id, result in results.items():
        assert httpx.get(result.output_url).content == sim.audio(int(run_id))
