"""Failures as problem details (RFC 9457), with the sentences that the command line prints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from stresnet.errors import StoreError, StresnetError

_LOG = logging.getLogger("stresnet.serving")

_INTERNAL = "internal-error"

_STATUS: dict[str, int] = {
    "invalid-request": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "too-large": 413,
    "busy": 429,
    "unusable-video": 422,
    "limit-exceeded": 422,
    "cancelled": 409,
    "decoder-ended": 500,
    "no-room": 503,
    _INTERNAL: 500,
}


class ProblemDetails(BaseModel):
    """The body of every answer that is an error, `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None


class ProblemError(Exception):
    """A failure that a client is told of."""

    def __init__(
        self, kind: str, detail: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Describe a failure.

        Args:
            kind: what programs tell failures apart by.
            detail: a sentence: what is wrong, what was expected, what to do.
            status: the HTTP status; by default that of the kind.
            headers: further headers of the answer.
        """
        super().__init__(detail)
        self.kind, self.detail = kind, detail
        self.status = status or _STATUS[kind]
        self.headers = dict(headers or {})

    def to_dict(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the problem details as plain JSON values."""
        return ProblemDetails(
            type=f"urn:stresnet:{self.kind}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            request_id=request_id,
        ).model_dump(exclude_none=True)


def problem_of(error: Exception) -> ProblemError:
    """Return what a client is told of an error; one that is not the client's is logged, and told in general terms."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, StoreError):  # the temporary folder, whose name is not for clients
        _LOG.error("%s", error)
        return ProblemError("no-room", "the server has no room for the decoded video; try again later")
    if isinstance(error, StresnetError):
        return ProblemError("unusable-video", str(error))
    _LOG.error("unexpected error", exc_info=error)
    return ProblemError(_INTERNAL, "the server failed; its log says why, under the id of this request")


def respond(request: Request, problem: ProblemError) -> JSONResponse:
    """Return the answer that tells a problem."""
    content = problem.to_dict(request.scope.get("state", {}).get("request_id"))
    return JSONResponse(content, problem.status, problem.headers, media_type="application/problem+json")


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of an application with problem details."""

    @app.exception_handler(ProblemError)
    async def told(request: Request, error: ProblemError) -> JSONResponse:
        return respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
        return respond(request, ProblemError("invalid-request", "; ".join(found)))

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        kind = {404: "not-found", 413: "too-large"}.get(error.status_code, "invalid-request")
        return respond(request, ProblemError(kind, str(error.detail), status=error.status_code, headers=error.headers))
