"""Where training and testing look: time steps, crops and mirrors, drawn from an explicit generator.

All after the released code; see each function. Indices are 0-based and ranges half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def valid_centers(frames: int, flow_stack: int) -> range:
    """The frames around which a whole stack of flows exists.

    The stack around frame t is flows t − L/2 … t + L/2 − 1 (see `stack_around`). With L = 10 and N frames these are
    5 … N−6, in the 1-based counting of the released code 6 … N−5.

    Raises:
        ValueError: if the video is too short to have any.
    """
    half = flow_stack // 2
    centers = range(half, frames - (flow_stack - half))
    if not centers:
        raise ValueError(
            f"a stack of {flow_stack} flows needs at least {flow_stack + 1} frames, but the video has {frames}"
        )
    return centers


def stack_around(centers: Indices, flow_stack: int) -> Indices:
    """The flows of each centre's stack: (T,) to (T,L)."""
    half = flow_stack // 2
    return centers[:, None] + np.arange(-half, flow_stack - half)


def spread_centers(frames: int, flow_stack: int, steps: int) -> Indices:
    """`steps` centres evenly spaced over the valid range, its ends included; one step takes the middle."""
    valid = valid_centers(frames, flow_stack)
    if steps == 1:
        return np.array([valid[len(valid) // 2]])
    return np.round(np.linspace(valid[0], valid[-1], steps)).astype(np.int64)


def sample_centers(frames: int, flow_stack: int, steps: int, tau: tuple[int, int], rng: np.random.Generator) -> Indices:
    """The centres of one training clip, (steps,).

    Candidates start at the first valid centre and lie τ apart, τ drawn uniformly from `tau` (both ends included); a
    random run of `steps` of them is the clip. A video with fewer candidates gets centres spread over its valid range.
    """
    valid = valid_centers(frames, flow_stack)
    stride_frames = int(rng.integers(tau[0], tau[1] + 1))
    candidates = np.arange(valid.start, valid.stop, stride_frames)
    if len(candidates) < steps:
        return spread_centers(frames, flow_stack, steps)
    start = int(rng.integers(0, len(candidates) - steps + 1))
    return candidates[start : start + steps]


def middle_centers(frames: int, flow_stack: int, steps: int, tau: tuple[int, int]) -> Indices:
    """`steps` centres around the middle of the video, (steps,), as far apart as the middle of `tau`.

    A video too short for that gets centres spread over its valid range.
    """
    valid = valid_centers(frames, flow_stack)
    stride_frames = sum(tau) // 2
    free = len(valid) - 1 - (steps - 1) * stride_frames
    if free < 0:
        return spread_centers(frames, flow_stack, steps)
    return valid[free // 2] + stride_frames * np.arange(steps)


@dataclass(frozen=True)
class Crop:
    """A window of the stored frame, in px, seen in a mirror or not; the same for all frames and streams of a clip."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False


def border_crop(height: int, width: int, crop_px: int, jitter: float, mirror: bool, rng: np.random.Generator) -> Crop:
    """A window of random size and aspect near the frame's borders: the spatiotemporal and appearance stages.

    Its sides are drawn independently from crop_px·[1 − jitter, 1 + jitter] (released code: 0.25) and clipped to the
    frame. It lies in the first or the last quarter of the free range, the same quarter on both axes.
    """
    low, high = round(crop_px * (1 - jitter)), round(crop_px * (1 + jitter))
    h, w = (min(int(rng.integers(low, high + 1)), side) for side in (height, width))
    last = bool(rng.integers(2))
    top, left = (_in_quarter(side - size, last, rng) for side, size in ((height, h), (width, w)))
    return Crop(top, left, h, w, mirror and bool(rng.integers(2)))


def _in_quarter(free_px: int, last: bool, rng: np.random.Generator) -> int:
    offset = int(rng.integers(0, free_px // 4 + 1))
    return free_px - offset if last else offset


def corner_crop(height: int, width: int, crop_px: int, mirror: bool, rng: np.random.Generator) -> Crop:
    """A window at a corner or the centre: the motion stage.

    Its sides are drawn independently from {256, 224, 192, 168} for crop_px = 224, and in proportion for others.
    """
    sizes = [round(crop_px * size / 224) for size in (256, 224, 192, 168)]
    h, w = (min(int(rng.choice(sizes)), side) for side in (height, width))
    free_h, free_w = height - h, width - w
    place = int(rng.integers(5))
    top, left = [(0, 0), (0, free_w), (free_h, 0), (free_h, free_w), (free_h // 2, free_w // 2)][place]
    return Crop(top, left, h, w, mirror and bool(rng.integers(2)))


def corner_and_center_crops(height: int, width: int, crop_px: int) -> Sequence[Crop]:
    """The five test windows of crop_px² px: four corners and the centre (the ten-crop protocol adds their mirrors)."""
    h, w = min(crop_px, height), min(crop_px, width)
    free_h, free_w = height - h, width - w
    places = [(0, 0), (0, free_w), (free_h, 0), (free_h, free_w), (free_h // 2, free_w // 2)]
    return [Crop(top, left, h, w) for top, left in places]


def whole_frame(height: int, width: int, crop_px: int) -> Crop:
    """The centred window of a test frame whose sides are at most 2·crop_px (released code: 448)."""
    h, w = min(height, 2 * crop_px), min(width, 2 * crop_px)
    return Crop((height - h) // 2, (width - w) // 2, h, w)


CropRule = Literal["border", "corners"]
