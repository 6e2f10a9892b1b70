"""Small networks, and the one line that a failed operation on weights ends with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.torchvision_names import BASE, Weights
from stresnet.errors import CheckpointError
from stresnet.model import STResNet, STResNetConfig


def network(**changes: object) -> STResNet:
    torch.manual_seed(0)
    return STResNet(STResNetConfig(**{"num_classes": 5, "depth": 26, "width": BASE / 64, "flow_stack": 2, **changes}))


def single(stream: str, **changes: object) -> STResNet:
    return network(**{"streams": (stream,), "link": None, "temporal": None, **changes})


def bits(values: Weights) -> dict[str, bytes]:
    return {k: v.contiguous().numpy().tobytes() for k, v in values.items()}


def error_of(action: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(CheckpointError) as found:
        action(*args, **kwargs)
    assert "\n" not in str(found.value)
    return str(found.value)
