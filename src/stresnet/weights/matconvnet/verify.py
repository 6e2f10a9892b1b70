"""Verify layer by layer that a DagNN is the network of a config.

The layers of the expected graph and of the file are walked in parallel from the inputs. A layer of the file is found by
its kind, its inputs and the shapes of its parameters; names are used in messages only.
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
"""The properties of a block that change its output, with the toolbox's defaults."""

_HARMLESS_OPTS = {"cudnn", "nocudnn", "verbose", "noverbose", "cudnnworkspacelimit"}


def verify(graph: Graph, layers: list[Layer], params: Mapping[str, NDArray[Any]]) -> tuple[dict[str, str], list[str]]:
    """Return the file's name of each parameter of the graph, and notes.

    Args:
        graph: the expected network.
        layers: the file's layers in order of execution.
        params: the file's parameters.

    Raises:
        CheckpointError: a layer or parameter differs, is missing or is left over.
    """
    walk = _Walk(graph, layers, params)
    for layer in graph.layers:
        walk.match(layer)
    walk.finish()
    return walk.names, walk.notes


class _Walk:
    def __init__(self, graph: Graph, layers: list[Layer], params: Mapping[str, NDArray[Any]]) -> None:
        self.graph, self.params = graph, params
        self.left = {layer.name: layer for layer in layers}
        self.at: dict[str, str] = {}  # expected variable → the file's
        self.names: dict[str, str] = {}  # expected parameter → the file's
        self.user: dict[str, str] = {}  # the file's parameter → the layer that uses it
        self.notes: list[str] = []
        self.epsilons: set[float] = set()
        self.writer = {layer.outputs[0]: layer for layer in layers}
        self.readers: dict[str, Collection[Layer]] = {}
        for layer in layers:
            for name in dict.fromkeys(layer.inputs):
                self.readers[name] = [*self.readers.get(name, []), layer]

    def match(self, layer: Layer) -> None:
        """Find the layer of the file that corresponds to `layer`."""
        other = self._find(layer)
        del self.left[other.name]
        self._same_block(layer, other)
        self._same_params(layer, other)
        self.at[layer.outputs[0]] = other.outputs[0]
        for name, file_name in zip(layer.inputs, other.inputs, strict=True):
            self.at.setdefault(name, file_name)  # only inputs of the net are not there yet

    def finish(self) -> None:
        """Raise if a layer or parameter of the file is left over."""
        for layer in self.left.values():
            raise CheckpointError(
                f"layer {self._described(layer)} is not part of this STResNet: if the net works without it, remove "
                "it in MATLAB (`net.removeLayer`)"
            )
        for name in self.params:
            if name not in self.user:
                raise CheckpointError(f"parameter {name} belongs to no layer of an STResNet: `net.rebuild()` drops it")
        for epsilon in sorted(self.epsilons - {EPSILON}):
            self.notes.append(
                f"the file was trained with a batch-norm epsilon of {epsilon:g}; further training uses {EPSILON:g} "
                "(σ is unchanged)"
            )

    def _find(self, layer: Layer) -> Layer:
        there = self.readers.get(self.at.get(layer.inputs[0], ""), self.left.values())
        reading = [other for other in there if other.name in self.left and other.type == layer.type]
        reading = [other for other in reading if self._reads_same(layer, other)]
        fitting = [other for other in reading if self._params_fit(layer, other)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise CheckpointError(
                f"the layers {' and '.join(other.name for other in fitting)} are the same, expected one "
                f"{layer.type} ({layer.name})"
            )
        expected = f"{layer.name} ({layer.type} of {self._sources(self.at.get(name, name) for name in layer.inputs)})"
        if reading and layer.params:
            filters = ", ".join(f"{other.name} with {self._shapes(other)}" for other in reading)
            shapes = ", ".join(_times(self.graph.weights[name].shape) for name in layer.params)
            raise CheckpointError(f"expected {expected} with {shapes}, found {filters}")
        file_name = {self.at[name] for name in layer.inputs if name in self.at}
        near = [other for other in self.left.values() if file_name & set(other.inputs)]
        alike = [other for other in self.left.values() if other.type == layer.type]
        shown = [other for other in near if other in alike] or (alike if len(alike) <= 4 else []) or near
        found = "; ".join(self._described(other) for other in shown[:4]) or "no layer that reads there"
        raise CheckpointError(f"expected {expected}, found {found}")

    def _reads_same(self, layer: Layer, other: Layer) -> bool:
        if len(layer.inputs) != len(other.inputs):
            return False
        if layer.inputs[0] not in self.at and len(layer.inputs) == 1:  # an input of the net; the parameters identify it
            return other.inputs[0] not in self.writer and other.inputs[0] not in self.at.values()
        expected = [self.at[name] for name in layer.inputs]
        return sorted(expected) == sorted(other.inputs)  # sums and products commute; others have one input

    def _params_fit(self, layer: Layer, other: Layer) -> bool:
        """Return whether the first parameter, the filter of a convolution, has the right shape."""
        if not layer.params:
            return True
        value = self.params.get(other.params[0]) if other.params else None
        return value is not None and fits(self.graph.weights[layer.params[0]], value)

    def _same_block(self, layer: Layer, other: Layer) -> None:
        for name, default in PROPERTIES.get(layer.type, {}).items():
            expected = _canonical(name, layer.block.get(name, default))
            found = _canonical(name, other.block.get(name, default))
            if expected != found and not (name == "hasBias" and expected):  # a missing bias is zero
                raise CheckpointError(
                    f"layer {other.name} ({other.type}) has {name} {_shown(found)}, expected {_shown(expected)}"
                )
        self._check_opts(other)
        if isinstance(epsilon := other.block.get("epsilon"), float):
            self.epsilons.add(epsilon)
        size = other.block.get("size")
        if other.type in ("dagnn.Conv", "dagnn.ConvTime") and isinstance(size, tuple):
            filters = self.params[other.params[0]].shape
            if trimmed(size) != trimmed(filters):  # as in the authors' files; the toolbox uses the filter
                self.notes.append(
                    f"{other.name} declares {_times(size)} but has a filter of {_times(filters)}, which was used"
                )

    def _check_opts(self, other: Layer) -> None:
        """Raise on unknown options of the toolbox's functions, such as a pad or a leak."""
        opts = other.block.get("opts", [])
        for option in opts if isinstance(opts, list) else [opts]:
            text = option.lower() if isinstance(option, str) else option
            if isinstance(text, str) and text and text not in _HARMLESS_OPTS:
                raise CheckpointError(f"layer {other.name} ({other.type}) has the unknown option `{option}`")

    def _same_params(self, layer: Layer, other: Layer) -> None:
        expected, found = layer.params, other.params
        has_bias = layer.block.get("hasBias")
        if has_bias and not _canonical("hasBias", other.block.get("hasBias", True)):
            # as conv1 of Caffe's ResNet-101 and -152
            self.notes.append(f"{other.name} has no bias: {layer.params[1]} is zero")
            self.user |= dict.fromkeys(found[1:2], other.name)  # an existing one is unused
            expected, found = expected[:1], found[:1] + found[2:]
        if len(found) != len(expected):
            raise CheckpointError(
                f"layer {other.name} ({other.type}) has {len(other.params)} parameters "
                f"({', '.join(other.params) or 'none'}), expected {len(layer.params)}"
            )
        for name, file_name in zip(expected, found, strict=True):
            self._same_param(self.graph.weights[name], file_name, other)

    def _same_param(self, weight: Weight, file_name: str, other: Layer) -> None:
        if file_name not in self.params:
            raise CheckpointError(f"parameter {file_name} of layer {other.name} is not in the file")
        if file_name in self.user:
            raise CheckpointError(
                f"parameter {file_name} is shared by {self.user[file_name]} and {other.name}: expected one each"
            )
        if not fits(weight, self.params[file_name]):
            raise CheckpointError(
                f"parameter {file_name} of layer {other.name} is {_times(self.params[file_name].shape)}, "
                f"expected {_times(weight.shape)}"
            )
        self.user[file_name] = other.name
        self.names[weight.name] = file_name

    def _shapes(self, other: Layer) -> str:
        found = [_times(self.params[name].shape) for name in other.params if name in self.params]
        return ", ".join(found) or "no parameters"

    def _sources(self, names: Iterable[str]) -> str:
        """Describe variables by the layers that write them."""
        return " and ".join(self.writer[name].name if name in self.writer else f"input `{name}`" for name in names)

    def _described(self, other: Layer) -> str:
        return f"{other.name} ({other.type} of {self._sources(other.inputs) or 'nothing'})"


def _canonical(name: str, value: Any) -> Any:
    """Return a property with the toolbox's shorthands expanded: one pad for four sides, one stride for both axes."""
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
