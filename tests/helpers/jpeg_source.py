"""Writing frames and flow as folders of JPEGs, in every supported layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

Levels = NDArray[np.uint8]

LAYOUTS = {
    "authors": ("jpegs_256/{}/frame{:06}.jpg", "u/{}/frame{:06}.jpg", "v/{}/frame{:06}.jpg"),
    "authors' tvl1_flow": (
        "jpegs_256/{}/frame{:06}.jpg",
        "tvl1_flow/u/{}/frame{:06}.jpg",
        "tvl1_flow/v/{}/frame{:06}.jpg",
    ),
    "denseflow": ("{}/img_{:05}.jpg", "{}/flow_x_{:05}.jpg", "{}/flow_y_{:05}.jpg"),
    "x and y": ("{}/img_{:05}.jpg", "{}/x_{:05}.jpg", "{}/y_{:05}.jpg"),
    "two roots": ("rgb/{}/img_{:05}.jpg", "flow/{}/flow_x_{:05}.jpg", "flow/{}/flow_y_{:05}.jpg"),
    "two roots of x and y": ("frames/{}/image_{:04}.JPG", "flow/{}/x_{:05}.jpeg", "flow/{}/y_{:05}.jpeg"),
    "plain numbers": ("rgb/{}/{:04}.jpg", "flow/u/{}/{:04}.jpg", "flow/v/{}/{:04}.jpg"),
}
"""Path patterns of frames, u and v, to be formatted with a video's name and a number."""


def pictures(frames: int = 14, height: int = 48, width: int = 64, seed: int = 0) -> tuple[Levels, Levels]:
    """Return smooth random frames (T,H,W,3) and as many fields of flow levels (T,2,H,W)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (frames, 6, 8, 5), np.uint8)
    big = np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC) for picture in small])
    return np.ascontiguousarray(big[..., :3]), np.ascontiguousarray(big[..., 3:].transpose(0, 3, 1, 2))


def write_jpegs(
    root: Path,
    video: str,
    layout: str = "denseflow",
    *,
    frames: int = 14,
    fields: int = 13,
    first: int = 1,
    seed: int = 0,
) -> Path:
    """Write one video, and return the folder of its frames."""
    rgb, flow = pictures(frames, seed=seed)
    jpegs = [simplejpeg.encode_jpeg(picture, 90, "RGB", "420") for picture in rgb]
    u, v = ([gray(level) for level in flow[:fields, axis]] for axis in (0, 1))
    for pattern, files in zip(LAYOUTS[layout], (jpegs, u, v), strict=True):
        for number, jpeg in enumerate(files, first):
            path = root / pattern.format(video, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
    return (root / LAYOUTS[layout][0].format(video, first)).parent


def gray(levels: Levels) -> bytes:
    """Return a gray JPEG of levels (H,W)."""
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(levels[..., None]), 90, "GRAY", "Gray"))
