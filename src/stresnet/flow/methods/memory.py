"""Fewer pairs at once, where the memory of a GPU does not suffice."""

from __future__ import annotations

import warnings

import torch

from stresnet.errors import FlowSpecError


def halved(pairs: int, method: str, size: str, error: Exception) -> int:
    """Returns half as many pairs as were too many, with a warning.

    Args:
        pairs: how many did not fit.
        method: the method's name.
        size: of the frames, such as 340x256.
        error: what came of it.

    Raises:
        FlowSpecError: it was one pair.
    """
    if pairs == 1:
        raise FlowSpecError(
            f"{method} flow needs more memory than is free, for one pair of {size} frames; free some, or shrink the "
            "frames"
        ) from error
    warnings.warn(
        f"{method} flow: not enough memory for {pairs} pairs of {size} frames at once; going on with {pairs // 2}",
        RuntimeWarning,
        stacklevel=3,
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return pairs // 2
