"""Initial weights: random filters, and temporal taps that start from image filters or as identities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stresnet.model.layers import TemporalConv

TEMPORAL_INIT = {"identity": (0.0, 1.0, 0.0), "average": (1 / 3, 1 / 3, 1 / 3), "difference": (-1.0, 3.0, -1.0)}
"""The taps with which each channel of an injected convolution reads itself (released ST-MulNet)."""


def initialize(model: nn.Module, temporal_init: str) -> None:
    """Draw random weights: He-normal filters, taps of one third each, and a classifier from N(0, 0.01).

    Injected temporal convolutions are not random: each channel reads only itself.

    Args:
        model: the network to fill.
        temporal_init: the taps of injected convolutions, a key of `TEMPORAL_INIT`.
    """
    for module in model.modules():
        if isinstance(module, TemporalConv) and module.bias is not None:
            taps = torch.tensor(TEMPORAL_INIT[temporal_init])[:, None]  # (3,1)
            module.weight.data.copy_(torch.eye(len(module.bias))[:, :, None, None] * taps)
            nn.init.zeros_(module.bias)
        elif isinstance(module, TemporalConv):
            out, inputs = module.weight.shape[:2]
            image = torch.empty(out, inputs, 1, 1)
            nn.init.kaiming_normal_(image, mode="fan_out", nonlinearity="relu")
            module.weight.data.copy_(average_taps(image))
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def average_taps(image_weight: Tensor) -> Tensor:
    """Return a temporal filter (O,I,3,1) whose taps are each a third of an image filter (O,I,1,1).

    A clip of identical frames is filtered as the image filter would, away from its ends (paper).
    """
    return (image_weight / 3).expand(-1, -1, 3, -1).contiguous()
