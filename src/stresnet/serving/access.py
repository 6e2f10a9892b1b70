"""Around every request: its id, a line of log without contents, measures, and headers for browsers."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stresnet.serving.metrics import Metrics
from stresnet.serving.problems import ProblemError, problem_of, respond

_LOG = logging.getLogger("stresnet.serving.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


_BEARER = HTTPBearer(auto_error=False, description="Only if the service was started with a token.")


class Access:
    """Gives every request an id, refuses those that pages of other origins send, logs and measures them."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "websocket" and is_foreign(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # answers with 403
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), time.monotonic()
        status: int | None = None
        wanted = headers.get("x-request-id", "")
        request_id = wanted if _REQUEST_ID.fullmatch(wanted) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    answered[name] = value
                if "cache-control" not in answered:
                    answered["Cache-Control"] = "no-store"
            await send(message)

        try:
            if is_foreign(headers):
                problem = ProblemError("forbidden", "a page of another origin may not use this service")
                await respond(Request(scope), problem)(scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        except Exception as error:
            if status is not None:  # it is too late for another answer
                raise
            await respond(Request(scope), problem_of(error))(scope, receive, sending)
        finally:
            self._note(scope, request_id, status or 500, time.monotonic() - began)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        # The path of an unknown route is text from outside, and one that has ids in it would be a measure of its own.
        route = getattr(scope.get("route"), "path", None) or scope.get("root_path") or "(none)"
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "DELETE") else "(other)"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        _LOG.info("id=%s method=%s route=%s status=%d ms=%.0f", request_id, method, route, status, 1000 * seconds)


def is_foreign(headers: Headers) -> bool:
    """Return whether a request was sent by a page of another origin."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def require_token(token: SecretStr | None) -> Callable[..., Awaitable[None]]:
    """Return a dependency that raises unless a request carries a token; without one, all do."""

    async def require(found: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        if token is not None and not is_token(found.credentials if found else "", token):
            raise ProblemError(
                "unauthorized",
                "expected the bearer token of this service, found another or none",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return require


def is_token(found: str, token: SecretStr) -> bool:
    """Return whether a text is the token, in a time that does not depend on where they differ."""
    return hmac.compare_digest(found.encode(), token.get_secret_value().encode())
