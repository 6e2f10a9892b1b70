"""Videos with their time line drawn below: the running label, its probability and the segments."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, dropwhile, repeat, takewhile, tee
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.data.segment import Segment, split_fragment
from stresnet.data.sources import is_url
from stresnet.errors import ScoreError
from stresnet.flow import FlowSpec
from stresnet.flow.estimate import iter_flow
from stresnet.flow.show.colors import flow_to_rgb
from stresnet.inference.timeline import Timeline, TimelineSegment
from stresnet.inference.timeline_colors import colors_of
from stresnet.media import Frame, FrameReader, iter_frames, write_frames
from stresnet.progress import Progress
from stresnet.weights.fetch import fetch

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_MIN_WIDTH = 480
_PANEL, _TEXT, _LINE = 56, 22, 12
"""Pixels of the panel, of its text and of the time line, for a video of `_MIN_WIDTH` px."""
_FULL_SPEED = 1 / 16
"""Speed that is drawn in full colour, in short sides of the picture per frame."""
_BACKGROUND, _FOREGROUND, _DIM = (24, 24, 24), (240, 240, 240), (90, 90, 90)


def require_overlay() -> None:
    """Raise unless overlays can be drawn. Call it before anything is computed.

    Raises:
        ScoreError: matplotlib, whose fonts are used, is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ScoreError("overlays need matplotlib: pip install 'stresnet[plot]'")


def write_overlay(
    path: Path,
    video: str | os.PathLike[str],
    timeline: Timeline,
    *,
    min_score: float = 0.0,
    flow: FlowSpec | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a video as MP4 with its time line below the picture; its times and its sound are kept.

    Videos narrower than 480 px are enlarged by a whole factor.

    Args:
        path: the file to write.
        video: the file, or segment of one, whose time line it is.
        timeline: what to draw.
        min_score: see `Timeline.segments`.
        flow: draw the flow so estimated in the top right corner.
        progress: called before every frame.

    Raises:
        VideoError: the video cannot be read, or the file cannot be written.
        FlowSpecError: the flow is that of a codec, which pictures do not have.
    """
    file, segment = split_fragment(video)
    file = str(fetch(file)) if is_url(file) else file
    reader = iter_frames(file)
    factor = -(-_MIN_WIDTH // reader.info.width)
    panel = _Panel(timeline, timeline.segments(min_score), factor * reader.info.width)
    frames = _frames_of(reader, segment)
    first = next(frames)

    def drawn() -> Iterator[Frame]:
        shown, seen = tee(chain([first], frames))
        insets = _insets(seen, flow, panel.width // 4) if flow else repeat(None)
        for done, (frame, inset) in enumerate(zip(shown, insets, strict=False)):
            if progress:
                progress("drawing", done, timeline.frames)
            time_sec = frame.time_sec - first.time_sec
            picture = frame.rgb.repeat(factor, 0).repeat(factor, 1)
            if inset is not None:
                picture[: inset.shape[0], -inset.shape[1] :] = inset
            yield Frame(np.concatenate([picture, panel.at(time_sec)]), time_sec)

    write_frames(path, drawn(), fps=reader.info.fps, sound_of=file, sound_from_sec=first.time_sec)


def _frames_of(reader: FrameReader, segment: Segment) -> Iterator[Frame]:
    frames = dropwhile(lambda frame: not segment.begins_by(frame.time_sec), reader)
    return takewhile(lambda frame: not segment.ends_by(frame.time_sec), frames)


def _insets(frames: Iterator[Frame], spec: FlowSpec, width: int) -> Iterator[NDArray[np.uint8]]:
    """Yield a picture of the flow from each frame to the next; the last one again at the end."""
    small = (_resized(frame.rgb, spec.short_side) for frame in frames)
    picture = None
    for field in iter_flow(small, spec):
        drawn = flow_to_rgb(field, spec.short_side * _FULL_SPEED)
        picture = cv2.resize(drawn, (width, drawn.shape[0] * width // drawn.shape[1])).astype(np.uint8)
        yield picture
    if picture is not None:
        yield picture


def _resized(picture: NDArray[np.uint8], short_side: int) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    factor = short_side / min(height, width)
    size = round(width * factor), round(height * factor)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


class _Panel:
    """Draws what is below the picture."""

    def __init__(self, timeline: Timeline, segments: Sequence[TimelineSegment], width: int) -> None:
        self._timeline, self._segments = timeline, segments
        self.width, self._scale = width, width / _MIN_WIDTH
        self._font = _font(round(_TEXT * self._scale))
        self._colors = colors_of(timeline, segments)
        self._borders = (timeline.centers_sec[1:] + timeline.centers_sec[:-1]) / 2
        self._texts: dict[tuple[str, int], NDArray[np.uint8]] = {}

    def at(self, time_sec: float) -> NDArray[np.uint8]:
        """Return the panel at a time, (H,W,3) uint8."""
        label, percent = self._running(time_sec)
        if (label, percent) not in self._texts:
            self._texts = {(label, percent): self._drawn(label, percent)}  # the last one serves many frames
        panel = self._texts[label, percent].copy()
        x = min(self.width - 1, int(self.width * time_sec / self._timeline.duration_sec))
        half = max(1, round(self._scale))
        panel[-round((_LINE + 6) * self._scale) :, max(0, x - half) : x + half] = _FOREGROUND
        return panel

    def _running(self, time_sec: float) -> tuple[str, int]:
        """Return the label of the segment at a time and its probability there in percent; empty outside segments."""
        label = next((s.label for s in self._segments if s.start_sec <= time_sec < s.end_sec), "")
        if not label:
            return "", 0
        window = int(np.searchsorted(self._borders, time_sec, side="right"))
        return label, round(100 * self._timeline.probabilities[window, self._timeline.classes.index(label)])

    def _drawn(self, label: str, percent: int) -> NDArray[np.uint8]:
        from PIL import Image, ImageDraw

        height, line = (round(part * self._scale) for part in (_PANEL, _LINE))
        picture = Image.new("RGB", (self.width, height), _BACKGROUND)
        draw = ImageDraw.Draw(picture)
        margin = round(8 * self._scale)
        middle = (height - line) // 2
        if label:
            draw.text((margin, middle), label, _FOREGROUND, self._font, anchor="lm")
            draw.text((self.width - margin, middle), f"{percent} %", _FOREGROUND, self._font, anchor="rm")
            draw.rectangle((0, 0, self.width * percent // 100, round(4 * self._scale)), self._colors[label])
        draw.rectangle((0, height - line, self.width, height), _DIM)
        per_sec = self.width / self._timeline.duration_sec
        for segment in self._segments:
            span = (segment.start_sec * per_sec, height - line, segment.end_sec * per_sec, height)
            draw.rectangle(span, self._colors[segment.label])
        return np.asarray(picture)


def _font(size_px: int) -> FreeTypeFont:
    """Return the font that matplotlib brings, which has more than Latin letters."""
    from matplotlib.font_manager import findfont
    from PIL import ImageFont

    return ImageFont.truetype(findfont("DejaVu Sans"), size_px)
