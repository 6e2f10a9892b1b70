"""Measure how well time lines find the actions of long videos: mean average precision and frame accuracy.

A found segment matches a true one of its class if their temporal IoU reaches a threshold. Found segments take their
match by descending score, each true segment once; the others are false. The average precision of a class is the area
under its precision-recall curve. Two kits compute it differently, and both are given:

* ActivityNet's interpolates: the precision at a recall is the greatest one at that recall or above.
* THUMOS' does not: it averages the precision at each match over the true segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.data.catalog import Source
from stresnet.data.datasets.video_list import read_video_list
from stresnet.errors import ScoreError, StresnetError
from stresnet.inference.timeline import Timeline, TimelineSegment
from stresnet.progress import Progress

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Temporal IoUs from which a found segment matches a true one."""


@dataclass(frozen=True)
class TrueSegment:
    """A stretch of a video in which an action takes place."""

    start_sec: float
    end_sec: float
    label: str


@dataclass(frozen=True)
class Localization:
    """How well time lines find the true segments of some videos. All measures are fractions, 0..1.

    Attributes:
        videos: number of videos.
        segments: number of true segments.
        mean_ap: by threshold, the mean over the classes of the true segments, interpolated (ActivityNet).
        mean_ap_thumos: the same without interpolation (THUMOS).
        frame_accuracy: share of frames whose class is found, or that no segment is found for where there is none.
        failed: (video, reason) of those that could not be scored, which are left out of all measures.
    """

    videos: int
    segments: int
    mean_ap: Mapping[float, float]
    mean_ap_thumos: Mapping[float, float]
    frame_accuracy: float
    failed: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as JSON types."""
        return {
            "videos": self.videos,
            "segments": self.segments,
            "mean_ap": {f"{threshold:g}": value for threshold, value in self.mean_ap.items()},
            "mean_ap_thumos": {f"{threshold:g}": value for threshold, value in self.mean_ap_thumos.items()},
            "frame_accuracy": self.frame_accuracy,
            "failed": dict(self.failed),
        }


def read_true_segments(path: Path) -> dict[str, list[TrueSegment]]:
    """Return the true segments of each video of a list, by its file.

    The list has a row for each segment (path, label, start and end), in any of the formats that `stresnet prepare`
    reads.

    Raises:
        StoreError: the list cannot be read.
        ScoreError: a row cannot be used, or has no end.
    """
    catalog = read_video_list(Source(path.resolve()))
    if catalog.rejected:
        where, reason = catalog.rejected[0]
        raise ScoreError(f"{where}: {reason}")
    found: dict[str, list[TrueSegment]] = {}
    for record in catalog.records:
        if not np.isfinite(record.end_sec):
            raise ScoreError(f"{path}: expected the end of each true segment, found none for {record.id}")
        found.setdefault(record.path, []).append(TrueSegment(record.start_sec, record.end_sec, record.label))
    return found


def localize(
    truth: Mapping[str, Sequence[TrueSegment]],
    timeline: Callable[[str], Timeline],
    classes: Sequence[str],
    *,
    min_score: float = 0.0,
    progress: Progress | None = None,
) -> Localization:
    """Compare the segments of time lines with the true ones.

    Args:
        truth: the true segments of each video.
        timeline: returns the time line of a video.
        classes: the classes of the time lines.
        min_score: see `Timeline.segments`.
        progress: called before every video.

    Raises:
        ScoreError: a true segment has another class, or no video could be scored.
    """
    labels = {segment.label for segments in truth.values() for segment in segments}
    if unknown := sorted(labels.difference(classes)):
        raise ScoreError(f"expected the model's classes as labels, found {unknown[0]!r}, which is none of them")
    found, accurate, failed = {}, [], []
    for done, (video, segments) in enumerate(truth.items()):
        if progress:
            progress("scoring", done, len(truth))
        try:
            line = timeline(video)
        except StresnetError as error:
            failed.append((video, str(error)))
            continue
        found[video] = line.segments(min_score)
        accurate.append(accurate_frames(line, found[video], segments))
    if not found:
        raise ScoreError(f"no video could be scored, the first because: {failed[0][1]}")
    scored = {video: truth[video] for video in found}
    mean_ap = {threshold: mean_average_precision(scored, found, threshold) for threshold in THRESHOLDS}
    return Localization(
        videos=len(scored),
        segments=sum(map(len, scored.values())),
        mean_ap={threshold: values[0] for threshold, values in mean_ap.items()},
        mean_ap_thumos={threshold: values[1] for threshold, values in mean_ap.items()},
        frame_accuracy=float(np.concatenate(accurate).mean()),
        failed=tuple(failed),
    )


def accurate_frames(
    line: Timeline, found: Sequence[TimelineSegment], truth: Sequence[TrueSegment]
) -> NDArray[np.bool_]:
    """Return for each frame whether the class found at its middle is a true one, or there is neither, (T,)."""
    times = (np.arange(line.frames) + 0.5) * line.duration_sec / line.frames
    true, claimed = _at(times, truth), _at(times, found)
    right = [(not then and not now) or bool(then & now) for then, now in zip(true, claimed, strict=True)]
    return np.array(right, bool)


def _at(times: NDArray[np.float64], segments: Sequence[TrueSegment | TimelineSegment]) -> list[set[str]]:
    """Return the classes of the segments at some times."""
    return [{s.label for s in segments if s.start_sec <= time < s.end_sec} for time in times]


def mean_average_precision(
    truth: Mapping[str, Sequence[TrueSegment]], found: Mapping[str, Sequence[TimelineSegment]], threshold: float
) -> tuple[float, float]:
    """Return the mean average precision over the classes of the true segments, by ActivityNet's formula and THUMOS'."""
    labels = sorted({segment.label for segments in truth.values() for segment in segments})
    each = []
    for label in labels:
        true = {video: [s for s in segments if s.label == label] for video, segments in truth.items()}
        claimed = [(s, video) for video, segments in found.items() for s in segments if s.label == label]
        matched = _matches(true, sorted(claimed, key=lambda one: -one[0].score), threshold)
        each.append(average_precision(matched, sum(map(len, true.values()))))
    activitynet, thumos = np.mean(each, axis=0)
    return float(activitynet), float(thumos)


def _matches(
    truth: Mapping[str, Sequence[TrueSegment]], claimed: Sequence[tuple[TimelineSegment, str]], threshold: float
) -> NDArray[np.bool_]:
    """Return for each found segment, best first, whether it matches a true one that no better one has taken."""
    free = {video: list(segments) for video, segments in truth.items()}
    matched = np.zeros(len(claimed), bool)
    for index, (segment, video) in enumerate(claimed):
        nearest = max(free[video], key=lambda true: temporal_iou(segment, true), default=None)
        if nearest is not None and temporal_iou(segment, nearest) >= threshold:
            free[video].remove(nearest)
            matched[index] = True
    return matched


def temporal_iou(a: TimelineSegment | TrueSegment, b: TimelineSegment | TrueSegment) -> float:
    """Return the length of the intersection over that of the union, 0..1."""
    shared = max(0.0, min(a.end_sec, b.end_sec) - max(a.start_sec, b.start_sec))
    return shared / (a.end_sec - a.start_sec + b.end_sec - b.start_sec - shared)


def average_precision(matched: NDArray[np.bool_], true: int) -> tuple[float, float]:
    """Return the average precision of found segments, by ActivityNet's formula and by THUMOS'.

    Args:
        matched: for each found segment, best first, whether it matches a true one.
        true: number of true segments, > 0.
    """
    precision = np.cumsum(matched) / np.arange(1, len(matched) + 1)
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return float(interpolated[matched].sum() / true), float(precision[matched].sum() / true)
