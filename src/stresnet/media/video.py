"""Read, probe and write videos with PyAV.

Every coded frame is read once, upright, in display order. T frames, H height, W width; frames are RGB, uint8, 0 to 255.

Headers are not trusted: the number of frames is known only after decoding, AVI files store decoding times only, and a
file may be truncated anywhere. Pixels are taken to be square, as in the released data.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags, Flags2
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.media.matroska import is_truncated
from stresnet.media.motion_vectors import CODECS_WITH_VECTORS, tag_packet, transform_vectors, with_vectors

VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""File name endings, in lower case and with the dot, that count as videos in a folder."""

FALLBACK_FPS = 25.0
"""Frame rate assumed if the header has no plausible one."""

# The last two flags have an effect only if the size is unchanged. Without them a shortcut of swscale makes every
# channel about one level too dark: the mean error is 1.1 levels instead of 0.3. Scaled pictures are bit-identical.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

# PyAV 19 always escapes metadata that is not UTF-8. PyAV 18 raises an error unless asked to replace it.
_READING: dict[str, Any] = {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}


@dataclass(frozen=True)
class VideoInfo:
    """The header of a video, corrected by its first frame."""

    width: int
    """Pixels, after rotation."""
    height: int
    """Pixels, after rotation."""
    fps: float
    """Mean frames per second according to the header; `FALLBACK_FPS` if it has none."""
    codec: str
    """Name of the decoder, such as ``h264``."""
    rotation_deg: int
    """Clockwise rotation (0, 90, 180 or 270) that was applied to the coded picture."""
    header_frames: int
    """Number of frames according to the header, else to its duration, else 0. Often wrong; only decoding gives the
    true number."""


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


class FrameReader(Iterator[Frame]):
    """Iterator over the frames of one video, which are decoded on demand; created by `iter_frames`.

    Attributes:
        info: the header, corrected by the first frame.
        truncated: whether undecodable data was found *so far*; final at the end of the iteration.
    """

    info: VideoInfo
    truncated: bool

    def __init__(self, path: str | os.PathLike[str], short_side: int | None, motion_vectors: bool) -> None:
        if short_side is not None and short_side < 1:
            raise VideoError(f"short_side must be at least 1 pixel, found {short_side}")
        self.truncated = False
        self._path = Path(path)
        self._container, stream = _open(self._path)
        try:
            if motion_vectors:
                self._enable_vectors(stream)
            self._with_vectors = motion_vectors
            self._coded = self._decode(stream)
            self._pending = next(self._coded, None)
            if self._pending is None:
                raise VideoError(
                    f"{self._path}: no frame can be decoded ({stream.codec_context.name}); replace the file"
                )
            self._turns, self._mirrored = _orientation(self._pending)
            self.info = self._describe(stream, self._pending)
        except BaseException:
            self._container.close()
            raise
        # An AVI file stores no presentation times, and those that FFmpeg fills in run backwards at every B frame.
        self._by_decode_time = self._container.format.name == "avi"
        self._time_base = float(stream.time_base or 0)
        size = _scaled(self.info.width, self.info.height, short_side)
        self._unrotated_size = size if self._turns % 2 == 0 else size[::-1]
        self._reformatter = VideoReformatter()
        self._first_tick: int | None = None
        self._last_sec = -math.inf
        self._frames = self._read(chain([self._pending], self._coded))

    def __next__(self) -> Frame:
        frame = next(self._frames, None)
        if frame is None:
            self.close()
            raise StopIteration
        return frame

    def close(self) -> None:
        """Close the file. Called automatically at the end of the iteration."""
        self._frames.close()
        self._coded.close()
        self._container.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enable_vectors(self, stream: VideoStream) -> None:
        codec = stream.codec_context
        if codec.name not in CODECS_WITH_VECTORS:
            raise VideoError(
                f"{self._path}: codec {codec.name} exports no motion vectors "
                f"({', '.join(sorted(CODECS_WITH_VECTORS))} do); choose another flow method"
            )
        codec.flags2 |= Flags2.export_mvs
        codec.flags |= Flags.copy_opaque

    def _read(self, coded: Iterator[VideoFrame]) -> Generator[Frame]:
        if not self._with_vectors:
            for picture in coded:
                yield Frame(rgb=self._picture(picture), time_sec=self._time(picture))
            return
        for picture, vectors in with_vectors(coded, self.info.codec):
            coded_size = picture.width, picture.height
            vectors = transform_vectors(vectors, coded_size, self._unrotated_size, self._turns, self._mirrored)
            yield Frame(self._picture(picture), self._time(picture), vectors)

    def _decode(self, stream: VideoStream) -> Generator[VideoFrame]:
        """Yield coded frames. Skip damaged packets, as players do, and set `truncated`."""
        packets = self._container.demux(stream)
        for number in count():
            try:
                packet = next(packets, None)
                if packet is None:
                    if "matroska" in self._container.format.name:
                        self.truncated |= is_truncated(self._path)
                    return
                if self._with_vectors:
                    tag_packet(packet, stream.codec_context, number)
                self.truncated |= packet.is_corrupt  # truncated, or after a gap in a transport stream
                frames = packet.decode()
            except (av.FFmpegError, EOFError):
                self.truncated = True
                continue
            for frame in frames:
                self.truncated |= bool(frame.is_corrupt)
                yield frame

    def _describe(self, stream: VideoStream, first: VideoFrame) -> VideoInfo:
        turned = self._turns % 2 == 1
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate and 0 < rate <= 1000 else FALLBACK_FPS
        duration_sec = (self._container.duration or 0) / av.time_base
        return VideoInfo(
            width=first.height if turned else first.width,
            height=first.width if turned else first.height,
            fps=fps,
            codec=stream.codec_context.name,
            rotation_deg=90 * self._turns,
            header_frames=stream.frames or max(0, round(duration_sec * fps)),
        )

    def _picture(self, coded: VideoFrame) -> NDArray[np.uint8]:
        width, height = self._unrotated_size
        # One pass over the pixels. If the size changes midway, frames keep that of the first one. One thread, because
        # worker processes already use all cores.
        converted = self._reformatter.reformat(
            coded, width=width, height=height, format="rgb24", interpolation=_SCALING, threads=1
        )
        rgb = cast(NDArray[np.uint8], converted.to_ndarray())
        if self._mirrored:
            rgb = rgb[:, ::-1]
        return np.ascontiguousarray(np.rot90(rgb, k=-self._turns))

    def _time(self, coded: VideoFrame) -> float:
        tick = coded.dts if self._by_decode_time else coded.pts
        if math.isinf(self._last_sec):
            self._first_tick, sec = tick, 0.0
        else:
            sec = -math.inf
            if tick is not None and self._first_tick is not None:
                sec = (tick - self._first_tick) * self._time_base
            if sec <= self._last_sec:  # the time is missing or jumps back
                sec = self._last_sec + 1.0 / self.info.fps
        self._last_sec = sec
        return sec


