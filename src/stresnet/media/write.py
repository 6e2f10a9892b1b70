"""Write videos with PyAV."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.media.failures import reason
from stresnet.media.sound import Sound
from stresnet.media.video import Frame

_CLOCK = Fraction(1, 90_000)
"""Unit of the times of frames that are given, in seconds."""


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
    _write(Path(path), ((rgb, None) for rgb in frames), fps, quality_crf, None)


def write_frames(
    path: str | os.PathLike[str],
    frames: Iterable[Frame],
    *,
    fps: float,
    quality_crf: int = 18,
    sound_of: str | os.PathLike[str] | None = None,
    sound_from_sec: float = 0.0,
) -> None:
    """Write frames with their times, and the sound of another video; see `write_video`.

    Args:
        path: the file; the format is MP4 whatever the ending.
        frames: all of one size.
        fps: mean frames per second, which players show.
        quality_crf: x264's constant rate factor.
        sound_of: a video file whose sound, if it has any, is encoded again as AAC.
        sound_from_sec: time in that video, since its first picture, that is time 0 here.

    Raises:
        VideoError: see `write_video`; or the video with the sound cannot be read.
    """
    sound = None if sound_of is None else (Path(sound_of), sound_from_sec)
    _write(Path(path), ((frame.rgb, frame.time_sec) for frame in frames), fps, quality_crf, sound)


_Timed = Iterator[tuple[NDArray[np.uint8], float | None]]
"""Pictures and their times; without one, a picture comes 1 / fps after the one before."""


def _write(target: Path, frames: _Timed, fps: float, quality_crf: int, sound: tuple[Path, float] | None) -> None:
    if not 0 < fps <= 1000:
        raise VideoError(f"{target}: fps must be above 0 and at most 1000, found {fps}")
    unfinished = target.with_name(f".{uuid.uuid4().hex}.mp4")
    try:
        with av.open(f"file:{unfinished}", "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            _configure(stream, quality_crf)
            heard = None if sound is None else Sound(*sound, container)
            for picture, time_sec in _pictures(target, frames, stream):
                container.mux(stream.encode(picture))
                if heard is not None and time_sec is not None:
                    heard.add_until(time_sec + 1 / fps)
            container.mux(stream.encode(None))
            if heard is not None:
                heard.end()
        os.replace(unfinished, target)
    except (av.FFmpegError, OSError, UnknownCodecError) as error:  # a build of FFmpeg may lack x264
        raise VideoError(f"{target}: cannot be written ({reason(error)})") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _configure(stream: VideoStream, quality_crf: int) -> None:
    stream.pix_fmt = "yuv420p"
    # Without x264's macroblock tree, the same frames give the same file.
    stream.options = {"crf": str(quality_crf), "preset": "veryfast", "mbtree": "0"}
    # The colour space of the conversion from RGB. Without the label, players guess it from the picture's size.
    stream.codec_context.colorspace = Colorspace.SMPTE170M
    stream.codec_context.color_range = ColorRange.MPEG


def _pictures(target: Path, frames: _Timed, stream: VideoStream) -> Iterator[tuple[VideoFrame, float | None]]:
    """Yield the pictures to encode, of even sides, and set the size of the stream before the first one.

    Raises:
        VideoError: there are none, or one has another type or size.
    """
    shape: tuple[int, ...] | None = None
    for index, (rgb, time_sec) in enumerate(frames):
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
            raise VideoError(f"{target}: frame {index} must be (H,W,3) uint8, found {rgb.shape} {rgb.dtype}")
        if shape is None:
            shape = rgb.shape
            stream.height, stream.width = (side + side % 2 for side in shape[:2])
            if time_sec is not None:
                stream.codec_context.time_base = _CLOCK
        if rgb.shape != shape:
            raise VideoError(f"{target}: frame {index} is {rgb.shape}, the first one {shape}; use one size")
        even = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
        picture = VideoFrame.from_ndarray(even, format="rgb24")
        if time_sec is not None:
            picture.pts, picture.time_base = round(time_sec / _CLOCK), _CLOCK
        yield picture, time_sec
    if shape is None:
        raise VideoError(f"{target}: there are no frames to write")
