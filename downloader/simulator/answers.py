"""What the API says of runs, by the rules or by a fault. Decides; sends nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from downloader.simulator.catalogue import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from downloader.simulator.faults import Fault
    from downloader.simulator.state import SimulatorState

OMITTED: Final = object()
"""In place of a value: the run is not in the answer."""

_FURTHER: Final = 1_000_000
"""How far from the asked run the one lies that nobody asked for."""

_DETAILS: Final[Mapping[int, object]] = {
    400: "Invalid run ID",
    401: "Invalid API key",
    402: "Payment required",
    403: "Forbidden",
    404: "Run not found",
    422: [{"loc": ["body", "run_ids"], "msg": "Value error, invalid run", "type": "value_error"}],
    429: "Too many requests",
}


def detail_of(status: int) -> object:
    """FastAPI's `detail` for a refusal with this status."""
    return _DETAILS.get(status, f"Simulated status {status}")


def entry(state: SimulatorState, run_type: str, run_id: int, fault: Fault | None) -> object:
    """Return what stands in a run's place: a JSON value, or `OMITTED`."""
    if fault is not None and fault.kind == "pending":
        return _unfinished(fault.text("shape", state.options.unfinished), fault.text("status"))
    if fault is not None and fault.kind == "word":
        return {"status": fault.text("word"), "exception_reason": fault.text("reason")}
    if fault is not None and fault.kind == "value":
        return fault.value("value")
    if fault is not None and fault.kind == "unknown":
        return OMITTED
    if not state.is_finished(run_type, run_id):
        return _unfinished(state.options.unfinished, "PENDING")
    if fault is not None and fault.kind == "url":
        return {"output_url": fault.text("url")}
    lifetime = fault.number("seconds") if fault and fault.kind == "url-lifetime" else None
    later = (fault.number("seconds") if fault and fault.kind == "url-later" else None) or 0.0
    url = state.presigned(run_type, run_id, lifetime=lifetime, later=later)
    return url if fault is not None and fault.kind == "plain-string" else {"output_url": url}


def _unfinished(shape: str, status: str) -> object:
    shapes: dict[str, object] = {
        "omit": OMITTED,
        "null": None,
        "url-null": {"output_url": None},
        "url-empty": {"output_url": ""},
        "url-missing": {},
        "status": {"status": status},
    }
    return shapes[shape]


def bulk(
    state: SimulatorState,
    run_type: str,
    run_ids: Sequence[int],
    faults: Mapping[int, Fault | None],
) -> dict[str, object]:
    """Return the bulk endpoint's answer: run id to value, without those that are omitted."""
    answer: dict[str, object] = {}
    for run_id in run_ids:
        fault = faults.get(run_id)
        value = entry(state, run_type, run_id, fault)
        if value is not OMITTED:
            answer[str(run_id)] = value
        if fault is not None and fault.kind == "extra-id":
            other = fault.integer("run_id", run_id + _FURTHER)
            answer[str(other)] = entry(state, run_type, other, None)
    return answer


def as_results_list(answer: Mapping[str, object]) -> dict[str, object]:
    """Return the same answer in the shape of the documentation's sample code."""
    return {
        "results": [
            {"run_id": int(run_id), **value}
            if isinstance(value, dict)
            else {"run_id": int(run_id), "output_url": value}
            for run_id, value in answer.items()
        ]
    }


def faults_for(
    state: SimulatorState, run_type: str, run_ids: Sequence[int], endpoint: str
) -> tuple[dict[int, Fault | None], Fault | None]:
    """Return what each run meets, and the first of them that takes the whole request."""
    faults = {run_id: state.fault(Place.API, run_type, run_id, endpoint) for run_id in run_ids}
    for fault in faults.values():
        if fault is not None and fault.entry.whole_request:
            return faults, fault
    return faults, state.random_fault(Place.API, run_type, run_ids[0])
