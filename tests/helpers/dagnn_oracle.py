"""An interpreter of MatConvNet DagNN files that is independent of the library.

It runs whatever graph a file holds, layer by layer, with the arithmetic of the MATLAB classes (vlfeat/matconvnet and
the fork feichtenhofer/matconvnet, which has ConvTime, PoolTime and Mul). Names have no effect: a layer runs as soon as
its input variables exist.

Activations are (N,C,H,W) with N = B·T, the T frames of a clip adjacent; MATLAB's order is (H,W,C,N). Test mode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import isinf, isqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.io
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]
Stream = Literal["appearance", "motion"]

NOT_RUN = ("dagnn.Loss", "dagnn.SoftMax")
"""Layers behind a classifier, which do not change the logits."""


@dataclass
class Layer:
    """A layer of a file; `type` includes the package, such as dagnn.Conv."""

    name: str
    type: str
    inputs: list[str]
    outputs: list[str]
    params: list[str]
    block: dict[str, Any]


@dataclass
class Net:
    """The network in a file: layers in the file's order, parameters by name."""

    layers: list[Layer]
    params: dict[str, Array]
    meta: dict[str, Any] = field(default_factory=dict)

    def layer(self, name: str) -> Layer:
        """Return the layer of that name."""
        return self.layers[self.index(name)]

    def index(self, name: str) -> int:
        """Return the index of the layer of that name."""
        (found,) = (i for i, layer in enumerate(self.layers) if layer.name == name)
        return found


def read(path: Path) -> Net:
    """Read the network of a .mat file, at top level or under `net`."""
    values = scipy.io.loadmat(path)
    net = _plain(values["net"]) if "net" in values else {k: _plain(v) for k, v in values.items() if k[0] != "_"}
    layers = [
        Layer(v["name"], v["type"], list(v["inputs"]), list(v["outputs"]), list(v["params"]), _block(v["block"]))
        for v in _rows(net["layers"])
    ]
    return Net(layers, {v["name"]: v["value"] for v in _rows(net["params"])}, net.get("meta", {}))


def _plain(value: Any) -> Any:
    """Convert a struct to a dict, a struct array to a list of dicts, a cell to a list, a char array to a string."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names:
        rows = [{name: _plain(row[name]) for name in value.dtype.names} for row in value.flat]
        return rows[0] if len(rows) == 1 else rows
    if value.dtype == object:
        return [_plain(v) for v in value.flat]
    if value.dtype.kind == "U":
        return str(value.flat[0]) if value.size else ""
    return value


def _rows(value: Any) -> list[dict[str, Any]]:
    return [value] if isinstance(value, dict) else value


def _block(value: Any) -> dict[str, Any]:
    """Return the properties of a block; one without any may be read as an empty array."""
    return value if isinstance(value, dict) else {}


def run(
    net: Net, inputs: Mapping[str, Tensor], clips: int, *, dtype: torch.dtype = torch.float64, keep: bool = False
) -> dict[str, Tensor]:
    """Return the variables that only losses read, by name; with `keep`, all variables.

    Args:
        net: the graph.
        inputs: values of its input variables, (B·T,C,H,W).
        clips: B; the time layers need it (net.meta.curBatchSize in MATLAB).
        dtype: the precision to compute in.
        keep: keep every variable, rather than drop those that were read.

    Raises:
        ValueError: if a variable is written twice, or some layers can never run.
    """
    waiting = [layer for layer in net.layers if layer.type not in NOT_RUN]
    if twice := [v for v, n in Counter(v for layer in waiting for v in layer.outputs).items() if n > 1]:
        raise ValueError(f"two layers write {twice[0]!r}")
    readers = Counter(v for layer in waiting for v in layer.inputs)
    values = {name: x.to(dtype) for name, x in inputs.items()}
    left = dict(readers)
    while waiting:
        ready = [layer for layer in waiting if all(v in values for v in layer.inputs)]
        if not ready:
            raise ValueError(f"{len(waiting)} layers never run, among them {waiting[0].name!r}")
        for layer in ready:
            params = [torch.from_numpy(np.asarray(net.params[p], np.float64)).to(dtype) for p in layer.params]
            x = _evaluate(layer, [values[v] for v in layer.inputs], params, clips)
            for v in layer.inputs:
                left[v] -= 1
                if left[v] == 0 and not keep:
                    del values[v]
            values[layer.outputs[0]] = x
        done = {id(layer) for layer in ready}
        waiting = [layer for layer in waiting if id(layer) not in done]
    return values if keep else {v: x for v, x in values.items() if not readers[v]}


def logits(
    net: Net, rgb: Tensor | None = None, flow: Tensor | None = None, *, dtype: torch.dtype = torch.float64
) -> dict[Stream, Tensor]:
    """Return the logits of each stream, (B,T′,K), averaged over the positions of the classifier.

    Args:
        net: the graph, of one stream or two.
        rgb: normalised frames (B,3,T,H,W), for the input that a filter over 3 channels reads.
        flow: normalised flow stacks (B,2L,T,H,W), for the input that a filter over more reads.
        dtype: the precision to compute in.
    """
    inputs = {name: flow if channels > 3 else rgb for name, channels in sources(net).items()}
    clip = next(x for x in inputs.values() if x is not None)
    folded = {name: x.transpose(1, 2).flatten(0, 1) for name, x in inputs.items() if x is not None}
    out: dict[Stream, Tensor] = {}
    for name, x in run(net, folded, clip.shape[0], dtype=dtype).items():
        motion = name.endswith("_temporal") if len(inputs) > 1 else clip is flow
        out["motion" if motion else "appearance"] = x.mean((2, 3)).reshape(clip.shape[0], -1, x.shape[1])
    return out


def sources(net: Net) -> dict[str, int]:
    """Return the input variables and their numbers of channels."""
    written = {v for layer in net.layers for v in layer.outputs}
    return {
        v: int(net.params[layer.params[0]].shape[2])
        for layer in net.layers
        for v in layer.inputs
        if v not in written and layer.type not in NOT_RUN
    }


def _evaluate(layer: Layer, x: Sequence[Tensor], params: Sequence[Tensor], clips: int) -> Tensor:
    """Return the output of a layer."""
    name = layer.type.removeprefix("dagnn.")
    if name in ("Sum", "Mul"):
        if len({v.shape for v in x}) > 1:
            raise ValueError(f"{layer.name}: inputs differ in shape: {[tuple(v.shape) for v in x]}")
        return reduce(torch.add if name == "Sum" else torch.mul, x)
    (only,) = x
    if name in ("ConvTime", "PoolTime"):
        plane = (lambda v, b: _conv(b, v, params)) if name == "ConvTime" else (lambda v, b: _pool(b, v))
        return _over_time(layer.block, only, clips, plane)
    simple: dict[str, Callable[[], Tensor]] = {
        "Conv": lambda: _conv(layer.block, only, params),
        "Pooling": lambda: _pool(layer.block, only),
        "BatchNorm": lambda: _batch_norm(only, params),
        "Scale": lambda: _scale(layer.block, only, params),
        "ReLU": lambda: F.leaky_relu(only, _number(layer.block, "leak", 0.0)),
        "DropOut": lambda: only,
    }
    if name not in simple:
        raise NotImplementedError(f"{layer.name}: layers of type {layer.type}")
    return simple[name]()


def _conv(block: Mapping[str, Any], x: Tensor, params: Sequence[Tensor]) -> Tensor:
    """Correlate with a filter (h,w,in,out) after zero padding; add a bias only if the block has one."""
    weight = _four(params[0]).permute(3, 2, 0, 1)
    bias = params[1].flatten() if _number(block, "hasBias", 1) else None
    top, bottom, left, right = _pads(block)
    x = F.pad(x, (left, right, top, bottom))
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, bias, stride=_pair(block, "stride"), dilation=_pair(block, "dilate"), groups=groups)


def _pool(block: Mapping[str, Any], x: Tensor) -> Tensor:
    """Return the maximum or mean over each window without its padding."""
    size = [int(n) for n in _list(block["poolSize"])]
    stride = _pair(block, "stride")
    top, bottom, left, right = _pads(block)
    around = (left, right, top, bottom)
    if block.get("method", "max") == "max":
        return F.max_pool2d(F.pad(x, around, value=-torch.inf), size, stride)
    inside = F.pad(torch.ones_like(x[:1, :1]), around)
    return F.avg_pool2d(F.pad(x, around), size, stride) / F.avg_pool2d(inside, size, stride)


def _batch_norm(x: Tensor, params: Sequence[Tensor]) -> Tensor:
    """Normalise by moments (C,2): the mean, and a deviation that includes epsilon."""
    mult, bias, moments = params
    mean, deviation = (moments[:, i].view(-1, 1, 1) for i in (0, 1))
    return mult.view(-1, 1, 1) * (x - mean) / deviation + bias.view(-1, 1, 1)


def _scale(block: Mapping[str, Any], x: Tensor, params: Sequence[Tensor]) -> Tensor:
    """Multiply by factors and add summands, if any; each axis of (h,w,c,n) is 1 or the input's size."""
    factor, *summand = (_four(p).permute(3, 2, 0, 1) for p in params)
    return x * factor + summand[0] if _number(block, "hasBias", 1) else x * factor


