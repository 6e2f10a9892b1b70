"""Receive a video: streamed to a file without a name, which the system removes however the service ends."""

from __future__ import annotations

import asyncio
import re
from typing import BinaryIO, NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from stresnet.serving.problems import ProblemError
from stresnet.serving.settings import Settings

FIELD = "video"
_NAME_LENGTH = 100
_FORM_BYTES = 64 << 10  # around the file
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DRAINED_BYTES = 4 << 20
_DRAIN_SEC = 2.0


class Upload(NamedTuple):
    """A file that was received.

    Attributes:
        file: the open file, without a name.
        name: what the client calls it, without folders and control characters; to be shown, never to be opened.
        size: its bytes.
    """

    file: BinaryIO
    name: str
    size: int


async def receive(request: Request, settings: Settings) -> Upload:
    """Return the file of the form field `FIELD`.

    Raises:
        ProblemError: the body is too large, comes too slowly, or has no such file.
    """
    most = settings.max_upload_bytes
    if int(request.headers.get("content-length", "0")) > most + _FORM_BYTES:
        raise _too_large(most)
    limited = Request(request.scope, _limited(request.receive, most + _FORM_BYTES))
    try:
        async with asyncio.timeout(settings.max_seconds):
            form = await limited.form(max_files=1, max_fields=0)
    except TimeoutError:
        raise ProblemError(
            "too-large", f"the upload takes longer than {settings.max_seconds:g} s", status=408
        ) from None
    except ClientDisconnect:
        raise ProblemError("invalid-request", "the upload was broken off", status=400) from None
    upload = form.get(FIELD)
    if not isinstance(upload, UploadFile):
        await form.close()
        raise ProblemError("invalid-request", f"expected a form with a file named {FIELD!r}, found none")
    size = upload.size or 0
    if size > most:
        await form.close()
        raise _too_large(most)
    return Upload(upload.file, shown_name(upload.filename or ""), size)


def shown_name(name: str) -> str:
    """Return what a client calls a file, made safe to show."""
    last = re.split(r"[/\\]", name)[-1]
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", last)[:_NAME_LENGTH].strip() or "the upload"


async def drain(request: Request) -> None:
    """Read what a client still sends for a moment: many see no answer while they send."""
    left = _DRAINED_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SEC):
            async for chunk in request.stream():
                left -= len(chunk)
                if left <= 0:
                    return
    except (TimeoutError, ClientDisconnect):
        return


def _limited(receive: Receive, most: int) -> Receive:
    """Return a function that receives a body, of at most some bytes in all."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise _too_large(most - _FORM_BYTES)
        return message

    return limited


def _too_large(most: int) -> ProblemError:
    return ProblemError(
        "too-large", f"the upload is larger than {most / (1 << 20):.4g} MiB; cut the video or compress it"
    )
