"""What weights tell of their network, in the words of configs and recipes, for a misfit to be said in a few of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from stresnet.model.config import STREAMS, UNITS_PER_STAGE, Stream

_UNIT = re.compile(r"layer([1-4])\.(\d+)\.conv1\.weight")


def misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """How the network that weights are of differs from the one expected, or "" where only single weights do."""
    differing: dict[str, list[str]] = {}
    for stream, own, theirs in _streams(expected, found):
        if own and not theirs:
            differing.setdefault(f"no {stream} stream", [])
            continue
        names = [name for name in own if own[name] != theirs[name]]
        if names:
            here, there = (", ".join(f"{name} {terms[name]}" for name in names) for terms in (own, theirs))
            differing.setdefault(f"{here}; found {there}", []).append(stream)
    parts = []
    for text, streams in differing.items():
        parts.append(f"{' and '.join(streams)}: expected {text}" if streams else f"{text} in them")
    return "; ".join(parts)


def _streams(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> Iterator[tuple[Stream, dict[str, str], dict[str, str]]]:
    for stream in STREAMS:
        own, theirs = _terms(expected, stream), _terms(found, stream)
        if own:
            yield stream, own, theirs


def _terms(weights: Mapping[str, Tensor], stream: Stream) -> dict[str, str]:
    """What the weights of a stream tell; nothing where there are none."""
    own = {key.removeprefix(f"{stream}."): value for key, value in weights.items() if key.startswith(f"{stream}.")}
    first, last = own.get("conv1.weight"), own.get("fc.weight")
    if first is None or first.ndim != 4 or last is None:
        return {}
    stages = [int(match[1]) for key in own if (match := _UNIT.fullmatch(key))]
    units = tuple(stages.count(stage) for stage in (1, 2, 3, 4))
    depth = next((str(depth) for depth, usual in UNITS_PER_STAGE.items() if usual == units), f"of units {units}")
    inflated = any(value.shape[2:] == (3, 1) and ".temporal." not in key for key, value in own.items())
    injected = any(".temporal." in key for key in own)
    terms = {
        "depth": depth,
        "width": f"{first.shape[0] / 64:g}",
        "layout": "caffe" if "conv1.bias" in own else "torchvision",
        "temporal": " and ".join(["inflate"] * inflated + ["inject"] * injected) or "null",
        "num_classes": str(last.shape[0]),
    }
    return terms | ({"flow_stack": f"{first.shape[1] / 2:g}"} if stream == "motion" else {})
