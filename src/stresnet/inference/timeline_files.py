"""Time lines as files: JSON, CSV, subtitles, a page and a picture to look at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from html import escape
from pathlib import Path

from stresnet.atomic import replacing
from stresnet.errors import ScoreError
from stresnet.inference.timeline import Timeline, TimelineSegment
from stresnet.inference.timeline_colors import colors_of, likeliest
from stresnet.inference.timeline_plot import picture, require_matplotlib
from stresnet.pages import templates

_PICTURE = ".png"


def write_timeline(path: Path, timeline: Timeline, *, title: str, min_score: float = 0.0) -> None:
    """Write a time line in the format of the file's ending.

    - `.json`: segments, and the most likely classes of each window.
    - `.csv`: `start,end,label,score`, one segment a row, in seconds; ELAN imports it as tab-delimited text.
    - `.vtt`, `.srt`: subtitles that show the label of each segment.
    - `.html`: a page with the segments and the curves of the most frequent classes.
    - `.png`: the same as a picture, which needs matplotlib.

    Args:
        path: the file.
        timeline: what to write.
        title: heading of the page.
        min_score: see `Timeline.segments`.

    Raises:
        ScoreError: the ending is none of these, or the file cannot be written.
    """
    require_timeline_format(path)
    ending = path.suffix.lower()
    if ending == _PICTURE:
        content = picture(timeline, title, min_score)
    else:
        content = timeline_text(ending, timeline, title=title, min_score=min_score).encode()
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ScoreError(f"{path} cannot be written ({error.strerror or error})") from error


def timeline_text(ending: str, timeline: Timeline, *, title: str, min_score: float = 0.0) -> str:
    """Return a time line in the format of an ending, such as `.vtt`, but not a picture; see `write_timeline`."""
    return _FORMATS[ending](timeline, title, min_score)


def require_timeline_format(path: Path) -> None:
    """Raise unless a file's ending is that of a format. Call it before anything is computed.

    Raises:
        ScoreError: it is not, or it is a picture and matplotlib is not installed.
    """
    ending, endings = path.suffix.lower(), (*_FORMATS, _PICTURE)
    if ending not in endings:
        raise ScoreError(f"{path}: expected a file of a time line that ends in one of {', '.join(endings)}")
    if ending == _PICTURE:
        require_matplotlib()


def _json(timeline: Timeline, title: str, min_score: float) -> str:
    return json.dumps({"video": title} | timeline.to_dict(min_score), ensure_ascii=False, indent=1) + "\n"


def _csv(timeline: Timeline, title: str, min_score: float) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("start", "end", "label", "score"))
    for s in timeline.segments(min_score):
        # A spreadsheet takes a text that begins so for a formula.
        label = f"'{s.label}" if s.label[:1] in ("=", "+", "-", "@", "\t", "\r") else s.label
        rows.writerow((f"{s.start_sec:.3f}", f"{s.end_sec:.3f}", label, f"{s.score:.4f}"))
    return out.getvalue()


def _vtt(timeline: Timeline, title: str, min_score: float) -> str:
    cues = [
        f"{_clock(s.start_sec, '.')} --> {_clock(s.end_sec, '.')}\n{escape(_line(s), quote=False)}\n"
        for s in timeline.segments(min_score)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _srt(timeline: Timeline, title: str, min_score: float) -> str:
    cues = [
        f"{number}\n{_clock(s.start_sec, ',')} --> {_clock(s.end_sec, ',')}\n{_line(s)}\n"
        for number, s in enumerate(timeline.segments(min_score), 1)
    ]
    return "\n".join(cues)


def _line(segment: TimelineSegment) -> str:
    return f"{' '.join(segment.label.split())} {segment.score:.0%}"


def _clock(seconds: float, mark: str) -> str:
    """Return a time as ``h:mm:ss.mmm``, with hours of two digits."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"


def _tick(seconds: float, duration_sec: float) -> str:
    return f"{seconds:.1f} s" if duration_sec < 100 else _clock(seconds, ".")[:8]


def _html(timeline: Timeline, title: str, min_score: float) -> str:
    probabilities, per_sec = timeline.probabilities, 1000 / timeline.duration_sec
    found = timeline.segments(min_score)
    curves = [
        {
            "label": timeline.classes[k],
            "points": " ".join(
                f"{x * per_sec:.1f},{160 - 160 * p:.1f}"
                for x, p in zip(timeline.centers_sec, probabilities[:, k], strict=True)
            ),
        }
        for k in likeliest(timeline)
    ]
    segments = [
        {
            "label": s.label,
            "start": _clock(s.start_sec, "."),
            "end": _clock(s.end_sec, "."),
            "score": f"{s.score:.0%}",
            "x": f"{s.start_sec * per_sec:.2f}",
            "width": f"{(s.end_sec - s.start_sec) * per_sec:.2f}",
        }
        for s in found
    ]
    return (
        templates("stresnet.inference")
        .get_template("timeline.html.j2")
        .render(
            title=title,
            windows=len(probabilities),
            duration=_clock(timeline.duration_sec, "."),
            colors=colors_of(timeline, found),
            curves=curves,
            segments=segments,
            ticks=[(f"{125 * k}", _tick(timeline.duration_sec * k / 8, timeline.duration_sec)) for k in range(8)],
        )
    )


_FORMATS: dict[str, Callable[[Timeline, str, float], str]] = {
    ".json": _json,
    ".csv": _csv,
    ".vtt": _vtt,
    ".srt": _srt,
    ".html": _html,
}
