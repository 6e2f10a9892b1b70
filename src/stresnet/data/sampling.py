"""Sampling of clips: time steps, crops and mirrors for training and testing.

All rules follow the released code. Random ones draw from an explicit generator. Indices are 0-based, ranges half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

Protocol = Literal["dense25", "crop10x25", "dense", "fast", "center"]
"""The test protocols, see `stresnet.inference.protocols`."""


def valid_centers(frames: int, flow_stack: int) -> range:
    """Return the frames around which a whole flow stack exists.

    The stack around frame t is flows t − L/2 … t + L/2 − 1 (see `stack_around`). With L = 10 and N frames the valid
    centres are 5 … N−6; the released code counts from 1, so there they are 6 … N−5.

    Args:
        frames: N, the frames of the video.
        flow_stack: L, the flow fields of a stack.

    Raises:
        ValueError: the video is too short.
    """
    half = flow_stack // 2
    centers = range(half, frames - (flow_stack - half))
    if not centers:
        raise ValueError(
            f"a stack of {flow_stack} flows needs at least {flow_stack + 1} frames, but the video has {frames}"
        )
    return centers


def stack_around(centers: Indices, flow_stack: int) -> Indices:
    """Return the flow indices of the stack around each centre, (T,L) int64, for centres (T,)."""
    half = flow_stack // 2
    return centers[:, None] + np.arange(-half, flow_stack - half)


def spread_centers(frames: int, flow_stack: int, steps: int) -> Indices:
    """Return centres evenly spaced over the valid range, ends included, (steps,) int64; a single one is the middle."""
    return _evenly(valid_centers(frames, flow_stack), steps)


def _evenly(indices: range, count: int) -> Indices:
    if count == 1:
        return np.array([indices[len(indices) // 2]])
    return np.round(np.linspace(indices[0], indices[-1], count)).astype(np.int64)


def sample_centers(frames: int, flow_stack: int, steps: int, tau: tuple[int, int], rng: np.random.Generator) -> Indices:
    """Draw the centres of one training clip, (steps,) int64.

    Candidates start at the first valid centre and are τ frames apart; τ is drawn uniformly from `tau`, ends included.
    The clip is a random run of `steps` candidates. If there are too few, centres are spread over the valid range.
    """
    valid = valid_centers(frames, flow_stack)
    stride_frames = int(rng.integers(tau[0], tau[1] + 1))
    candidates = np.arange(valid.start, valid.stop, stride_frames)
    if len(candidates) < steps:
        return spread_centers(frames, flow_stack, steps)
    start = int(rng.integers(0, len(candidates) - steps + 1))
    return candidates[start : start + steps]


def middle_centers(frames: int, flow_stack: int, steps: int, tau: tuple[int, int]) -> Indices:
    """Return centres around the middle of the video, (steps,) int64, at the middle stride of `tau`.

    If the video is too short for that stride, centres are spread over the valid range.
    """
    valid = valid_centers(frames, flow_stack)
    stride_frames = sum(tau) // 2
    free = len(valid) - 1 - (steps - 1) * stride_frames
    if free < 0:
        return spread_centers(frames, flow_stack, steps)
    return valid[free // 2] + stride_frames * np.arange(steps)


def spread_clips(frames: int, flow_stack: int, steps: int, tau: tuple[int, int], count: int) -> Indices:
    """Return the centres of clips spread evenly over the video, (n,steps) int64, without duplicates: n ≤ `count`.

    The steps of a clip are apart by the middle stride of `tau`; in a video too short for it, by the largest that fits.
    If the least of `tau` does not fit, one clip is spread over the valid range, as in training.
    """
    valid = valid_centers(frames, flow_stack)
    stride_frames, last = sum(tau) // 2, len(valid) - 1
    if steps > 1:
        stride_frames = min(stride_frames, last // (steps - 1))
    if stride_frames < tau[0]:
        return spread_centers(frames, flow_stack, steps)[None]
    starts = np.unique(_evenly(valid[: last - (steps - 1) * stride_frames + 1], count))
    clips: Indices = starts[:, None] + stride_frames * np.arange(steps)
    return clips


@dataclass(frozen=True)
class Crop:
    """A rectangle of the stored frame in px, mirrored or not; the same for all frames and streams of a clip."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False


def border_crop(height: int, width: int, crop_px: int, jitter: float, mirror: bool, rng: np.random.Generator) -> Crop:
    """Draw a crop of random size and aspect near the borders: the appearance and ST-ResNet stages.

    Height and width are drawn independently from crop_px·[1 − jitter, 1 + jitter] (released code: 0.25) and clipped to
    the frame. The offset is in the first or the last quarter of the free range, the same quarter on both axes.
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
    """Draw a crop at one of the four corners or the centre: the motion stage.

    Height and width are drawn independently from {256, 224, 192, 168} for crop_px = 224, in proportion for others.
    """
    sizes = [round(crop_px * size / 224) for size in (256, 224, 192, 168)]
    h, w = (min(int(rng.choice(sizes)), side) for side in (height, width))
    top, left = _corners_and_center(height - h, width - w)[int(rng.integers(5))]
    return Crop(top, left, h, w, mirror and bool(rng.integers(2)))


def corner_and_center_crops(height: int, width: int, crop_px: int) -> Sequence[Crop]:
    """Return the five test crops of crop_px² px: four corners and the centre. Ten-crop testing adds their mirrors."""
    h, w = min(crop_px, height), min(crop_px, width)
    return [Crop(top, left, h, w) for top, left in _corners_and_center(height - h, width - w)]


def _corners_and_center(free_h: int, free_w: int) -> list[tuple[int, int]]:
    """Return the (top, left) of a crop at the four corners and the centre, given the free range in px."""
    return [(0, 0), (0, free_w), (free_h, 0), (free_h, free_w), (free_h // 2, free_w // 2)]


def whole_frame(height: int, width: int, crop_px: int) -> Crop:
    """Return the centred crop of a test frame with sides of at most 2·crop_px (released code: 448)."""
    h, w = min(height, 2 * crop_px), min(width, 2 * crop_px)
    return Crop((height - h) // 2, (width - w) // 2, h, w)


CropRule = Literal["border", "corners"]
