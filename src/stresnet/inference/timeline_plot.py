"""Time lines as pictures, drawn by matplotlib."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING

from stresnet.errors import ScoreError
from stresnet.inference.timeline import Timeline
from stresnet.inference.timeline_colors import colors_of, likeliest

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_matplotlib() -> None:
    """Raise unless pictures can be drawn. Call it before anything is computed.

    Raises:
        ScoreError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ScoreError("pictures of time lines need matplotlib: pip install 'stresnet[plot]'")


def picture(timeline: Timeline, title: str, min_score: float) -> bytes:
    """Return the plot of a time line as PNG."""
    out = io.BytesIO()
    plot(timeline, title, min_score).savefig(out, dpi=150, format="png", metadata={"Software": None})
    return out.getvalue()


def plot(timeline: Timeline, title: str, min_score: float) -> Figure:
    """Return the segments of a time line above the probabilities of its likeliest classes."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(10, 4), layout="constrained")
    bar, curves = figure.subplots(2, 1, sharex=True, height_ratios=(1, 5))
    figure.suptitle(_plain(title), fontsize=10)
    segments = timeline.segments(min_score)
    colors = colors_of(timeline, segments)
    for s in segments:
        bar.broken_barh([(s.start_sec, s.end_sec - s.start_sec)], (0, 1), color=colors[s.label])
    bar.set(yticks=[], ylim=(0, 1))
    for k in likeliest(timeline):
        color = colors[timeline.classes[k]]
        curves.plot(timeline.centers_sec, timeline.probabilities[:, k], color=color, linewidth=1.5)
    curves.set(xlim=(0, timeline.duration_sec), ylim=(0, 1), xlabel="seconds", ylabel="probability")
    bar.spines[:].set_visible(False)
    curves.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=color, label=_plain(label)) for label, color in colors.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
    return figure


def _plain(text: str) -> str:
    """Return a text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
