"""Convert parameter values of a DagNN to entries of a state dict.

filter   (h,w,in,out)   → (out,in,h,w)
time     (1,T,in,out)   → (out,in,T,1), in the same order of time
linear   (1,1,in,out)   → (out,in)
vector   (C,1)          → (C,)
scale    (1,1,C)        → (C,1,1)
moments  (C,2), mean and σ = √(variance + ε)  → running_mean (C,) and running_var (C,)
zero     must be zero, because the model has no such parameter
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresnet.errors import CheckpointError
from stresnet.weights.matconvnet.graph import Weight

EPSILON = 1e-5
"""Added to the variance by batch norm; a file's σ includes it."""

SMALLEST_SIGMA = 0.002
"""Below this, a float32 variance − ε no longer gives the same σ. A dead channel has √ε, 0.0032."""

_AXES: dict[str, tuple[int, ...]] = {"filter": (3, 2, 0, 1), "time": (3, 2, 1, 0)}


def fits(weight: Weight, value: NDArray[np.generic]) -> bool:
    """Return whether a value has the shape of a parameter, up to trailing axes of length 1 and rows for columns."""
    shape, found = weight.shape, trimmed(value.shape)
    if weight.kind == "zero":  # or one number for all channels
        return value.size in (1, math.prod(shape))
    return found == trimmed(shape) or (shape[1:] == (1,) and found in ((1, shape[0]), (1, 1, shape[0])))


def trimmed(shape: Sequence[float]) -> tuple[float, ...]:
    """Return a shape without trailing axes of length 1, which MATLAB drops."""
    kept = list(shape)
    while kept and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


def decode(weight: Weight, value: NDArray[np.generic]) -> dict[str, Tensor]:
    """Return the state-dict entries of a parameter, float32 and contiguous.

    Raises:
        CheckpointError: its value cannot be represented in the model.
    """
    with np.errstate(over="ignore"):
        single = value.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise CheckpointError(f"parameter {weight.name} has NaN or infinite values: training diverged")
    if weight.kind == "zero":
        if value.any():
            raise CheckpointError(f"the bias {weight.name} of a link's scale is not zero: links have no bias")
        return {}
    shaped = single.reshape(weight.shape, order="F")
    if weight.kind == "moments":
        sigma = value[:, 1].astype(np.float64)
        if (sigma < SMALLEST_SIGMA).any():
            raise CheckpointError(
                f"{weight.name} has a σ of {sigma.min():g}: expected at least {SMALLEST_SIGMA}, as batch norm adds "
                f"{EPSILON:g} to the variance"
            )
        mean_key, variance_key = weight.keys
        return {mean_key: tensor_of(shaped[:, 0]), variance_key: tensor_of(sigma**2 - EPSILON)}
    if weight.kind in _AXES:
        return {weight.keys[0]: tensor_of(shaped.transpose(_AXES[weight.kind]))}
    if weight.kind == "linear":
        return {weight.keys[0]: tensor_of(shaped[0, 0].T)}
    if weight.kind == "scale":
        return {weight.keys[0]: tensor_of(shaped[0, 0, :, None, None])}
    return {weight.keys[0]: tensor_of(shaped[:, 0])}


def tensor_of(array: NDArray[np.generic]) -> Tensor:
    """Return a float32 copy; values may be views of the file."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
