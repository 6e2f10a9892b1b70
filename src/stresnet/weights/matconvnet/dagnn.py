"""DagNN files of MatConvNet as plain Python values, in and out: the one place that knows MATLAB's ways of storing.

A DagNN is saved as a struct with `layers`, `params`, `vars` and `meta`, at the top level of a `.mat` file or
under the name `net` (MatConvNet, `dagnn.DagNN.saveobj`). In a file every number is a matrix, every list a 1×N cell
and every name a row of characters; here they are numbers, tuples, lists and strings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import CheckpointError
from stresnet.weights.matconvnet.mat5 import RESAVE, MatFile


@dataclass(frozen=True)
class Layer:
    """One layer of a DagNN: a block between variables.

    Attributes:
        name: unique in its net.
        type: class of the block, such as `dagnn.Conv`.
        inputs: names of the variables it reads, in order.
        outputs: names of the variables it writes.
        params: names of its parameters, in order.
        block: properties of the block: numbers, tuples of numbers, truth values, strings or lists.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...] = ()
    block: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DagNN:
    """A net as a file holds it.

    Attributes:
        layers: in the file's order, which need not be that of execution.
        params: values by name, shaped as in MATLAB (trailing axes of length 1 may be missing).
        meta: everything else its makers wrote down; structs are dicts, cells are lists, numbers are matrices.
    """

    layers: list[Layer]
    params: dict[str, NDArray[Any]]
    meta: dict[str, Any]


def read_dagnn(path: str | Path) -> DagNN:
    """The net in a `.mat` file of format 5 (what MATLAB's -v6 and -v7 write); fields of no use here are passed over.

    Parameters that the file stores as they are needed are views of it.

    Raises:
        CheckpointError: if the file is missing, damaged, of another format, or holds no DagNN.
    """
    file = MatFile(Path(path))
    net = file["net"] if "net" in file.variables else None  # the authors' own code looks here first
    if not isinstance(net, dict):
        net = {name: file[name] for name in ("layers", "params", "meta") if name in file.variables}
    layers, params, meta = net.get("layers"), net.get("params"), net.get("meta")
    if layers is None or params is None:
        raise CheckpointError(f"{path} {_instead(file, layers)}")
    try:
        return DagNN(
            layers=[_layer(record) for record in _records(layers, "layers")],
            params=_params(params),
            meta=meta if isinstance(meta, dict) else {},
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _instead(file: MatFile, layers: Any) -> str:
    """What a file is that holds no DagNN."""
    if isinstance(layers, list):
        return (
            f"holds a SimpleNN, not a DagNN: in MATLAB `net = dagnn.DagNN.fromSimpleNN(net).saveobj()`, then `{RESAVE}`"
        )
    kinds = {variable.kind for variable in file.variables.values()}
    if "object" in kinds:
        return f"holds a MATLAB object: load it there, `net = net.saveobj()`, then `{RESAVE}`"
    listed = ", ".join(f"{name} ({v.kind} {'×'.join(map(str, v.shape))})" for name, v in file.variables.items())
    return f"holds no DagNN (no `layers` and `params`), but {listed or 'nothing, as if cut short'}: give a net"


def _records(array: Any, what: str) -> tuple[dict[str, Any], ...]:
    """The elements of a struct array."""
    if isinstance(array, dict):
        return (array,)
    if not isinstance(array, tuple):
        raise CheckpointError(f"`{what}` is no struct array: give a DagNN as `net.saveobj()` makes it")
    return array


def _layer(record: dict[str, Any]) -> Layer:
    name, kind, block = (record.get(field) for field in ("name", "type", "block"))
    if not isinstance(name, str) or not isinstance(kind, str):
        raise CheckpointError("a layer lacks its name or its type: give a DagNN as `net.saveobj()` makes it")
    if isinstance(block, np.ndarray) and block.size == 0:
        block = {}
    if not isinstance(block, dict):
        raise CheckpointError(f"the block of layer {name} is no struct: `net = net.saveobj()` before saving")
    return Layer(
        name=name,
        type=kind,
        inputs=_names(name, record.get("inputs")),
        outputs=_names(name, record.get("outputs")),
        params=_names(name, record.get("params")),
        block={key: _property(value) for key, value in block.items()},
    )


def _names(layer: str, value: Any) -> tuple[str, ...]:
    """A cell of names as a tuple; a bare string is one name, and anything empty none."""
    if isinstance(value, str):
        return (value,) if value else ()
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return ()
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise CheckpointError(f"the inputs, outputs or params of layer {layer} are no names")


def _property(value: Any) -> Any:
    """A property of a block: one number as float or bool, several as a tuple, the rest as it is."""
    if isinstance(value, list):
        return [_property(item) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    numbers = tuple(value.ravel(order="F").tolist())
    return numbers[0] if len(numbers) == 1 else numbers


def _params(array: Any) -> dict[str, NDArray[Any]]:
    params: dict[str, NDArray[Any]] = {}
    for record in _records(array, "params"):
        name, value = record.get("name"), record.get("value")
        if not isinstance(name, str):
            raise CheckpointError("a parameter lacks its name: give a DagNN as `net.saveobj()` makes it")
        if name in params:
            raise CheckpointError(f"two parameters are called {name}: save the net again")
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"parameter {name} is no plain array: `net.move('cpu')` before saving")
        params[name] = value
    return params
