"""Flow fields from a codec's motion vectors: as good as free, since the file holds them already.

An encoder looks for what is cheap to code, not for motion: on plain surfaces its vectors wander. One vector stands for
8 to 16 pixels, and what was coded without reference (new content, key frames) has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError
from stresnet.flow.spec import PARAMETERS
from stresnet.media.video import Frame


def fields_from_vectors(frames: Iterable[Frame]) -> Iterator[NDArray[np.float32]]:
    """Yields the flow from each frame to the next, (2, H, W) float32, of the frames' size; one fewer than frames.

    A frame without any vector, such as a key frame, gets the field before again; the first field is zero then.

    Args:
        frames: of ``iter_frames(path, motion_vectors=True)``, one size.

    Raises:
        FlowSpecError: frames that were read without motion vectors.
    """
    field = np.empty(0, np.float32)
    for index, frame in enumerate(frames):
        if frame.motion_vectors is None:
            raise FlowSpecError(
                f"flow mv needs frames with motion vectors, found none at frame {index}; "
                "read them with iter_frames(path, motion_vectors=True)"
            )
        height, width = frame.rgb.shape[:2]
        if index == 0:
            field = np.zeros((2, height, width), np.float32)
            continue
        fresh = len(frame.motion_vectors) > 0
        field = dense_field(frame.motion_vectors, height, width) if fresh else field.copy()
        yield field


def dense_field(vectors: NDArray[np.void], height: int, width: int) -> NDArray[np.float32]:
    """Returns the flow field (2, H, W), pixels per frame, that motion vectors tell of.

    Blocks are painted on a grid where they are in the earlier frame, later ones over earlier ones; cells that none
    covers take the mean of their neighbours; the grid is smoothed and interpolated.

    Args:
        vectors: (n,) MOTION_VECTOR, at least one; in pixels of a picture of this size.
        height: H.
        width: W.
    """
    parameters = PARAMETERS["mv", "default"]
    cell = int(parameters["cell_px"])
    grid = _fill(_paint(vectors, -(-height // cell), -(-width // cell), cell))
    smooth = cv2.GaussianBlur(grid, (0, 0), float(parameters["smoothing_cells"]))
    whole_cells = grid.shape[1] * cell, grid.shape[0] * cell  # the last ones may reach beyond the picture
    field = np.empty((2, height, width), np.float32)
    for component, plane in zip(field, cv2.split(smooth), strict=True):
        component[:] = cv2.resize(plane, whole_cells, interpolation=cv2.INTER_LINEAR)[:height, :width]
    return field


def _paint(vectors: NDArray[np.void], rows: int, columns: int, cell: int) -> NDArray[np.float32]:
    """Returns a grid (rows, columns, 2) of u and v; NaN where the centre of a cell is in no block."""
    starts, sides = [], []
    for at, side, count in (("y", "height", rows), ("x", "width", columns)):
        edges = [(vectors[at] + sign * vectors[side] / 2) / cell - 0.5 for sign in (-1, 1)]
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
        grid[(*where, channel)] = vectors[name][block]  # where blocks overlap, the last one stays
    return grid


def _fill(grid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the grid with each NaN replaced by the mean of the known ones around it, from the edges inwards."""
    hole = np.isnan(grid[..., 0])
    if hole.all():
        return np.zeros_like(grid)  # every block has left the picture
    known = (~hole).astype(np.float32)
    grid = np.where(hole[..., None], np.float32(0), grid)
    while hole.any():
        share = cv2.blur(known, (3, 3), borderType=cv2.BORDER_CONSTANT)
        mean = cv2.blur(grid, (3, 3), borderType=cv2.BORDER_CONSTANT) / np.maximum(share, 1e-6)[..., None]
        edge = hole & (share > 0.05)  # a ninth, or nothing but rounding
        grid[edge], known[edge] = mean[edge], 1
        hole &= ~edge
    return grid
