"""The equations of ST-ResNet written out in plain loops over single clips, sharing no code with the library.

x is the sum that a residual unit leaves before its ReLU, f the ReLU. A second unit's branch reads xᵃ + f(xᵐ) while its
shortcut stays f(xᵃ). Tests try wrong links as other `Mix`es.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stresnet.model import STResNet

State = Mapping[str, Tensor]
Mix = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""The inputs of branch and shortcut, from a stream's sum, the other stream's sum, and the layer (0 … 3)."""


def f(x: Tensor) -> Tensor:
    return x.clamp(min=0)


def added(x: Tensor, other: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    return x + f(other), f(x)


def multiplied(x: Tensor, other: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    return x * f(other), f(x)


def norm(s: State, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (
        s[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def pointwise(w: Tensor, x: Tensor, stride: int = 1) -> Tensor:
    """Return a 1×1 convolution of (T,C,H,W) by (O,C,1,1), or a 1×1×3 one by (O,C,3,1): tap k reads step t + k − 1."""
    x = x[:, :, ::stride, ::stride]
    steps, taps = len(x), w.shape[2]
    outputs = []
    for t in range(steps):
        reads = [(k, t + k - taps // 2) for k in range(taps)]
        terms = [torch.einsum("oc,chw->ohw", w[:, :, k, 0], x[step]) for k, step in reads if 0 <= step < steps]
        outputs.append(torch.stack(terms).sum(0))
    return torch.stack(outputs)


def unit(s: State, name: str, branch: Tensor, shortcut: Tensor, stride: int, caffe: bool) -> Tensor:
    first, second = (stride, 1) if caffe else (1, stride)
    y = f(norm(s, f"{name}.bn1", pointwise(s[f"{name}.conv1.weight"], branch, first)))
    y = f(norm(s, f"{name}.bn2", F.conv2d(y, s[f"{name}.conv2.weight"], stride=second, padding=1)))
    if f"{name}.temporal.weight" in s:  # ST-MulNet: over time only, without norm and ReLU
        y = pointwise(s[f"{name}.temporal.weight"], y) + s[f"{name}.temporal.bias"][:, None, None]
    y = norm(s, f"{name}.bn3", pointwise(s[f"{name}.conv3.weight"], y))
    if f"{name}.downsample.0.weight" in s:
        shortcut = norm(s, f"{name}.downsample.1", pointwise(s[f"{name}.downsample.0.weight"], shortcut, stride))
    return shortcut + y


def stem(s: State, stream: str, x: Tensor, caffe: bool) -> Tensor:
    x = F.conv2d(x, s[f"{stream}.conv1.weight"], s.get(f"{stream}.conv1.bias"), stride=2, padding=3)
    x = f(norm(s, f"{stream}.bn1", x))
    # MatConvNet pads by (0,1,0,1), torchvision by 1 on every side; after a ReLU, padded zeros cannot change a maximum
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1) if caffe else (1, 1, 1, 1)), 3, 2)


def forward(
    s: State,
    clips: Mapping[str, Tensor],
    units: Sequence[int],
    *,
    mixes: Mapping[str, Mix],
    linked_units: Sequence[int] = (1,),
    caffe: bool = False,
) -> dict[str, Tensor]:
    """Return the logits (T,K) of each stream for one clip; its inputs (C,T,H,W) are at most 224 px on a side.

    Args:
        s: weights by name.
        clips: inputs by stream.
        units: number of units of each layer, in the deeper stream.
        mixes: the links, by the stream they enter.
        linked_units: indices of the units that links enter.
        caffe: whether the strides are in the first 1×1.
    """
    x = {stream: stem(s, stream, clip.transpose(0, 1), caffe) for stream, clip in clips.items()}
    sums: dict[str, Tensor] = {}
    for layer, count in enumerate(units):
        for index in range(count):
            reads = {stream: (x[stream], x[stream]) for stream in x}
            for stream, mix in mixes.items():
                other = "motion" if stream == "appearance" else "appearance"
                if index in linked_units and sums:
                    reads[stream] = mix(sums[stream], sums[other], layer)
            stride = 2 if layer > 0 and index == 0 else 1
            for stream, (branch, shortcut) in reads.items():
                if f"{stream}.layer{layer + 1}.{index}.conv1.weight" not in s:
                    continue  # the other stream is deeper
                sums[stream] = unit(s, f"{stream}.layer{layer + 1}.{index}", branch, shortcut, stride, caffe)
            x = {stream: f(sums[stream]) for stream in x}
    return {stream: y.mean((2, 3)) @ s[f"{stream}.fc.weight"].T + s[f"{stream}.fc.bias"] for stream, y in x.items()}


def randomized(net: STResNet, seed: int = 0) -> STResNet:
    """Return the network in float64 and evaluation mode, with no weight at a value that could hide a mistake."""
    rng = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            noise = torch.randn(value.shape, generator=rng, dtype=torch.float64)
            if name.endswith(("running_var", "scale")) or (value.ndim == 1 and name.endswith("weight")):
                value.copy_(0.6 + 0.4 * noise.abs())
            elif value.ndim == 1:
                value.copy_(0.3 * noise)
            elif name.endswith("fc.weight"):
                value.copy_(noise / value.shape[1] ** 0.5)
            elif name.endswith("temporal.weight"):
                value.copy_(noise / (3 * value.shape[1]) ** 0.5)
            elif value.shape[2:] == (3, 1):
                value.mul_(1 + noise)  # taps that differ
    return net


def clips_of(
    *, batch: int = 1, steps: int = 4, size: tuple[int, int] = (64, 64), flow_stack: int = 2, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return random network inputs, (B,3,T,H,W) and (B,2L,T,H,W) float64."""
    rng = torch.Generator().manual_seed(seed)
    rgb, flow = (torch.randn(batch, c, steps, *size, generator=rng, dtype=torch.float64) for c in (3, 2 * flow_stack))
    return rgb, flow
