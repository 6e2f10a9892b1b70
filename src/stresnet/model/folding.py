"""Fold batch normalisation into the convolutions that precede it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from stresnet.model.layers import Unit
from stresnet.model.network import StreamNet, STResNet


def fold_batch_norm(model: STResNet) -> STResNet:
    """Return a copy, in evaluation mode, that computes the same function without batch normalisation.

    With running moments μ, σ² and parameters γ, β, a filter w with bias b becomes w·γ/√(σ²+ε), with bias
    β + (b − μ)·γ/√(σ²+ε). Logits change by rounding only (relative 1e-6).
    """
    # What is folded is replaced, so it is shared with the copy rather than copied.
    replaced = {id(p): p for parent, *names in _pairs(model) for n in names for p in getattr(parent, n).parameters()}
    folded = copy.deepcopy(model, replaced).eval()
    for parent, conv_name, norm_name in list(_pairs(folded)):
        _fold(parent, conv_name, norm_name)
    return folded


def _pairs(model: STResNet) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield every convolution that a batch normalisation follows: their parent and their names in it."""
    for module in model.modules():
        if isinstance(module, StreamNet):
            yield module, "conv1", "bn1"
        elif isinstance(module, Unit):
            yield from ((module, f"conv{number}", f"bn{number}") for number in (1, 2, 3))
            if module.downsample is not None:
                yield module.downsample, "0", "1"


@torch.no_grad()
def _fold(parent: nn.Module, conv_name: str, norm_name: str) -> None:
    """Fold a batch normalisation into its convolution, and remove it."""
    conv, norm = getattr(parent, conv_name), getattr(parent, norm_name)
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = 0.0 if conv.bias is None else conv.bias.double()
    conv.weight = nn.Parameter((conv.weight.double() * factor[:, None, None, None]).float())
    conv.bias = nn.Parameter((norm.bias.double() + (bias - norm.running_mean.double()) * factor).float())
    setattr(parent, norm_name, nn.Identity())
