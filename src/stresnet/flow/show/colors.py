"""Flow made visible: direction as hue, speed as saturation, on the wheel of the Middlebury benchmark."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

# The Middlebury wheel (Baker et al. 2011): steps from red over yellow, green, cyan, blue, magenta back to red.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))
_DIRECTIONS = 1 << 14  # the steepest stretch, green to cyan, then changes by a fifth of a level from one to the next


def flow_to_rgb(flow: NDArray[np.float32], max_px: float) -> NDArray[np.uint8]:
    """Returns a picture of a flow, (H, W, 3) uint8: hue is direction, saturation is speed, white is rest.

    Rightward motion is red, downward yellow, leftward cyan-blue, upward violet, as in the Middlebury benchmark. Black
    is where the flow is unknown (NaN in a component).

    Args:
        flow: (2, H, W), pixels per frame.
        max_px: the speed that is shown fully saturated, above 0; faster is shown the same.

    Raises:
        ValueError: a flow of another shape, or `max_px` not above 0.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"a flow (2,H,W) is expected, found {flow.shape}")
    if not max_px > 0:
        raise ValueError(f"max_px must be above 0, found {max_px}")
    u, v = flow.astype(np.float32, copy=False)
    unknown = np.isnan(u) | np.isnan(v)
    if unknown.any():
        u, v = np.where(unknown, 0, u), np.where(unknown, 0, v)
    saturation = np.minimum(np.hypot(u, v) / np.float32(max_px), 1)
    turn = np.arctan2(v, u) * np.float32(_DIRECTIONS / (2 * np.pi))
    picture = _missing_light()[np.rint(turn).astype(np.int32) % _DIRECTIONS]
    picture *= -saturation[..., None]
    picture += 255.5  # a half more, for the cut to whole levels to round
    picture[unknown] = 0
    return np.asarray(picture, np.uint8)


@cache
def _missing_light() -> NDArray[np.float32]:
    """Returns what each direction's full colour lacks of white, (directions, 3), from right over down, left and up."""
    # The wheel closes here. Middlebury's own code stops one step of the 55 short of it, so that its last red jumps,
    # and its hues lie up to 1/55 turn further on.
    corners_at = np.cumsum((0, *_STEPS)) / sum(_STEPS)
    turn = np.arange(_DIRECTIONS) / _DIRECTIONS
    hue = [np.interp(turn, corners_at, channel) for channel in zip(*_CORNERS, strict=True)]
    return (255 - np.stack(hue, axis=-1)).astype(np.float32)
