"""Segments: parts of a video file in time, each of which is a video of its own."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_SAME_SEC = 1e-4
"""Frames that begin this much before a border count as at it: lists round times."""

_FRAGMENT = re.compile(r"(.+)#t=([0-9.:]*)(?:,([0-9.:]+))?")


class Segment(NamedTuple):
    """The frames of a video from one time until before another, in seconds since its first frame; by default all."""

    start_sec: float = 0.0
    end_sec: float = math.inf

    def begins_by(self, time_sec: float) -> bool:
        """Return whether a frame that begins at a time is not before the segment."""
        return self.start_sec <= time_sec + _SAME_SEC

    def ends_by(self, time_sec: float) -> bool:
        """Return whether a frame that begins at a time is behind the segment."""
        return self.end_sec <= time_sec + _SAME_SEC

    def contains(self, time_sec: float) -> bool:
        """Return whether a frame that begins at a time belongs to the segment."""
        return self.begins_by(time_sec) and not self.ends_by(time_sec)

    def overlaps(self, other: Segment) -> bool:
        """Return whether two segments share some time."""
        return self.start_sec < other.end_sec and other.start_sec < self.end_sec

    @property
    def fragment(self) -> str:
        """The end of the name of a segment, as a media fragment: ``#t=1.5,3``; an empty text for a whole video."""
        if self == WHOLE:
            return ""
        end = "" if self.end_sec == math.inf else f",{_number(self.end_sec)}"
        return f"#t={_number(self.start_sec)}{end}"


WHOLE = Segment()


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Return the times that some segments cover, in order and without overlaps."""
    joined: list[Segment] = []
    for segment in sorted(segments):
        if joined and segment.overlaps(joined[-1]):
            joined[-1] = joined[-1]._replace(end_sec=max(joined[-1].end_sec, segment.end_sec))
        else:
            joined.append(segment)
    return joined


def split_fragment(path: str | os.PathLike[str]) -> tuple[str, Segment]:
    """Return the file and the segment of a path such as ``match.mp4#t=10,20``.

    A path without such an end, or with one that is not a segment, is a whole video; so is an existing file.
    """
    text = os.fspath(path)
    match = _FRAGMENT.fullmatch(text)
    if match is None or os.path.exists(text):
        return text, WHOLE
    try:
        return match[1], parse_segment(match[2], match[3] or "")
    except ValueError:
        return text, WHOLE


def parse_segment(start: str, end: str) -> Segment:
    """Return the segment of a start and an end: seconds, or ``h:m:s``; an empty text stands for that of the video.

    Raises:
        ValueError: the texts are no times, or there is no time between them.
    """
    segment = Segment(_seconds(start) if start else WHOLE.start_sec, _seconds(end) if end else WHOLE.end_sec)
    if not 0 <= segment.start_sec < segment.end_sec:
        raise ValueError(f"expected a start before the end, found {start or 'none'} and {end or 'none'}")
    return segment


def _seconds(text: str) -> float:
    parts = text.replace(",", ".").split(":")
    if len(parts) > 3 or not all(re.fullmatch(r"\d+(\.\d*)?|\.\d+", part.strip()) for part in parts):
        raise ValueError(f"expected seconds, such as 12.5, or h:m:s, found {text!r}")
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + float(part)
    return round(seconds, 6)


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
