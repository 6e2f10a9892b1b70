"""Tiny networks as DagNNs for tests to change, and a writer of DagNN files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import savemat
from torch import Tensor

from stresnet.model import STResNet, STResNetConfig
from stresnet.weights.matconvnet.dagnn import DagNN, Layer
from stresnet.weights.matconvnet.graph import Weight, graph_of
from stresnet.weights.matconvnet.parameters import EPSILON

K = 3
TINY: dict[str, Any] = {"num_classes": K, "depth": 26, "width": 1 / 16, "layout": "caffe"}
CONFIGS: dict[str, STResNetConfig] = {
    "st-resnet": STResNetConfig(**TINY),
    "st-resnet*": STResNetConfig(**TINY, temporal_pool=(5, 2)),
    "st-mulnet": STResNetConfig(
        **TINY, motion_depth=50, temporal="inject", link="multiply", temporal_pool=(5, 1), motion_dropout=0.8
    ),
    "small mulnet": STResNetConfig(
        **TINY, temporal="inject", link="multiply", temporal_pool=(5, 1), dropout=0.5, motion_dropout=0.8
    ),
    "scaled both ways": STResNetConfig(**TINY, link_direction="both", link_scale=0.3),
    "scaled product": STResNetConfig(**TINY, link="multiply", link_scale=0.1, link_direction="appearance_to_motion"),
    "some layers": STResNetConfig(**TINY, temporal_layers=(2, 5), motion_temporal_layers=(3,)),
    "one stream over time": STResNetConfig(**TINY, motion_temporal_layers=()),
    "two streams": STResNetConfig(**TINY, link=None, temporal=None, flow_stack=5, dropout=0.3, motion_dropout=0.0),
    "torchvision": STResNetConfig(**{**TINY, "layout": "torchvision"}),
    "depth 50": STResNetConfig(**{**TINY, "depth": 50}),
    "appearance": STResNetConfig(**TINY, streams=("appearance",), link=None, temporal=None),
    "motion": STResNetConfig(**TINY, streams=("motion",), link=None, temporal=None, dropout=0.9),
    "motion over time": STResNetConfig(
        **TINY, streams=("motion",), link=None, temporal_pool=(3, 1), motion_temporal_layers=(4, 5), motion_depth=50
    ),
}


def randomized(config: STResNetConfig, seed: int = 0) -> STResNet:
    """Return a network of random weights, counts and variances included."""
    torch.manual_seed(seed)
    model = STResNet(config).eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) * 10.0 ** torch.randint(-9, 4, value.shape))
        elif key.endswith("num_batches_tracked"):
            value.fill_(int(torch.randint(0, 10**9, ())))
        else:
            value.copy_(torch.randn_like(value))
    return model


def to_dagnn(model: STResNet, classes: Sequence[str] = ("a", "bär 🐻", "c")) -> DagNN:
    """Return a network as a DagNN, without losses, for crops of 96 px."""
    config = model.config
    graph = graph_of(config)
    average = [128.0] * (2 * config.flow_stack if "motion" in config.streams else 0)
    average += [123.68, 116.779, 103.939] if "appearance" in config.streams else []
    normalization = {
        "imageSize": np.array([[96.0, 96.0, float(len(average))]]),
        "averageImage": np.array(average).reshape(1, 1, -1),
    }
    return DagNN(
        layers=list(graph.layers),
        params={name: encode(weight, model.state_dict()) for name, weight in graph.weights.items()},
        meta={"normalization": normalization, "classes": {"name": list(classes)[: config.num_classes]}},
    )


def encode(weight: Weight, state: Mapping[str, Tensor]) -> NDArray[np.float32]:
    """Return the value that a file holds of a parameter; the inverse of `parameters.decode`."""
    if weight.kind == "zero":
        return np.zeros(weight.shape, np.float32)
    first, *rest = (state[key].numpy() for key in weight.keys)
    if weight.kind == "moments":
        sigma = np.sqrt(rest[0].astype(np.float64) + EPSILON)
        return np.stack([first, sigma.astype(np.float32)], axis=1)
    axes = {"filter": (2, 3, 1, 0), "time": (3, 2, 1, 0), "linear": (1, 0)}.get(weight.kind)
    return (first.transpose(axes) if axes else first).reshape(weight.shape)


def write_dagnn(path: Path, net: DagNN) -> Path:
    """Write a net as `dagnn.DagNN.saveobj` and MATLAB do."""
    params = [{"name": name, "value": value} for name, value in net.params.items()]
    content = {"layers": _structs([vars(layer) for layer in net.layers]), "params": _structs(params)}
    savemat(path, content | {"meta": _matlab(net.meta)}, long_field_names=True)
    return path


def _structs(records: Sequence[dict[str, Any]]) -> NDArray[Any]:
    array = np.empty((1, len(records)), dtype=[(name, object) for name in records[0]])
    for index, record in enumerate(records):
        array[0, index] = tuple(_matlab(value) for value in record.values())
    return array


def _matlab(value: Any) -> Any:
    """Convert a value to the form in which SciPy writes a struct, a cell, a string or numbers."""
    if isinstance(value, dict):
        return {key: _matlab(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and (not value or isinstance(value[0], str)):
        cells = np.empty((1, len(value)), dtype=object)
        cells[0, :] = value
        return cells
    return value if isinstance(value, str) else np.atleast_2d(value)


@cache
def _net(name: str) -> DagNN:
    return to_dagnn(randomized(CONFIGS[name]))


def a_net(name: str = "st-resnet") -> DagNN:
    """Return a net to change."""
    net = _net(name)
    return replace(net, layers=[*net.layers], params={**net.params}, meta=deepcopy(net.meta))


def the(net: DagNN, name: str) -> int:
    return next(index for index, layer in enumerate(net.layers) if layer.name == name)


def change(net: DagNN, name: str, **fields: Any) -> None:
    """Change fields of a layer, or properties of its block."""
    index = the(net, name)
    of_layer = {key: value for key, value in fields.items() if key in Layer.__dataclass_fields__}
    block = {**net.layers[index].block, **{k: v for k, v in fields.items() if k not in of_layer}}
    net.layers[index] = replace(net.layers[index], **{"block": block, **of_layer})


def insert(net: DagNN, layer: Layer, *, between: str = "") -> None:
    """Add a layer; with `between`, the readers of that variable read the new layer instead."""
    if between:
        net.layers[:] = [
            replace(old, inputs=tuple(layer.outputs[0] if name == between else name for name in old.inputs))
            for old in net.layers
        ]
    net.layers.append(layer)
