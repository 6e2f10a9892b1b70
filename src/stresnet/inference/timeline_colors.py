"""The classes that drawings of a time line show, and their colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stresnet.inference.timeline import Timeline, TimelineSegment

_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#e69f00", "#000000", "#994455")
"""A palette that colour-blind people can tell apart; classes beyond it begin again."""
_CURVES = 6


def likeliest(timeline: Timeline) -> list[int]:
    """Return the classes with the highest mean probability, whose curves are drawn."""
    order = np.argsort(-timeline.probabilities.mean(0), kind="stable")
    return [int(k) for k in order[:_CURVES]]


def colors_of(timeline: Timeline, segments: Sequence[TimelineSegment]) -> dict[str, str]:
    """Return the colours, such as ``#4477aa``, of the likeliest classes and of those of the segments."""
    labels = dict.fromkeys([*(timeline.classes[k] for k in likeliest(timeline)), *(s.label for s in segments)])
    return {label: _COLORS[k % len(_COLORS)] for k, label in enumerate(labels)}
