"""Initial weights: random filters, and temporal taps that start from image filters or as identities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stresnet.model.config import Architecture, TemporalInit
from stresnet.model.layers import TemporalConv

TAPS: dict[TemporalInit, tuple[int, int, int]] = {
    "identity": (0, 1, 0),
    "average": (1, 1, 1),
    "difference": (-1, 3, -1),
}
"""Relative weights of the steps t − 1, t and t + 1 (paper: average; released ST-MulNet has all three)."""


def initialize(model: nn.Module, config: Architecture) -> None:
    """Draw random weights: He-normal filters, inflated ones included, and a classifier from N(0, 0.01).

    Injected temporal convolutions are not random: each channel reads only itself.

    Args:
        model: the network to fill.
        config: its description, which says how temporal convolutions start.
    """
    for module in model.modules():
        if isinstance(module, TemporalConv) and module.bias is not None:
            identity = torch.eye(len(module.bias))[:, :, None, None]
            module.weight.data.copy_(inflate(identity, config.temporal_init))
            nn.init.zeros_(module.bias)
        elif isinstance(module, TemporalConv):
            out, inputs = module.weight.shape[:2]
            image = torch.empty(out, inputs, 1, 1)
            nn.init.kaiming_normal_(image, mode="fan_out", nonlinearity="relu")
            module.weight.data.copy_(inflate(image, config.inflate_init))
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def inflate(image_weight: Tensor, start: TemporalInit) -> Tensor:
    """Return a temporal filter (O,I,3,1) whose taps are an image filter (O,I,1,1) in the proportions of `TAPS`.

    The taps sum to the image filter: away from a clip's ends, identical frames are filtered as by that (paper).
    """
    taps = TAPS[start]
    return torch.cat([image_weight * tap / sum(taps) for tap in taps], dim=2)


class without_drawing(TorchFunctionMode):  # noqa: N801
    """Leave random weights undefined, in networks that are filled from a file or on the meta device.

    Drawing them takes longer than reading them.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_DRAWS = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
