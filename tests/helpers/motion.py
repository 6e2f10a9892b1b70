"""Textured pictures and videos in known motion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from helpers.video_files import encode
from stresnet.flow import FlowSpec

SIZE = (96, 128)
SPEC = FlowSpec(short_side=96)


def texture(height: int, width: int, seed: int = 0, blur_px: float = 2.5) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    soft = cv2.GaussianBlur(noise, (0, 0), blur_px)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving(right: int, down: int, height: int = 96, width: int = 128, count: int = 2) -> NDArray[np.uint8]:
    """Return pictures whose content moves by (right, down) whole pixels per frame, (count, H, W, 3)."""
    margin = 8 * count
    big = texture(height + 2 * margin, width + 2 * margin)
    starts = [(margin - down * t, margin - right * t) for t in range(count)]
    return np.stack([big[y : y + height, x : x + width] for y, x in starts])


def film(
    path: Path,
    motion: Callable[[int], NDArray[np.float64]],
    count: int = 6,
    size: tuple[int, int] = SIZE,
    mux: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Encode a texture in motion and return the file.

    `motion(t)` is the affine map (2, 3) from positions in the first frame to those in frame t.
    """
    height, width = size
    big = texture(3 * height, 3 * width)
    frames = []
    for t in range(count):
        matrix = np.vstack([motion(t), [0, 0, 1]])
        matrix = matrix @ np.array([[1, 0, -width], [0, 1, -height], [0, 0, 1.0]])
        frames.append(cv2.warpAffine(big, matrix[:2], (width, height), flags=cv2.INTER_LANCZOS4))
    return encode(path, frames, mux=mux, crf="4", **options)


def shift(u: float, v: float) -> Callable[[int], NDArray[np.float64]]:
    return lambda t: np.array([[1, 0, u * t], [0, 1, v * t]], np.float64)


def pan(shifts: list[tuple[int, int]], height: int = 96, width: int = 128) -> list[NDArray[np.uint8]]:
    """Return one texture at several places: moved by each of the (right, down) shifts in pixels."""
    margin = max(max(abs(right), abs(down)) for right, down in shifts)
    big = texture(height + 2 * margin, width + 2 * margin, blur_px=2.0)
    return [np.ascontiguousarray(big[margin - down :, margin - right :][:height, :width]) for right, down in shifts]


def steady(right: int, down: int, count: int = 14, **size: int) -> list[NDArray[np.uint8]]:
    """Return pictures whose content moves by (right, down) whole pixels per frame."""
    return pan([(right * t, down * t) for t in range(count)], **size)


def textured_square(at: tuple[int, int], height: int = 96, width: int = 160) -> NDArray[np.uint8]:
    """Return a picture of a textured square of 32 px on a dark textured ground, its centre at (x, y)."""
    picture = texture(height, width, seed=1, blur_px=2.0) // 4
    picture[at[1] - 16 : at[1] + 16, at[0] - 16 : at[0] + 16] = texture(32, 32, seed=2, blur_px=2.0)
    return picture


X264 = {"crf": "12", "sc_threshold": "0", "b-adapt": "0"}
MPEG = {"qmax": "3", "sc_threshold": "1000000000"}

VECTOR_VIDEOS: dict[str, tuple[str, str, dict[str, str], str, float]] = {
    # name: file, encoder, options, picture types that must occur in a row, allowed mean error of the flow in px
    "h264": ("a.mp4", "libx264", {**X264, "bf": "0", "refs": "1"}, "IPP", 0.1),
    "h264 B": ("a.mp4", "libx264", {**X264, "bf": "3", "refs": "1", "b-pyramid": "none"}, "BBBP", 0.1),
    "h264 B pyramid": ("a.mkv", "libx264", {**X264, "bf": "3", "b-pyramid": "normal"}, "BBBP", 0.1),
    "h264 two B": ("a.ts", "libx264", {**X264, "bf": "2", "refs": "1"}, "BBP", 0.1),
    "h264 defaults": ("a.mp4", "libx264", {}, "BP", 0.5),
    "mpeg4": ("a.avi", "mpeg4", {**MPEG, "bf": "0"}, "IPP", 0.2),
    "mpeg4 B": ("a.avi", "mpeg4", {**MPEG, "bf": "2"}, "BBP", 0.9),
    "mpeg2 B": ("a.mpg", "mpeg2video", {**MPEG, "bf": "2"}, "BBP", 0.3),
    "mpeg1 B": ("a.mkv", "mpeg1video", {**MPEG, "bf": "2"}, "BBP", 0.3),
    "flv": ("a.flv", "flv", MPEG, "IPP", 0.2),
    "msmpeg4": ("a.avi", "msmpeg4", MPEG, "IPP", 0.2),
    "msmpeg4v2": ("a.avi", "msmpeg4v2", MPEG, "IPP", 0.2),
    "wmv1": ("a.asf", "wmv1", MPEG, "IPP", 0.2),
    "wmv2": ("a.asf", "wmv2", MPEG, "IPP", 0.2),
}
"""Videos with motion vectors, for every codec that has them but H.263."""
