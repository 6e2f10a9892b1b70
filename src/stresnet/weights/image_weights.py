"""A start from images: the weights of a ResNet trained on photographs, and how both streams take them.

Three kinds of file hold them: a state dict with torchvision's names (timm's ResNets have the same), MatConvNet's
`imagenet-resnet-*-dag.mat`, and a checkpoint of this library.
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
from stresnet.model.config import UNITS_PER_LAYER, Depth, Stream, STResNetConfig
from stresnet.model.initialization import average_taps
from stresnet.model.network import STResNet
from stresnet.model.preprocessing import Preprocessing
from stresnet.weights.file_types import advice

if TYPE_CHECKING:
    from stresnet.weights.matconvnet import Imported


@dataclass(frozen=True)
class ImageWeights:
    """A ResNet trained on images.

    Attributes:
        weights: by torchvision's names; the classifier, if any, is never used.
        depth: 26, 50, 101 or 152.
        width: its channels after conv1, over 64.
        layout: `caffe` if conv1 has a bias, else `torchvision`.
        preprocessing: what its pixels were made of, if the file says so; else that of its layout.
        source: the file, for messages.
    """

    weights: Mapping[str, Tensor]
    depth: Depth
    width: float
    layout: Literal["torchvision", "caffe"]
    preprocessing: Preprocessing
    source: str


def read_image_weights(path: str | Path) -> ImageWeights:
    """The image network in a `.pth`, `.safetensors` or `.mat` file; no pickled code is run.

    Raises:
        CheckpointError: if the file is missing, cannot be read, or holds no bottleneck ResNet.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: give a ResNet's state dict (.pth, .safetensors) or a .mat file")
    preprocessing = None
    if has_ending(path, ".mat"):
        from stresnet.weights.matconvnet import read_matconvnet  # which imports SciPy, to write

        return image_of(read_matconvnet(path), path)
    if is_checkpoint(path):
        checkpoint = load_checkpoint(path)
        weights = _appearance(checkpoint.model.config, checkpoint.model.state_dict(), path)
        preprocessing = checkpoint.preprocessing
    else:
        weights = read_state_dict(path)
    return _image(weights, preprocessing, path)


def image_of(imported: Imported, path: Path) -> ImageWeights:
    """The image network that a `.mat` file holds.

    Raises:
        CheckpointError: if it is none.
    """
    return _image(_appearance(imported.config, imported.weights, path), imported.preprocessing, path)


def _image(weights: Mapping[str, Tensor], preprocessing: Preprocessing | None, path: Path) -> ImageWeights:
    depth, width = _shape(weights, path)
    _check_numbers(weights, path)
    layout: Literal["torchvision", "caffe"] = "caffe" if "conv1.bias" in weights else "torchvision"
    preprocessing = preprocessing or Preprocessing.of_layout(layout, crop_px=224, mirror=True)
    return ImageWeights(weights, depth, width, layout, preprocessing, str(path))


def init_from_images(model: STResNet, image: ImageWeights) -> list[str]:
    """Start every stream from a ResNet trained on images, as the released code does; the classifier stays random.

    The motion stream's conv1 is the mean over R, G, B, repeated for all 2L channels and not rescaled. Inflated
    filters are a third of the image filter at each step; injected ones keep their initial values.

    Returns:
        What went where, a line each.

    Raises:
        CheckpointError: if the image network is not of the model's depth, width and layout; nothing is changed then.
    """
    filled = {stream: _fill(model, stream, image) for stream in model.config.streams}
    for stream, taken in filled.items():
        model.get_submodule(stream).load_state_dict(taken)
    return _report(model, image)


def _fill(model: STResNet, stream: Stream, image: ImageWeights) -> dict[str, Tensor]:
    state = model.get_submodule(stream).state_dict()
    taken: dict[str, Tensor] = {}
    for key, own in state.items():
        value = image.weights.get(key)
        if key.startswith("fc.") or ".temporal." in key or (value is None and key.endswith("num_batches_tracked")):
            value = own
        elif value is not None and key == "conv1.weight" and stream == "motion" and value.ndim == 4:
            value = value.mean(1, keepdim=True).repeat(1, own.shape[1], 1, 1)
        elif value is not None and own.shape[2:] == (3, 1) and value.shape[2:] == (1, 1):
            value = average_taps(value)
        if value is not None:
            taken[key] = value
    extra = {k: v for k, v in image.weights.items() if not k.startswith("fc.") and k not in state}
    problems = compare(state, taken | extra)
    if problems:
        config = model.config
        expected = _in_words(config.depth_of(stream), config.base_channels / 64, config.layout)
        if expected != (found := _in_words(image.depth, image.width, image.layout)):
            raise CheckpointError(
                f"{image.source} holds a {found}, but the {stream} stream is a {expected}: give such weights, or build "
                "the network like them (--set network.layout, network.depth or network.width)"
            )
        raise CheckpointError(f"{image.source} does not hold all of a {expected}: {summary(problems)}")
    return taken


