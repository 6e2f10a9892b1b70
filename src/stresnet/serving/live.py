"""Streams over a WebSocket: a client sends pictures, and is told what happens in them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Literal

import simplejpeg
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from numpy import uint8
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stresnet.errors import StresnetError
from stresnet.inference.live import Live
from stresnet.serving.access import is_token
from stresnet.serving.metrics import Metrics
from stresnet.serving.problems import ProblemError, problem_of
from stresnet.serving.recognition import Models
from stresnet.serving.settings import Settings

END = "end"
"""What a client sends after its last picture."""

MAX_MESSAGE_BYTES = 4 << 20
_MAX_PIXELS = 1 << 22
_IDLE_SEC = 30.0
_POLICY_VIOLATION = 1008


class Opening(BaseModel):
    """The first message of a client.

    Attributes:
        token: the bearer token, if the service has one: browsers cannot send it as a header.
        model: name of the network.
        mode: see `stresnet.inference.live.Mode`.
        top: number of classes to name.
    """

    model_config = ConfigDict(extra="forbid")

    token: str = ""
    model: str | None = None
    mode: Literal["exact", "immediate"] = "immediate"
    top: int = Field(5, ge=1, le=1000)


class Streams:
    """The streams of a service, of which there may be a few at a time."""

    def __init__(self, models: Models, settings: Settings, metrics: Metrics) -> None:
        """Start with none."""
        self._models, self._settings, self._metrics = models, settings, metrics
        self._open = 0

    def router(self) -> APIRouter:
        """Return the route."""
        router = APIRouter()
        router.add_api_websocket_route("/v1/live", self.serve)
        return router

    async def serve(self, socket: WebSocket) -> None:
        """Answer the pictures of a client until it ends, is silent for too long, or sends something else."""
        await socket.accept()
        self._open += 1
        self._metrics.streams.set(self._open)
        try:
            await self._answer(socket, await self._begin(socket))
            await socket.close()
        except WebSocketDisconnect:
            pass
        except Exception as error:
            with suppress(RuntimeError):  # the client is gone
                await socket.send_json({"problem": problem_of(error).to_dict()})
                await socket.close(_POLICY_VIOLATION)
        finally:
            self._open -= 1
            self._metrics.streams.set(self._open)

    async def _begin(self, socket: WebSocket) -> Live:
        """Return a stream as the first message asks for it.

        Raises:
            ProblemError: the message is wrong, or there are enough streams.
        """
        try:
            opening = Opening.model_validate_json(await _received(socket, "text"))
        except ValidationError as error:
            raise ProblemError("invalid-request", f"the first message: {error.errors()[0]['msg']}") from None
        if self._settings.token is not None and not is_token(opening.token, self._settings.token):
            raise ProblemError("unauthorized", "expected the bearer token of this service, found another or none")
        if self._open > self._settings.streams:
            raise ProblemError("busy", f"{self._settings.streams} streams are open already; try again later")
        recognizer = self._models.get(opening.model or self._models.names[0])
        try:
            live = recognizer.live(opening.mode, top=opening.top)
        except StresnetError as error:
            raise ProblemError("invalid-request", str(error)) from error
        await socket.send_json({"stride_frames": live.stride_frames, "delay_frames": live.delay_frames})
        return live

    async def _answer(self, socket: WebSocket, live: Live) -> None:
        """Answer each picture with its number and, if it completes one, a result."""
        began, frames = time.monotonic(), 0
        while True:
            message = await _received(socket, "bytes")
            if message == END:
                for result in await asyncio.to_thread(live.finish):
                    await socket.send_json({"frames": frames, "result": result.to_dict()})
                return
            picture = await asyncio.to_thread(_decoded, message)
            found = await asyncio.to_thread(live.push, picture, time.monotonic() - began)
            frames += 1
            self._metrics.stream_frames.inc()
            answer: dict[str, Any] = {"frames": frames}
            await socket.send_json(answer | ({"result": found.to_dict()} if found else {}))


async def _received(socket: WebSocket, kind: str) -> Any:
    """Return the next message of a kind, or `END`.

    Raises:
        ProblemError: none came, or another.
        WebSocketDisconnect: the client is gone.
    """
    try:
        async with asyncio.timeout(_IDLE_SEC):
            message = await socket.receive()
    except TimeoutError:
        raise ProblemError("invalid-request", f"expected a message within {_IDLE_SEC:g} s", status=408) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    if message.get(kind) is not None:
        return message[kind]
    if message.get("text") == END:
        return END
    raise ProblemError("invalid-request", f"expected {kind}: JSON first, then a JPEG a message, then {END!r}")


def _decoded(data: bytes) -> NDArray[uint8]:
    """Return a picture, (H,W,3) uint8, RGB.

    Raises:
        ProblemError: it is no JPEG, or too large.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        if height * width > _MAX_PIXELS:
            raise ProblemError("too-large", f"pictures of {width}×{height} px; expected at most {_MAX_PIXELS} px")
        picture: NDArray[uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        raise ProblemError("invalid-request", "expected a JPEG, found something else or a damaged one") from None
    return picture
