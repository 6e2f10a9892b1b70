"""Initialise both streams from a ResNet trained on images.

Its weights are read from a state dict with torchvision's names (timm's ResNets have the same), from MatConvNet's
`imagenet-resnet-*-dag.mat`, or from a checkpoint of this library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stresnet.errors import CheckpointError
from stresnet.model.checkpoint import compare, first_line, load_checkpoint, summary
from stresnet.model.config import UNITS_PER_LAYER, Architecture, Depth, Stream, STResNetConfig
from stresnet.model.initialization import inflate
from stresnet.model.network import STResNet
from stresnet.model.preprocessing import Preprocessing
from stresnet.weights.file_types import explain

if TYPE_CHECKING:
    from stresnet.weights.matconvnet import Imported


Layout = Literal["torchvision", "caffe"]
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class ImageFormat:
    """What a state dict does not say about a network.

    Attributes:
        layout: None: `caffe` if conv1 has a bias, else `torchvision`.
        channels: the order in which conv1 reads colours.
        mean: subtracted from levels, 0–255, in the order of `channels`. None: the default of the layout.
        std: divides levels after that. None: the default of the layout.
    """

    layout: Layout | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def preprocessing(self, layout: Layout) -> Preprocessing:
        """Return the preprocessing of a network in a layout."""
        usual = Preprocessing.of_layout(layout, crop_px=224, mirror=True)
        step = -1 if self.channels == "bgr" else 1
        mean = self.mean[::step] if self.mean else usual.rgb_mean
        std = self.std[::step] if self.std else usual.rgb_std
        return usual.replace(rgb_mean=mean, rgb_std=std, flow_std=sum(std) / 3 if self.std else usual.flow_std)


UNSTATED = ImageFormat()
"""The format of files that nothing is said about."""


@dataclass(frozen=True)
class ImageWeights:
    """A ResNet trained on images.

    Attributes:
        weights: state dict with torchvision's names, conv1 reading R, G, B; a classifier in it is ignored.
        network: the network without classifier, as a single appearance stream.
        preprocessing: from the file if it records it, else as its `ImageFormat` says.
        source: the file, for messages.
    """

    weights: Mapping[str, Tensor]
    network: Architecture
    preprocessing: Preprocessing
    source: str

    @property
    def name(self) -> str:
        """Depth, width and layout of the network in words."""
        return _resnet_name(self.network, "appearance")

    @property
    def is_folded(self) -> bool:
        """Whether batch norm was folded, at least in part, so that `calibrate` must restore it."""
        return "layer1.0.conv1.bias" in self.weights or not any(key.endswith(".running_var") for key in self.weights)


def read_image_weights(path: str | Path, image_format: ImageFormat = UNSTATED) -> ImageWeights:
    """Read a ResNet trained on images from a `.pth`, `.safetensors` or `.mat` file; no pickled code is run.

    Args:
        path: the file.
        image_format: what a `.pth` or `.safetensors` file does not say about its network. The others do.

    Raises:
        CheckpointError: the file is missing, cannot be read, does not contain a bottleneck ResNet, or says itself what
            `image_format` says.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: expected a ResNet's .pth, .safetensors or .mat file")
    require_no_record(path, image_format)
    preprocessing = None
    if has_ending(path, ".mat"):
        from stresnet.weights.matconvnet import read_matconvnet

        return image_weights_of(read_matconvnet(path), path)
    if is_checkpoint(path):
        checkpoint = load_checkpoint(path)
        weights = _appearance(checkpoint.model.config, checkpoint.model.state_dict(), path)
        preprocessing = checkpoint.preprocessing
    else:
        weights = read_state_dict(path)
    return _image(weights, preprocessing, path, image_format)


def require_no_record(path: Path, image_format: ImageFormat) -> None:
    """Raise if a file records what a given format says.

    Raises:
        CheckpointError: the format is not the default, and the file a `.mat` file or a checkpoint.
    """
    if image_format != UNSTATED and (has_ending(path, ".mat") or is_checkpoint(path)):
        raise CheckpointError(
            f"{path} records its layout and preprocessing: leave --layout, --channels, --mean and --std out"
        )


def image_weights_of(imported: Imported, path: Path) -> ImageWeights:
    """Return the image network of a `.mat` file.

    Raises:
        CheckpointError: the file does not contain one.
    """
    return _image(_appearance(imported.config, imported.weights, path), imported.preprocessing, path)


