"""Clips that lie in memory rather than in a file."""

from __future__ import annotations

import os

import pyarrow as pa

from stresnet.data.encode import encode_video
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.prepared_video_writer import Encode
from stresnet.errors import StoreError


def refusal(error: OSError) -> StoreError:
    """What to raise where nothing should go wrong."""
    return StoreError(f"memory cannot be written: {error}")


def written(encode: Encode) -> PreparedVideo:
    """What was written."""
    sink = pa.BufferOutputStream()
    encode(sink, refusal)
    return PreparedVideo(pa.BufferReader(sink.getvalue()), "memory")


def encoded(record_id: str, path: str | os.PathLike[str], spec: StoreSpec) -> PreparedVideo:
    """A video as a clip."""
    return written(lambda sink, refusal: encode_video(record_id, path, spec, sink, refusal))
