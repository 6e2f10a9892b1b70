"""Build the layers of an STResNet as a DagNN.

Names are those of the released files: Caffe's ResNet names, with `_spatial` or `_temporal` appended if a net has both
streams, and the names that the authors' code gives to the layers it inserts.

Legend: T time steps, C channels, K classes, L flow fields per stack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from stresnet.model.config import UNITS_PER_LAYER, Stream, STResNetConfig
from stresnet.weights.matconvnet.dagnn import Layer

EXPANSION = 4

Kind = Literal["filter", "time", "linear", "vector", "moments", "scale", "zero"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """A parameter of a layer and its place in the state dict.

    Attributes:
        name: in the file.
        kind: how its values are stored, see `parameters`.
        keys: its entries of the state dict; none if it must be zero.
        shape: in the file: (h,w,in,out), (1,T,in,out), (C,1), (C,2) or (1,1,C).
    """

    name: str
    kind: Kind
    keys: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True)
class Graph:
    """The layers of a network in order of execution, and its parameters by name."""

    layers: list[Layer] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)


def graph_of(config: STResNetConfig) -> Graph:
    """Return the layers of a network, and the place of each parameter in the state dict."""
    graph = Graph()
    streams = {stream: _Stream(graph, config, stream) for stream in config.streams}
    for net in streams.values():
        net.stem()
    for group in range(4):
        for net in streams.values():
            net.unit(group, 0)
        links = {stream: _link(net, streams, group) for stream, net in streams.items()}
        for stream, net in streams.items():
            for index in range(1, UNITS_PER_LAYER[config.depth_of(stream)][group]):
                net.unit(group, index, links[stream] if index == 1 else None)
    for net in streams.values():
        net.head()
    return graph


def unit_name(depth: int, group: int, index: int) -> str:
    """Return the name of a residual unit: 2a, 2b, 2c, 3a …; in conv3_x and conv4_x of deep nets 3a, 3b1, 3b2 …"""
    numbered = depth >= 101 and group in (1, 2) and index > 0
    return f"{group + 2}{f'b{index}' if numbered else 'abcdef'[index]}"


def _link(into: _Stream, streams: dict[Stream, _Stream], group: int) -> str | None:
    """Append the link into a stream and return the variable that its second unit's branch reads; None without link."""
    config = into.config
    if not config.links_into(into.stream):
        return None
    other = streams["motion" if into.stream == "appearance" else "appearance"]
    name, entering = f"res{group + 2}a_relu{into.suffix}", other.x
    if config.link_scale is not None:
        channels = config.base_channels * 2**group * EXPANSION
        name = f"{name}_scale"
        factor = into.weight(f"{name}_f", "scale", (1, 1, channels), f"links.{into.stream}.{group}.scale")
        zero = into.weight(f"{name}_b", "zero", (1, 1, channels))
        block = {"size": (1.0, 1.0, float(channels), 1.0), "hasBias": True}
        entering = into.layer(name, "Scale", (entering,), (factor, zero), **block)
    kind = "Mul" if config.link == "multiply" else "Sum"
    return into.layer(f"{name}_sum", kind, (entering, into.sum))


