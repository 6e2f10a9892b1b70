"""Retry with fewer pairs of frames when GPU memory runs out."""

from __future__ import annotations

import warnings

import torch

from stresnet.errors import FlowSpecError


def halve_pairs(pairs: int, method: str, size: str, error: Exception) -> int:
    """Return half the number of pairs that did not fit into memory, and warn.

    Args:
        pairs: how many did not fit.
        method: the method's name.
        size: size of the frames, such as 340x256.
        error: the out-of-memory error.

    Raises:
        FlowSpecError: a single pair did not fit.
    """
    if pairs == 1:
        raise FlowSpecError(
            f"{method} flow needs more GPU memory than is free for one pair of {size} frames; free some memory, or "
            "use smaller frames"
        ) from error
    warnings.warn(
        f"{method} flow: not enough memory for {pairs} pairs of {size} frames at once; continuing with {pairs // 2}",
        RuntimeWarning,
        stacklevel=3,
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return pairs // 2
