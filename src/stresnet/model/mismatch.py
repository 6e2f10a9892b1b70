"""Compare the networks that two state dicts belong to, and state the mismatch in terms of config fields."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from stresnet.model.config import STREAMS, UNITS_PER_LAYER, Stream

_UNIT = re.compile(r"layer([1-4])\.(\d+)\.conv1\.weight")


def mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return a description of how the network that weights belong to differs from the expected one.

    Args:
        expected: the state dict to be filled.
        found: the weights.

    Returns:
        Such as "appearance: expected depth 50; found depth 26"; "" if only single weights differ.
    """
    differences: dict[str, list[str]] = {}
    missing = []
    for stream in STREAMS:
        wanted, given = _properties(expected, stream), _properties(found, stream)
        if wanted and not given:
            missing.append(f"no {stream} stream in them")
        elif names := [name for name in wanted if wanted[name] != given[name]]:
            here, there = (", ".join(f"{name} {values[name]}" for name in names) for values in (wanted, given))
            differences.setdefault(f"expected {here}; found {there}", []).append(stream)
    return "; ".join([*missing, *(f"{' and '.join(streams)}: {text}" for text, streams in differences.items())])


def _properties(weights: Mapping[str, Tensor], stream: Stream) -> dict[str, str]:
    """Return the config fields that can be inferred from the weights of a stream; empty if it has no weights."""
    prefix = f"{stream}."
    weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    first, last = weights.get("conv1.weight"), weights.get("fc.weight")
    reduce = weights.get("layer1.0.conv1.weight")
    if first is None or first.ndim != 4 or reduce is None or last is None:
        return {}
    layers = [int(match[1]) for key in weights if (match := _UNIT.fullmatch(key))]
    units = tuple(layers.count(layer) for layer in (1, 2, 3, 4))
    depth = next((str(depth) for depth, usual in UNITS_PER_LAYER.items() if usual == units), f"with units {units}")
    inflated = any(value.shape[2:] == (3, 1) and ".temporal." not in key for key, value in weights.items())
    injected = any(".temporal." in key for key in weights)
    properties = {
        "depth": depth,
        "width": f"{reduce.shape[0] / 64:g}",
        "stem_channels": "null" if first.shape[0] == reduce.shape[0] else str(first.shape[0]),
        "layout": "caffe" if "conv1.bias" in weights else "torchvision",
        "temporal": " and ".join(["inflate"] * inflated + ["inject"] * injected) or "null",
        "num_classes": str(last.shape[0]),
    }
    return properties | ({"flow_stack": f"{first.shape[1] / 2:g}"} if stream == "motion" else {})
