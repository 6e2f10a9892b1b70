"""The flow of just the steps that are asked for, computed from frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stresnet.flow.codec import quantize_flow
from stresnet.flow.estimate import iter_flow
from stresnet.flow.spec import FlowSpec


def fill_steps(
    levels: NDArray[np.uint8], steps: NDArray[np.int64], frame: Callable[[int], NDArray[np.uint8]], spec: FlowSpec
) -> None:
    """Fills ``levels`` with the quantised flow of some steps, as prepared clips hold it.

    Two frames are held at a time, or as many as the method takes at once; each is asked for once, however many steps
    share it.

    Args:
        levels: (n,2,H,W), to be filled.
        steps: (n,), distinct and ascending; step ``i`` takes frame ``i`` to ``i + 1``.
        frame: gives frame ``i``, (H,W,3) uint8 RGB.
        spec: which flow.
    """
    gaps = np.flatnonzero(np.diff(steps) > 1) + 1
    for part, run in zip(np.split(levels, gaps), np.split(steps, gaps), strict=True):
        if run.size:
            frames = map(frame, range(int(run[0]), int(run[-1]) + 2))
            for level, field in zip(part, iter_flow(frames, spec), strict=True):
                level[:] = quantize_flow(field, spec.bound_px)