def iter_frames(
    path: str | os.PathLike[str], *, short_side: int | None = None, motion_vectors: bool = False
) -> FrameReader:
    """Return an iterator over all frames of a video, each coded frame once, in display order.

    Memory holds a few frames, whatever the length. Resizing is bicubic.

    Args:
        path: the video file; its first video stream that is not a cover picture is read.
        short_side: pixels of the shorter side; the longer one follows, rounded to nearest. None keeps the size.
        motion_vectors: whether to read the codec's motion vectors too. A few more frames are then held: those up to
            the next one that is not a B picture.

    Returns:
        A `FrameReader`: an iterator of `Frame` with attributes `info` and `truncated`, which can be closed.

    Raises:
        VideoError: the file does not exist, is empty, is not a video, or has no video stream or no decodable frame;
            motion vectors are requested of a codec that has none (VP9, AV1, MJPEG, HEVC).
    """
    return FrameReader(path, short_side, motion_vectors)


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Return a description of a video from its header and its first frame, which is decoded.

    Raises:
        VideoError: as for `iter_frames`.
    """
    with iter_frames(path) as reader:
        return reader.info


def read_video(path: str | os.PathLike[str], *, short_side: int | None = None, max_frames: int | None = None) -> Video:
    """Read a whole video, or its first `max_frames` frames, into memory.

    Raises:
        VideoError: as for `iter_frames`.
    """
    if max_frames is not None and max_frames < 1:
        raise VideoError(f"max_frames must be at least 1, found {max_frames}")
    frames: list[Frame] = []
    with iter_frames(path, short_side=short_side) as reader:
        for frame in reader:
            frames.append(frame)
            if len(frames) == max_frames:
                break
        return Video(
            frames=np.stack([frame.rgb for frame in frames]),
            times_sec=np.array([frame.time_sec for frame in frames], dtype=np.float64),
            fps=reader.info.fps,
            truncated=reader.truncated,
        )


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
        raise VideoError(f"{target}: cannot be written ({_reason(error)})") from error
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


def _open(path: Path) -> tuple[InputContainer, VideoStream]:
    if not path.exists():
        raise VideoError(f"{path}: no such file; check its name")
    if not path.is_file():
        raise VideoError(f"{path}: expected a video file, found a folder or a device; name a file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
    try:
        # Without "file:", FFmpeg would take a name with a colon for a URL.
        container = av.open(f"file:{path}", **_READING)
    except (av.FFmpegError, OSError, EOFError) as error:
        raise VideoError(
            f"{path}: not a video, or its end is missing ({_reason(error)}); copy or download it again"
        ) from error
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            # One thread is as fast at these sizes, and worker processes already use all cores.
            stream.thread_count = 1
            return container, stream
    found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    container.close()
    raise VideoError(f"{path}: no video stream (found: {found}); choose a video file")


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Return (clockwise quarter turns, whether to mirror left-right before turning) that make a frame upright."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return 0, False
    # Row-vector convention: (x, y) -> (a x + c y, b x + d y), y down, 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(bytes(cast(Any, side_data)), np.int32)[:5].astype(np.float64)
    quarter_turns = round(math.atan2(-c, d) / (math.pi / 2)) % 4
    return quarter_turns, bool(a * d - b * c < 0)


def _scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    if short_side is None:
        return width, height
    scale = short_side / min(width, height)
    return math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())
