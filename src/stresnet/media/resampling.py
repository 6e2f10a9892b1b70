"""Resample videos by time: at each multiple of 1/fps seconds since the first frame, show the nearest frame.

Frames are left out or repeated, never mixed, so each is a picture that the camera took. Their times may be irregular.
Midway between two frames, the earlier one is shown. Nothing is shown after the time of the last frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Picture = TypeVar("Picture")

_SAME_SEC = 6e-4
"""Times that differ by less are the same: Matroska rounds them to milliseconds."""


def nearest(times_sec: NDArray[np.float64], fps: float) -> NDArray[np.int64]:
    """Return the frames that are shown at 0, 1/fps, 2/fps, … seconds, as indices, ascending.

    Args:
        times_sec: (T,), the times of the frames, strictly increasing from 0.
        fps: frames per second.
    """
    last_sec = np.append((times_sec[:-1] + times_sec[1:]) / 2, times_sec[-1:])
    shown_until = np.floor((last_sec + _SAME_SEC) * fps).astype(np.int64) + 1
    return np.repeat(np.arange(len(times_sec)), np.diff(shown_until, prepend=0))


def resampled(pictures: Iterable[tuple[Picture, float]], fps: float | None) -> Iterator[tuple[Picture, list[float]]]:
    """Yield each picture with the times at which it is shown, which may be none; the same choice as by `nearest`.

    Args:
        pictures: pictures and their times, as in `nearest`. One is read ahead.
        fps: frames per second; None to show each picture once, at its own time.
    """
    if fps is None:
        for picture, time_sec in pictures:
            yield picture, [time_sec]
        return
    shown = 0
    for now, following in pairwise(chain(pictures, [None])):
        assert now is not None
        picture, time_sec = now
        last_sec = time_sec if following is None else (time_sec + following[1]) / 2
        shown_until = int((last_sec + _SAME_SEC) * fps) + 1
        yield picture, [k / fps for k in range(shown, shown_until)]
        shown = shown_until
