"""Convert a DagNN file to a config, a state dict and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stresnet.errors import CheckpointError
from stresnet.model.config import STResNetConfig
from stresnet.model.preprocessing import Preprocessing
from stresnet.weights.matconvnet.config import infer_config
from stresnet.weights.matconvnet.dagnn import DagNN, read_dagnn
from stresnet.weights.matconvnet.graph import Graph, graph_of
from stresnet.weights.matconvnet.normalization import class_names, preprocessing_of
from stresnet.weights.matconvnet.parameters import decode
from stresnet.weights.matconvnet.topology import ordered_layers
from stresnet.weights.matconvnet.verify import verify


@dataclass(frozen=True)
class Imported:
    """The contents of a MatConvNet file.

    Attributes:
        config: the network, inferred from the file's layers. A file does not record the initial value of link scales;
            the released code's 0.1 is assumed.
        weights: the complete state dict, float32.
        preprocessing: from `meta.normalization`.
        notes: what was ignored or assumed, one line each.
        classes: the names in `meta.classes.name` if their number matches the classifier's, else None.
    """

    config: STResNetConfig
    weights: dict[str, Tensor]
    preprocessing: Preprocessing
    notes: tuple[str, ...]
    classes: tuple[str, ...] | None


def read_matconvnet(path: str | Path) -> Imported:
    """Read the network in a MatConvNet `.mat` file (DagNN) exactly.

    Every layer and parameter of the file becomes part of the network or is ignored with a note. The notes also
    report what the file does not record and had to be assumed.

    Raises:
        CheckpointError: the file cannot be read, or contains anything that an STResNet does not; the message names it.
    """
    net = read_dagnn(path)
    try:
        return from_dagnn(net)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def from_dagnn(net: DagNN) -> Imported:
    """Convert a DagNN in memory, as `read_matconvnet` does; removes the parameters from `net`."""
    layers, layer_notes = ordered_layers(net.layers)
    config = infer_config(net, layers)
    graph = graph_of(config)
    names, verify_notes = verify(graph, layers, net.params)
    weights, weight_notes = _decode_all(graph, net, names)
    preprocessing, preprocessing_notes = preprocessing_of(config, net.meta)
    classes, class_notes = class_names(net.meta, config.num_classes)
    notes = (*layer_notes, *verify_notes, *weight_notes, *preprocessing_notes, *class_notes)
    return Imported(config, weights, preprocessing, notes, classes)


def _decode_all(graph: Graph, net: DagNN, names: dict[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the state dict and notes. Parameters are released one by one, so that memory never holds two copies."""
    weights: dict[str, Tensor] = {}
    rounded = []
    for weight in graph.weights.values():
        if weight.name not in names:  # a bias that the file omits
            weights |= {key: torch.zeros(weight.shape[0]) for key in weight.keys}
            continue
        file_name = names[weight.name]
        value = net.params.pop(file_name)
        try:
            weights |= decode(weight, value)
        except CheckpointError as error:
            hint = f" (in the file: {file_name})" if file_name != weight.name else ""
            raise CheckpointError(f"{error}{hint}") from None
        if weight.kind == "moments":
            weights[weight.keys[0].replace("running_mean", "num_batches_tracked")] = torch.tensor(0)
        if value.dtype != np.float32 and not np.array_equal(value, value.astype(np.float32)):
            rounded.append(file_name)
    return weights, [f"rounded to single precision: {_first(rounded)}"] if rounded else []


def _first(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
