"""Draw flow as colours: direction as hue, speed as saturation, on the colour wheel of the Middlebury benchmark."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# The Middlebury wheel (Baker et al. 2011): steps from red to yellow, green, cyan, blue, magenta and back to red.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))
_DIRECTIONS = 1 << 14  # neighbours then differ by at most a fifth of a level, between green and cyan


def flow_to_rgb(flow: NDArray[np.float32], max_px: float) -> NDArray[np.uint8]:
    """Return a picture of a flow, (H, W, 3) uint8: hue is direction, saturation is speed, white is no motion.

    As in the Middlebury benchmark, rightward motion is red, downward yellow, leftward cyan-blue, upward violet. Unknown
    flow (NaN in a component) is black.

    Args:
        flow: (2, H, W), pixels per frame.
        max_px: speed shown fully saturated, above 0; higher speeds have the same colour.

    Raises:
        ValueError: the flow has another shape, or `max_px` is not above 0.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"expected a flow (2,H,W), found {flow.shape}")
    if not max_px > 0:
        raise ValueError(f"max_px must be above 0, found {max_px}")
    u, v = flow.astype(np.float32, copy=False)
    unknown = np.isnan(u) | np.isnan(v)
    if unknown.any():
        u, v = np.where(unknown, 0, u), np.where(unknown, 0, v)
    saturation = np.minimum(np.hypot(u, v) / np.float32(max_px), 1)
    turn = np.arctan2(v, u) * np.float32(_DIRECTIONS / (2 * np.pi))
    picture = _complements()[np.rint(turn).astype(np.int32) % _DIRECTIONS]
    picture *= -saturation[..., None]
    picture += 255.5  # the conversion to uint8 truncates; the half makes it round
    picture[unknown] = 0
    return np.asarray(picture, np.uint8)


@cache
def _complements() -> NDArray[np.float32]:
    """Return white minus the full colour of each direction, (directions, 3), ordered right, down, left, up."""
    # This wheel is closed. Middlebury's code ends one of its 55 steps early, so that its last red jumps and its hues
    # are off by up to 1/55 turn.
    corners_at = np.cumsum((0, *_STEPS)) / sum(_STEPS)
    turn = np.arange(_DIRECTIONS) / _DIRECTIONS
    hue = [np.interp(turn, corners_at, channel) for channel in zip(*_CORNERS, strict=True)]
    return (255 - np.stack(hue, axis=-1)).astype(np.float32)
