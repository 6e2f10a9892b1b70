"""A stream from its source to its results: which frames are pushed, and whether recognition keeps up."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stresnet.data.prepared_video import StoreSpec
from stresnet.inference.live import Live, LiveResult
from stresnet.media.feed import Arrival
from stresnet.media.stream import STDIN, StreamReader
from stresnet.media.video import FrameReader, iter_frames
from stresnet.prefetch import prefetched

_LATENCIES = 1000


class Judged(NamedTuple):
    """A result, and how many seconds after its last frame had come it was there."""

    result: LiveResult
    latency_sec: float


@dataclass
class Pace:
    """How fast a stream is recognised.

    Attributes:
        began_sec: when the first frame came, by `time.monotonic`.
        frames: frames that were looked at.
        video_sec: time of the newest of them.
        results: number of results.
        latencies_sec: latencies of the newest results.
    """

    began_sec: float = 0.0
    frames: int = 0
    video_sec: float = 0.0
    results: int = 0
    latencies_sec: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def latency_sec(self, percent: float) -> float:
        """Return a percentile of the newest latencies, in seconds; NaN before the first."""
        return float(np.percentile(self.latencies_sec, percent)) if self.latencies_sec else float("nan")

    def elapsed_sec(self) -> float:
        """Return the time since the first frame came."""
        return time.monotonic() - self.began_sec if self.frames else 0.0


def recognized(live: Live, arrivals: Iterable[Arrival], pace: Pace) -> Iterator[Judged]:
    """Yield results as they are complete, and those that an interruption or the end completes.

    Args:
        live: what recognises.
        arrivals: the frames.
        pace: is kept up to date.
    """

    def judged(results: list[LiveResult], arrived_sec: float) -> Iterator[Judged]:
        for result in results:
            found = Judged(result, time.monotonic() - arrived_sec)
            pace.results += 1
            pace.latencies_sec.append(found.latency_sec)
            yield found

    arrived_sec = 0.0
    for arrival in arrivals:
        if arrival.begins:
            yield from judged(live.finish(), arrival.arrived_sec)
        if not pace.frames:
            pace.began_sec = arrival.arrived_sec
        arrived_sec = arrival.arrived_sec
        result = live.push(arrival.frame.rgb, arrival.frame.time_sec)
        pace.frames += 1
        pace.video_sec = arrival.frame.time_sec
        if result:
            yield from judged([result], arrived_sec)
    yield from judged(live.finish(), arrived_sec)


def file_arrivals(source: str | os.PathLike[str], spec: StoreSpec) -> Generator[Arrival]:
    """Yield all frames of a video file or of standard input, as preparing it reads them, as fast as they are taken.

    Raises:
        VideoError: it cannot be read.
    """
    reader: FrameReader | StreamReader
    if source == STDIN:
        reader = StreamReader(STDIN, short_side=spec.flow.short_side, spec=spec.frames)
    else:
        reader = iter_frames(source, short_side=spec.flow.short_side, spec=spec.frames)

    def read() -> Generator[Arrival]:
        with reader:
            for frame in reader:
                yield Arrival(frame, time.monotonic(), begins=False)

    return prefetched(read())
