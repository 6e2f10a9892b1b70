"""Measure the batch-norm moments of image weights on frames, without changing the function of the network.

Published weights may lack variances: batch norm was folded into the convolutions, or is stored as a scale and a shift.
Such a network can be evaluated, but training, which normalises by the statistics of each batch, would rescale every
layer at the first iteration. With moments measured on real frames, and scales to match, training starts from the
function of the image network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresnet.data.store import Store
from stresnet.errors import CheckpointError, StoreError
from stresnet.model import STResNet
from stresnet.model.checkpoint import compare, summary
from stresnet.progress import Progress
from stresnet.weights.image_weights import NORM_PARTS, ImageWeights, norm_after

FRAMES = 256
"""Frames on which moments are measured. Each has thousands of positions, so more would change little."""


def sample_frames(store: Store, progress: Progress | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yield `FRAMES` random frames of the training videos of a store, (H,W,3) uint8 RGB; the same ones at each call.

    Raises:
        StoreError: the store has no usable training video, or a picture is damaged.
    """
    entries = store.select("train")
    if not entries:
        raise StoreError(f"{store.root} has no usable training videos: expected some to measure batch-norm moments on")
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        entry = entries[index * len(entries) // FRAMES]
        yield store.video(entry.record.id).rgb(rng.integers(entry.frames, size=1))[0]
        if progress is not None:
            progress("measuring batch-norm moments", index + 1, FRAMES)


def calibrate(image: ImageWeights, frames: Iterable[NDArray[np.uint8]]) -> ImageWeights:
    """Return weights of the same function whose batch norms have the moments of their inputs on some frames.

    With z a convolution's output without bias, what follows it up to the ReLU is s·z + t for each channel. As batch
    norm it has the mean μ and the variance σ² of z, the scale s·√(σ² + ε) and the shift t + s·μ. No bias of a
    convolution is left; that of conv1 in the `caffe` layout becomes zero.

    Args:
        image: the weights. Any part of batch norm may be absent, if it is absent everywhere.
        frames: (H,W,3) uint8 RGB, of any sizes of at least 32 px.

    Raises:
        CheckpointError: a weight is missing, unexpected or of another shape.
    """
    with torch.random.fork_rng(devices=[]):
        net = STResNet(image.network.with_classes(1)).eval()
    assert net.appearance is not None
    state = net.appearance.state_dict()
    _check_weights(image, state)
    weights = {key: value for key, value in image.weights.items() if key.startswith("fc.")}
    moments: dict[str, _Moments] = {}
    for key, value in state.items():
        if value.ndim == 4:
            conv = key.removesuffix(".weight")
            weights[key] = value.copy_(image.weights[key])
            norm = net.appearance.get_submodule(norm_after(conv))
            assert isinstance(norm, nn.BatchNorm2d)
            moments[norm_after(conv)] = _Moments(norm, *_affine(image, conv, norm.eps))
        elif key == "conv1.bias":
            weights[key] = value.zero_()
    with torch.inference_mode():
        for frame in frames:
            rgb, _ = image.preprocessing.normalize(torch.from_numpy(frame)[None, None], None, torch.ones(1, 2))
            net(rgb)
    for name, measured in moments.items():
        weights |= {f"{name}.{part}": value for part, value in measured.batch_norm().items()}
    return replace(image, weights=weights)


class _Moments:
    """A batch norm that applies s·z + t, and the moments of what it has read."""

    def __init__(self, norm: nn.BatchNorm2d, scale: Tensor, shift: Tensor) -> None:
        self.scale, self.shift, self.eps = scale, shift, norm.eps
        norm.weight.data.copy_(scale)
        norm.bias.data.copy_(shift)
        norm.eps = 0.0  # initial moments are 0 and 1, so nothing is left of the normalisation
        norm.register_forward_pre_hook(self._read)
        self.positions = 0
        self.sum, self.squares = torch.zeros_like(scale), torch.zeros_like(scale)  # float64

    def _read(self, norm: nn.Module, inputs: tuple[Tensor]) -> None:
        """Add (B,C,H,W) to the moments."""
        variance, mean = (value.double() for value in torch.var_mean(inputs[0], (0, 2, 3), correction=0))
        positions = inputs[0].numel() // len(mean)
        self.positions += positions
        self.sum += positions * mean
        self.squares += positions * (variance + mean**2)

    def batch_norm(self) -> dict[str, Tensor]:
        """Return the weights of a batch norm with the same function and the measured moments."""
        mean = self.sum / self.positions
        variance = (self.squares / self.positions - mean**2).clamp_min(0)
        exact = {
            "weight": self.scale * (variance + self.eps).sqrt(),
            "bias": self.shift + self.scale * mean,
            "running_mean": mean,
            "running_var": variance,
        }
        return {part: value.float() for part, value in exact.items()}


def _affine(image: ImageWeights, conv: str, eps: float) -> tuple[Tensor, Tensor]:
    """Return s and t of what follows a convolution, (C,) float64: its bias and its batch norm."""
    channels = len(image.weights[f"{conv}.weight"])

    def part(name: str, default: float) -> Tensor:
        value = image.weights.get(name)
        return torch.full((channels,), default, dtype=torch.float64) if value is None else value.double()

    norm = norm_after(conv)
    scale = part(f"{norm}.weight", 1.0) / (part(f"{norm}.running_var", 1.0 - eps) + eps).sqrt()
    shift = part(f"{norm}.bias", 0.0) + (part(f"{conv}.bias", 0.0) - part(f"{norm}.running_mean", 0.0)) * scale
    return scale, shift


def _check_weights(image: ImageWeights, state: Mapping[str, Tensor]) -> None:
    """Raise unless the weights are those of a ResNet, apart from biases and parts of batch norm that are optional."""
    channels = {key.removesuffix(".weight"): len(value) for key, value in state.items() if value.ndim == 4}
    expected = {key: value for key, value in state.items() if value.ndim == 4}
    for part in NORM_PARTS:
        if any(f"{norm_after(conv)}.{part}" in image.weights for conv in channels):
            expected |= {f"{norm_after(conv)}.{part}": torch.empty(count) for conv, count in channels.items()}
    biases = {f"{conv}.bias": torch.empty(count) for conv, count in channels.items()}
    expected |= {key: value for key, value in biases.items() if key in image.weights}
    found = {k: v for k, v in image.weights.items() if not k.startswith("fc.") and not k.endswith("batches_tracked")}
    if problems := compare(expected, found):
        raise CheckpointError(f"{image.source} is not a complete {image.name}: {summary(problems)}")