def _in_words(depth: int, width: float, layout: str) -> str:
    return f"ResNet-{depth} of width {width:g} in the {layout} layout"


def _report(model: STResNet, image: ImageWeights) -> list[str]:
    config = model.config
    streams = " and ".join(config.streams)
    lines = [
        f"ResNet-{image.depth} in the {image.layout} layout, width {image.width:g}, to the {streams} stream"
        f"{'s' if len(config.streams) > 1 else ''}: {sum(not k.startswith('fc.') for k in image.weights)} tensors each"
    ]
    if "motion" in config.streams:
        lines.append(f"motion conv1: the mean over R, G, B, repeated for {2 * config.flow_stack} flow channels")
    if config.temporal == "inflate":
        lines.append("1×1 convolutions of second units: a third of the image filter at each of three steps")
    elif config.temporal == "inject":
        lines.append(f"temporal convolutions: added, {config.temporal_init}")
    left_out = [k for k in image.weights if k.startswith("fc.")]
    old = f"left out: {', '.join(left_out)}; " if left_out else ""
    lines.append(f"{old}classifiers of {config.num_classes} classes: random, N(0, 0.01), bias 0")
    return lines


def has_ending(path: Path, *endings: str) -> bool:
    """Whether a file's name ends so, in letters of either case."""
    return path.suffix.lower() in endings


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint of this library, rather than bare weights."""
    if not has_ending(path, ".safetensors"):
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return "stresnet" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False  # reading it as weights says what is wrong


def _appearance(config: STResNetConfig, weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The appearance stream of a network, as an image network."""
    if "appearance" not in config.streams or config.temporal is not None:
        what = "a motion stream alone" if "appearance" not in config.streams else "convolutions over time"
        raise CheckpointError(
            f"{path} has {what}, so it is no image network: make a model of it with `stresnet convert`, and start a "
            "stage from that, --init STAGE=FILE"
        )
    prefix = "appearance."
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _shape(weights: Mapping[str, Tensor], path: Path) -> tuple[Depth, float]:
    """Depth and width, by the number of units and the channels of conv1."""
    units = tuple(len({k.split(".")[1] for k in weights if k.startswith(f"layer{n}.")}) for n in (1, 2, 3, 4))
    first = weights.get("conv1.weight")
    if first is None or first.ndim != 4 or not any(units):
        some = ", ".join(list(weights)[:3]) or "nothing"
        prefix = next((key.removesuffix("conv1.weight") for key in weights if key.endswith(".conv1.weight")), "")
        more = f"; take {prefix!r} off all of them" if prefix and all(key.startswith(prefix) for key in weights) else ""
        raise CheckpointError(f"{path} holds no ResNet with torchvision's names: it begins with {some}{more}")
    if "layer1.0.conv3.weight" not in weights:
        raise CheckpointError(
            f"{path} holds a ResNet without bottlenecks (18 or 34 layers): give one of {get_args(Depth)} layers"
        )
    for depth, expected in UNITS_PER_LAYER.items():
        if units == expected:
            return depth, first.shape[0] / 64
    raise CheckpointError(f"{path} has {units} units in its stages, no ResNet of {get_args(Depth)} layers has")


def _check_numbers(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what would train to nothing, and only be seen then."""
    if weights["conv1.weight"].shape[1] != 3:
        raise CheckpointError(f"{path} reads {weights['conv1.weight'].shape[1]} channels, where images have 3")
    for key, value in weights.items():
        if not value.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise CheckpointError(f"{path}: {key} holds {value.dtype}, where weights are floating-point numbers")
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {key} holds infinities or no numbers (NaN)")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """A bare state dict from `.safetensors`, or from `.pth`/`.pt` without running pickled code.

    Raises:
        CheckpointError: if the file is missing or holds anything but named tensors.
    """
    path = Path(path)
    try:
        if has_ending(path, ".safetensors"):
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports a bad file in many ways, and advises to run the code in it
        why = f" ({first_line(error)})" if isinstance(error, SafetensorError) else ""
        else_ = "it is damaged, or holds more than tensors by name"
        raise CheckpointError(f"{path} cannot be read as weights{why}: {advice(path, else_)}") from None
    if not isinstance(loaded, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
        inner = [key for key, value in loaded.items() if isinstance(value, dict)] if isinstance(loaded, dict) else []
        place = f", here `torch.load(file)[{inner[0]!r}]`" if inner else ""
        raise CheckpointError(f"{path} is no bare state dict: save `model.state_dict()` alone{place}")
    return loaded
