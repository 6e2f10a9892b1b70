"""Write videos with PyAV."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.media.failures import reason


def write_video(
    path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], *, fps: float, quality_crf: int = 18
) -> None:
    """Write frames as an H.264 MP4 that browsers play.

    Odd sizes are padded to even by repeating the last row or column. The file appears under its name only when it is
    complete.

    Args:
        path: the file; the format is MP4 whatever the ending.
        frames: (H, W, 3) uint8 each, all of one size, or an array (T, H, W, 3).
        fps: frames per second, above 0 and at most 1000.
        quality_crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually almost lossless.

    Raises:
        VideoError: there are no frames, they have another type or several sizes, or the file cannot be written.
    """
    if not 0 < fps <= 1000:
        raise VideoError(f"{path}: fps must be above 0 and at most 1000, found {fps}")
    target = Path(path)
    unfinished = target.with_name(f".{uuid.uuid4().hex}.mp4")
    try:
        _encode(unfinished, target, frames, fps, quality_crf)
        os.replace(unfinished, target)
    except (av.FFmpegError, OSError, UnknownCodecError) as error:  # a build of FFmpeg may lack x264
        raise VideoError(f"{target}: cannot be written ({reason(error)})") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(unfinished: Path, target: Path, frames: Iterable[NDArray[np.uint8]], fps: float, quality_crf: int) -> None:
    shape: tuple[int, ...] | None = None
    with av.open(f"file:{unfinished}", "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt = "yuv420p"
        # Without x264's macroblock tree, the same frames give the same file.
        stream.options = {"crf": str(quality_crf), "preset": "veryfast", "mbtree": "0"}
        # The colour space of the conversion from RGB. Without the label, players guess it from the picture's size.
        stream.codec_context.colorspace = Colorspace.SMPTE170M
        stream.codec_context.color_range = ColorRange.MPEG
        for index, rgb in enumerate(frames):
            if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
                raise VideoError(f"{target}: frame {index} must be (H,W,3) uint8, found {rgb.shape} {rgb.dtype}")
            if shape is None:
                shape = rgb.shape
                stream.height, stream.width = (side + side % 2 for side in shape[:2])
            if rgb.shape != shape:
                raise VideoError(f"{target}: frame {index} is {rgb.shape}, the first one {shape}; use one size")
            even = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(VideoFrame.from_ndarray(even, format="rgb24")))
        if shape is None:
            raise VideoError(f"{target}: there are no frames to write")
        container.mux(stream.encode(None))
