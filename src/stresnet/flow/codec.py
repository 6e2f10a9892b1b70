"""Quantise flow to bytes and back, and mirror it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError


def quantize_flow(flow_px: NDArray[np.float32], bound_px: float) -> NDArray[np.uint8]:
    """Return flow as levels 0 to 255: clipped to ± the bound, then round(255 (v + bound) / (2 bound)).

    As in the released code. Halves round up, so that zero flow is level 128.

    Args:
        flow_px: any shape, pixels per frame.
        bound_px: above 0; 20 in the released code.

    Raises:
        FlowSpecError: some of the flow is NaN, for which there is no level.
    """
    levels = np.clip(flow_px, -bound_px, bound_px)
    levels += bound_px
    levels *= 255.0 / (2.0 * bound_px)
    levels += 0.5
    if np.isnan(levels.sum()):  # clipped values are finite or NaN; one sum is faster than testing each
        unknown = int(np.isnan(levels).sum())
        raise FlowSpecError(f"flow to be stored must not be NaN, found {unknown} NaN; leave such fields out")
    return levels.astype(np.uint8)  # truncation of a positive number is its floor


def dequantize_flow(levels: NDArray[np.uint8], bound_px: float) -> NDArray[np.float32]:
    """Return flow in pixels per frame, float32, from levels 0 to 255: level 2 bound / 255 - bound.

    Within the bound, the error of a round trip is at most bound / 255. Level 128 reads as +bound / 255.
    """
    return levels.astype(np.float32) * np.float32(2.0 * bound_px / 255.0) - np.float32(bound_px)


def mirror_flow(flow: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the flow of the mirrored video, (..., 2, H, W): flipped left to right, u negated.

    Mirroring twice restores the same bits. The released code mirrors bytes as 255 - u, which is off by one level, as
    128 stands for zero flow; here pixels are mirrored.
    """
    mirrored = flow[..., ::-1].copy()
    np.negative(mirrored[..., 0, :, :], out=mirrored[..., 0, :, :])
    return mirrored


def clipped_share(flow_px: NDArray[np.float32], bound_px: float) -> float:
    """Return the share (0 to 1) of vectors of a flow (..., 2, H, W) with a component beyond ± the bound."""
    return float((np.abs(flow_px) > bound_px).any(axis=-3).mean())
