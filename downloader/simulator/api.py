"""The API: the service's own schema, the single-run endpoints, and the simulator's controls."""

from __future__ import annotations

import gzip
import hmac
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Body, FastAPI, HTTPException, Path, Query, Request, Security
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi.security import APIKeyHeader
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from downloader.simulator import answers
from downloader.simulator.audio import CONTENT_TYPES, audio_file
from downloader.simulator.broken import Broken, Surplus, Truncated
from downloader.simulator.errors import SimulatorError
from downloader.simulator.rules import parse_rules
from downloader.simulator.state import PORTAL, RUN_TYPES, SimulatorState
from downloader.simulator.waits import wait_headers
from downloader.simulator.wire import wire_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from downloader.simulator.faults import Fault

PREFIX = "/apis"

RunID = Annotated[int, Field(gt=0, strict=True)]


def _unique(run_ids: list[int]) -> list[int]:
    if len(set(run_ids)) < len(run_ids):
        raise PydanticCustomError("unique_items", "List should have unique items")
    return run_ids


class RunIDsRequestPayload(BaseModel):
    """The bulk request, as the service's OpenAPI has it."""

    run_ids: Annotated[list[RunID], AfterValidator(_unique)] = Field(
        min_length=2,
        max_length=5,
        title="Run IDs",
        description=(
            "An array of unique positive integers, each representing the ID of a specific run. "
            "You must provide between 2 and 5 IDs, and all IDs must correspond to the same run "
            "type (e.g., all text-to-speech or all dubbing runs)."
        ),
        json_schema_extra={"uniqueItems": True, "example": [12345, 6789]},
    )


class AudioOutputFileURLResponse(BaseModel):
    """One finished run, as the service's OpenAPI has it."""

    output_url: str | None = None


def build_api(state: SimulatorState) -> FastAPI:
    """Make the FastAPI application of one simulator."""
    app = FastAPI(title="FastAPI", version="0.1.0", docs_url=None, redoc_url=None)
    check_key = _key_check(state)
    for run_type in RUN_TYPES:
        app.post(
            f"{PREFIX}/{run_type}-results",
            name=f"bulk {run_type}",
            response_model=dict[str, AudioOutputFileURLResponse],
            dependencies=[Security(check_key)],
        )(_bulk_endpoint(state, run_type))
        app.get(
            f"{PREFIX}/{run_type}-result/{{run_id}}",
            name=f"single {run_type}",
            response_model=AudioOutputFileURLResponse,
            dependencies=[Security(check_key)],
        )(_single_endpoint(state, run_type))
    _add_controls(app, state)
    return app


_API_KEY = APIKeyHeader(name="x-api-key", scheme_name="APIKeyHeader")


def _key_check(state: SimulatorState) -> Callable[[str], None]:
    def check(key: Annotated[str, Security(_API_KEY)]) -> None:
        wanted = state.options.api_key
        if wanted is not None and not hmac.compare_digest(key.encode(), wanted.encode()):
            raise HTTPException(401, answers.detail_of(401))

    return check


def _bulk_endpoint(state: SimulatorState, run_type: str) -> Callable[..., Any]:
    async def endpoint(request: Request, payload: RunIDsRequestPayload) -> Response:
        state.stats.asked(payload.run_ids, bulk=True)
        faults, fault = answers.faults_for(state, run_type, payload.run_ids, "bulk")
        broken = await _late_or_broken(request, [*faults.values(), fault], fault)
        if broken is not None:
            return broken
        answer = answers.bulk(state, run_type, payload.run_ids, faults)
        return _bent(_whole(state, request, fault, answer) or JSONResponse(answer), fault, state)

    return endpoint


