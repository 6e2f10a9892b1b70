"""Flow made visible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The Middlebury wheel (Baker et al. 2011): steps from red over yellow, green, cyan, blue, magenta back to red.
_STEPS = (15, 6, 4, 11, 13, 6)
_CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))


def flow_to_rgb(flow: NDArray[np.float32], max_px: float) -> NDArray[np.uint8]:
    """Returns a picture of a flow, (H, W, 3) uint8: hue is direction, saturation is speed, white is rest.

    Rightward motion is red, leftward cyan-blue, as in the Middlebury benchmark.

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
    u, v = flow
    saturation = np.minimum(np.hypot(u, v) / max_px, 1.0)[..., None]
    turn = np.arctan2(v, u) / (2 * np.pi) % 1.0  # 0 right, 1/4 down, 1/2 left, 3/4 up
    corners_at = np.cumsum((0, *_STEPS)) / sum(_STEPS)
    hue = np.stack([np.interp(turn, corners_at, channel) for channel in zip(*_CORNERS, strict=True)], axis=-1)
    return np.asarray(np.rint(255 - saturation * (255 - hue)), dtype=np.uint8)