def _image(
    weights: Mapping[str, Tensor],
    preprocessing: Preprocessing | None,
    path: Path,
    image_format: ImageFormat = UNSTATED,
) -> ImageWeights:
    depth, base, stem = _shape(weights, path)
    _check_numbers(weights, path)
    layout = image_format.layout or _layout(weights, path)
    if image_format.channels == "bgr":
        weights = {**weights, "conv1.weight": weights["conv1.weight"].flip(1)}
    network = Architecture(
        depth=depth,
        width=base / 64,
        stem_channels=None if stem == base else stem,
        layout=layout,
        streams=("appearance",),
        link=None,
        temporal=None,
    )
    return ImageWeights(weights, network, preprocessing or image_format.preprocessing(layout), str(path))


def _layout(weights: Mapping[str, Tensor], path: Path) -> Layout:
    """Return the layout, which shows in the biases unless batch norm was folded away."""
    if "layer1.0.conv1.bias" in weights:
        raise CheckpointError(
            f"{path} has biases in all convolutions, which hides its layout: convert it with `stresnet convert` and "
            "--layout caffe (stride 2 in the first 1×1) or --layout torchvision (in the 3×3)"
        )
    return "caffe" if "conv1.bias" in weights else "torchvision"


def norm_after(conv: str) -> str:
    """Return the name of the batch norm after a convolution."""
    return conv[:-1] + "1" if conv.endswith("downsample.0") else conv.replace("conv", "bn")


def init_from_images(model: STResNet, image: ImageWeights) -> list[str]:
    """Initialise every stream from a ResNet trained on images, as the released code does; classifiers stay random.

    The motion stream's conv1 is the mean over R, G and B, repeated for all 2L channels without rescaling. Inflated
    filters start from the image filter (`inflate_init`); injected ones keep their initial values.

    Returns:
        What was done, one line each.

    Raises:
        CheckpointError: the image network differs from the model in depth, width or layout, or its batch norm is
            folded; the model is unchanged.
    """
    if image.is_folded:
        raise CheckpointError(
            f"{image.source} has no batch-norm variances, or biases beside batch norm: measure its moments on frames "
            "of a prepared store with `stresnet convert FILE OUT --calibrate STORE`, and use OUT"
        )
    filled = {stream: _fill(model, stream, image) for stream in model.config.streams}
    for stream, taken in filled.items():
        model.get_submodule(stream).load_state_dict(taken)
    return _report(model, image)


def _fill(model: STResNet, stream: Stream, image: ImageWeights) -> dict[str, Tensor]:
    state = model.get_submodule(stream).state_dict()
    taken: dict[str, Tensor] = {}
    for key, initial in state.items():
        value = image.weights.get(key)
        if key.startswith("fc.") or ".temporal." in key or (value is None and key.endswith("num_batches_tracked")):
            value = initial
        elif value is not None and key == "conv1.weight" and stream == "motion" and value.ndim == 4:
            value = value.mean(1, keepdim=True).repeat(1, initial.shape[1], 1, 1)
        elif value is not None and initial.shape[2:] == (3, 1) and value.shape[2:] == (1, 1):
            value = inflate(value, model.config.inflate_init)
        if value is not None:
            taken[key] = value
    extra = {k: v for k, v in image.weights.items() if not k.startswith("fc.") and k not in state}
    problems = compare(state, taken | extra)
    if problems:
        if (expected := _resnet_name(model.config, stream)) != image.name:
            raise CheckpointError(
                f"{image.source} is a {image.name}, but the {stream} stream is a {expected}: use other weights, or "
                "change the network (--set network.layout, network.depth, network.width or network.stem_channels)"
            )
        raise CheckpointError(f"{image.source} is not a complete {expected}: {summary(problems)}")
    return taken


def _resnet_name(network: Architecture, stream: Stream) -> str:
    base, stem = network.base_channels, network.conv1_channels
    kept = "" if stem == base else f", with {stem} channels after conv1,"
    return f"ResNet-{network.depth_of(stream)} of width {base / 64:g}{kept} in the {network.layout} layout"


