"""Fold batch normalisation into the convolutions that precede it."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from stresnet.model.layers import TemporalConv, Unit
from stresnet.model.network import STResNet, StreamNet


def fold_batch_norm(model: STResNet) -> STResNet:
    """Return a copy, in evaluation mode, that computes the same function without batch normalisation.

    With running moments μ, σ² and parameters γ, β, a filter w with bias b becomes w·γ/√(σ²+ε), with bias
    β + (b − μ)·γ/√(σ²+ε). Logits change by rounding only (relative 1e-6).
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        if isinstance(module, Unit):
            module.bn1 = _fold(module.conv1, module.bn1)
            module.bn2 = _fold(module.conv2, module.bn2)
            module.bn3 = _fold(module.conv3, module.bn3)
            if module.downsample is not None:
                module.downsample[1] = _fold(module.downsample[0], module.downsample[1])
        elif isinstance(module, StreamNet):
            module.bn1 = _fold(module.conv1, module.bn1)
    return folded


@torch.no_grad()
def _fold(conv: nn.Module, norm: nn.Module) -> nn.Identity:
    """Fold a batch normalisation into its convolution; return what takes its place."""
    assert isinstance(conv, nn.Conv2d | TemporalConv)
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    factor = norm.weight.double() / (variance + norm.eps).sqrt()
    bias = 0.0 if conv.bias is None else conv.bias.double()
    conv.weight = nn.Parameter((conv.weight.double() * factor[:, None, None, None]).float())
    conv.bias = nn.Parameter((norm.bias.double() + (bias - mean) * factor).float())
    return nn.Identity()