class _Stream:
    """Append the layers of one stream to a graph; `x` is the variable that the next layer reads."""

    def __init__(self, graph: Graph, config: STResNetConfig, stream: Stream) -> None:
        self.graph, self.config, self.stream = graph, config, stream
        both = len(config.streams) == 2
        self.suffix = {"appearance": "_spatial", "motion": "_temporal"}[stream] if both else ""
        self.x = "input_flow" if both and stream == "motion" else "input"
        self.channels = 3 if stream == "appearance" else 2 * config.flow_stack
        self.sum = ""  # of the last unit, before its ReLU

    def layer(self, name: str, kind: str, inputs: tuple[str, ...], params: tuple[str, ...] = (), **block: Any) -> str:
        """Append a layer and return its output, which has the same name."""
        self.graph.layers.append(Layer(name, f"dagnn.{kind}", inputs, (name,), params, block))
        return name

    def weight(self, name: str, kind: Kind, shape: Shape, *keys: str) -> str:
        self.graph.weights[name] = Weight(name, kind, keys, shape)
        return name

    def stem(self) -> None:
        """Append conv1 and pool1."""
        caffe = self.config.layout == "caffe"
        self.conv("conv1", "conv1", 7, self.config.base_channels, stride=2, bias=caffe)
        self.norm_relu("bn_conv1", "bn1", "conv1_relu")
        block = _pool_block("max", (3, 3), (0, 1, 0, 1) if caffe else (1, 1, 1, 1), (2, 2))
        self.x = self.layer(f"pool1{self.suffix}", "Pooling", (self.x,), **block)

    def unit(self, group: int, index: int, link: str | None = None) -> None:
        """Append a residual unit; its branch reads `link` if given, its shortcut never does."""
        config = self.config
        unit = unit_name(config.depth_of(self.stream), group, index)
        key = f"layer{group + 1}.{index}"
        inner = config.base_channels * 2**group
        stride = 2 if group > 0 and index == 0 else 1
        first, second = (stride, 1) if config.layout == "caffe" else (1, stride)
        temporal = config.temporal if index == 1 and group + 2 in config.temporal_layers_of(self.stream) else None
        inflate = temporal == "inflate"

        x, channels = self.x, self.channels
        if index == 0:
            self.conv(f"res{unit}_branch1", f"{key}.downsample.0", 1, inner * EXPANSION, stride=stride)
            self.norm(f"bn{unit}_branch1", f"{key}.downsample.1")
        shortcut = self.x
        self.x, self.channels = link or x, channels
        self.conv(f"res{unit}_branch2a", f"{key}.conv1", 1, inner, stride=first, over_time=inflate)
        self.norm_relu(f"bn{unit}_branch2a", f"{key}.bn1", f"res{unit}_branch2a_relu")
        self.conv(f"res{unit}_branch2b", f"{key}.conv2", 3, inner, stride=second)
        self.norm_relu(f"bn{unit}_branch2b", f"{key}.bn2", f"res{unit}_branch2b_relu")
        if temporal == "inject":
            self.inject(f"res{unit}_branch2b_relu{self.suffix}_Time", f"{key}.temporal")
        self.conv(f"res{unit}_branch2c", f"{key}.conv3", 1, inner * EXPANSION, over_time=inflate)
        self.norm(f"bn{unit}_branch2c", f"{key}.bn3")

        self.sum = self.layer(f"res{unit}{self.suffix}", "Sum", (shortcut, self.x))
        self.x = self.relu(f"res{unit}_relu", self.sum, linked=index == 0 and config.links_into(self.stream))

    def head(self) -> None:
        """Append the pools over time and space, dropout and the classifier."""
        config, suffix = self.config, self.suffix
        if config.temporal_pool is not None:
            size, stride = config.temporal_pool
            number = "1" if config.temporal == "inject" else ""  # only ST-MulNet's code numbers them
            name = f"{self.x.removesuffix(suffix)}_pool{suffix}{number}"
            self.x = self.layer(name, "PoolTime", (self.x,), **_pool_block("max", (1, size), (0,) * 4, (1, stride)))
        self.x = self.layer(f"pool5{suffix}", "Pooling", (self.x,), **_pool_block("avg", (7, 7), (0,) * 4, (1, 1)))
        rate = float(config.dropout_of(self.stream))
        if rate > 0:
            self.x = self.layer(f"drop_pool5{suffix}", "DropOut", (self.x,), rate=rate)
        classes = config.num_classes
        shape = (1, 1, self.channels, classes)
        params = (
            self.weight(f"fc1000_filter{suffix}", "linear", shape, f"{self.stream}.fc.weight"),
            self.weight(f"fc1000_bias{suffix}", "vector", (classes, 1), f"{self.stream}.fc.bias"),
        )
        name = f"prediction{suffix}" if suffix else "fc1000"
        self.layer(name, "Conv", (self.x,), params, **_conv_block(shape, 0, 1, True))

    def conv(
        self, name: str, key: str, size: int, out: int, *, stride: int = 1, bias: bool = False, over_time: bool = False
    ) -> None:
        """Append a convolution: size × size in space, or 1 × 3 over time."""
        key = f"{self.stream}.{key}"
        shape = (1, 3, self.channels, out) if over_time else (size, size, self.channels, out)
        kind: Kind = "time" if over_time else "filter"
        params: tuple[str, ...] = (self.weight(f"{name}_filter{self.suffix}", kind, shape, f"{key}.weight"),)
        if bias:
            params += (self.weight(f"{name}_bias{self.suffix}", "vector", (out, 1), f"{key}.bias"),)
        block = _time_block(shape, bias) if over_time else _conv_block(shape, size // 2, stride, bias)
        kind_of_layer = "ConvTime" if over_time else "Conv"
        self.x = self.layer(f"{name}{self.suffix}", kind_of_layer, (self.x,), params, **block)
        self.channels = out

    def inject(self, name: str, key: str) -> None:
        """Append a temporal convolution of ST-MulNet."""
        key = f"{self.stream}.{key}"
        shape = (1, 3, self.channels, self.channels)
        params = (
            self.weight(f"{name}_f", "time", shape, f"{key}.weight"),
            self.weight(f"{name}_b", "vector", (self.channels, 1), f"{key}.bias"),
        )
        self.x = self.layer(name, "ConvTime", (self.x,), params, **_time_block(shape, True))

    def norm(self, name: str, key: str) -> None:
        key, channels = f"{self.stream}.{key}", self.channels
        params = (
            self.weight(f"{name}_mult{self.suffix}", "vector", (channels, 1), f"{key}.weight"),
            self.weight(f"{name}_bias{self.suffix}", "vector", (channels, 1), f"{key}.bias"),
            self.weight(
                f"{name}_moments{self.suffix}", "moments", (channels, 2), f"{key}.running_mean", f"{key}.running_var"
            ),
        )
        block = {"numChannels": float(channels), "epsilon": 1e-5}
        self.x = self.layer(f"{name}{self.suffix}", "BatchNorm", (self.x,), params, **block)

    def relu(self, name: str, x: str, *, linked: bool = False) -> str:
        # in place, a ReLU would overwrite the sum that a link reads too
        return self.layer(f"{name}{self.suffix}", "ReLU", (x,), useShortCircuit=not linked)

    def norm_relu(self, norm: str, key: str, relu: str) -> None:
        self.norm(norm, key)
        self.x = self.relu(relu, self.x)


def _conv_block(shape: Shape, pad: int, stride: int, bias: bool) -> dict[str, Any]:
    return {"size": _row(shape), "hasBias": bias, "pad": _row((pad,) * 4), "stride": _row((stride,) * 2)}


def _time_block(shape: Shape, bias: bool) -> dict[str, Any]:
    """Return the block of a 1 × 3 convolution over positions × steps, with a step of zeros at each end of a clip."""
    return {"size": _row(shape), "hasBias": bias, "pad": _row((0, 0, 1, 1)), "stride": _row((1, 1))}


def _pool_block(method: str, size: Shape, pad: Shape, stride: Shape) -> dict[str, Any]:
    return {"method": method, "poolSize": _row(size), "pad": _row(pad), "stride": _row(stride)}


def _row(numbers: Shape) -> tuple[float, ...]:
    """Return numbers as MATLAB stores them."""
    return tuple(float(n) for n in numbers)