def _report(model: STResNet, image: ImageWeights) -> list[str]:
    config = model.config
    streams = " and ".join(config.streams)
    tensors = sum(not key.startswith("fc.") for key in image.weights)
    lines = [f"{image.name}: {tensors} tensors copied to {streams}"]
    if "motion" in config.streams:
        lines.append(f"motion conv1: the mean over R, G, B, repeated for {2 * config.flow_stack} flow channels")
    if config.temporal == "inflate":
        lines.append(f"inflated convolutions: {config.inflate_init} of the image filter")
    elif config.temporal == "inject":
        lines.append(f"injected temporal convolutions: {config.temporal_init}")
    ignored = [k for k in image.weights if k.startswith("fc.")]
    old = f"; ignored: {', '.join(ignored)}" if ignored else ""
    lines.append(f"classifiers of {config.num_classes} classes: random, N(0, 0.01), bias 0{old}")
    return lines


def has_ending(path: Path, *endings: str) -> bool:
    """Return whether a file has one of these endings, in upper or lower case."""
    return path.suffix.lower() in endings


def is_checkpoint(path: Path) -> bool:
    """Return whether a file is a checkpoint of this library, rather than bare weights."""
    if not has_ending(path, ".safetensors"):
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return "stresnet" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False  # reading it as weights will raise


def _appearance(config: STResNetConfig, weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights of a network's appearance stream."""
    if "appearance" not in config.streams or config.temporal is not None:
        what = "only a motion stream" if "appearance" not in config.streams else "temporal convolutions"
        raise CheckpointError(
            f"{path} has {what}, so it is not an image network: convert it with `stresnet convert`, and start a stage "
            "from the result with --init STAGE=FILE"
        )
    prefix = "appearance."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _shape(weights: Mapping[str, Tensor], path: Path) -> tuple[Depth, int, int]:
    """Return the depth from the number of units, and the channels of conv2_x's bottlenecks and of conv1."""
    units = tuple(len({k.split(".")[1] for k in weights if k.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4))
    first = weights.get("conv1.weight")
    if first is None or first.ndim != 4 or not any(units):
        some = ", ".join(list(weights)[:3]) or "none"
        prefix = next((key.removesuffix("conv1.weight") for key in weights if key.endswith(".conv1.weight")), "")
        hint = f": remove the prefix {prefix!r}" if prefix and all(key.startswith(prefix) for key in weights) else ""
        raise CheckpointError(f"{path} is not a ResNet with torchvision's names; its first names are {some}{hint}")
    if "layer1.0.conv3.weight" not in weights:
        raise CheckpointError(
            f"{path} is a ResNet without bottlenecks (18 or 34 layers): expected one of {get_args(Depth)} layers"
        )
    reduce = weights.get("layer1.0.conv1.weight")
    if reduce is None or reduce.ndim != 4:
        raise CheckpointError(
            f"{path} has no convolution layer1.0.conv1: expected the weights of a ResNet's first unit"
        )
    for depth, expected in UNITS_PER_LAYER.items():
        if units == expected:
            return depth, len(reduce), len(first)
    raise CheckpointError(f"{path} has {units} units in its layers: expected a ResNet of {get_args(Depth)} layers")


def _check_numbers(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise on weights that training could not use."""
    if weights["conv1.weight"].shape[1] != 3:
        raise CheckpointError(f"{path}: conv1 has {weights['conv1.weight'].shape[1]} input channels, expected 3")
    for key, value in weights.items():
        if not value.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise CheckpointError(f"{path}: {key} is {value.dtype}, expected floating-point numbers")
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {key} has NaN or infinite values")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from `.pth`/`.pt` without running pickled code.

    Raises:
        CheckpointError: the file is missing, or contains anything but named tensors.
    """
    path = Path(path)
    try:
        if has_ending(path, ".safetensors"):
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports bad files in many ways, and suggests running their code
        why = f" ({first_line(error)})" if isinstance(error, SafetensorError) else ""
        default = "it is damaged, or contains more than named tensors"
        raise CheckpointError(f"{path} cannot be read as weights{why}: {explain(path, default)}") from None
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        inner = [key for key, value in loaded.items() if isinstance(value, dict)] if isinstance(loaded, dict) else []
        hint = f", here `torch.load(file)[{inner[0]!r}]`" if inner else ""
        raise CheckpointError(f"{path} is not a bare state dict: save only `model.state_dict()`{hint}")
    return loaded
