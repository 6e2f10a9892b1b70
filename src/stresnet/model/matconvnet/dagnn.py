"""DagNN files of MatConvNet as plain Python values, in and out: the one place that knows MATLAB's ways of storing.

A DagNN is saved as a struct with `layers`, `params`, `vars` and `meta`, at the top level of a `.mat` file or
under the name `net` (MatConvNet, `dagnn.DagNN.saveobj`). In a file every number is a matrix, every list a 1×N cell
and every name a row of characters; here they are numbers, tuples, lists and strings.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, savemat, whosmat
from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque, MatReadWarning

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError

T = TypeVar("T")
_HEADER_BYTES = 128
_HDF5 = b"\x89HDF\r\n\x1a\n"
_RESAVE = "save(file,'-struct','net','-v7')"


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
        multipliers: (learningRate, weightDecay) by parameter; where absent, (1, 1). Written, not read.
    """

    layers: list[Layer]
    params: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    multipliers: dict[str, tuple[float, float]] = field(default_factory=dict)


def read_dagnn(path: str | Path) -> DagNN:
    """The net in a `.mat` file of format 5 (what MATLAB's -v6 and -v7 write); fields of no use here are passed over.

    Raises:
        CheckpointError: if the file is missing, damaged, of another format, or holds no DagNN.
    """
    path = Path(path)
    _check_header(path)
    # the authors' own code looks for `net` first
    net = _fields(_load(path, ["net"]).get("net")) or _load(path, ["layers", "params", "meta"])
    if "layers" not in net or "params" not in net:
        raise CheckpointError(_no_net(path, net))
    meta = plain(net["meta"]) if "meta" in net else {}
    return DagNN(
        layers=[_layer(path, record) for record in _records(path, net["layers"], "layers")],
        params=_params(path, net["params"]),
        meta=meta if isinstance(meta, dict) else {},
    )


