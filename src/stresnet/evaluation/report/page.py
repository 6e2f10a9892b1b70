"""The page of a report: a single self-contained HTML file."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from stresnet.evaluation.report.content import Example, Report
from stresnet.evaluation.report.drawings import PANEL, confusions, curve_panels, heat_cells
from stresnet.flow import flow_to_rgb
from stresnet.media import write_video
from stresnet.pages import templates

# The confusion matrix is a table of numbers for at most this many classes, otherwise a heat map.
_TABLE_CLASSES = 14
_MOST_CONFUSIONS = 12
_QUALITY_CRF = 26  # keeps a page with a dozen videos small


def render_page(report: Report, measures: dict[str, Any]) -> str:
    """Return the HTML of a report; all its numbers are taken from ``measures``.

    Raises:
        VideoError: an example's videos cannot be encoded.
    """
    environment = templates("stresnet.evaluation.report")
    environment.filters.update(
        percent=_percent,
        place=_place,
        p_value=_p_value,
        duration=_duration,
        count=_count,
        soft=_soft,
        thousands="{:,}".format,
    )
    rows = measures["rows"]
    chosen = rows[measures["chosen"]]
    return environment.get_template("report.html.j2").render(
        **measures,
        best=chosen,
        paragraphs=[text.strip() for text in re.split(r"\n\s*\n", report.intro) if text.strip()],
        protocol=rows[0]["protocol"] if len({row["protocol"] for row in rows}) == 1 else "",
        columns={key: any(row[key] is not None for row in rows) for key in ("ceiling", "minutes", "parameters")},
        media=[_embedded(example) for example in report.examples],
        wheel=_wheel() if report.examples else "",
        matrix=_matrix(chosen["confusion"]),
        mistakes=confusions(chosen["confusion"], _MOST_CONFUSIONS),
        bars=_bars(measures["classes"], chosen),
        plots=curve_panels(measures["curves"], measures["chance"]),
        panel=PANEL,
    )


def _embedded(example: Example) -> dict[str, Any]:
    """Return an example's frames and flow as data URIs of videos, and the speed in full colour, in pixels per frame."""
    max_px = max(1.0, float(np.percentile(np.linalg.norm(example.flow, axis=1), 99)))
    colours = np.stack([flow_to_rgb(field, max_px) for field in example.flow])
    height, width = example.frames.shape[1:3]
    return {
        "frames": _data_uri(example.frames, example.fps),
        "flow": _data_uri(colours, example.fps),
        "max_px": max_px,
        "width": width,
        "height": height,
    }


def _data_uri(frames: npt.NDArray[np.uint8], fps: float) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, fps=fps, quality_crf=_QUALITY_CRF)
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _wheel() -> str:
    """Return the stops of a CSS conic gradient with the colours of the directions of flow, clockwise from up."""
    angles = np.linspace(0, 2 * np.pi, 37)
    directions = np.stack([np.sin(angles), -np.cos(angles)]).astype(np.float32)[:, None]
    colours = flow_to_rgb(directions, 1.0)[0]
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in colours.tolist())


def _matrix(confusion: list[list[int]]) -> dict[str, Any]:
    classes = len(confusion)
    if classes <= _TABLE_CLASSES:
        return {"totals": [sum(row) for row in confusion], "cells": []}
    side = 20 if classes <= 32 else 14 if classes <= 51 else 12
    return {"side": side, "size": side * classes, "cells": heat_cells(confusion, side)}


def _bars(classes: list[str], row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the classes from highest to lowest accuracy; those without videos come last."""
    bars = [
        {"name": name, "share": share, "correct": counts[i], "videos": sum(counts)}
        for i, (name, share, counts) in enumerate(zip(classes, row["per_class"], row["confusion"], strict=True))
    ]
    return sorted(bars, key=lambda bar: -1.0 if bar["share"] is None else bar["share"], reverse=True)


def _soft(name: str) -> Markup:
    """Return an escaped name with line break opportunities after _, - and / and between CamelCase words."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/-])(?=.)|(?<=[a-z])(?=[A-Z])", name))


def _percent(fraction: float | None, digits: int = 1) -> str:
    """Return a percentage without its sign: a dash for None, "< 0.1" rather than 0 for a small positive value."""
    if fraction is None:
        return "–"
    least = 10.0**-digits
    return f"< {least:g}" if 0 < 100 * fraction < least / 2 else f"{100 * fraction:.{digits}f}"


def _place(fraction: float | None) -> str:
    """Return a CSS percentage, clamped to 0..100."""
    return f"{100 * min(max(fraction or 0.0, 0.0), 1.0):.2f}%"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "–"
    if minutes >= 600:
        return f"{minutes / 60:.0f} h"
    return f"{minutes:.0f} min" if minutes >= 10 else f"{minutes:.1f} min"


def _count(number: int | None) -> str:
    """Return a count to three digits; a dash for None."""
    if number is None:
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
