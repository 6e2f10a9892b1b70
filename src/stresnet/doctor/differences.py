"""Properties of videos that differ by class, which a network may learn instead of the action, or that are rare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kruskal

from stresnet.data.finding import Finding
from stresnet.data.index import Entries
from stresnet.doctor.survey import Survey

_STRONG = 0.25
_P_VALUE = 1e-3
_RARE_SHARE = 0.1


@dataclass(frozen=True)
class _Property:
    """A property of a video that is no part of what it shows.

    Attributes:
        name: its name.
        values: of some videos, (N,).
        text: how a value is written.
        factor: a video is odd if its value is this many times that of most, or as many times less.
        advice: what to do if it differs by class.
    """

    name: str
    values: Callable[[Entries], NDArray[np.float64]]
    text: str
    factor: float
    advice: str


def _column(entries: Entries, name: str) -> NDArray[np.float64]:
    return np.asarray(entries.column(name).to_numpy(zero_copy_only=False), np.float64)


_PROPERTIES = (
    _Property("frame rate", lambda e: _column(e, "fps"), "{:.3g} fps", 1.5, "flow is per frame: prepare with --fps"),
    _Property(
        "size",
        lambda e: np.minimum(_column(e, "width"), _column(e, "height")),
        "{:.0f} px",
        2.0,
        "small videos are blurred when they are scaled: scale all to the size of the smallest",
    ),
    _Property(
        "shape",
        lambda e: _column(e, "width") / _column(e, "height"),
        "width/height {:.2f}",
        2.0,
        "crops show another part of a video of another shape: crop all to one shape",
    ),
)


class Association(NamedTuple):
    """How far class and a property go together.

    Attributes:
        effect: epsilon squared of Kruskal and Wallis: the share of the variance of the ranks of the property that the
            class explains, less what it would explain by chance; about 0 if they are independent, 1 at most.
        p_value: of the test of Kruskal and Wallis.
        lowest, highest: the class with the lowest and that with the highest median, with these medians.
    """

    effect: float
    p_value: float
    lowest: tuple[str, float]
    highest: tuple[str, float]


def differences(survey: Survey) -> Iterator[Finding]:
    """Yield properties that go together with the class, and videos that are odd in one.

    A property goes together with the class if epsilon squared is at least 0.25 with p < 0.001. The videos of one class
    and group are not independent, so they count once, by their median. A video is odd if its value is far from the
    median, and at most a tenth of the videos are.
    """
    entries = survey.store.select()
    if not len(entries):
        return
    for prop in _PROPERTIES:
        values = prop.values(entries)
        found = association(entries, values)
        if found is not None and found.effect >= _STRONG and found.p_value < _P_VALUE:
            yield _shortcut(prop, found)
        elif finding := _odd(prop, entries, values):
            yield finding


def association(entries: Entries, values: NDArray[np.float64]) -> Association | None:
    """Return how far class and a property go together, or None if the property is the same everywhere.

    Args:
        entries: the videos.
        values: (N,), the property of each.
    """
    units: dict[tuple[str, str], list[float]] = {}
    columns = (entries.column(name).to_pylist() for name in ("label", "group", "id"))
    for label, group, name, value in zip(*columns, values.tolist(), strict=True):
        units.setdefault((label, f"group {group}" if group else f"video {name}"), []).append(value)
    by_class: dict[str, list[float]] = {}
    for (label, _), members in units.items():
        by_class.setdefault(label, []).append(float(np.median(members)))
    total = len(units)
    if len(by_class) < 2 or total <= len(by_class) or len({v for vs in by_class.values() for v in vs}) < 2:
        return None
    statistic, p_value = kruskal(*by_class.values())
    effect = (float(statistic) - len(by_class) + 1) / (total - len(by_class))
    medians = sorted(((float(np.median(vs)), label) for label, vs in by_class.items()))
    (low, lowest), (high, highest) = medians[0], medians[-1]
    return Association(effect, float(p_value), (lowest, low), (highest, high))


def _shortcut(prop: _Property, found: Association) -> Finding:
    (lowest, low), (highest, high) = found.lowest, found.highest
    return Finding(
        "shortcut",
        f"{prop.name} and class go together, from {prop.text.format(low)} ({lowest!r}) to {prop.text.format(high)} "
        f"({highest!r}); a network may learn it instead of the action (ε² = {found.effect:.2f}, Kruskal–Wallis); "
        f"{prop.advice}",
    )


def _odd(prop: _Property, entries: Entries, values: NDArray[np.float64]) -> Finding | None:
    usual = float(np.median(values))
    is_odd = (values * prop.factor <= usual) | (values >= usual * prop.factor)
    if not 0 < np.count_nonzero(is_odd) <= _RARE_SHARE * len(values):
        return None
    ids = tuple(entries.column("id").filter(is_odd).to_pylist())
    value = prop.text.format(values[int(np.flatnonzero(is_odd)[0])])
    return Finding(
        "odd",
        f"{len(ids)} videos are of another {prop.name} than most, such as {ids[0]}: {value}, the median is "
        f"{prop.text.format(usual)}",
        ids,
    )
