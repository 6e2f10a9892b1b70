"""Read and probe videos with PyAV.

Every coded frame is read once, upright, in display order. T frames, H height, W width; frames are RGB, uint8, 0 to 255.

Headers are not trusted: the number of frames is known only after decoding, AVI files store decoding times only, and a
file may be truncated anywhere. Pixels are taken to be square, as in the released data.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from av.codec.context import Flags, Flags2
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.media.decode import Clock, Converter, VideoFile
from stresnet.media.failures import reading
from stresnet.media.frame_spec import AS_SHOWN, FrameSpec
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.media.motion_vectors import CODECS_WITH_VECTORS, transform_vectors, with_vectors
from stresnet.media.resampling import resampled

VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""File name endings, in lower case and with the dot, that count as videos in a folder."""


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video, corrected by its first frame."""

    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    fps: float
    """Frames per second after resampling; without it the mean according to the header, or 25 if it has none."""
    codec: str
    """Name of the decoder, such as ``h264``."""
    rotation_deg: int
    """Clockwise rotation (0, 90, 180 or 270) that was applied to the coded picture."""
    header_frames: int
    """Number of frames according to the header, else to its duration, else 0, after resampling. Often wrong; only
    decoding gives the true number."""


@dataclass(frozen=True)
class Frame:
    """One picture and its time."""

    rgb: NDArray[np.uint8]
    """(H, W, 3) uint8, C-contiguous."""
    time_sec: float
    """Seconds since the first frame, strictly increasing."""
    motion_vectors: NDArray[np.void] | None = None
    """(n,) of dtype `MOTION_VECTOR`: motion of blocks from the previous frame to this one, later ones take precedence.
    Empty if the codec has none, as for the first frame. None unless requested."""


@dataclass(frozen=True)
class Video:
    """A whole video in memory."""

    frames: NDArray[np.uint8]
    """(T, H, W, 3) uint8."""
    times_sec: NDArray[np.float64]
    """(T,) float64, seconds since the first frame, strictly increasing."""
    fps: float
    truncated: bool
    """Whether part of the file could not be decoded, because it is cut off or damaged."""


def describe(file: VideoFile, converter: Converter) -> VideoInfo:
    """Return the description of an open video."""
    fps = file.spec.fps
    frames = file.stream.frames or max(0, round(file.duration_sec * file.fps))
    return VideoInfo(
        width=converter.width,
        height=converter.height,
        fps=fps or file.fps,
        codec=file.stream.codec_context.name,
        rotation_deg=90 * converter.turns,
        header_frames=round(frames * fps / file.fps) if fps else frames,
    )


class FrameReader(Iterator[Frame]):
    """Iterator over the frames of one video, which are decoded on demand; created by `iter_frames`.

    Attributes:
        info: the header, corrected by the first frame.
        truncated: whether undecodable data was found *so far*; final at the end of the iteration.
        conversions: what was done to frames *so far*, such as "deinterlaced"; an empty text for nothing.
    """

    info: VideoInfo

    def __init__(
        self,
        path: str | os.PathLike[str],
        short_side: int | None,
        motion_vectors: bool,
        spec: FrameSpec,
        limits: Limits,
    ) -> None:
        require_short_side(short_side)
        self._path = Path(path)
        with reading(path), ExitStack() as on_error:
            self._file = VideoFile(self._path, spec, limits)
            on_error.callback(self._file.close)
            if motion_vectors:
                self._enable_vectors()
            coded = self._file.decode(tagged=motion_vectors)
            first = self._file.first(coded)
            self._converter = Converter(self._file, first, short_side)
            self.info = describe(self._file, self._converter)
            on_error.pop_all()
        self._clock = Clock(self._file)
        self._coded = coded
        self._frames = (self._read_with_vectors if motion_vectors else self._read)(chain([first], coded))

    @property
    def truncated(self) -> bool:
        return self._file.truncated

    @property
    def conversions(self) -> str:
        return self._file.conversions

    def __next__(self) -> Frame:
        with reading(self._path):
            frame = next(self._frames, None)
        if frame is None:
            self.close()
            raise StopIteration
        return frame

    def close(self) -> None:
        """Close the file. Called automatically at the end of the iteration."""
        self._frames.close()
        self._coded.close()
        self._file.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enable_vectors(self) -> None:
        codec = self._file.stream.codec_context
        if self._file.spec.fps:
            raise VideoError(
                f"{self._file.path}: motion vectors are those between coded frames; choose another flow method to "
                "resample the video"
            )
        if codec.name not in CODECS_WITH_VECTORS:
            raise VideoError(
                f"{self._file.path}: codec {codec.name} exports no motion vectors "
                f"({', '.join(sorted(CODECS_WITH_VECTORS))} do); choose another flow method"
            )
        codec.flags2 |= Flags2.export_mvs
        codec.flags |= Flags.copy_opaque

    def _read(self, coded: Iterator[VideoFrame]) -> Generator[Frame]:
        for picture, times_sec in resampled(self._timed(coded), self._file.spec.fps):
            if times_sec:
                rgb = self._converter.rgb(picture)
                yield from (Frame(rgb, time_sec) for time_sec in times_sec)

    def _timed(self, coded: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, float]]:
        for picture in coded:
            time_sec = self._clock(picture)
            if self._file.spec.fps:
                self._file.limits.require_seconds(self._path, time_sec)
            yield picture, time_sec

    def _read_with_vectors(self, coded: Iterator[VideoFrame]) -> Generator[Frame]:
        upright = self._converter
        for picture, vectors in with_vectors(coded, self.info.codec):
            coded_size = picture.width, picture.height
            vectors = transform_vectors(vectors, coded_size, upright.unrotated_size, upright.turns, upright.mirrored)
            yield Frame(upright.rgb(picture), self._clock(picture), vectors)


def require_short_side(short_side: int | None) -> None:
    """Raise a VideoError if a short side is below 1 pixel."""
    if short_side is not None and short_side < 1:
        raise VideoError(f"short_side must be at least 1 pixel, found {short_side}")


def iter_frames(
    path: str | os.PathLike[str],
    *,
    short_side: int | None = None,
    motion_vectors: bool = False,
    spec: FrameSpec = AS_SHOWN,
    limits: Limits = DEFAULT_LIMITS,
) -> FrameReader:
    """Return an iterator over all frames of a video, in display order.

    Memory holds a few frames, whatever the length. Resizing is bicubic.

    Args:
        path: the video file.
        short_side: pixels of the shorter side; the longer one follows, rounded to nearest. None keeps the size.
        motion_vectors: whether to read the codec's motion vectors too. A few more frames are then held: those up to
            the next one that is not a B picture.
        spec: which frames are read, and how they are converted. By default those of the stream that FFmpeg chooses,
            not cover pictures and thumbnails, each coded frame once.
        limits: how much the video may ask for.

    Returns:
        A `FrameReader`: an iterator of `Frame` with attributes `info` and `truncated`, which can be closed.

    Raises:
        VideoError: the file does not exist, is empty, is not a video, has no such video stream or no decodable frame,
            or exceeds a limit; motion vectors are requested of a codec that has none (VP9, AV1, MJPEG, HEVC), or of
            resampled frames.
    """
    return FrameReader(path, short_side, motion_vectors, spec, limits)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return a description of a video from its header and its first frame, which is decoded.

    Raises:
        VideoError: as for `iter_frames`.
    """
    with iter_frames(path) as reader:
        return reader.info


def read_video(
    path: str | os.PathLike[str],
    *,
    short_side: int | None = None,
    max_frames: int | None = None,
    spec: FrameSpec = AS_SHOWN,
    limits: Limits = DEFAULT_LIMITS,
) -> Video:
    """Read a whole video, or its first `max_frames` frames, into memory.

    Raises:
        VideoError: as for `iter_frames`.
    """
    if max_frames is not None and max_frames < 1:
        raise VideoError(f"max_frames must be at least 1, found {max_frames}")
    frames: list[Frame] = []
    with iter_frames(path, short_side=short_side, spec=spec, limits=limits) as reader:
        for frame in reader:
            if (len(frames) + 1) * frame.rgb.nbytes > limits.held_bytes:
                raise VideoError(
                    f"{path}: its frames take more than {limits.held_bytes >> 20} MiB; use iter_frames, max_frames or "
                    "a smaller short_side"
                )
            frames.append(frame)
            if len(frames) == max_frames:
                break
        return Video(
            frames=np.stack([frame.rgb for frame in frames]),
            times_sec=np.array([frame.time_sec for frame in frames], dtype=np.float64),
            fps=reader.info.fps,
            truncated=reader.truncated,
        )
