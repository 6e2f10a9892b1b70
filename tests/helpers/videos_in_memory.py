"""Prepared videos in memory rather than in a file."""

from __future__ import annotations

import os
from functools import partial

import pyarrow as pa

from stresnet.data.encode_video import encode_video
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.prepared_video_writer import Encode


def in_memory(encode: Encode) -> PreparedVideo:
    """Return the prepared video that ``encode`` writes."""
    sink = pa.BufferOutputStream()
    encode(sink)
    return PreparedVideo(pa.BufferReader(sink.getvalue()), "memory")


def encoded(record_id: str, path: str | os.PathLike[str], spec: StoreSpec) -> PreparedVideo:
    """Return a video as a prepared video."""
    return in_memory(partial(encode_video, record_id, path, spec))
