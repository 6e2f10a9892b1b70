"""The routes under ``/v1``: predictions, models and jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel

from stresnet.data.segment import Segment, parse_segment
from stresnet.inference.timeline_files import timeline_text
from stresnet.serving.jobs import Job, Jobs
from stresnet.serving.metrics import Metrics
from stresnet.serving.problems import ProblemDetails, ProblemError
from stresnet.serving.recognition import Models
from stresnet.serving.settings import Settings
from stresnet.serving.uploads import FIELD, Body

_MAX_TOP = 1000
_EVENT_EVERY_SEC = 0.2
_ALIVE_EVERY_SEC = 15
_DISCONNECTED_EVERY_SEC = 0.5

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "string", "format": "binary", "description": "the video file"}},
                }
            }
        },
    }
}
_TIMELINE_TYPES = {"json": "application/json", "csv": "text/csv", "vtt": "text/vtt", "srt": "application/x-subrip"}


class Action(BaseModel):
    """A class and its probability."""

    label: str
    probability: float


class Streams(BaseModel):
    """The most likely classes of each stream; null for one that the network lacks."""

    appearance: list[Action] | None
    motion: list[Action] | None


class Result(BaseModel):
    """What was found in a video: the prediction, and the time line if it was asked for."""

    video: str
    model: str
    label: str
    probability: float
    top: list[Action]
    streams: Streams
    protocol: str
    flow: str | None
    frames: int
    truncated: bool
    timeline: dict[str, Any] | None = None


class JobProgress(BaseModel):
    """How far a job is: units done, and units in all, 0 if unknown."""

    activity: str
    done: int
    total: int


class JobState(BaseModel):
    """A job: its progress, in the end its result or a problem."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: JobProgress | None = None
    result: Result | None = None
    problem: ProblemDetails | None = None


class Model(BaseModel):
    """A network of this service."""

    name: str
    network: str
    streams: list[str]
    flow: str | None
    protocol: str
    precision: str
    classes: list[str]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ProblemDetails, "content": {"application/problem+json": {}}} for status in statuses}


def routes(models: Models, jobs: Jobs, settings: Settings, metrics: Metrics) -> APIRouter:
    """Return the routes of a service."""
    router = APIRouter(prefix="/v1", default_response_class=JSONResponse)

    @router.get("/models", summary="The models of this service; the first one is the default")
    async def list_models() -> list[Model]:
        return [Model(**one) for one in models.describe()]

    @router.post(
        "/predict",
        summary="Recognise the action in a video",
        response_model=Result,
        openapi_extra=_FORM,
        responses={202: {"model": JobState}, **_problems(401, 408, 413, 422, 429, 500, 503)},
    )
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="Name of a model.")] = None,
        top: Annotated[int, Query(ge=1, le=_MAX_TOP, description="Number of actions to list.")] = 5,
        protocol: Annotated[str | None, Query(description="Test protocol; by default the model's own.")] = None,
        timeline: Annotated[bool, Query(description="Also say when what happens.")] = False,
        start: Annotated[str, Query(alias="from", description="Use the video from this time on: s, or h:m:s.")] = "",
        end: Annotated[str, Query(alias="to", description="Use the video up to this time.")] = "",
        prefer: Annotated[
            str, Header(description="`respond-async`: answer at once with a job, see `/v1/jobs/{id}`.")
        ] = "",
    ) -> Response:
        body = Body(request, settings)
        try:
            question = models.question(model, protocol, top, timeline, _segment(start, end))
            with jobs.admitted():
                upload = await body.upload()
                metrics.upload_bytes.inc(upload.size)
                job = jobs.submit(upload, question)
        except ProblemError:
            await body.drain()
            raise
        if "respond-async" in prefer:
            where = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": "respond-async"}
            return JSONResponse(job.to_dict(), 202, where)
        await _ended(request, job)
        if job.problem:
            raise job.problem
        return JSONResponse(job.to_dict()["result"])

    @router.get(
        "/jobs/{job_id}", summary="The state of a job", response_model_exclude_unset=True, responses=_problems(401, 404)
    )
    async def state(job_id: str) -> JobState:
        return JobState(**jobs.get(job_id).to_dict())

    @router.get(
        "/jobs/{job_id}/events",
        summary="The state of a job as it changes, as server-sent events, until it ends",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}, **_problems(401, 404)},
    )
    async def events(job_id: str) -> StreamingResponse:
        return StreamingResponse(_events(jobs.get(job_id)), media_type="text/event-stream")

    @router.get(
        "/jobs/{job_id}/timeline.{ending}",
        summary="The time line of a job as a file",
        response_class=PlainTextResponse,
        responses=_problems(401, 404),
    )
    async def timeline_file(job_id: str, ending: Literal["json", "csv", "vtt", "srt"]) -> Response:
        job = jobs.get(job_id)
        if job.answer is None or job.answer.timeline is None:
            raise ProblemError(
                "not-found", "this job has no time line; ask for one with timeline=true, and wait for its end"
            )
        text = timeline_text(f".{ending}", job.answer.timeline, title=job.name)
        save = {"Content-Disposition": f'attachment; filename="timeline.{ending}"'}
        return Response(text, 200, save, media_type=_TIMELINE_TYPES[ending])

    @router.delete(
        "/jobs/{job_id}", summary="Cancel a job", response_model_exclude_unset=True, responses=_problems(401, 404)
    )
    async def cancel(job_id: str) -> JobState:
        job = jobs.get(job_id)
        job.cancel()
        await job.ended.wait()
        return JobState(**job.to_dict())

    return router


def _segment(start: str, end: str) -> Segment:
    try:
        return parse_segment(start, end)
    except ValueError as error:
        raise ProblemError("invalid-request", f"from and to: {error}") from None


async def _ended(request: Request, job: Job) -> None:
    """Return when a job has ended, and cancel it if the client is gone."""
    while not job.ended.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(job.ended.wait(), _DISCONNECTED_EVERY_SEC)
        if await request.is_disconnected():
            job.cancel()


async def _events(job: Job) -> AsyncGenerator[str]:
    last, quiet = "", 0.0
    while True:
        ended = job.ended.is_set()
        values = json.dumps(job.to_dict())
        if values != last:
            yield f"event: {job.to_dict()['state']}\ndata: {values}\n\n"
            last, quiet = values, 0.0
        elif quiet >= _ALIVE_EVERY_SEC:
            yield ": still here\n\n"
            quiet = 0.0
        if ended:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(job.ended.wait(), _EVENT_EVERY_SEC)
        quiet += _EVENT_EVERY_SEC
