"""Flow as bytes, and flow in the mirror."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError


def quantize_flow(flow_px: NDArray[np.float32], bound_px: float) -> NDArray[np.uint8]:
    """Returns flow as levels 0 to 255: clipped to ± the bound, then round(255 (v + bound) / (2 bound)).

    As in the released code. Halves round up, so that no motion is level 128.

    Args:
        flow_px: any shape, pixels per frame.
        bound_px: above 0; 20 in the released code.

    Raises:
        FlowSpecError: some of the flow is NaN, which no level stands for.
    """
    levels = np.clip(flow_px, -bound_px, bound_px)
    levels += bound_px
    levels *= 255.0 / (2.0 * bound_px)
    levels += 0.5
    if np.isnan(levels.sum()):  # of finite numbers: faster than asking each
        unknown = int(np.isnan(levels).sum())
        raise FlowSpecError(f"flow to be stored must be known everywhere, found {unknown} NaN; leave such fields out")
    return levels.astype(np.uint8)  # truncation of a positive number is its floor


def dequantize_flow(levels: NDArray[np.uint8], bound_px: float) -> NDArray[np.float32]:
    """Returns flow in pixels per frame, float32, from levels 0 to 255: level 2 bound / 255 - bound.

    Off by at most bound / 255 from what was quantised, inside the bound; level 128 stands for +bound / 255.
    """
    return levels.astype(np.float32) * np.float32(2.0 * bound_px / 255.0) - np.float32(bound_px)


def mirror_flow(flow: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Returns the flow of the mirrored video, (..., 2, H, W): flipped left to right, u negated.

    Exact: done twice, it gives the same bits. (On bytes the released code takes 255 - u, which is off by one
    level where 128 stands for rest; here flow is mirrored in pixels.)
    """
    mirrored = flow[..., ::-1].copy()
    np.negative(mirrored[..., 0, :, :], out=mirrored[..., 0, :, :])
    return mirrored


def clipped_share(flow_px: NDArray[np.float32], bound_px: float) -> float:
    """Returns the share (0 to 1) of vectors of a flow (..., 2, H, W) with a component beyond ± the bound."""
    return float((np.abs(flow_px) > bound_px).any(axis=-3).mean())
