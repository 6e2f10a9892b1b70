"""Time lines: the scores of windows that slide over a long video, and the segments that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.inference.prediction import ranked

_SAME_SEC = 1e-9


@dataclass(frozen=True)
class TimelineSegment:
    """A stretch of a video with one action.

    Attributes:
        start_sec: where it starts, in seconds since the first frame.
        end_sec: where it ends.
        label: the class.
        score: the mean softmax probability of the class over its windows, 0 to 1; not calibrated.
    """

    start_sec: float
    end_sec: float
    label: str
    score: float


@dataclass(frozen=True, repr=False)
class Timeline:
    """The scores of windows over a video.

    Attributes:
        classes: K class names.
        windows_sec: (N,2), start and end of each window, in seconds since the first frame.
        logits: (N,K) float32, the mean over the time steps within each window, over the streams and views.
        duration_sec: length of the video.
        frames: number of decoded frames.
        truncated: whether some frames could not be decoded.
    """

    classes: tuple[str, ...]
    windows_sec: NDArray[np.float64]
    logits: NDArray[np.float32]
    duration_sec: float
    frames: int
    truncated: bool

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The softmax of the logits, (N,K)."""
        shifted = np.exp(self.logits.astype(np.float64) - self.logits.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True))

    @property
    def centers_sec(self) -> NDArray[np.float64]:
        """The middle of each window, (N,)."""
        return np.asarray(self.windows_sec.mean(1))

    def smoothed(self, smooth_sec: float) -> Timeline:
        """Return a time line whose logits are means over the windows with centres at most half as far away."""
        centers = self.centers_sec
        first = np.searchsorted(centers, centers - smooth_sec / 2 - _SAME_SEC)
        end = np.searchsorted(centers, centers + smooth_sec / 2 + _SAME_SEC)
        return replace(self, logits=_means(self.logits, first, end))

    def segments(self, min_score: float = 0.0) -> tuple[TimelineSegment, ...]:
        """Return the stretches in which the most likely class stays the same.

        A window stands for the time up to half the way to its neighbours; the first and the last reach to the ends of
        the video.

        Args:
            min_score: windows in which no class is as likely as this belong to no segment.
        """
        probabilities, centers = self.probabilities, self.centers_sec
        best = probabilities.argmax(1)
        labels = np.where(probabilities.max(1) >= min_score, best, -1)
        borders = np.concatenate([[0.0], (centers[1:] + centers[:-1]) / 2, [self.duration_sec]])
        starts = np.flatnonzero(np.concatenate([[True], labels[1:] != labels[:-1]]))
        found = []
        for first, end in zip(starts, [*starts[1:], len(labels)], strict=True):
            if (label := int(labels[first])) >= 0:
                score = float(probabilities[first:end, label].mean())
                found.append(TimelineSegment(float(borders[first]), float(borders[end]), self.classes[label], score))
        return tuple(found)

    def to_dict(self, min_score: float = 0.0, top: int = 5) -> dict[str, Any]:
        """Return segments, and the most likely classes of each window, as plain JSON values."""
        windows = [
            {"start": start, "end": end, "top": [dict(zip(("label", "probability"), one, strict=True)) for one in best]}
            for (start, end), best in zip(
                self.windows_sec.tolist(), (ranked(self.classes, row, top) for row in self.logits), strict=True
            )
        ]
        segments = [
            {"start": s.start_sec, "end": s.end_sec, "label": s.label, "score": s.score}
            for s in self.segments(min_score)
        ]
        return {
            "duration": self.duration_sec,
            "frames": self.frames,
            "truncated": self.truncated,
            "segments": segments,
            "windows": windows,
        }

    def __repr__(self) -> str:
        return f"Timeline({len(self.logits)} windows over {self.duration_sec:.1f} s, {len(self.classes)} classes)"


def require_lengths(window_sec: float | None, stride_sec: float | None) -> None:
    """Raise unless the lengths of windows that are given make sense.

    Raises:
        ValueError: they do not.
    """
    for name, value in (("window_sec", window_sec), ("stride_sec", stride_sec)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number of seconds, not {value}")


def windowed(
    times_sec: NDArray[np.float64],
    logits: NDArray[np.float32],
    duration_sec: float,
    window_sec: float,
    stride_sec: float,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return windows, (N,2) in seconds, and the mean logits of the time steps in each, (N,K).

    The windows start every `stride_sec`; the last is the first one that reaches the end. A window without a time step
    takes the one nearest to its middle.

    Args:
        times_sec: (M,), the times of the steps, sorted.
        logits: (M,K), their logits.
        duration_sec: length of the video.
        window_sec: length of a window, > 0.
        stride_sec: from the start of a window to that of the next, > 0.
    """
    count = max(1, int(np.ceil((duration_sec - window_sec) / stride_sec - _SAME_SEC)) + 1)
    starts = np.arange(count) * stride_sec
    windows = np.stack([starts, np.minimum(starts + window_sec, duration_sec)], 1)
    first, end = (np.searchsorted(times_sec, windows[:, k] - _SAME_SEC) for k in range(2))
    empty = np.flatnonzero(end <= first)
    halfway = (times_sec[1:] + times_sec[:-1]) / 2
    first[empty] = np.searchsorted(halfway, windows[empty].mean(1))
    end[empty] = first[empty] + 1
    return windows, _means(logits, first, end)


def _means(values: NDArray[np.float32], first: NDArray[np.intp], end: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the mean of each run of rows from `first` until before `end`, (N,K)."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, 0, dtype=np.float64)])
    means: NDArray[np.float32] = ((sums[end] - sums[first]) / (end - first)[:, None]).astype(np.float32)
    return means
