"""Geometry of the report's plots and heat map; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Values = Sequence[float | None]

# A panel of a learning curve in SVG units, about one pixel each.
PANEL = {"width": 300, "height": 92, "left": 34, "right": 234, "top": 10, "bottom": 82}
_LABEL_GAP = 11  # minimum distance between the labels at the ends of two lines


def curve_panels(curves: dict[str, dict[str, Any]], chance: float) -> dict[str, list[dict[str, Any]]]:
    """Return up to two panels per stage, loss and accuracy, with their lines as SVG paths.

    Args:
        curves: as in ``report.json``. Each loss has its own scale. Curves without any measured value are omitted.
        chance: top-1 accuracy of guessing, 0..1, drawn as a line.
    """
    panels = {stage: _panels(curve, chance) for stage, curve in curves.items()}
    return {stage: drawn for stage, drawn in panels.items() if drawn}


def _panels(curve: dict[str, Any], chance: float) -> list[dict[str, Any]]:
    epochs = curve["epoch"]
    top_loss = _round_up(max((value for value in curve["loss"] if value is not None), default=1.0))
    loss = _panel("loss", epochs, {"": curve["loss"]}, top_loss, [(0.0, "0"), (top_loss, f"{top_loss:g}")], ".3g")
    held_out = curve["val_accuracy"]
    lines = {"train": curve["accuracy"]} if held_out is None else {"train": curve["accuracy"], "val": held_out}
    ticks = [(0.0, "0"), (1.0, "100 %")]
    accuracy = _panel("accuracy", epochs, lines, 1.0, ticks, ".0%")
    accuracy["chance"] = _y(chance, 1.0)
    return [panel for panel in (loss, accuracy) if panel["lines"]]


def _panel(
    title: str, epochs: Values, series: dict[str, Values], top: float, ticks: list[tuple[float, str]], form: str
) -> dict[str, Any]:
    lines = [
        _line(name, epochs, values, top, form)
        for name, values in series.items()
        if any(value is not None for value in values)
    ]
    if len(lines) == 2:
        _move_apart(lines)
    return {
        "title": title,
        "lines": lines,
        "ticks": [{"y": _y(value, top), "text": text} for value, text in ticks],
        "first": f"{epochs[0]:g}" if epochs else "",
        "last": f"{epochs[-1]:g}" if epochs else "",
    }


def _line(name: str, epochs: Values, values: Values, top: float, form: str) -> dict[str, Any]:
    """Return the line through the measured values, with the position and text of its label."""
    known = [(e, v) for e, v in zip(epochs, values, strict=True) if e is not None and v is not None]
    first, last = float(epochs[0] or 0), float(epochs[-1] or 0)
    span = last - first
    width = PANEL["right"] - PANEL["left"]
    # A single epoch is drawn at the right end, next to its label.
    points = [(PANEL["left"] + width * ((e - first) / span if span else 1.0), _y(v, top)) for e, v in known]
    value = format(known[-1][1], form).replace("%", " %")
    return {
        "name": name,
        "path": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points),
        "x": points[-1][0],
        "y": points[-1][1],
        "label_y": points[-1][1],
        "label": f"{name} {value}".strip(),
    }


def _move_apart(lines: list[dict[str, Any]]) -> None:
    """Move the two end labels apart so that they neither overlap nor leave the panel."""
    upper, lower = sorted(lines, key=lambda line: float(line["y"]))
    overlap = _LABEL_GAP - (lower["y"] - upper["y"])
    if overlap > 0:
        upper["label_y"] = max(upper["y"] - overlap / 2, PANEL["top"])
        lower["label_y"] = upper["label_y"] + _LABEL_GAP
    if lower["label_y"] > PANEL["bottom"]:
        lower["label_y"] = PANEL["bottom"]
        upper["label_y"] = min(upper["label_y"], PANEL["bottom"] - _LABEL_GAP)


def _y(value: float, top: float) -> float:
    height = PANEL["bottom"] - PANEL["top"]
    return round(PANEL["bottom"] - height * min(max(value / top, 0.0), 1.0), 1)


def _round_up(value: float) -> float:
    """Return the smallest of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is at least ``value``."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def heat_cells(confusion: list[list[int]], side: int) -> list[dict[str, Any]]:
    """Return the non-zero cells of a confusion matrix as squares of ``side`` with their share of the row."""
    cells = []
    for truth, row in enumerate(confusion):
        total = sum(row)
        cells += [
            {
                "x": found * side,
                "y": truth * side,
                "truth": truth,
                "found": found,
                "count": count,
                "share": count / total,
            }
            for found, count in enumerate(row)
            if count
        ]
    return cells


def confusions(confusion: list[list[int]], most: int) -> list[dict[str, Any]]:
    """Return the ``most`` frequent confusions, by count, then by share of the true class."""
    wrong = [cell for cell in heat_cells(confusion, 1) if cell["truth"] != cell["found"]]
    return sorted(wrong, key=lambda cell: (-cell["count"], -cell["share"], cell["truth"], cell["found"]))[:most]
