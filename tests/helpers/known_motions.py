"""Pairs of pictures whose flow is known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

H, W = 64, 96
Numbers = NDArray[np.float64]
Places = tuple[Numbers, Numbers]


def picture(seed: int) -> Callable[[Places], Numbers]:
    """Return a picture as a function from places (x, y) to gray levels: a sum of 80 waves of 4 to 80 px."""
    rng = np.random.default_rng(seed)
    length, angle, phase = np.exp(rng.uniform(np.log(4), np.log(80), 80)), *rng.uniform(0, 2 * np.pi, (2, 80))
    strength = length**0.7 / np.sqrt((length**1.4).sum() / 2)
    kx, ky = 2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle)

    def levels(at: Places) -> Numbers:
        waves = np.cos(at[0][..., None] * kx + at[1][..., None] * ky + phase)
        return np.asarray((127.5 + 45 * (waves * strength).sum(-1)).clip(0, 255))

    return levels


def places(height: int = H, width: int = W) -> Places:
    y, x = np.mgrid[:height, :width].astype(float)
    return x, y


def affine(turn_deg: float, zoom: float, shift: tuple[float, float], seed: int = 1) -> tuple[Numbers, Numbers, Numbers]:
    """Return two frames and their flow: a picture that is rotated and zoomed about the centre, then shifted."""
    x, y = places()
    middle = np.array([(W - 1) / 2, (H - 1) / 2])
    angle = np.deg2rad(turn_deg)
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    from_middle = np.stack([x, y], -1) - middle
    flow = from_middle @ (matrix - np.eye(2)).T + shift
    before = (from_middle - shift) @ np.linalg.inv(matrix).T + middle
    levels = picture(seed)
    return levels((x, y)), levels((before[..., 0], before[..., 1])), flow.transpose(2, 0, 1)


def square(shift: tuple[float, float]) -> tuple[Numbers, Numbers, Numbers]:
    """Return two frames and their flow: a square that moves over a background at rest."""
    x, y = places()
    moved = x - shift[0], y - shift[1]
    back, front = picture(2), picture(3)
    inside, after = ((at[0] >= 20) & (at[0] < 52) & (at[1] >= 16) & (at[1] < 48) for at in ((x, y), moved))
    first, second = np.where(inside, front((x, y)), back((x, y))), np.where(after, front(moved), back((x, y)))
    return first, second, np.where(inside, np.array(shift)[:, None, None], 0.0)


# name: (first frame, second frame, flow), allowed mean endpoint error in px, border in px to exclude
MOTIONS = {
    "a third of a pixel": (affine(0, 1, (0.33, -0.4)), 0.05, 4),
    "some pixels": (affine(0, 1, (-3.4, 2.2)), 0.06, 6),
    "ten pixels": (affine(0, 1, (9.6, -1.8)), 0.1, 12),
    "rotation": (affine(3, 1, (0.0, 0.0)), 0.07, 4),
    "zoom in": (affine(0, 1.04, (0.0, 0.0)), 0.07, 4),
    "zoom out": (affine(0, 0.96, (0.5, 0.0)), 0.07, 4),
    "moving square": (square((3.5, -1.5)), 0.25, 0),
}


def _levels(*frames: Numbers) -> Tensor:
    return torch.from_numpy(np.rint(np.stack(frames)).astype(np.uint8))


PREVIOUS, FOLLOWING = (_levels(*(motion[0][k] for motion in MOTIONS.values())) for k in range(2))
"""The first and the second frames of all motions, (N, H, W) uint8 each."""
TRUTH = np.stack([motion[0][2] for motion in MOTIONS.values()])
"""Their flow, (N, 2, H, W)."""
