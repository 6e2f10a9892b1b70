"""Statistics of a flow's speeds, accumulated field by field."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stresnet.flow.codec import clipped_share

TOO_MUCH_CLIPPED = 0.05
"""Share of clipped vectors above which the user is advised to change the bound or the size."""

_BINS_PER_PX = 256
_BINS = 1024 * _BINS_PER_PX  # higher speeds count as 1024 px per frame, about the width of a video


def clipping_note(name: str, share: float, bound_px: float) -> str | None:
    """Return one line of advice if too much of a video's flow is clipped, else None.

    Args:
        name: the video's name, for the line.
        share: share of its vectors that are clipped, 0 to 1, see `clipped_share`.
        bound_px: components beyond ± this many pixels per frame are clipped.
    """
    if share <= TOO_MUCH_CLIPPED:
        return None
    return (
        f"{name}: {100 * share:.1f} % of the flow is clipped at ±{bound_px:g} px/frame; "
        f"use a larger --bound or a smaller --short-side"
    )


@dataclass
class FlowStatistics:
    """Statistics of a flow's speeds, in constant memory. Unknown vectors (NaN) have no speed.

    Attributes:
        bound_px: components beyond ± this many pixels per frame count as clipped.
        steps: number of fields so far.
        vectors: number of vectors so far, known or not.
        largest_step: index of the field with the largest mean speed, the first of several; -1 if no vector is known.
    """

    bound_px: float
    steps: int = 0
    vectors: int = 0
    largest_step: int = -1
    _largest_px: float = -1.0
    _unknown: int = 0
    _clipped: float = 0.0
    _sum_px: float = 0.0
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64), repr=False)

    def add(self, flow: NDArray[np.float32]) -> bool:
        """Add a field, (2, H, W) in pixels per frame; return whether it has the largest mean speed so far."""
        speed = np.hypot(*flow)
        known = speed[~np.isnan(speed)]
        self._unknown += speed.size - known.size
        self._clipped += clipped_share(flow, self.bound_px) * speed.size
        self._sum_px += float(known.sum(dtype=np.float64))
        bins = np.minimum(known * _BINS_PER_PX, _BINS - 1).astype(np.int64)
        self._counts += np.bincount(bins, minlength=_BINS)
        self.vectors += speed.size
        self.steps += 1
        mean_px = float(known.mean(dtype=np.float64)) if known.size else -1.0
        if mean_px <= self._largest_px:
            return False
        self.largest_step, self._largest_px = self.steps - 1, mean_px
        return True

    @property
    def mean_px(self) -> float:
        """Mean speed, pixels per frame; NaN if no vector is known."""
        known = self.vectors - self._unknown
        return self._sum_px / known if known else math.nan

    def percentile_px(self, percent: float) -> float:
        """Return the speed, pixels per frame, that `percent` of the vectors do not exceed; NaN if none is known.

        Exact to 1/256 px; speeds beyond 1024 px per frame count as 1024.
        """
        known = self.vectors - self._unknown
        if not known:
            return math.nan
        # The sorted speed at index p (n - 1) / 100, as in NumPy's percentile, but without interpolation.
        rank = math.floor(percent / 100 * (known - 1))
        return int(np.searchsorted(np.cumsum(self._counts), rank, side="right")) / _BINS_PER_PX

    @property
    def clipped_share(self) -> float:
        """Share of vectors with a component beyond the bound, 0 to 1."""
        return self._clipped / self.vectors if self.vectors else 0.0

    @property
    def unknown_share(self) -> float:
        """Share of vectors with a NaN component, 0 to 1."""
        return self._unknown / self.vectors if self.vectors else 0.0