def _single_endpoint(state: SimulatorState, run_type: str) -> Callable[..., Any]:
    async def endpoint(
        request: Request,
        run_id: Annotated[int, Path(gt=0)],
        output_type: Annotated[Literal["file_url", "raw_bytes"], Query()] = "raw_bytes",
    ) -> Response:
        state.stats.asked([run_id], bulk=False)
        faults, fault = answers.faults_for(state, run_type, [run_id], "single")
        broken = await _late_or_broken(request, [*faults.values(), fault], fault)
        if broken is not None:
            return broken
        own = faults[run_id]
        value = answers.entry(state, run_type, run_id, own)
        answer = {} if value is answers.OMITTED else {str(run_id): value}
        whole = _whole(state, request, fault, answer)
        if whole is not None:
            return _bent(whole, fault, state)
        if value is answers.OMITTED:
            unknown = own is not None and own.kind == "unknown"
            if unknown or state.options.single_unfinished == "404":
                raise HTTPException(404, "Run not found or not finished")
            return JSONResponse({"status": "PENDING"})
        if isinstance(value, dict) and value.get("output_url"):
            if output_type == "raw_bytes":
                name = state.audio(run_type, run_id)
                file = audio_file(name)
                media_type = CONTENT_TYPES[name.extension]
                return StreamingResponse(file.read(0, file.size), media_type=media_type)
            value = {state.options.single_key: value["output_url"]}
            return _bent(JSONResponse(value), fault, state)
        return JSONResponse(value)

    return endpoint


async def _late_or_broken(
    request: Request, faults: Sequence[Fault | None], whole: Fault | None
) -> Response | None:
    """Wait as long as a fault says; an answer where the connection is to be broken."""
    wire = wire_of(request.scope)
    for fault in faults:
        if fault is not None and fault.kind == "slow":
            await wire.wait(fault.number("seconds"))
            break
    if whole is None or whole.kind not in ("reset", "stall"):
        return None
    seconds = whole.number("seconds") if whole.kind == "stall" else None
    if seconds is not None and await wire.wait(seconds):
        return None
    return Broken(whole)


def _whole(
    state: SimulatorState, request: Request, fault: Fault | None, answer: dict[str, object]
) -> Response | None:
    """Make the answer that a fault puts in the place of the whole one."""
    if fault is None:
        return None
    match fault.kind:
        case "status":
            status = fault.integer("status")
            detail = fault.value("detail")
            return JSONResponse(
                {"detail": answers.detail_of(status) if detail is None else detail},
                status_code=status,
            )
        case "empty":
            return JSONResponse({})
        case "results-list":
            return JSONResponse(answers.as_results_list(answer))
        case "not-json":
            page = "<html><body><h1>502 Bad Gateway</h1></body></html>"
            return HTMLResponse(page, status_code=fault.integer("status"))
        case "other-shape":
            return JSONResponse(fault.value("body"))
        case "truncate":
            after = None if fault.value("after") is None else fault.integer("after")
            return Truncated(answer, after)
        case "redirect":
            place = fault.text("to", f"{state.storage_origin}{request.url.path}")
            return RedirectResponse(place, status_code=fault.integer("status"))
    return None


def _bent(answer: Response, fault: Fault | None, state: SimulatorState) -> Response:
    """Add to a whole answer what a fault has beside it or behind it."""
    if fault is None:
        return answer
    answer.headers.update(wait_headers(fault, state.now))
    if fault.kind == "gzip":
        packed = gzip.compress(bytes(answer.body), mtime=0)
        headers = {"content-encoding": "gzip", "content-type": answer.headers["content-type"]}
        return Response(packed, answer.status_code, headers)
    return Surplus(answer, fault.text("what")) if fault.kind == "surplus" else answer


def _add_controls(app: FastAPI, state: SimulatorState) -> None:
    @app.get("/_simulator/stats", include_in_schema=False)
    async def stats() -> dict[str, Any]:
        return state.stats.snapshot()

    @app.get(PORTAL, include_in_schema=False)
    async def portal() -> HTMLResponse:
        return HTMLResponse("<html><body><h1>Welcome: please log in</h1></body></html>")

    @app.post("/_simulator/reset", include_in_schema=False, status_code=204)
    async def reset() -> None:
        state.stats.reset()

    @app.put("/_simulator/rules", include_in_schema=False)
    async def rules(value: Annotated[object, Body()]) -> dict[str, int]:
        try:
            parsed = parse_rules(value)
            state.set_rules(parsed)
        except SimulatorError as error:
            raise HTTPException(400, str(error)) from None
        return {"rules": len(parsed)}
