"""Read the flow of a video segment step by step, and gather statistics on the way.

T frames have T-1 steps; the field of step t takes frame t to t+1. Memory holds a few frames, whatever the length.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.flow.estimate import flow_of
from stresnet.flow.show.statistics import FlowStatistics
from stresnet.flow.spec import FlowSpec
from stresnet.media.video import Frame, FrameReader, iter_frames, probe
from stresnet.progress import Progress


@dataclass(frozen=True)
class Segment:
    """A segment of a video; the whole video by default.

    Attributes:
        from_sec: start, seconds since the first frame; frames shown at or after it are taken.
        to_sec: end, seconds since the first frame; frames shown before it are taken.
        max_frames: take at most this many frames, at least 2.
        at_sec: take only the step that spans this moment, and ignore the other fields.
    """

    from_sec: float = 0.0
    to_sec: float = math.inf
    max_frames: int | None = None
    at_sec: float | None = None

    def expected_frames(self, header_frames: int, fps: float) -> int:
        """Return how many frames the segment has according to the video's header; 0 if the header does not say."""
        last = min(float(header_frames), self.to_sec * fps)
        found = max(0, math.ceil(last) - math.ceil(self.from_sec * fps))
        return found if self.max_frames is None else min(found, self.max_frames)


@dataclass(frozen=True)
class FlowStep:
    """The flow from one frame to the next."""

    index: int
    """Index of the first of the two frames, in the video."""
    frame: Frame
    """The first of the two frames."""
    flow: NDArray[np.float32]
    """(2, H, W), pixels per frame."""
    largest_so_far: bool
    """Whether its mean speed is the largest so far."""


class FlowReader:
    """Iterable over the steps of a video segment, which collects statistics; to be iterated once.

    Attributes:
        video: the video file.
        spec: the flow specification.
        segment: the segment that is read.
        info: the video's header and first frame.
        statistics: statistics of the flow so far.
        times_sec: times of the frames so far, seconds since the video's first frame.
        size: height and width of the flow, pixels.
        largest_sec: time of the step with the largest mean speed so far; NaN if no vector is known.
        truncated: whether part of the frames read could not be decoded.

    Raises:
        VideoError: the video cannot be opened; on iteration, the segment has fewer than two frames.
    """

    def __init__(self, video: Path, spec: FlowSpec, segment: Segment, progress: Progress | None = None) -> None:
        self.video, self.spec, self.segment = video, spec, segment
        self.info = probe(video)
        self.statistics = FlowStatistics(spec.bound_px)
        self.times_sec: list[float] = []
        self.size = (0, 0)
        self.largest_sec = math.nan
        self.truncated = False
        self._progress = progress
        self._started_sec = 0.0
        self._busy_sec = 0.0

    def __iter__(self) -> Iterator[FlowStep]:
        pending: deque[tuple[int, Frame, bool]] = deque()
        with self.open() as frames:
            fields = flow_of(self._frames_for_flow(frames, pending), self.spec)
            while (flow := self._timed_next(fields)) is not None:
                index, frame, inside = pending.popleft()
                if not inside:
                    continue
                largest_so_far = self.statistics.add(flow)
                if largest_so_far:
                    self.largest_sec = frame.time_sec
                self.size = flow.shape[1], flow.shape[2]
                yield FlowStep(index, frame, flow, largest_so_far)
            self.truncated = frames.truncated
        self.require_two(len(self.times_sec))

    def open(self) -> FrameReader:
        """Return the frames of the whole video, at the size and with the motion vectors that the flow needs."""
        return iter_frames(self.video, short_side=self.spec.short_side, motion_vectors=self.spec.from_codec)

    def segment_frames(self, frames: FrameReader, activity: str) -> Iterator[Frame]:
        """Return an iterator over those frames that are in the segment. It reports progress as `activity`."""
        return (frame for _, frame, inside in self._located(frames, activity) if inside)

    def require_two(self, frames: int) -> None:
        """Raise unless the segment has two frames or more.

        Raises:
            VideoError: it has fewer.
        """
        if frames < 2:
            where = f" from {self.segment.from_sec:g} s on" if self.segment.from_sec > 0 else ""
            where += f" before {self.segment.to_sec:g} s" if self.segment.to_sec < math.inf else ""
            raise VideoError(f"{self.video}: flow needs at least two frames, found {frames}{where}")

    @property
    def steps_per_sec(self) -> float:
        """Steps decoded and computed per second, so far."""
        return self.statistics.steps / max(self._busy_sec, 1e-9)

    def _frames_for_flow(self, frames: FrameReader, pending: deque[tuple[int, Frame, bool]]) -> Iterator[Frame]:
        """Yield the frames whose flow is computed, and append each, with its index and whether it is inside."""
        for index, frame, inside in self._located(frames, "computing flow"):
            # A key frame has no motion vectors. It repeats the field before, which is needed even outside the segment.
            if inside or self.spec.from_codec:
                pending.append((index, frame, inside))
                if inside:
                    self._started_sec = self._started_sec or time.perf_counter()
                    self.times_sec.append(frame.time_sec)
                yield frame

    def _timed_next(self, fields: Iterator[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        called_sec = time.perf_counter()
        field = next(fields, None)
        if self._started_sec:  # reading up to the segment does not count
            self._busy_sec += time.perf_counter() - max(called_sec, self._started_sec)
        return field

    def _located(self, frames: FrameReader, activity: str) -> Iterator[tuple[int, Frame, bool]]:
        """Yield the frames up to the end of the segment, with their index and whether they are inside the segment."""
        if self.segment.at_sec is not None:
            yield from self._located_at(frames, self.segment.at_sec)
            return
        expected = self.segment.expected_frames(self.info.header_frames, self.info.fps)
        taken = 0
        for index, frame in enumerate(frames):
            if frame.time_sec >= self.segment.to_sec:
                return
            inside = frame.time_sec >= self.segment.from_sec
            yield index, frame, inside
            taken += inside
            if inside and self._progress is not None:
                self._progress(activity, taken, max(taken, expected) if expected else 0)
            if taken == self.segment.max_frames:
                return

    def _located_at(self, frames: FrameReader, at_sec: float) -> Iterator[tuple[int, Frame, bool]]:
        previous: tuple[int, Frame] | None = None
        last_sec = 0.0
        for index, frame in enumerate(frames):
            last_sec = frame.time_sec
            if previous is not None:
                yield *previous, last_sec > at_sec
            if previous is not None and last_sec > at_sec:
                yield index, frame, True
                return
            previous = index, frame
        raise VideoError(
            f"{self.video}: expected a moment before the last frame, which is at {last_sec:.3f} s, found {at_sec:g} s"
        )
