"""What a service allows its clients."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from stresnet.data.workers import usable_cores
from stresnet.media import Limits

_LIMITS = Limits(frame_pixels=1 << 25, frames=500_000, seconds=21_600.0, streams=32, attachment_bytes=16 << 20)


class Settings(BaseModel):
    """The limits of a service; the defaults suit short clips from strangers.

    Attributes:
        workers: decoder processes at the same time.
        waiting: requests that may wait for a decoder or the network; more are answered with 429.
        max_upload_bytes: bytes of a request's body.
        max_seconds: the time that decoding and scoring a video may take together, and that its upload may take.
        decoder_bytes: memory that a decoder may take beyond that of its libraries.
        decoded_bytes: bytes of the decoded frames and flow of a video, in a temporary file.
        limits: how much a video may ask for.
        streams: live streams at the same time.
        kept_jobs: finished jobs whose results are kept.
        kept_seconds: how long they are kept.
        token: if given, requests must carry it as a bearer token.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    workers: int = Field(default_factory=usable_cores, ge=1)
    waiting: int = Field(32, ge=0)
    max_upload_bytes: int = Field(200 << 20, ge=1)
    max_seconds: float = Field(300.0, gt=0)
    decoder_bytes: int = Field(2 << 30, ge=1)
    decoded_bytes: int = Field(4 << 30, ge=1)
    limits: Limits = Limits(
        frame_pixels=1 << 25, frames=500_000, seconds=21_600.0, streams=32, attachment_bytes=16 << 20
    )
    streams: int = Field(4, ge=0)
    kept_jobs: int = Field(200, ge=1)
    kept_seconds: float = Field(600.0, gt=0)
    token: SecretStr | None = None
