"""Clips that lie in memory rather than in a file."""

from __future__ import annotations

import os

import pyarrow as pa

from stresnet.data.clip_file import Clip, StoreSpec
from stresnet.data.clip_writer import Encode
from stresnet.data.encode import encode_clip
from stresnet.errors import StoreError


def refusal(error: OSError) -> StoreError:
    """What to raise where nothing should go wrong."""
    return StoreError(f"memory cannot be written: {error}")


def written(encode: Encode) -> Clip:
    """What was written."""
    sink = pa.BufferOutputStream()
    encode(sink, refusal)
    return Clip(pa.BufferReader(sink.getvalue()), "memory")


def encoded(record_id: str, path: str | os.PathLike[str], spec: StoreSpec) -> Clip:
    """A video as a clip."""
    return written(lambda sink, refusal: encode_clip(record_id, path, spec, sink, refusal))
