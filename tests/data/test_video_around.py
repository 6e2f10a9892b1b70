"""What a network looks at, prepared alone, has the bits of the video prepared as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.video_kinds import VIDEO_KINDS, encode_kind
from helpers.videos_in_memory import encoded
from stresnet.data.encode_video import video_around
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.sampling import Indices, spread_centers, stack_around
from stresnet.flow import FlowSpec

STACK = 4
SPEC = StoreSpec(FlowSpec(short_side=40), jpeg_quality=90)


def few(frames: int) -> Indices:
    return np.array([frames // 3, frames - 10])


def spread(frames: int) -> Indices:
    return spread_centers(frames, STACK, 5)


def assert_same(found: PreparedVideo, whole: PreparedVideo, centers: Indices, stack: int) -> None:
    """Assert that frames, flow and metadata are those of the whole video."""
    np.testing.assert_array_equal(found.rgb(centers), whole.rgb(centers))
    fields = stack_around(centers, stack).ravel()
    np.testing.assert_array_equal(found.flow(fields), whole.flow(fields))
    np.testing.assert_array_equal(found.times_sec, whole.times_sec)
    found.verify()
    for name in ("id", "frames", "height", "width", "fps", "spec", "source_bytes", "source_mtime_ns", "truncated"):
        assert getattr(found.meta, name) == getattr(whole.meta, name)


@pytest.mark.parametrize("name", VIDEO_KINDS)
def test_the_bits_are_those_of_the_whole_video(tmp_path: Path, name: str) -> None:
    path = encode_kind(tmp_path, name)
    whole = encoded("x", path, SPEC)
    for centers_of in (few, spread):
        found = video_around("x", path, SPEC, centers_of, STACK)
        assert_same(found, whole, centers_of(whole.meta.frames), STACK)
