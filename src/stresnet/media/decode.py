"""Decode the packets of a video file, and turn coded pictures into upright RGB with the time they are shown at.

All ways of reading a video share these parts, so that pixels and times cannot depend on how a frame was reached.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from stresnet.errors import StresnetError, VideoError
from stresnet.media.completeness import ends_within_picture, is_whole
from stresnet.media.deinterlacing import deinterlaced
from stresnet.media.encryption import DECRYPT
from stresnet.media.failures import explain
from stresnet.media.frame_spec import FrameSpec
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.media.motion_vectors import tag_packet
from stresnet.media.opening import open_video
from stresnet.media.side_data import side_data
from stresnet.media.tone_mapping import hdr_matrix, hdr_name, tone_mapped

FALLBACK_FPS = 25.0
"""Frame rate assumed if the header has no plausible one."""

# The last two flags have an effect only if the size is unchanged. Without them a shortcut of swscale makes every
# channel about one level too dark: the mean error is 1.1 levels instead of 0.3. Scaled pictures are bit-identical.
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

_MAX_FAILURES = 100
"""A file of which this many packets in a row cannot be read ends there."""

_MAX_SIDE = 32750
"""Pixels of a frame's longer side: half of what a JPEG may have, by which flow is stored with u above v."""


class VideoFile:
    """An open video file and the decoder of its video stream.

    Attributes:
        path: the file.
        spec: which stream is read, and whether its pictures are converted.
        limits: how much it may ask for.
        stream: the video stream that is read.
        truncated: whether undecodable data was found so far.
    """

    def __init__(self, path: Path, spec: FrameSpec, limits: Limits) -> None:
        """Open a file.

        Raises:
            VideoError: the file does not exist, is empty, is not a video, has no such video stream or exceeds a limit.
        """
        self.path = path
        self.spec = spec
        self.limits = limits
        self._container, self.stream = open_video(path, limits, spec.stream)
        self.truncated = False
        self._conversions: set[str] = set()
        if spec.fps and spec.fps > 1.001 * self.fps:
            self._conversions.add(f"frames repeated, from {self.fps:.4g} fps")
        self._damage: Exception | None = None
        self._decoded_bytes = 0

    @property
    def format(self) -> str:
        """FFmpeg's names of the container's format, separated by commas."""
        return self._container.format.name

    @property
    def duration_sec(self) -> float:
        """The duration according to the header; 0 if it has none."""
        return (self._container.duration or 0) / av.time_base

    @property
    def fps(self) -> float:
        """Mean frames per second according to the header; `FALLBACK_FPS` if it has none."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate and 0 < rate <= 1000 else FALLBACK_FPS

    @property
    def conversions(self) -> str:
        """What was done to pictures so far, such as ``deinterlaced``; an empty text for nothing."""
        return "; ".join(sorted(self._conversions))

    @property
    def by_decode_time(self) -> bool:
        """Whether times follow the decoding times.

        An AVI file stores no presentation times, and those that FFmpeg fills in run backwards at every B frame.
        """
        return self.format == "avi"

    @property
    def time_base_sec(self) -> float:
        """Seconds per tick of the stream's clock; 0 if unknown."""
        return float(self.stream.time_base or 0)

    def packets(self) -> Generator[Packet[VideoStream]]:
        """Yield the packets of the stream, an empty one last. Skip what cannot be read, and set `truncated`."""
        failures = frames = 0
        packets = self._container.demux(self.stream)
        while failures < _MAX_FAILURES:
            try:
                packet = next(packets)
            except Exception as error:
                self._note_damage(error)
                failures += 1
                packets = self._container.demux(self.stream)  # goes on after what could not be read
                continue
            failures = 0
            if packet.has_sidedata("encryption_info") or "enc_key_id" in self.stream.metadata:
                raise VideoError(f"{self.path}: {DECRYPT}")
            yield packet
            if is_last(packet):  # PyAV may fail beyond, if another stream has appeared midway
                return
            frames += 1
            if frames > self.limits.frames:
                raise VideoError(f"{self.path}: more than {self.limits.frames} frames; split the video")
            self.limits.require_seconds(self.path, frames / self.fps)
        last = cast("Packet[VideoStream]", Packet())
        last.stream = self.stream
        yield last

    def decode(self, *, tagged: bool = False) -> Generator[VideoFrame]:
        """Yield all pictures, deinterlaced. Skip damaged packets, as players do, and set `truncated`.

        Args:
            tagged: whether pictures carry what `motion_vectors.with_vectors` needs.
        """
        coded = self._decode(tagged=tagged)
        yield from deinterlaced(coded) if self.spec.deinterlace else coded

    def _decode(self, *, tagged: bool) -> Generator[VideoFrame]:
        for number, packet in enumerate(self.packets()):
            try:
                if tagged:
                    tag_packet(packet, self.stream.codec_context, number)
                self.truncated |= packet.is_corrupt  # truncated, or after a gap in a transport stream
                pictures = self.pictures_of(packet)
            except StresnetError:
                raise
            except Exception as error:
                self._note_damage(error)
                continue
            for picture in pictures:
                self.truncated |= bool(picture.is_corrupt)
                yield picture
        self.truncated |= not self.is_whole()

    def _note_conversions(self, picture: VideoFrame) -> None:
        if self.spec.deinterlace and picture.interlaced_frame:
            self._conversions.add("deinterlaced")
        if self.spec.tone_map and (name := hdr_name(picture)):
            self._conversions.add(f"tone-mapped, from {name}")

    def pictures_of(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        """Return the coded pictures that a decoder gives for a packet."""
        pictures = packet.decode()
        for picture in pictures:
            self._note_conversions(picture)
        self._decoded_bytes += sum(plane.buffer_size for picture in pictures for plane in picture.planes)
        if self._decoded_bytes > self.limits.decoded_bytes:
            raise VideoError(f"{self.path}: frames of more than {self.limits.decoded_bytes} bytes; split the video")
        return pictures

    def _note_damage(self, error: Exception) -> None:
        """Remember the first error, and that something is missing."""
        self.truncated = True
        self._damage = self._damage or error

    def is_whole(self) -> bool:
        """Return whether nothing that the container says of itself is missing."""
        if not is_whole(self.path, self.format):
            return False
        in_doubt = self.format == "mpegts" and ends_within_picture(self.path, self.stream.id)
        return not in_doubt or self._decodes_strictly()

    def _decodes_strictly(self) -> bool:
        """Return whether the whole file can be decoded without concealing an error, such as half a picture."""
        container, stream = open_video(self.path, self.limits, self.spec.stream)
        try:
            stream.options = {**stream.options, "err_detect": "explode"}
            for packet in container.demux(stream):
                packet.decode()
                if is_last(packet):
                    break
        except Exception:
            return False
        finally:
            container.close()
        return True

    def first(self, coded: Iterator[VideoFrame]) -> VideoFrame:
        """Return the first of the coded pictures.

        Raises:
            VideoError: there is none.
        """
        picture = next(coded, None)
        if picture is None:
            cause = explain(self._damage) if self._damage else "there is none; copy or download it again"
            if isinstance(self._damage, av.error.ArgumentError):  # what decoders raise for too many pixels
                cause = f"damaged, or of more than {self.limits.frame_pixels} px; copy it again or scale it down"
            raise VideoError(f"{self.path}: no frame can be decoded by {self.stream.codec_context.name}: {cause}")
        return picture

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class Converter:
    """Turns coded pictures into upright RGB, at the size and orientation of the first one.

    Attributes:
        turns: clockwise quarter turns.
        mirrored: whether left and right are exchanged before turning.
        unrotated_size: (width, height) after scaling, before turning.
        width, height: pixels before scaling, after turning.
    """

    def __init__(self, file: VideoFile, first: VideoFrame, short_side: int | None) -> None:
        """Take size and orientation from the first picture of a file; `short_side` is as in `iter_frames`.

        Raises:
            VideoError: scaled pictures would be too long to be stored, or exceed the limit.
        """
        self.turns, self.mirrored = _orientation(first)
        on_its_side = self.turns % 2 == 1
        self.width, self.height = (first.width, first.height)[:: -1 if on_its_side else 1]
        size = scaled_size(self.width, self.height, short_side, file.path, file.limits)
        self.unrotated_size = size[::-1] if on_its_side else size
        self._reformatter = VideoReformatter()
        self._tone_map = file.spec.tone_map

    def rgb(self, coded: VideoFrame) -> NDArray[np.uint8]:
        """Return a picture, (H, W, 3) uint8, C-contiguous."""
        is_hdr = self._tone_map and hdr_name(coded) is not None
        rgb = self._scaled(coded, "rgb48le", **hdr_matrix(coded)) if is_hdr else self._scaled(coded, "rgb24")
        if is_hdr:
            rgb = tone_mapped(rgb, coded)
        if self.mirrored:
            rgb = rgb[:, ::-1]
        return np.ascontiguousarray(np.rot90(rgb, k=-self.turns))

    def _scaled(self, coded: VideoFrame, format: str, **options: Any) -> NDArray[Any]:
        width, height = self.unrotated_size
        # One pass over the pixels. If the size changes midway, frames keep that of the first one. One thread, because
        # worker processes already use all cores.
        converted = self._reformatter.reformat(
            coded, width=width, height=height, format=format, interpolation=SCALING, threads=1, **options
        )
        return cast(NDArray[Any], converted.to_ndarray())


class Clock:
    """The time at which each coded picture is shown, in seconds since the first one, strictly increasing."""

    def __init__(self, file: VideoFile) -> None:
        """Start the clock of a file, whose pictures are then passed in display order."""
        self._by_decode_time = file.by_decode_time
        self._time_base_sec = file.time_base_sec
        self._step_sec = 1.0 / file.fps
        self._first_tick: int | None = None
        self._last_sec = -math.inf

    def __call__(self, coded: VideoFrame) -> float:
        tick = coded.dts if self._by_decode_time else coded.pts
        if math.isinf(self._last_sec):
            self._first_tick, sec = tick, 0.0
        else:
            sec = -math.inf
            if tick is not None and self._first_tick is not None:
                sec = (tick - self._first_tick) * self._time_base_sec
            if sec <= self._last_sec:  # the time is missing or jumps back
                sec = self._last_sec + self._step_sec
        self._last_sec = sec
        return sec


def is_last(packet: Packet[Any]) -> bool:
    """Return whether a packet only empties the decoder."""
    return packet.size == 0 and packet.pts is None and packet.dts is None


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Return (clockwise quarter turns, whether to mirror left-right before turning) that make a frame upright."""
    matrix = side_data(frame, "DISPLAYMATRIX")
    if matrix is None:
        return 0, False
    # Row-vector convention: (x, y) -> (a x + c y, b x + d y), y down, 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(bytes(cast(Any, matrix)), np.int32)[:5].astype(np.float64)
    quarter_turns = round(math.atan2(-c, d) / (math.pi / 2)) % 4
    return quarter_turns, bool(a * d - b * c < 0)


def scaled_size(
    width: int, height: int, short_side: int | None, name: object, limits: Limits = DEFAULT_LIMITS
) -> tuple[int, int]:
    """Return the (width, height) of pictures once their shorter side has `short_side` px, or as it is.

    Args:
        width, height: px before scaling.
        short_side: px after scaling; None keeps the size.
        name: names the video in the error message.
        limits: how much it may ask for.

    Raises:
        VideoError: scaled pictures would be too long to be stored, or exceed the limit.
    """
    size = width, height
    if short_side is not None:
        scale = short_side / min(width, height)
        size = math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)
    if max(size) > _MAX_SIDE or size[0] * size[1] > limits.frame_pixels:
        raise VideoError(
            f"{name}: frames of {width}×{height} px become {size[0]}×{size[1]} px; expected sides "
            f"of at most {_MAX_SIDE} px and {limits.frame_pixels} px in all; crop the video or scale it down"
        )
    return size
