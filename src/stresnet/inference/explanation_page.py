"""Explanations as files: a page to look at, its pictures as one film strip, and JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.atomic import replacing
from stresnet.errors import ScoreError
from stresnet.flow.show.colors import flow_to_rgb
from stresnet.inference.explanation import Explanation, Map
from stresnet.pages import templates

_FOR_RGB, _AGAINST_RGB = (255, 140, 0), (0, 90, 255)
_MOST_OPAQUE = 0.65
_MOST_PLACES = 8
_QUALITY = 85

Pictures = NDArray[np.uint8]
"""(T,H,W,3) uint8 RGB."""


def write_explanation(folder: Path, name: str, explanation: Explanation, *, title: str) -> Path:
    """Write NAME.html, NAME.jpg and NAME.json to a folder, and return the page.

    The film strip has a row for each stream and each link, and a column for each step. Orange is evidence for the
    class, blue against it; the colours of the two streams have one scale, and those of the links another.

    Raises:
        ScoreError: a file cannot be written.
    """
    rows = _rows(explanation)
    page = (
        templates("stresnet.inference")
        .get_template("explanation.html.j2")
        .render(title=title, e=explanation, rows=[_shown(row) for row in rows], links=_bars(explanation))
    )
    values = json.dumps({"video": title} | explanation.to_dict(), ensure_ascii=False, indent=1) + "\n"
    strip = np.concatenate([np.concatenate(list(row["pictures"]), 1) for row in rows])
    contents = {".json": values.encode(), ".jpg": _jpeg(strip), ".html": page.encode()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending, content in contents.items():
            with replacing(folder / f"{name}{ending}") as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ScoreError(f"{folder}: the explanation cannot be written ({error.strerror or error})") from error
    return folder / f"{name}.html"


def _rows(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the rows of the film strip: title, pictures (T,H,W,3), and the evidence of each step."""
    pictures: dict[str, Pictures] = {}
    if explanation.rgb is not None:
        pictures["appearance"] = explanation.rgb
    if explanation.flow_px is not None:
        fastest = max(1.0, float(np.percentile(np.linalg.norm(explanation.flow_px, axis=1), 99)))
        pictures["motion"] = np.stack([flow_to_rgb(field, fastest) for field in explanation.flow_px])
    most = _greatest(list(explanation.maps.values()))
    rows: list[dict[str, Any]] = [
        {"title": stream, "pictures": _overlaid(pictures[stream], maps, most), "steps": explanation.steps[stream]}
        for stream, maps in explanation.maps.items()
    ]
    most = _greatest([link.where for link in explanation.links])
    for link in explanation.links:
        shown = _overlaid(pictures[link.into], link.where, most)
        title = f"link into {link.into}, conv{link.layer}_x"
        rows.append({"title": title, "pictures": shown, "steps": link.where.sum((1, 2))})
    return rows


def _greatest(maps: list[Map]) -> float:
    """Return the evidence that is drawn strongest."""
    return max((float(np.abs(_smooth(one)).max()) for steps in maps for one in steps), default=0.0) or 1.0


def _smooth(evidence: Map) -> Map:
    """Return the evidence of a step as it is drawn: at most 8×8 places, as a share of the picture each.

    Where the next layer skips every other place, as with strides in Caffe's layout, those have no evidence: the filter
    makes even what alternates so.
    """
    height, width = evidence.shape
    places = min(width, _MOST_PLACES), min(height, _MOST_PLACES)
    coarse = cv2.resize(evidence * evidence.size, places, interpolation=cv2.INTER_AREA)
    kernel = np.array([0.25, 0.5, 0.25])
    return cv2.sepFilter2D(coarse, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT).astype(np.float32)


def _overlaid(pictures: Pictures, maps: Map, most: float) -> Pictures:
    """Return pictures, (T,H,W,3), with the evidence drawn over them."""
    height, width = pictures.shape[1:3]
    shown = []
    for picture, evidence in zip(pictures, maps, strict=True):
        level = cv2.resize(_smooth(evidence) / most, (width, height), interpolation=cv2.INTER_CUBIC)
        alpha = (np.clip(np.abs(level), 0, 1) * _MOST_OPAQUE)[..., None]
        color = np.where(level[..., None] > 0, np.array(_FOR_RGB), np.array(_AGAINST_RGB))
        gray = picture.mean(-1, keepdims=True) * 0.6 + picture * 0.4
        shown.append((gray * (1 - alpha) + color * alpha).round().astype(np.uint8))
    return np.stack(shown)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its pictures as data URIs."""
    uris = [f"data:image/jpeg;base64,{base64.b64encode(_jpeg(one)).decode()}" for one in row["pictures"]]
    return {"title": row["title"], "cells": list(zip(uris, (f"{value:+.2f}" for value in row["steps"]), strict=True))}


def _bars(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the effects of the links, with the length of a bar as a share of the greatest."""
    greatest = max((abs(link.effect) for link in explanation.links), default=0.0) or 1.0
    return [
        {
            "title": f"into {link.into}, conv{link.layer}_x",
            "effect": f"{link.effect:+.2f}",
            "share": f"{100 * abs(link.effect) / greatest:.1f}%",
            "against": link.effect < 0,
        }
        for link in explanation.links
    ]


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
