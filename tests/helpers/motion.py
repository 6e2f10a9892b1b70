"""Textured pictures in known motion."""

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
    """A picture whose content moves by (right, down) whole pixels per frame."""
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
    """A textured picture carried by `motion(t)`, the affine map (2, 3) from its first place to that at frame t."""
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
