"""Read some frames of a video: where the packets tell enough, without decoding what lies between them.

There are two readers with one interface, which give the same frames and times as `iter_frames`. `IndexedFrames` knows
the number of frames from an index of the packets and decodes only from the last possible start before each wanted
frame. It raises `IndexMismatchError` as soon as a decoded picture is not the one that the index announced.
`CountedFrames` decodes everything, which works for every file.

Neither uses the seeking of container formats, which is imprecise in some and depends on indexes that may be broken.
Packets that are not decoded are read and passed over instead: that takes some microseconds each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from av.video.frame import PictureType, VideoFrame
from numpy.typing import NDArray

from stresnet.errors import StresnetError
from stresnet.media.decode import Clock, Converter, VideoFile
from stresnet.media.failures import IndexMismatchError, reading
from stresnet.media.frame_spec import AS_SHOWN, FrameSpec
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.media.packets import PacketIndex, index_packets
from stresnet.media.resampling import nearest
from stresnet.media.video import Frame, VideoInfo, describe, require_short_side

_ALWAYS_WHOLE_FRAMES = 1000
"""Shorter videos are always decoded as a whole. It takes a second, and clips of data sets have no unnoticed damage."""

_HELD_BYTES = 64 << 20
"""Coded pictures of a short video are kept in memory of this size, so that it is decoded once."""


class SelectedFrames(Protocol):
    """A video of which some frames can be read, once."""

    times_sec: NDArray[np.float64]
    """Time of each frame, (T,), as `Frame.time_sec`; its length is the number of frames."""

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """Yield the frames at the given indices, which are distinct, ascending and from 0 to T-1.

        Raises:
            IndexMismatchError: the frames, or their number, turn out to be others.
        """

    @property
    def info(self) -> VideoInfo:
        """The header, corrected by the first frame. Known when reading has begun."""

    @property
    def truncated(self) -> bool:
        """Whether undecodable data was found."""

    @property
    def conversions(self) -> str:
        """What was done to frames, as by `FrameReader`. Known when all have been read."""


def select_frames(
    path: Path, short_side: int | None, spec: FrameSpec = AS_SHOWN, limits: Limits = DEFAULT_LIMITS
) -> Iterator[SelectedFrames]:
    """Yield the readers of a video to be tried in turn, fastest first. The last one never raises IndexMismatchError.

    Arguments are those of `iter_frames`.

    Raises:
        VideoError: as for `iter_frames`.
    """
    require_short_side(short_side)
    open_file = partial(VideoFile, path, spec, limits)
    with reading(path), closing(open_file()) as file:
        index = index_packets(file)
        time_base_sec = file.time_base_sec
    if index is not None and time_base_sec > 0:
        yield _at_rate(IndexedFrames(open_file, short_side, index, time_base_sec), path, spec, limits)
    yield _at_rate(CountedFrames(path, open_file, short_side), path, spec, limits)


def _at_rate(frames: SelectedFrames, path: Path, spec: FrameSpec, limits: Limits) -> SelectedFrames:
    if spec.fps is None:
        return frames
    limits.require_seconds(path, frames.times_sec[-1])
    return ResampledFrames(frames, spec.fps)


class ResampledFrames:
    """A resampled video, of which some frames can be read, see `SelectedFrames` and `stresnet.media.resampling`."""

    def __init__(self, frames: SelectedFrames, fps: float) -> None:
        """Resample a video to `fps` frames per second."""
        self._frames = frames
        self._fps = fps
        self._nearest = nearest(frames.times_sec, fps)
        self.times_sec: NDArray[np.float64] = np.arange(len(self._nearest)) / fps

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """Yield frames; see `SelectedFrames.read`."""
        wanted = deque(map(int, indices))
        of_source = np.unique(self._nearest[wanted])
        for index, frame in zip(of_source, self._frames.read(of_source), strict=True):
            while wanted and self._nearest[wanted[0]] == index:
                yield replace(frame, time_sec=float(self.times_sec[wanted.popleft()]))

    @property
    def info(self) -> VideoInfo:
        return replace(self._frames.info, fps=self._fps)

    @property
    def truncated(self) -> bool:
        return self._frames.truncated

    @property
    def conversions(self) -> str:
        return self._frames.conversions


class IndexedFrames:
    """Reads frames by an index of packets; see `SelectedFrames`. What it does not decode may be damaged unnoticed."""

    info: VideoInfo
    truncated = False  # otherwise the index does not match
    conversions = ""

    def __init__(
        self, open_file: Callable[[], VideoFile], short_side: int | None, index: PacketIndex, time_base_sec: float
    ) -> None:
        self.times_sec: NDArray[np.float64] = (index.ticks - index.ticks[0]) * time_base_sec
        self._open_file = open_file
        self._short_side = short_side
        self._index = index

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """Yield frames; see `SelectedFrames.read`."""
        wanted = deque(map(int, indices))
        with self._reading(), closing(self._open_file()) as file:
            converter = None
            for index, picture in self._decode(file, self._stretches(wanted)):
                if converter is None:
                    converter = Converter(file, picture, self._short_side)
                    self.info = describe(file, converter)
                if wanted and wanted[0] == index:
                    yield Frame(converter.rgb(picture), float(self.times_sec[wanted.popleft()]))
            self.conversions = file.conversions

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raise an IndexMismatchError for any error of PyAV: the index knows nothing of damage within packets."""
        try:
            yield
        except (StresnetError, IndexMismatchError):
            raise
        except Exception as error:
            raise IndexMismatchError from error

    def _stretches(self, wanted: Sequence[int]) -> list[tuple[int, int]]:
        """Return the runs of frames to decode, as (first, last): each begins at a start, the first at frame 0.

        If the video is short or most of it would be decoded anyway, all of it is: then damage cannot go unnoticed.
        """
        last_of = {0: 0}
        for index in wanted:
            last_of[self._index.start_of(index)] = index
        total = len(self._index.ticks)
        if total < _ALWAYS_WHOLE_FRAMES or 2 * sum(last + 1 - first for first, last in last_of.items()) > total:
            return [(0, total - 1)]
        return sorted(last_of.items())

    def _decode(self, file: VideoFile, stretches: list[tuple[int, int]]) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the pictures of stretches, and of what had to be decoded with them, with their indices."""
        ticks, codec = self._index.ticks, file.stream.codec_context
        (first, last), *following = stretches
        expected, is_first = first, False
        for number, packet in enumerate(file.packets()):
            if expected > last and following:
                at = int(self._index.packets[following[0][0]])
                if number < at:
                    continue
                first, last = following.pop(0)
                if number == at:  # otherwise it has been decoded already, to get at the frames before
                    codec.flush_buffers()
                    expected, is_first = first, True
            elif expected > last and last + 1 < len(ticks):
                return
            for picture in file.pictures_of(packet):
                if is_first and picture.pts is not None and picture.pts < ticks[first]:
                    continue  # shown before the start, decoded without what it depends on
                self._check(picture, expected, is_first, file)
                yield expected, picture
                expected, is_first = expected + 1, False
        if expected <= last or following:
            raise IndexMismatchError

    def _check(self, picture: VideoFrame, index: int, is_first: bool, file: VideoFile) -> None:
        """Raise unless a decoded picture is the one at an index."""
        if (
            index >= len(self._index.ticks)
            or picture.pts != self._index.ticks[index]
            or (file.by_decode_time and picture.dts != picture.pts)
            or (is_first and picture.pict_type != PictureType.I)
            or picture.is_corrupt
            or (file.spec.deinterlace and picture.interlaced_frame)  # needs the pictures before and after
        ):
            raise IndexMismatchError


class CountedFrames:
    """Reads frames of a video that has been decoded once to count them; see `SelectedFrames`."""

    def __init__(self, path: Path, open_file: Callable[[], VideoFile], short_side: int | None) -> None:
        """Decode a video.

        Raises:
            VideoError: as for `iter_frames`.
        """
        self._path = path
        self._open_file = open_file
        self._held: list[VideoFrame] | None = []
        held_bytes = 0
        times_sec = []
        with reading(path), closing(open_file()) as file:
            coded = file.decode()
            first = file.first(coded)
            self._converter = Converter(file, first, short_side)
            self.info = describe(file, self._converter)
            clock = Clock(file)
            for picture in chain([first], coded):
                times_sec.append(clock(picture))
                held_bytes += sum(plane.buffer_size for plane in picture.planes)
                if held_bytes > _HELD_BYTES:
                    self._held = None
                if self._held is not None:
                    self._held.append(picture)
            self.truncated = file.truncated
            self.conversions = file.conversions
            if self.truncated:
                # Where a picture is damaged, it shows what its memory held before: pictures that were released.
                self._held = None
        self.times_sec = np.array(times_sec)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """Yield frames; see `SelectedFrames.read`."""
        with reading(self._path):
            if self._held is not None:
                yield from self._selected(self._held, indices)
                return
            with closing(self._open_file()) as file:
                yield from self._selected(file.decode(), indices)

    def _selected(self, pictures: Iterable[VideoFrame], indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        wanted = deque(map(int, indices))
        for index, picture in enumerate(pictures):
            if not wanted:
                return
            if index == wanted[0]:
                yield Frame(self._converter.rgb(picture), float(self.times_sec[wanted.popleft()]))
