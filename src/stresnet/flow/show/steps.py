"""The flow of a part of a video, step by step, and what is found on the way.

T frames have T-1 steps; the field of step t takes frame t to t+1. Memory holds a few frames, whatever the length.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.flow.estimate import flow_of
from stresnet.flow.show.statistics import FlowStatistics
from stresnet.flow.spec import FlowSpec
from stresnet.media.video import Frame, FrameReader, iter_frames, probe

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, and how many frames of how many (by the header) are done."""


@dataclass(frozen=True)
class Part:
    """Which part of a video is looked at; all of it by default.

    Attributes:
        from_sec, to_sec: frames shown at or after the one and before the other, seconds since the first frame.
        max_frames: at most so many of them, at least 2.
        at_sec: instead, the one step during which this moment passes.
    """

    from_sec: float = 0.0
    to_sec: float = math.inf
    max_frames: int | None = None
    at_sec: float | None = None

    def expected_frames(self, header_frames: int, fps: float) -> int:
        """Returns how many frames that is of a video, if its header is right; 0 if the header does not say."""
        last = min(float(header_frames), self.to_sec * fps)
        found = max(0, math.ceil(last) - math.ceil(self.from_sec * fps))
        return found if self.max_frames is None else min(found, self.max_frames)


@dataclass(frozen=True)
class Step:
    """The flow from one frame to the next."""

    index: int
    """Of the first of the two frames, in the video."""
    frame: Frame
    """The first of the two."""
    flow: NDArray[np.float32]
    """(2, H, W), pixels per frame."""
    moves_most: bool
    """Whether its mean speed is the largest so far."""


class Look:
    """The steps of a part of a video, made as they are asked for, once; afterwards, what was found.

    Attributes:
        video, spec, part: what is looked at.
        info: what the header and the first frame say.
        statistics: of the flow so far.
        times_sec: of the frames so far, seconds since the video's first.
        size: height and width of the flow, pixels.
        largest_sec: when the step with the largest mean speed so far begins; NaN where no vector is known.
        truncated: whether some of what was read so far could not be decoded.

    Raises:
        VideoError: the video cannot be opened; on iteration, the part has fewer than two frames.
    """

    def __init__(self, video: Path, spec: FlowSpec, part: Part, progress: OnProgress | None = None) -> None:
        self.video, self.spec, self.part = video, spec, part
        self.info = probe(video)
        self.statistics = FlowStatistics(spec.bound_px)
        self.times_sec: list[float] = []
        self.size = (0, 0)
        self.largest_sec = math.nan
        self.truncated = False
        self._on_progress = progress
        self._began_sec = 0.0
        self._busy_sec = 0.0

    def __iter__(self) -> Iterator[Step]:
        waiting: deque[tuple[int, Frame, bool]] = deque()
        with self.open() as reader:
            fields = flow_of(self._kept(reader, waiting), self.spec)
            while (flow := self._timed_next(fields)) is not None:
                index, frame, wanted = waiting.popleft()
                if not wanted:
                    continue
                moves_most = self.statistics.add(flow)
                if moves_most:
                    self.largest_sec = frame.time_sec
                self.size = flow.shape[1], flow.shape[2]
                yield Step(index, frame, flow, moves_most)
            self.truncated = reader.truncated
        self.require_two(len(self.times_sec))

    def open(self) -> FrameReader:
        """Returns the video's frames, at the size and with all else that the flow needs."""
        return iter_frames(self.video, short_side=self.spec.short_side, motion_vectors=self.spec.from_codec)

    def wanted(self, reader: FrameReader, doing: str) -> Iterator[tuple[int, Frame]]:
        """Yields the part's frames and their indices in the video; tells how far it is with what is being done."""
        return ((index, frame) for index, frame, wanted in self._sorted_out(reader, doing) if wanted)

    def require_two(self, found: int) -> None:
        """Returns if the part has two frames or more.

        Raises:
            VideoError: it has `found`, which is fewer.
        """
        if found < 2:
            where = f" from {self.part.from_sec:g} s on" if self.part.from_sec > 0 else ""
            where += f" before {self.part.to_sec:g} s" if self.part.to_sec < math.inf else ""
            raise VideoError(f"{self.video}: flow needs at least two frames, found {found}{where}")

    @property
    def steps_per_sec(self) -> float:
        """Steps decoded and computed in a second, so far."""
        return self.statistics.steps / max(self._busy_sec, 1e-9)

    def _kept(self, reader: FrameReader, waiting: deque[tuple[int, Frame, bool]]) -> Iterator[Frame]:
        for index, frame, wanted in self._sorted_out(reader, "computing flow"):
            # A key frame has no motion vectors: its flow is that of the step before, which must have been made.
            if wanted or self.spec.from_codec:
                waiting.append((index, frame, wanted))
                if wanted:
                    self._began_sec = self._began_sec or time.perf_counter()
                    self.times_sec.append(frame.time_sec)
                yield frame

    def _timed_next(self, fields: Iterator[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        started_sec = time.perf_counter()
        field = next(fields, None)
        if self._began_sec:  # what was read to get to the part does not count
            self._busy_sec += time.perf_counter() - max(started_sec, self._began_sec)
        return field

    def _sorted_out(self, reader: FrameReader, doing: str) -> Iterator[tuple[int, Frame, bool]]:
        """Yields the frames up to the end of the part, their indices, and whether they are in it."""
        if self.part.at_sec is not None:
            yield from self._two_at(reader, self.part.at_sec)
            return
        expected = self.part.expected_frames(self.info.header_frames, self.info.fps)
        taken = 0
        for index, frame in enumerate(reader):
            if frame.time_sec >= self.part.to_sec:
                return
            wanted = frame.time_sec >= self.part.from_sec
            yield index, frame, wanted
            taken += wanted
            if wanted and self._on_progress is not None:
                self._on_progress(doing, taken, max(taken, expected))
            if taken == self.part.max_frames:
                return

    def _two_at(self, reader: FrameReader, at_sec: float) -> Iterator[tuple[int, Frame, bool]]:
        before: tuple[int, Frame] | None = None
        last_sec = 0.0
        for index, frame in enumerate(reader):
            last_sec = frame.time_sec
            if before is not None:
                yield *before, last_sec > at_sec
            if before is not None and last_sec > at_sec:
                yield index, frame, True
                return
            before = index, frame
        raise VideoError(
            f"{self.video}: a moment before the last frame, at {last_sec:.3f} s, is expected, found --at {at_sec:g}"
        )
