"""The values of parameters: from the shapes and meanings of a DagNN to those of a state dict, and back.

filter   (h,w,in,out)   ↔ (out,in,h,w)
time     (1,T,in,out)   ↔ (out,in,T,1), in the same order of time
linear   (1,1,in,out)   ↔ (out,in)
vector   (C,1)          ↔ (C,)
scale    (1,1,C)        ↔ (C,1,1)
moments  (C,2), mean and σ = √(variance + ε)  ↔ running_mean (C,) and running_var (C,)
zero     nothing here has it, so it must be zero
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
"""What batch norm adds to the variance; a file's σ has it in already."""

SMALLEST_SIGMA = 0.002
"""Below it, a float32 variance less ε no longer gives the same σ back. √ε, 0.0032, is what a dead channel has."""

_AXES: dict[str, tuple[int, ...]] = {"filter": (3, 2, 0, 1), "time": (3, 2, 1, 0)}


def fits(weight: Weight, value: NDArray[np.generic]) -> bool:
    """Whether a file's value has the shape of a parameter, but for trailing axes of length 1 and rows for columns."""
    shape, found = weight.shape, trimmed(value.shape)
    if weight.kind == "zero":  # one number for all channels adds as little
        return value.size in (1, math.prod(shape))
    return found == trimmed(shape) or (shape[1:] == (1,) and found in ((1, shape[0]), (1, 1, shape[0])))


def trimmed(shape: Sequence[float]) -> tuple[float, ...]:
    """A shape without the trailing axes of length 1 that MATLAB does not keep."""
    kept = list(shape)
    while kept and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


def decode(weight: Weight, value: NDArray[np.generic]) -> dict[str, Tensor]:
    """The entries of the state dict that a file's value of this parameter gives, float32 and contiguous.

    Raises:
        CheckpointError: if it holds numbers that the network cannot take.
    """
    with np.errstate(over="ignore"):
        single = value.astype(np.float32, copy=False)
    if not np.isfinite(single).all():
        raise CheckpointError(f"parameter {weight.name} holds infinities or no numbers (NaN): the net has diverged")
    if weight.kind == "zero":
        if value.any():
            raise CheckpointError(f"the bias {weight.name} of a link's scale is not zero, and links have no bias here")
        return {}
    shaped = single.reshape(weight.shape, order="F")
    if weight.kind == "moments":
        sigma = value[:, 1].astype(np.float64)
        if (sigma < SMALLEST_SIGMA).any():
            raise CheckpointError(
                f"{weight.name} holds a σ of {sigma.min():g}, and none below {SMALLEST_SIGMA} can be kept: batch norm "
                f"adds {EPSILON:g} to the variance"
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
    """A float32 copy: a file's values may be views of the file."""
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
