"""Convert the metadata of a DagNN: the normalisation of its input, and its class names."""

from __future__ import annotations

from typing import Any

import numpy as np

from stresnet.errors import CheckpointError
from stresnet.model.config import STResNetConfig
from stresnet.model.preprocessing import FLOW_ZERO, Preprocessing

IMAGENET_MEAN = (123.68, 116.779, 103.939)
"""Mean R, G, B of ImageNet that Caffe's networks subtract (Simonyan and Zisserman 2015)."""


def preprocessing_of(config: STResNetConfig, meta: dict[str, Any]) -> tuple[Preprocessing, list[str]]:
    """Return the preprocessing of a net, and notes on what had to be assumed.

    If the file has no mean or no size, those of Caffe's ImageNet networks are assumed.

    Raises:
        CheckpointError: the mean does not fit the streams, or that of flow is not 128.
    """
    normalization = meta.get("normalization")
    normalization = normalization if isinstance(normalization, dict) else {}
    crop_px, notes = _crop_px(normalization.get("imageSize"))
    average, more = _average(config, normalization.get("averageImage"))
    flow_channels = len(average) - 3 if "appearance" in config.streams else len(average)
    off = [level for level in average[:flow_channels] if level != FLOW_ZERO]
    if off:
        raise CheckpointError(
            f"averageImage is {off[0]:g} for flow, expected {FLOW_ZERO:g}: change it if {FLOW_ZERO:g} is zero flow"
        )
    rgb = average[flow_channels:] or list(IMAGENET_MEAN)  # unused without an appearance stream
    mean = (rgb[0], rgb[1], rgb[2])
    return Preprocessing(rgb_mean=mean, rgb_std=(1.0, 1.0, 1.0), flow_std=1.0, crop_px=crop_px), notes + more


def _crop_px(size: Any) -> tuple[int, list[str]]:
    if not isinstance(size, np.ndarray) or size.size < 2:
        return 224, ["no imageSize in meta.normalization: crops of 224 px assumed"]
    height, width = (float(n) for n in size.flat[:2])
    if height != width or not height.is_integer() or height < 32:
        raise CheckpointError(f"imageSize is {height:g}×{width:g}: expected a square of at least 32 px")
    return int(height), []


def _average(config: STResNetConfig, image: Any) -> tuple[list[float], list[str]]:
    """Return the mean of each channel, flow first, then R, G, B; a mean image is averaged over space."""
    flow = [FLOW_ZERO] * (2 * config.flow_stack if "motion" in config.streams else 0)
    rgb = 3 if "appearance" in config.streams else 0
    if image is None or (isinstance(image, np.ndarray | list | str) and len(image) == 0):
        notes = ["no averageImage in meta.normalization:"]
        notes += [f"ImageNet's mean {IMAGENET_MEAN} assumed for RGB"] if rgb else []
        notes += [f"{FLOW_ZERO:g} assumed for flow"] if flow else []
        return flow + list(IMAGENET_MEAN[:rgb]), [" ".join(notes)]
    numbers = isinstance(image, np.ndarray) and image.ndim == 3 and image.dtype.kind in "biuf"
    channels = image.shape[2] if numbers else 0
    levels = np.asarray(np.mean(image, axis=(0, 1), dtype=np.float64)).tolist() if numbers else []
    if not all(0 <= level <= 255 for level in levels):
        raise CheckpointError(f"averageImage has {levels}, expected values of 0 to 255")
    if channels == len(flow) + rgb:
        return levels, []
    if channels == 3 and flow:
        # the authors' code uses 128 for such files
        return flow + levels[:rgb], [f"averageImage has 3 channels, for RGB: {FLOW_ZERO:g} assumed for flow"]
    shape = "×".join(map(str, np.shape(image))) or "not an array"
    raise CheckpointError(
        f"averageImage is {shape}, expected {len(flow) + rgb} channels: {len(flow)} of flow and {rgb} of RGB"
    )


def class_names(meta: dict[str, Any], num_classes: int) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return the names in `meta.classes.name` if their number is right, else None and a note."""
    classes = meta.get("classes")
    names = classes.get("name") if isinstance(classes, dict) else None
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        return None, []
    if len(names) != num_classes:
        return None, [f"ignored {len(names)} class names, because the net has {num_classes} classes"]
    return tuple(names), []
