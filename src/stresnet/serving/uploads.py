"""Receive a video: streamed to a file without a name, which the system removes however the service ends."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message

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


class Body:
    """The body of a request, which is read once."""

    def __init__(self, request: Request, settings: Settings) -> None:
        """Read nothing yet."""
        self._request, self._settings = request, settings
        self._received = 0
        self._whole = False

    async def upload(self) -> Upload:
        """Return the file of the form field `FIELD`.

        Raises:
            ProblemError: the body is too large, comes too slowly, or has no such file.
        """
        most = self._settings.max_upload_bytes
        if int(self._request.headers.get("content-length", "0")) > most + _FORM_BYTES:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._settings.max_seconds):
                form = await Request(self._request.scope, self._receive).form(max_files=1, max_fields=0)
        except TimeoutError:
            sentence = f"the upload takes longer than {self._settings.max_seconds:g} s"
            raise ProblemError("too-large", sentence, status=408) from None
        except ClientDisconnect:
            raise ProblemError("invalid-request", "the upload was broken off", status=400) from None
        upload = form.get(FIELD)
        if not isinstance(upload, UploadFile):
            await form.close()
            raise ProblemError("invalid-request", f"expected a form with a file named {FIELD!r}, found none")
        size = upload.size or 0
        if size > most:
            await form.close()
            raise self._too_large()
        return Upload(upload.file, shown_name(upload.filename or ""), size)

    async def drain(self) -> None:
        """Read what a client still sends for a moment: many see no answer while they send."""
        most = self._received + _DRAINED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SEC):
                while not self._whole and self._received < most:
                    await self._read()

    async def _receive(self) -> Message:
        message = await self._read()
        if self._received > self._settings.max_upload_bytes + _FORM_BYTES:
            raise self._too_large()
        return message

    async def _read(self) -> Message:
        message = await self._request.receive()
        self._received += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        return message

    def _too_large(self) -> ProblemError:
        most = f"{self._settings.max_upload_bytes / (1 << 20):.4g} MiB"
        return ProblemError("too-large", f"the upload is larger than {most}; cut the video or compress it")


def shown_name(name: str) -> str:
    """Return what a client calls a file, made safe to show."""
    last = re.split(r"[/\\]", name)[-1]
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", last)[:_NAME_LENGTH].strip() or "the upload"