def write_dagnn(path: str | Path, net: DagNN) -> None:
    """Write a net as `dagnn.DagNN.loadobj` reads it, uncompressed; the file is there in full or not at all.

    Raises:
        CheckpointError: if it cannot be written, such as on a full disk.
    """
    path = Path(path)
    variables = dict.fromkeys(v for layer in net.layers for v in (*layer.inputs, *layer.outputs))
    layers = [vars(layer) for layer in net.layers]
    params = [
        {"name": name, "value": value, "learningRate": rate, "weightDecay": decay}
        for name, value in net.params.items()
        for rate, decay in [net.multipliers.get(name, (1.0, 1.0))]
    ]
    content = {
        "layers": _struct_array(layers),
        "params": _struct_array(params),
        "vars": _struct_array([{"name": name, "precious": False} for name in variables]),
        "meta": matlab(net.meta),
        "conserveMemory": matlab(True),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            savemat(temporary, content, appendmat=False, do_compression=False, long_field_names=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be written ({error.strerror or error}): mend that and save again"
        ) from None


def plain(value: Any) -> Any:
    """A value as SciPy read it, without MATLAB's wrapping: dict, list, str, or a matrix of numbers."""
    if isinstance(value, (MatlabOpaque, MatlabObject, MatlabFunction)) or not isinstance(value, np.ndarray):
        return value
    if value.dtype.names is not None:
        records = [{name: plain(record[name]) for name in value.dtype.names} for record in _items(value)]
        return records[0] if len(records) == 1 else records
    if value.dtype == object:
        if value.size == 1 and value.flat[0] is None:  # a struct without fields
            return {}
        return [plain(item) for item in _items(value)]
    if value.dtype.kind in "US":
        rows = [str(row) for row in value.flat]
        return rows[0] if len(rows) == 1 else rows or ""
    return value


def matlab(value: Any) -> Any:
    """The reverse of `plain`: what SciPy must be given so that MATLAB sees the struct, cell, string or numbers."""
    if isinstance(value, dict):
        return {key: matlab(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and all(isinstance(item, (int, float)) for item in value) and value:
        return np.array([value], dtype=np.float64)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, dict) for item in value):
        return _struct_array(value)
    if isinstance(value, (list, tuple)):
        cells = np.empty((1, len(value)), dtype=object)
        for index, item in enumerate(value):
            cells[0, index] = matlab(item)
        return cells
    if isinstance(value, (bool, np.bool_)):
        return np.array([[value]])
    if isinstance(value, (int, float)):
        return np.array([[value]], dtype=np.float64)
    return storable(value) if isinstance(value, str) else value


def storable(text: str) -> str:
    """A text as a file can hold it: bytes that no name should have, half surrogates, become question marks."""
    return text.encode(errors="replace").decode()


def _struct_array(records: Sequence[dict[str, Any]]) -> NDArray[Any]:
    array = np.empty((1, len(records)), dtype=[(name, object) for name in records[0]])
    for index, record in enumerate(records):
        for name, value in record.items():
            array[name][0, index] = matlab(value)
    return array


def _items(array: NDArray[Any]) -> Iterator[Any]:
    """Elements of a cell or struct array in MATLAB's order, columns first."""
    return iter(array.ravel(order="F"))


def _check_header(path: Path) -> None:
    """Refuse by their first bytes what SciPy would refuse in many words, or take for something else."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the .mat file in it")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            file.seek(512)
            at_512 = file.read(len(_HDF5))
    except FileNotFoundError:
        raise CheckpointError(f"no file at {path}: give a MatConvNet .mat file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    if header.startswith((b"MATLAB 7.3", _HDF5)) or at_512 == _HDF5:
        raise CheckpointError(f"{path} is a MATLAB 7.3 file (HDF5), which SciPy cannot read: in MATLAB `{_RESAVE}`")
    if header.startswith(b"MATLAB 5.0") and len(header) < _HEADER_BYTES:
        raise CheckpointError(f"{path} is cut short: copy the file again")
    if header[124:128] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise CheckpointError(f"{path} is no MATLAB 5 .mat file: give a net saved with `{_RESAVE}`")
    _check_length(path)


def _check_length(path: Path) -> None:
    """Refuse a file that ends within a variable: SciPy passes over one that nobody asked for."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order = ">" if file.read(_HEADER_BYTES).endswith(b"MI") else "<"
        at = _HEADER_BYTES
        while at < size:
            file.seek(at)
            tag = file.read(8)
            at += 8 + (struct.unpack(f"{order}4xI", tag)[0] if len(tag) == 8 else size)
    if at > size:
        raise CheckpointError(f"{path} is cut short: copy the file again")


def _no_net(path: Path, net: dict[str, Any]) -> str:
    """Why a file holds no DagNN."""
    layers = net.get("layers")
    if isinstance(layers, np.ndarray) and layers.dtype.names is None and layers.size:
        return (
            f"{path} holds a SimpleNN, not a DagNN: in MATLAB `net = dagnn.DagNN.fromSimpleNN(net).saveobj()`, then "
            f"`{_RESAVE}`"
        )
    try:
        found = _guarded(path, lambda: whosmat(path, appendmat=False))
    except CheckpointError:  # SciPy cannot list what it cannot read
        return f"{path} holds a MATLAB object: load it there, `net = net.saveobj()`, then `{_RESAVE}`"
    listed = ", ".join(f"{name} ({kind} {'×'.join(map(str, shape))})" for name, shape, kind in found)
    return f"{path} holds no DagNN (no `layers` and `params`), but {listed or 'nothing, as if cut short'}: give a net"


def _guarded(path: Path, read: Callable[[], T]) -> T:
    """What `read` gives; whatever goes wrong inside SciPy means that the file is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", MatReadWarning)  # SciPy goes on after some kinds of damage
            return read()
    except CheckpointError:
        raise
    except Exception as error:  # SciPy reports damage in many ways: TypeError, ValueError, zlib.error …
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is cut short or damaged ({told}): copy the file again") from None


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    # mat_dtype: MATLAB stores doubles that happen to be whole as bytes; they are to come back as doubles
    loaded = _guarded(path, lambda: loadmat(path, appendmat=False, variable_names=names, mat_dtype=True))
    return {name: loaded[name] for name in names if name in loaded}


def _fields(struct: Any) -> dict[str, Any]:
    """The fields of a 1×1 struct; none if it is something else."""
    if isinstance(struct, np.ndarray) and struct.dtype.names is not None and struct.size == 1:
        return {name: struct.flat[0][name] for name in struct.dtype.names}
    return {}


def _records(path: Path, array: Any, what: str) -> list[dict[str, Any]]:
    """The elements of a struct array as dicts of raw values."""
    if not isinstance(array, np.ndarray) or array.dtype.names is None or isinstance(array, MatlabOpaque):
        raise CheckpointError(f"{path}: `{what}` is no struct array: give a DagNN as `net.saveobj()` makes it")
    return [{name: record[name] for name in array.dtype.names} for record in _items(array)]


def _layer(path: Path, record: dict[str, Any]) -> Layer:
    name, kind = plain(record.get("name")), plain(record.get("type"))
    if not isinstance(name, str) or not isinstance(kind, str):
        raise CheckpointError(f"{path}: a layer lacks its name or its type: give a DagNN as `net.saveobj()` makes it")
    block = plain(record.get("block"))
    if isinstance(block, np.ndarray) and block.size == 0:
        block = {}
    if not isinstance(block, dict):
        raise CheckpointError(f"{path}: the block of layer {name} is no struct: `net = net.saveobj()` before saving")
    return Layer(
        name=name,
        type=kind,
        inputs=_names(path, name, record.get("inputs")),
        outputs=_names(path, name, record.get("outputs")),
        params=_names(path, name, record.get("params")),
        block={key: _property(value) for key, value in block.items()},
    )


def _names(path: Path, layer: str, value: Any) -> tuple[str, ...]:
    """A cell of names as a tuple; a bare string is one name, and anything empty none."""
    value = plain(value)
    if isinstance(value, str):
        return (value,) if value else ()
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return ()
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise CheckpointError(f"{path}: the inputs, outputs or params of layer {layer} are no names")


def _property(value: Any) -> Any:
    """A property of a block: one number as float or bool, several as a tuple, the rest as `plain` leaves it."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return [_property(item) for item in value] if isinstance(value, list) else value
    numbers = tuple(value.ravel(order="F").tolist())
    return numbers[0] if len(numbers) == 1 else numbers


def _params(path: Path, array: Any) -> dict[str, NDArray[Any]]:
    params: dict[str, NDArray[Any]] = {}
    for record in _records(path, array, "params"):
        name, value = plain(record.get("name")), record.get("value")
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: a parameter lacks its name: give a DagNN as `net.saveobj()` makes it")
        if name in params:
            raise CheckpointError(f"{path}: two parameters are called {name}: save the net again")
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise CheckpointError(f"{path}: parameter {name} is no plain array: `net.move('cpu')` before saving")
        params[name] = value
    return params
