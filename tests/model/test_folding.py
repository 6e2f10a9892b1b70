"""Folding: a network without batch normalisation layers computes the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from helpers.networks import calibrated
from stresnet.model import STResNet, STResNetConfig
from stresnet.model.folding import fold_batch_norm

CONFIGS: dict[str, dict[str, Any]] = {
    "ST-ResNet": {},
    "ST-MulNet": {"temporal": "inject", "link": "multiply", "link_direction": "both", "motion_depth": 50},
    "ST-ResNet*, caffe": {"layout": "caffe", "temporal_pool": (5, 2), "link_scale": 0.1},
    "appearance": {"streams": ("appearance",), "link": None, "temporal": None},
    "motion": {"streams": ("motion",), "link": None, "temporal": None},
}


def clip() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 3, 5, 48, 64, generator=generator),
        torch.randn(2, 20, 5, 48, 64, generator=generator),
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_folding_keeps_the_function_and_the_original(name: str) -> None:
    net = calibrated(STResNet(STResNetConfig(num_classes=4, depth=26, width=0.125).replace(**CONFIGS[name])))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    folded = fold_batch_norm(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    with torch.inference_mode():
        for found, expected in zip(folded(*clip()), net(*clip()), strict=True):
            assert (found is None) == (expected is None)
            if found is not None:
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_convolution_followed_by_no_normalisation_is_left_alone() -> None:
    net = calibrated(STResNet(STResNetConfig(num_classes=4, depth=26, width=0.125, temporal="inject")))
    folded = fold_batch_norm(net)
    injected = [key for key in net.state_dict() if ".temporal." in key]
    assert injected
    assert all(torch.equal(folded.state_dict()[key], net.state_dict()[key]) for key in injected)
