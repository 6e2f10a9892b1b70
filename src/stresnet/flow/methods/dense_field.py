"""Dense flow from sparse motion vectors: paint blocks on a grid, fill its holes, smooth and interpolate."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def dense_field(
    vectors: NDArray[np.void], height: int, width: int, *, cell_px: int, smoothing_cells: float
) -> NDArray[np.float32]:
    """Return the flow field (2, H, W) float32, in pixels per frame, of a frame's motion vectors.

    Blocks are painted at their places in the earlier frame, later ones over earlier ones. Cells that no block covers
    take the mean of their neighbours.

    Args:
        vectors: (n,) MOTION_VECTOR, n at least 1, in pixels of the frame.
        height: H.
        width: W.
        cell_px: side of a grid cell, pixels.
        smoothing_cells: standard deviation of the Gaussian that smooths the grid, in cells.
    """
    grid = _fill(_paint(vectors, -(-height // cell_px), -(-width // cell_px), cell_px))
    smooth = cv2.GaussianBlur(grid, (0, 0), smoothing_cells)
    whole_cells = grid.shape[1] * cell_px, grid.shape[0] * cell_px  # the last ones may exceed the frame
    field = np.empty((2, height, width), np.float32)
    for component, plane in zip(field, cv2.split(smooth), strict=True):
        component[:] = cv2.resize(plane, whole_cells, interpolation=cv2.INTER_LINEAR)[:height, :width]
    return field


def _paint(vectors: NDArray[np.void], rows: int, columns: int, cell_px: int) -> NDArray[np.float32]:
    """Return a grid (rows, columns, 2) of u and v, NaN where no block covers the centre of a cell."""
    starts, sides = [], []
    for at, side, count in (("y", "height", rows), ("x", "width", columns)):
        edges = [(vectors[at] + sign * vectors[side] / 2) / cell_px - 0.5 for sign in (-1, 1)]
        first, end = (np.ceil(edge).clip(0, count).astype(np.int64) for edge in edges)
        starts.append(first)
        sides.append(end - first)
    cells = sides[0] * sides[1]
    block = np.repeat(np.arange(len(vectors)), cells)
    within = np.arange(len(block)) - np.repeat(np.cumsum(cells) - cells, cells)
    down, right = np.divmod(within, sides[1][block])
    grid = np.full((rows, columns, 2), np.nan, np.float32)
    where = starts[0][block] + down, starts[1][block] + right
    for channel, name in enumerate("uv"):
        grid[(*where, channel)] = vectors[name][block]  # where blocks overlap, the last one wins
    return grid


def _fill(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the grid with each NaN replaced by the mean of its known neighbours, from the edges inwards."""
    hole = np.isnan(grid[..., 0])
    if hole.all():
        return np.zeros_like(grid)  # every block has left the frame
    known = (~hole).astype(np.float32)
    grid = np.where(hole[..., None], np.float32(0), grid)
    while hole.any():
        share = cv2.blur(known, (3, 3), borderType=cv2.BORDER_CONSTANT)
        mean = cv2.blur(grid, (3, 3), borderType=cv2.BORDER_CONSTANT) / np.maximum(share, 1e-6)[..., None]
        edge = hole & (share > 0.05)  # one neighbour adds 1/9; anything less is rounding
        grid[edge], known[edge] = mean[edge], 1
        hole &= ~edge
    return grid
