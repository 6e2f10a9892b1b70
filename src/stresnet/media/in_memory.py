"""Videos whose frames are in memory, read as those of a file are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.media.decode import SCALING, scaled_size
from stresnet.media.video import Frame, Video, VideoInfo


def video_in_memory(frames: Any, fps: float) -> Video:
    """Return frames as a video.

    Args:
        frames: (T,H,W,3) uint8, RGB: a NumPy array, a tensor on the CPU, or whatever NumPy takes for one.
        fps: frames per second.

    Raises:
        VideoError: the frames have another shape or type, or `fps` is not a positive number.
    """
    try:
        array = np.asarray(frames)
    except (ValueError, TypeError, RuntimeError) as error:
        raise VideoError(f"expected frames (T,H,W,3) uint8, found what is not an array: {error}") from None
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise VideoError(f"expected frames (T,H,W,3) uint8, found {array.shape} {array.dtype}")
    if not 0 < fps < math.inf:
        raise VideoError(f"expected a positive number of frames per second, found {fps}")
    return Video(array, np.arange(len(array)) / fps, fps, truncated=False)


class FramesInMemory:
    """Reads frames of a video in memory; see `stresnet.media.selected.SelectedFrames`."""

    def __init__(self, video: Video, short_side: int | None) -> None:
        """Begin; `short_side` is as in `iter_frames`."""
        frames, height, width = video.frames.shape[:3]
        self.times_sec = video.times_sec
        self.truncated = video.truncated
        self.info = VideoInfo(width, height, video.fps, "frames in memory", 0, frames)
        self._frames = video.frames
        self._size = scaled_size(width, height, short_side)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """Yield frames; see `SelectedFrames.read`."""
        width, height = self._size
        reformatter = VideoReformatter()
        for index in indices:
            rgb = np.ascontiguousarray(self._frames[index])
            if rgb.shape[:2] != (height, width):
                picture = VideoFrame.from_ndarray(rgb, "rgb24")
                rgb = reformatter.reformat(picture, width, height, interpolation=SCALING, threads=1).to_ndarray()
            yield Frame(rgb, float(self.times_sec[index]))
