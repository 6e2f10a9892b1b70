"""Videos whose frames are in memory, read as those of a file are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

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


def require_picture(rgb: Any) -> NDArray[np.uint8]:
    """Return a picture that was given from outside.

    Raises:
        VideoError: it is not (H,W,3) uint8.
    """
    found = f"{rgb.shape} {rgb.dtype}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
    if not isinstance(rgb, np.ndarray) or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise VideoError(f"expected a frame (H,W,3) uint8, found {found}")
    return rgb


class Scaler:
    """Scales pictures as those of a file are scaled while they are read."""

    def __init__(self, short_side: int | None) -> None:
        """Begin; `short_side` is as in `iter_frames`."""
        self._short_side = short_side
        self._reformatter = VideoReformatter()

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a picture (H,W,3) uint8, C-contiguous, scaled.

        Raises:
            VideoError: it would become too large.
        """
        height, width = rgb.shape[:2]
        size = scaled_size(width, height, self._short_side, "frames in memory")
        rgb = np.ascontiguousarray(rgb)
        if size == (width, height):
            return rgb
        picture = VideoFrame.from_ndarray(rgb, "rgb24")
        scaled = self._reformatter.reformat(picture, *size, interpolation=SCALING, threads=1)
        return cast(NDArray[np.uint8], scaled.to_ndarray())


class FramesInMemory:
    """Reads frames of a video in memory; see `stresnet.media.selected.SelectedFrames`."""

    def __init__(self, video: Video, short_side: int | None) -> None:
        """Begin; `short_side` is as in `iter_frames`."""
        frames, height, width = video.frames.shape[:3]
        self.times_sec = video.times_sec
        self.truncated = video.truncated
        self.conversions = ""
        self.info = VideoInfo(width, height, video.fps, "frames in memory", 0, frames)
        self._frames = video.frames
        self._scaler = Scaler(short_side)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """Yield frames; see `SelectedFrames.read`."""
        for index in indices:
            yield Frame(self._scaler(self._frames[index]), float(self.times_sec[index]))
