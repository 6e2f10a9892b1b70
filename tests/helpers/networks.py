"""Small networks, and the one line that a failed operation on weights ends with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from helpers.torchvision_names import BASE, Weights
from stresnet.errors import CheckpointError
from stresnet.model import STResNet, STResNetConfig


def network(**changes: object) -> STResNet:
    torch.manual_seed(0)
    return STResNet(STResNetConfig(**{"num_classes": 5, "depth": 26, "width": BASE / 64, "flow_stack": 2, **changes}))


def single(stream: str, **changes: object) -> STResNet:
    return network(**{"streams": (stream,), "link": None, "temporal": None, **changes})


def calibrated(net: STResNet) -> STResNet:
    """Give batch norm random parameters, and the moments of a random clip; return the network to evaluate."""
    config = net.config
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    with torch.no_grad():
        net.train()(torch.randn(2, 3, 5, 48, 64), torch.randn(2, 2 * config.flow_stack, 5, 48, 64))
    return net.eval()


def bits(values: Weights) -> dict[str, bytes]:
    return {k: v.contiguous().numpy().tobytes() for k, v in values.items()}


def error_of(action: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(CheckpointError) as found:
        action(*args, **kwargs)
    assert "\n" not in str(found.value)
    return str(found.value)