def _over_time(
    block: Mapping[str, Any], x: Tensor, clips: int, plane: Callable[[Tensor, Mapping[str, Any]], Tensor]
) -> Tensor:
    """Apply an operation to each clip as a plane of positions × frames, as ConvTime and PoolTime do.

    MATLAB reshapes (H,W,C,N) to (H·W,C,T,B) and swaps C and T: the first axis of a filter, pad or stride is
    position, in column-major order, the second is time.
    """
    n, c, h, w = x.shape
    frames = n // clips
    x = x.reshape(clips, frames, c, h, w).permute(0, 2, 4, 3, 1).reshape(clips, c, w * h, frames)  # (B,C,W·H,T)
    if "poolSize" in block:
        size = _list(block["poolSize"])
        block = {**block, "poolSize": [size[0], frames if isinf(size[1]) else size[1]]}
    x = plane(x, block)
    step = isqrt(_pair(block, "stride")[0])  # stride(1) counts positions of both axes: MATLAB takes its root
    c, frames = x.shape[1], x.shape[3]
    x = x.reshape(clips, c, -(-w // step), -(-h // step), frames)
    return x.permute(0, 4, 1, 3, 2).flatten(0, 1)


def _four(value: Tensor) -> Tensor:
    """Restore the trailing axes of size 1 that MATLAB dropped."""
    return value.reshape(*value.shape, *[1] * (4 - value.ndim))


def _list(value: Any) -> list[float]:
    return [float(v) for v in np.asarray(value).flat]


def _number(block: Mapping[str, Any], name: str, default: float) -> float:
    return _list(block.get(name, default))[0]


def _pair(block: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Return a stride or dilation for both axes."""
    values = [int(v) for v in _list(block.get(name, 1))]
    return (values[0], values[-1])


def _pads(block: Mapping[str, Any]) -> Iterable[int]:
    """Return the padding at top, bottom, left, right; one number stands for all, two for the axes."""
    values = [int(v) for v in _list(block.get("pad", 0))]
    return {1: values * 4, 2: [values[0]] * 2 + values[1:] * 2, 4: values}[len(values)]
