"""Read DagNN files of MatConvNet into plain Python values.

A DagNN is saved as a struct with `layers`, `params`, `vars` and `meta`, at the top level of a `.mat` file or under the
name `net` (MatConvNet, `dagnn.DagNN.saveobj`). In a file every number is a matrix, every list a 1×N cell and every name
a row of characters; here they become numbers, tuples, lists and strings.
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
        block: properties of the block: numbers, tuples of numbers, bools, strings or lists.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...] = ()
    block: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DagNN:
    """A net as stored in a file.

    Attributes:
        layers: in the file's order, which may differ from the order of execution.
        params: values by name, shaped as in MATLAB (trailing axes of length 1 may be missing).
        meta: all other metadata; structs are dicts, cells are lists, numbers are matrices.
    """

    layers: list[Layer]
    params: dict[str, NDArray[Any]]
    meta: dict[str, Any]


def read_dagnn(path: str | Path) -> DagNN:
    """Read the net in a `.mat` file of format 5 (written by save -v6 and -v7); unknown fields are ignored.

    Parameters are views of the file where possible.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or does not contain a DagNN.
    """
    file = MatFile(Path(path))
    net = file["net"] if "net" in file.variables else None  # the authors' code looks here first
    if not isinstance(net, dict):
        net = {name: file[name] for name in ("layers", "params", "meta") if name in file.variables}
    layers, params, meta = net.get("layers"), net.get("params"), net.get("meta")
    if layers is None or params is None:
        raise CheckpointError(f"{path} {_contents(file, layers)}")
    try:
        return DagNN(
            layers=[_layer(record) for record in _records(layers, "layers")],
            params=_params(params),
            meta=meta if isinstance(meta, dict) else {},
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _contents(file: MatFile, layers: Any) -> str:
    """Describe a file without a DagNN, and what to do."""
    if isinstance(layers, list):
        return (
            "contains a SimpleNN, not a DagNN: in MATLAB, `net = dagnn.DagNN.fromSimpleNN(net).saveobj()`, then "
            f"`{RESAVE}`"
        )
    kinds = {variable.kind for variable in file.variables.values()}
    if "object" in kinds:
        return f"contains a MATLAB object: load it in MATLAB, `net = net.saveobj()`, then `{RESAVE}`"
    listed = ", ".join(f"{name} ({v.kind} {'×'.join(map(str, v.shape))})" for name, v in file.variables.items())
    return f"contains no DagNN (`layers` and `params`) but {listed or 'nothing, perhaps truncated'}: expected a net"


def _records(array: Any, what: str) -> tuple[dict[str, Any], ...]:
    """Return the elements of a struct array."""
    if isinstance(array, dict):
        return (array,)
    if not isinstance(array, tuple):
        raise CheckpointError(f"`{what}` is not a struct array: expected a DagNN from `net.saveobj()`")
    return array


def _layer(record: dict[str, Any]) -> Layer:
    name, kind, block = (record.get(field) for field in ("name", "type", "block"))
    if not isinstance(name, str) or not isinstance(kind, str):
        raise CheckpointError("a layer has no name or no type: expected a DagNN from `net.saveobj()`")
    if isinstance(block, np.ndarray) and block.size == 0:
        block = {}
    if not isinstance(block, dict):
        raise CheckpointError(f"the block of layer {name} is not a struct: save `net.saveobj()` instead of the net")
    return Layer(
        name=name,
        type=kind,
        inputs=_names(name, record.get("inputs")),
        outputs=_names(name, record.get("outputs")),
        params=_names(name, record.get("params")),
        block={key: _property(value) for key, value in block.items()},
    )


def _names(layer: str, value: Any) -> tuple[str, ...]:
    """Return a cell of names as a tuple; a string is one name, anything empty none."""
    if isinstance(value, str):
        return (value,) if value else ()
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return ()
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise CheckpointError(f"the inputs, outputs or params of layer {layer} are not names")


def _property(value: Any) -> Any:
    """Return a property of a block: one number as float or bool, several as a tuple, anything else unchanged."""
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
            raise CheckpointError("a parameter has no name: expected a DagNN from `net.saveobj()`")
        if name in params:
            raise CheckpointError(f"two parameters are named {name}: save the net again")
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"parameter {name} is not a plain array: in MATLAB, `net.move('cpu')` before saving")
        params[name] = value
    return params
