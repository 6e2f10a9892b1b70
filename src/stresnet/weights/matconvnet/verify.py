"""Whether a DagNN is the network of a config, layer by layer.

The layers of the canonical graph and of the file are walked in step from the inputs. A layer of the file is known by
its kind, by where its inputs come from and by the shapes of its parameters; its name serves messages only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import CheckpointError
from stresnet.weights.matconvnet.dagnn import Layer
from stresnet.weights.matconvnet.graph import Graph, Weight
from stresnet.weights.matconvnet.parameters import EPSILON, fits, trimmed

_FILTER: dict[str, Any] = {"pad": 0.0, "stride": 1.0}
_CONV = {**_FILTER, "dilate": 1.0, "hasBias": True}
_POOL = {**_FILTER, "method": "max", "poolSize": (1.0, 1.0)}

PROPERTIES: dict[str, dict[str, Any]] = {
    "dagnn.Conv": _CONV,
    "dagnn.ConvTime": _CONV,
    "dagnn.Pooling": _POOL,
    "dagnn.PoolTime": _POOL,
    "dagnn.ReLU": {"leak": 0.0},
    "dagnn.DropOut": {"rate": 0.5},
}
"""The properties of a block that change what it computes, and what they are where a file does not say."""

_HARMLESS_OPTS = {"cudnn", "nocudnn", "verbose", "noverbose", "cudnnworkspacelimit"}


def verify(graph: Graph, layers: list[Layer], params: Mapping[str, NDArray[Any]]) -> tuple[dict[str, str], list[str]]:
    """The file's name of each parameter of the graph, and notes.

    Args:
        graph: the network as it should be.
        layers: the file's, in an order of execution.
        params: the file's.

    Raises:
        CheckpointError: at the first layer or parameter that differs, is missing or is left over.
    """
    walk = _Walk(graph, layers, params)
    for layer in graph.layers:
        walk.step(layer)
    walk.finish()
    return walk.names, walk.notes


class _Walk:
    def __init__(self, graph: Graph, layers: list[Layer], params: Mapping[str, NDArray[Any]]) -> None:
        self.graph, self.params = graph, params
        self.left = {layer.name: layer for layer in layers}
        self.at: dict[str, str] = {}  # canonical variable → the file's
        self.names: dict[str, str] = {}  # canonical parameter → the file's
        self.user: dict[str, str] = {}  # the file's parameter → the layer that uses it
        self.notes: list[str] = []
        self.epsilons: set[float] = set()
        self.writer = {layer.outputs[0]: layer for layer in layers}
        self.readers: dict[str, Collection[Layer]] = {}
        for layer in layers:
            for name in dict.fromkeys(layer.inputs):
                self.readers[name] = [*self.readers.get(name, []), layer]

    def step(self, layer: Layer) -> None:
        """Find the layer of the file that does what `layer` does."""
        own = self._find(layer)
        del self.left[own.name]
        self._same_block(layer, own)
        self._same_params(layer, own)
        self.at[layer.outputs[0]] = own.outputs[0]
        for name, theirs in zip(layer.inputs, own.inputs, strict=True):
            self.at.setdefault(name, theirs)  # only inputs of the net are not there yet

    def finish(self) -> None:
        """Refuse what the graph has no use for."""
        for layer in self.left.values():
            raise CheckpointError(
                f"layer {self._described(layer)} is one that this STResNet does not have: take it out in MATLAB, if it "
                "can go (`net.removeLayer`)"
            )
        for name in self.params:
            if name not in self.user:
                raise CheckpointError(f"parameter {name} belongs to no layer of an STResNet: `net.rebuild()` drops it")
        for epsilon in sorted(self.epsilons - {EPSILON}):
            self.notes.append(
                f"batch norm added {epsilon:g} to the variance in the file's training, and adds {EPSILON:g} in "
                "training here; σ is as in the file"
            )

    def _find(self, layer: Layer) -> Layer:
        there = self.readers.get(self.at.get(layer.inputs[0], ""), self.left.values())
        reading = [own for own in there if own.name in self.left and own.type == layer.type]
        reading = [own for own in reading if self._reads_same(layer, own)]
        fitting = [own for own in reading if self._params_fit(layer, own)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise CheckpointError(
                f"the layers {' and '.join(own.name for own in fitting)} do the same, where an STResNet has one "
                f"{layer.type} ({layer.name})"
            )
        expected = f"{layer.name} ({layer.type} of {self._sources(self.at.get(name, name) for name in layer.inputs)})"
        if reading and layer.params:
            filters = ", ".join(f"{own.name} with {self._shapes(own)}" for own in reading)
            shapes = ", ".join(_times(self.graph.weights[name].shape) for name in layer.params)
            raise CheckpointError(f"expected {expected} with {shapes}, found {filters}")
        theirs = {self.at[name] for name in layer.inputs if name in self.at}
        near = [own for own in self.left.values() if theirs & set(own.inputs)]
        alike = [own for own in self.left.values() if own.type == layer.type]
        shown = [own for own in near if own in alike] or (alike if len(alike) <= 4 else []) or near
        found = "; ".join(self._described(own) for own in shown[:4]) or "nothing that reads there"
        raise CheckpointError(f"expected {expected}, found {found}")

    def _reads_same(self, layer: Layer, own: Layer) -> bool:
        if len(layer.inputs) != len(own.inputs):
            return False
        if layer.inputs[0] not in self.at and len(layer.inputs) == 1:  # an input of the net: the parameters tell which
            return own.inputs[0] not in self.writer and own.inputs[0] not in self.at.values()
        expected = [self.at[name] for name in layer.inputs]
        return sorted(expected) == sorted(own.inputs)  # sums and products commute; all else has one input

    def _params_fit(self, layer: Layer, own: Layer) -> bool:
        """Whether the first parameter, the filter of a convolution, has the right shape."""
        if not layer.params:
            return True
        value = self.params.get(own.params[0]) if own.params else None
        return value is not None and fits(self.graph.weights[layer.params[0]], value)

    def _same_block(self, layer: Layer, own: Layer) -> None:
        for name, default in PROPERTIES.get(layer.type, {}).items():
            expected = _canonical(name, layer.block.get(name, default))
            found = _canonical(name, own.block.get(name, default))
            if expected != found and not (name == "hasBias" and expected):  # no bias is as good as zero
                raise CheckpointError(
                    f"layer {own.name} ({own.type}) has {name} {_shown(found)}, an STResNet has {_shown(expected)}"
                )
        self._check_opts(own)
        if isinstance(epsilon := own.block.get("epsilon"), float):
            self.epsilons.add(epsilon)
        size = own.block.get("size")
        if own.type in ("dagnn.Conv", "dagnn.ConvTime") and isinstance(size, tuple):
            filters = self.params[own.params[0]].shape
            if trimmed(size) != trimmed(filters):  # the authors' own files have such: the toolbox goes by the filter
                self.notes.append(
                    f"{own.name} says {_times(size)}, but has a filter of {_times(filters)}: that was taken"
                )

    def _check_opts(self, own: Layer) -> None:
        """Refuse options handed on to the toolbox's functions, where a pad or a leak could hide."""
        opts = own.block.get("opts", [])
        for option in opts if isinstance(opts, list) else [opts]:
            text = option.lower() if isinstance(option, str) else option
            if isinstance(text, str) and text and text not in _HARMLESS_OPTS:
                raise CheckpointError(
                    f"layer {own.name} ({own.type}) has the option `{option}`, which is not known here"
                )

    def _same_params(self, layer: Layer, own: Layer) -> None:
        expected, found = layer.params, own.params
        has_bias = layer.block.get("hasBias")
        if has_bias and not _canonical("hasBias", own.block.get("hasBias", True)):
            # as in the ResNet-101 and -152 of Caffe, whose conv1 has none
            self.notes.append(f"{own.name} has no bias: {layer.params[1]} is zero")
            self.user |= dict.fromkeys(found[1:2], own.name)  # one that is there is not used
            expected, found = expected[:1], found[:1] + found[2:]
        if len(found) != len(expected):
            raise CheckpointError(
                f"layer {own.name} ({own.type}) has {len(own.params)} parameters ({', '.join(own.params) or 'none'}), "
                f"where an STResNet has {len(layer.params)}"
            )
        for name, theirs in zip(expected, found, strict=True):
            self._same_param(self.graph.weights[name], theirs, own)

    def _same_param(self, weight: Weight, theirs: str, own: Layer) -> None:
        if theirs not in self.params:
            raise CheckpointError(f"parameter {theirs} of layer {own.name} is not in the file")
        if theirs in self.user:
            raise CheckpointError(
                f"parameter {theirs} is shared by {self.user[theirs]} and {own.name}: here each has its own"
            )
        if not fits(weight, self.params[theirs]):
            raise CheckpointError(
                f"parameter {theirs} of layer {own.name} is {_times(self.params[theirs].shape)}, "
                f"not {_times(weight.shape)}"
            )
        self.user[theirs] = own.name
        self.names[weight.name] = theirs

    def _shapes(self, own: Layer) -> str:
        found = [_times(self.params[name].shape) for name in own.params if name in self.params]
        return ", ".join(found) or "no parameters"

    def _sources(self, names: Iterable[str]) -> str:
        """Variables, each by the layer that writes it."""
        return " and ".join(self.writer[name].name if name in self.writer else f"input `{name}`" for name in names)

    def _described(self, own: Layer) -> str:
        return f"{own.name} ({own.type} of {self._sources(own.inputs) or 'nothing'})"


def _canonical(name: str, value: Any) -> Any:
    """A property with the toolbox's shorthands written out: one pad for four sides, one stride for both axes."""
    numbers = value if isinstance(value, tuple) else (value,)
    if name == "pad":
        return numbers * 4 if len(numbers) == 1 else tuple(np.repeat(numbers, 2)) if len(numbers) == 2 else numbers
    if name in ("stride", "dilate", "poolSize"):
        return numbers * 2 if len(numbers) == 1 else numbers
    if name == "hasBias":
        return any(numbers)
    return value


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{' '.join(f'{n:g}' if isinstance(n, (int, float)) else str(n) for n in value)}]"
    return str(value)


def _times(shape: Sequence[float]) -> str:
    return "×".join(f"{n:g}" for n in shape)
