"""Infer the config of a DagNN from a few properties of its layers; `verify` then compares every layer.

Names of layers are not used: a stream is everything behind a conv1 with its number of channels, and conv2_x … conv5_x
are recognised by their widths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError

from stresnet.errors import CheckpointError
from stresnet.model.config import STREAMS, UNITS_PER_LAYER, Stream, STResNetConfig, explain
from stresnet.weights.matconvnet.dagnn import DagNN, Layer
from stresnet.weights.matconvnet.graph import EXPANSION, Shape

LINK_SCALE = 0.1
"""Initial value of link scales in the released code. Files have the trained values only."""

LINKS = {"dagnn.Sum": "add", "dagnn.Mul": "multiply"}


@dataclass
class _Facts:
    """Properties of one stream."""

    stream: Stream
    in_channels: int
    base: int
    layers: list[Layer] = field(default_factory=list)
    convs: int = 0  # 3×3, one per unit
    strided_convs: int = 0
    classes: list[tuple[Layer, int]] = field(default_factory=list)
    temporal: list[tuple[Layer, str, int]] = field(default_factory=list)  # layer, kind, n of conv<n>_x
    links: list[tuple[Layer, int]] = field(default_factory=list)  # into this stream: layer, n of conv<n>_x

    def of(self, kind: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.type == kind]


def infer_config(net: DagNN, order: list[Layer]) -> STResNetConfig:
    """Return the config of the STResNet that matches a net.

    Args:
        net: the net, for the shapes of its parameters.
        order: its layers in order of execution.

    Raises:
        CheckpointError: no config fits; the message names the layer that does not.
    """
    facts = _Survey(net, order).facts
    if not facts:
        raise CheckpointError("no 7×7 convolution reads an input: expected a ResNet")
    streams = tuple(stream for stream in STREAMS if stream in facts)
    main, motion = facts[streams[0]], facts.get("motion")
    kinds = sorted({kind for one in facts.values() for _, kind, _ in one.temporal})
    values: dict[str, Any] = {
        "num_classes": _classes(main),
        "depth": _depth(main),
        "width": main.base / 64,
        "layout": "torchvision" if main.strided_convs >= 2 else "caffe",  # `verify` reports a single one
        "streams": streams,
        "temporal": kinds[0] if kinds else None,
        "temporal_pool": _pool(list(facts.values())),
        "dropout": _dropout(main),
        **_links(facts),
    }
    if kinds:
        values["temporal_layers"] = _temporal_layers(main)
    if motion is not None:
        values["flow_stack"] = motion.in_channels // 2
    if motion is not None and len(streams) == 2:
        values |= _motion_differences(main, motion, temporal=bool(kinds))
    try:
        return STResNetConfig(**values)
    except ValidationError as error:
        raise CheckpointError(f"no STResNet has such a config: {explain(error)}") from None


def _motion_differences(main: _Facts, motion: _Facts, *, temporal: bool) -> dict[str, Any]:
    """Return the config fields of the motion stream, None where they equal those of the appearance stream."""
    depth, dropout, layers = _depth(motion), _dropout(motion), _temporal_layers(motion)
    return {
        "motion_depth": depth if depth != _depth(main) else None,
        "motion_dropout": dropout if dropout != _dropout(main) else None,
        "motion_temporal_layers": layers if temporal and layers != _temporal_layers(main) else None,
    }


class _Survey:
    """The properties of each stream, collected by following it from its conv1."""

    def __init__(self, net: DagNN, order: list[Layer]) -> None:
        self.net = net
        self.producer = {name: layer for layer in order for name in layer.outputs}
        self.readers: dict[str, list[Layer]] = {}
        for layer in order:
            for name in layer.inputs:
                self.readers.setdefault(name, []).append(layer)
        self.stream: dict[str, Stream] = {}  # by variable
        self.channels: dict[str, int] = {}
        self.facts: dict[Stream, _Facts] = {}
        for layer in order:
            self._visit(layer)

    def _visit(self, layer: Layer) -> None:
        shape = self._filter(layer)
        if layer.inputs and not any(name in self.producer for name in layer.inputs):
            self._open_stream(layer, shape)
        known = [name for name in layer.inputs if name in self.stream]
        if not known:
            return
        stream = self.stream[known[0]]
        if len({self.stream[name] for name in known}) == 2:
            stream = self._link(layer, known)
        facts = self.facts[stream]
        facts.layers.append(layer)
        if layer.type == "dagnn.Conv" and shape is not None:
            self._conv(facts, layer, shape)
        elif layer.type == "dagnn.ConvTime" and shape is not None:
            inflated = any(reader.type == "dagnn.BatchNorm" for reader in self._after(layer))
            group = self._layer_number(facts, layer, min(shape[2:]))
            facts.temporal.append((layer, "inflate" if inflated else "inject", group))
        for name in layer.outputs:
            self.stream[name] = stream
            convolved = shape is not None and layer.type in ("dagnn.Conv", "dagnn.ConvTime")
            self.channels[name] = shape[3] if shape is not None and convolved else self.channels[known[0]]

    def _filter(self, layer: Layer) -> Shape | None:
        """Return the shape (h,w,in,out) of a layer's first parameter; the authors do not keep block.size up to date."""
        value = self.net.params.get(layer.params[0]) if layer.params else None
        return None if value is None else cast(Shape, (*value.shape, 1, 1)[:4])

    def _open_stream(self, layer: Layer, shape: Shape | None) -> None:
        if layer.type != "dagnn.Conv" or shape is None or not all(shape):
            raise CheckpointError(f"layer {layer.name} ({layer.type}) reads an input of the net: expected a conv1")
        stream: Stream = "appearance" if shape[2] == 3 else "motion"
        if shape[2] != 3 and shape[2] % 2:
            raise CheckpointError(f"{layer.name} reads {shape[2]} channels: expected 3 (RGB) or an even number (flow)")
        if stream in self.facts:
            first = self.facts[stream].layers[0].name
            raise CheckpointError(f"{layer.name} and {first} both start the {stream} stream: expected one")
        self.facts[stream] = _Facts(stream, in_channels=shape[2], base=shape[3])
        for name in layer.inputs:
            if name in self.stream:
                raise CheckpointError(f"{layer.name} reads `{name}`, the input of the other stream")
            self.stream[name], self.channels[name] = stream, shape[2]

    def _link(self, layer: Layer, known: list[str]) -> Stream:
        """Return the stream that a link enters: the one whose sum it reads before the ReLU."""
        into = [name for name in known if self._type_before(name) == "dagnn.Sum"]
        entering = [name for name in known if self._type_before(name) in ("dagnn.ReLU", "dagnn.Scale")]
        if layer.type not in LINKS or len(layer.inputs) != 2 or len(into) != 1 or len(entering) != 1:
            raise CheckpointError(
                f"layer {layer.name} ({layer.type}) is not a link of an STResNet: expected the Sum or Mul of one "
                "stream's sum before its ReLU and the other stream's ReLU"
            )
        stream = self.stream[into[0]]
        facts = self.facts[stream]
        facts.links.append((layer, self._layer_number(facts, layer, self.channels[into[0]] // EXPANSION)))
        return stream

    def _type_before(self, name: str) -> str:
        return self.producer[name].type if name in self.producer else ""

    def _after(self, layer: Layer) -> list[Layer]:
        return [reader for name in layer.outputs for reader in self.readers.get(name, [])]

    def _conv(self, facts: _Facts, layer: Layer, shape: Shape) -> None:
        if shape[:2] == (3, 3):
            facts.convs += 1
            facts.strided_convs += _number(layer, "stride", 1.0) > 1
        if not any(reader.type == "dagnn.BatchNorm" for reader in self._after(layer)):
            facts.classes.append((layer, shape[3]))

    def _layer_number(self, facts: _Facts, layer: Layer, inner: int) -> int:
        """Return n of the conv<n>_x whose units have `inner` channels."""
        ratio = inner / facts.base
        if ratio not in (1, 2, 4, 8):
            raise CheckpointError(
                f"layer {layer.name} ({layer.type}) has {inner} channels: those of conv2_x … conv5_x have "
                f"{', '.join(str(facts.base * 2**group) for group in range(4))}"
            )
        return int(math.log2(ratio)) + 2


def _classes(facts: _Facts) -> int:
    if len(facts.classes) != 1:
        found = listed(layer for layer, _ in facts.classes) or "none"
        raise CheckpointError(
            f"the {facts.stream} stream must have one classifier, a convolution without batch norm; found {found}"
        )
    return facts.classes[0][1]


def _depth(facts: _Facts) -> int:
    """Return the depth with that many units; if one or two are missing or extra, `verify` reports them."""
    counts = {sum(units): depth for depth, units in UNITS_PER_LAYER.items()}
    nearest = min(counts, key=lambda count: abs(count - facts.convs))
    if abs(nearest - facts.convs) <= 2:
        return counts[nearest]
    known = ", ".join(f"{count} ({depth} layers)" for count, depth in counts.items())
    raise CheckpointError(f"the {facts.stream} stream has {facts.convs} convolutions of 3×3; ResNets have {known}")


def _temporal_layers(facts: _Facts) -> tuple[int, ...]:
    return tuple(sorted({number for _, _, number in facts.temporal}))


def _links(facts: Mapping[Stream, _Facts]) -> dict[str, Any]:
    """Return the link fields of the config; all of conv2_x … conv5_x are linked alike, or none."""
    into = {stream: one.links for stream, one in facts.items() if one.links}
    if not into:
        return {"link": None}
    every = [layer for links in into.values() for layer, _ in links]
    if len({layer.type for layer in every}) > 1:
        raise CheckpointError(f"some links add and some multiply ({listed(every)}): expected links of one kind")
    for stream, links in into.items():
        counts = Counter(number for _, number in links)
        if sorted(counts.elements()) != [2, 3, 4, 5]:
            raise CheckpointError(
                f"the {stream} stream has links in {', '.join(f'conv{n}_x' for n in sorted(counts.elements()))} "
                f"({listed(layer for layer, _ in links)}): expected one in each of conv2_x … conv5_x, or none"
            )
    directions: dict[tuple[Stream, ...], str] = {
        ("appearance",): "motion_to_appearance",
        ("motion",): "appearance_to_motion",
    }
    scaled = any(one.of("dagnn.Scale") for one in facts.values())
    return {
        "link": LINKS[every[0].type],
        "link_direction": directions.get(tuple(into), "both"),
        "link_scale": LINK_SCALE if scaled else None,
    }


def _pool(facts: list[_Facts]) -> tuple[int, int] | None:
    """Return (size, stride) of the temporal pools; there is one per stream or none."""
    pools = [layer for one in facts for layer in one.of("dagnn.PoolTime")]
    if not pools:
        return None
    found = set()
    for layer in pools:
        size, stride = _number(layer, "poolSize", 1.0), _number(layer, "stride", 1.0)
        if not (size.is_integer() and stride.is_integer() and min(size, stride) >= 1):
            raise CheckpointError(
                f"layer {layer.name} (dagnn.PoolTime) pools over {size:g} steps with stride {stride:g}: expected a "
                "fixed number of steps"
            )
        found.add((int(size), int(stride)))
    if len(found) > 1 or len(pools) != len(facts):
        raise CheckpointError(
            f"the temporal pools ({listed(pools)}) differ or are not one per stream: expected the same in each"
        )
    return found.pop()


def _number(layer: Layer, name: str, default: float) -> float:
    """Return a numeric property of a layer; of several numbers the last, which is that of the time axis."""
    value = layer.block.get(name, default)
    value = value[-1] if isinstance(value, tuple) and value else value
    if not isinstance(value, (int, float)):
        raise CheckpointError(f"layer {layer.name} ({layer.type}) has {name} {value!r}: expected a number")
    return float(value)


def _dropout(facts: _Facts) -> float:
    layers = facts.of("dagnn.DropOut")
    if len(layers) > 1:
        raise CheckpointError(
            f"the {facts.stream} stream has dropout in {listed(layers)}: expected one dropout, before the classifier"
        )
    return _number(layers[0], "rate", 0.5) if layers else 0.0


def listed(layers: Iterable[Layer]) -> str:
    return ", ".join(layer.name for layer in layers)
