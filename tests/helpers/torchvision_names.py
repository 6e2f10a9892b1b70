"""The names and shapes of the weights of torchvision's ResNets, independent of its code and of the library's."""

from __future__ import annotations

import torch
from torch import Tensor

UNITS = (2, 2, 2, 2)
BASE = 8
Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


def batch_norm_shapes(name: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def resnet_shapes(
    units: tuple[int, ...] = (3, 4, 6, 3),
    *,
    base: int = 64,
    inputs: int = 3,
    classes: int = 1000,
    conv1_bias: bool = False,
    taps: int = 1,
) -> Shapes:
    """Return the names and shapes of a bottleneck ResNet; the second unit of each layer may span `taps` time steps."""
    shapes: Shapes = {"conv1.weight": (base, inputs, 7, 7), **batch_norm_shapes("bn1", base)}
    if conv1_bias:
        shapes["conv1.bias"] = (base,)
    before = base
    for layer, count in enumerate(units):
        inner = base << layer
        for unit in range(count):
            name = f"layer{layer + 1}.{unit}"
            end = (taps, 1) if unit == 1 else (1, 1)
            shapes[f"{name}.conv1.weight"] = (inner, before, *end)
            shapes[f"{name}.conv2.weight"] = (inner, inner, 3, 3)
            shapes[f"{name}.conv3.weight"] = (4 * inner, inner, *end)
            for number, channels in ((1, inner), (2, inner), (3, 4 * inner)):
                shapes |= batch_norm_shapes(f"{name}.bn{number}", channels)
            if unit == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * inner, before, 1, 1)
                shapes |= batch_norm_shapes(f"{name}.downsample.1", 4 * inner)
            before = 4 * inner
    return shapes | {"fc.weight": (classes, before), "fc.bias": (classes,)}


def image_weights(units: tuple[int, ...] = UNITS, base: int = BASE, **changes: bool) -> Weights:
    """Return a random state dict with the names and shapes of torchvision's ResNets."""
    rng = torch.Generator().manual_seed(1)
    shapes = resnet_shapes(units, base=base, **changes)
    return {k: torch.rand(s, generator=rng) if s else torch.tensor(7) for k, s in shapes.items()}
