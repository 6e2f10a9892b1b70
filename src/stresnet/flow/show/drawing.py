"""Draw one step of a video: its frame, its flow as colours with a legend, its flow as arrows.

H, W are the sides of the flow. Panels too small to read are enlarged by a whole factor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.flow.show.colors import flow_to_rgb

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

_READABLE_PX = 240  # panels with a shorter side are enlarged
_MAX_ENLARGED_PX = 1920  # longest side of an enlarged panel
_LARGE_PX = 360  # short side above which lines and letters grow with the panel
_ARROWS = 12  # along the short side
_MIN_CELL_PX = 18  # smallest side, in the panel, of a grid cell, which holds one arrow
_GAP_PX = 8
_STRIP_PX = 22
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALES = (0.45, 0.4, 0.35)  # capitals of 10, 9 and 8 px; smaller ones are illegible
_BACKGROUND = (28, 28, 30)
_TEXT = (235, 235, 235)
_ARROW = (255, 235, 59)  # visible on any picture, with a dark edge
_EDGE = (20, 20, 20)
_ARROW_CELLS = 1.1  # length of the longest arrows, in sides of a grid cell
_FRACTION_BITS = 4  # OpenCV draws to 1/16 px


def full_colour_px(speed_px: float) -> float:
    """Return the speed to show in full colour, pixels per frame: a round number, at least 1.

    Args:
        speed_px: a speed that few vectors exceed, such as the 99th percentile; NaN if none is known.
    """
    if not speed_px > 1:  # slower flow is mostly noise, which full colours would show as motion
        return 1.0
    power = 10.0 ** math.floor(math.log10(speed_px))
    return next(step * power for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if step * power >= speed_px)


def enlarge(picture: Picture) -> Picture:
    """Return a picture enlarged by the smallest whole factor that makes it readable, 1 for large ones."""
    zoom = _zoom(*picture.shape[:2])
    return np.ascontiguousarray(picture.repeat(zoom, axis=0).repeat(zoom, axis=1))


def draw_colours(flow: NDArray[np.float32], scale_px: float) -> Picture:
    """Return a flow (2, H, W) as an enlarged picture, with the colour wheel in the lower right corner.

    Args:
        flow: pixels per frame; NaN is drawn black.
        scale_px: speed at the rim of the wheel, pixels per frame.
    """
    picture = enlarge(flow_to_rgb(flow, scale_px))
    height, width = picture.shape[:2]
    legend = _legend(scale_px, max(44, round(0.22 * min(height, width))), _growth(height, width))
    top, left = (side - 6 - box for side, box in zip((height, width), legend.shape, strict=False))
    if min(top, left) >= 0:  # omitted in a panel of a few dozen pixels
        picture[top : height - 6, left : width - 6] = legend
    return picture


def draw_arrows(frame: Picture, flow: NDArray[np.float32], scale_px: float) -> Picture:
    """Return the enlarged frame with an arrow in each cell of a grid, for the mean of the known flow there.

    An arrow starts at the centre of its cell. At speeds of `scale_px` pixels per frame and above it is `arrow_px` long;
    below a tenth of `scale_px` it is omitted.

    Args:
        frame: (H, W, 3).
        flow: (2, H, W), pixels per frame.
        scale_px: speed of the longest arrows, pixels per frame.
    """
    picture = enlarge(frame)
    zoom, cell = _zoom(*frame.shape[:2]), _cell_px(*frame.shape[:2])
    centres, mean = _cell_means(flow, cell)
    speed = np.hypot(*mean)
    shown = speed > 0.1 * scale_px  # False for NaN
    tails = (centres[:, shown] + 0.5) * zoom - 0.5  # the centre of an enlarged pixel
    tips = tails + mean[:, shown] * (_ARROW_CELLS * cell * zoom / np.maximum(speed[shown], scale_px))
    ends = np.rint(np.stack([tails, tips]) * (1 << _FRACTION_BITS)).astype(int).T.tolist()
    thin = round(_growth(*picture.shape[:2]))
    for color, thickness in ((_EDGE, 3 * thin), (_ARROW, thin)):
        for (x0, x1), (y0, y1) in ends:
            cv2.arrowedLine(picture, (x0, y0), (x1, y1), color, thickness, cv2.LINE_AA, _FRACTION_BITS, 0.35)
    return picture


def arrow_px(height: int, width: int) -> int:
    """Return the length of the longest arrows over a frame of this size, in pixels of the enlarged picture."""
    return round(_ARROW_CELLS * _cell_px(height, width) * _zoom(height, width))


def side_by_side(panels: Sequence[Picture], captions: Sequence[str]) -> Picture:
    """Return one picture with panels of equal size side by side, each above its caption, on a dark background.

    A caption too long for its panel is written smaller, and omitted if it still does not fit.
    """
    height, width = panels[0].shape[:2]
    growth = _growth(height, width)
    strip = round(_STRIP_PX * growth)
    across = len(panels) * (width + _GAP_PX) + _GAP_PX
    canvas = np.full((_GAP_PX + height + strip, across, 3), _BACKGROUND, np.uint8)
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = _GAP_PX + index * (width + _GAP_PX)
        canvas[_GAP_PX : _GAP_PX + height, left : left + width] = panel
        _write(canvas, caption, (left, _GAP_PX + height + round(0.7 * strip)), width, growth, _TEXT)
    return canvas


def _zoom(height: int, width: int) -> int:
    """Return the factor by which a frame of this size is enlarged."""
    return max(1, min(math.ceil(_READABLE_PX / min(height, width)), _MAX_ENLARGED_PX // max(height, width)))


def _cell_px(height: int, width: int) -> int:
    """Return the side of a grid cell, in pixels of the frame."""
    side = min(height, width)
    return min(side, max(round(side / _ARROWS), math.ceil(_MIN_CELL_PX / _zoom(height, width))))


def _growth(height: int, width: int) -> float:
    """Return the factor for the size of lines and letters in a panel of this size, at least 1."""
    return max(1.0, min(height, width) / _LARGE_PX)


def _cell_means(flow: NDArray[np.float32], cell: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres (x, y) and the mean vectors (u, v) of a centred grid's cells, each (2, cells)."""
    rows, columns = (side // cell for side in flow.shape[1:])
    top, left = ((side - cell * count) // 2 for side, count in zip(flow.shape[1:], (rows, columns), strict=True))
    grid = flow[:, top : top + rows * cell, left : left + columns * cell].reshape(2, rows, cell, columns, cell)
    known = ~np.isnan(grid).any(axis=0)
    count = known.sum(axis=(1, 3))
    total = np.where(known, grid, 0).sum(axis=(2, 4), dtype=np.float64)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    y, x = np.mgrid[:rows, :columns] * cell + (cell - 1) / 2
    return np.stack([x + left, y + top]).reshape(2, -1), mean.reshape(2, -1)


def _legend(scale_px: float, side: int, growth: float) -> Picture:
    """Return the colour wheel, `side` pixels wide, in a white box above the speed at its rim."""
    text, rim = f"{scale_px:g} px/frame", round(6 * growth)
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, _FONT_SCALES[0] * growth, round(growth))
    box = np.full((side + text_height + 3 * rim, max(side, text_width) + 2 * rim, 3), 255, np.uint8)
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32((side - 1) / 2)
    wheel, inside = flow_to_rgb(np.stack([x, y]), side / 2), np.hypot(x, y) <= side / 2
    left = (box.shape[1] - side) // 2
    box[rim : rim + side, left : left + side][inside] = wheel[inside]
    base = side + 2 * rim + text_height
    _write(box, text, ((box.shape[1] - text_width) // 2, base), text_width, growth, _EDGE)
    cv2.rectangle(box, (0, 0), (box.shape[1] - 1, box.shape[0] - 1), (120, 120, 120), 1)
    return box


def _write(
    picture: Picture, text: str, at: tuple[int, int], room_px: int, growth: float, color: tuple[int, int, int]
) -> None:
    """Draw a text at the left end of its baseline, `at` (x, y), in the largest size that fits."""
    for scale in (growth * step for step in _FONT_SCALES):
        if cv2.getTextSize(text, _FONT, scale, round(growth))[0][0] <= room_px:
            cv2.putText(picture, text, at, _FONT, scale, color, round(growth), cv2.LINE_AA)
            return
