"""Networks with random weights and the layer names of MatConvNet's import-caffe-dag.py, and their .mat files.

The authors' surgery on them is in dagnn_surgery.py. Weights are scaled by their fan-in and moments lie far from 0
and 1, so that activations stay of order one at any depth and every number of a file shows in the logits.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from helpers.dagnn_oracle import Array, Layer, Net

INPUT_SIZE = 60.0
"""Root mean square of normalised pixels (levels minus their mean)."""

DOUBLE, SINGLE = np.uint8, np.uint16
"""How small integers of class double and single are stored."""

UNITS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def unit_names(depth: int, layer: int) -> list[str]:
    """Return the names of the units of conv<n>_x: a, b, c …; in conv3_x and conv4_x of deep nets a, b1, b2 …"""
    count = UNITS[depth][layer - 2]
    if depth > 50 and layer in (3, 4):
        return ["a", *(f"b{n}" for n in range(1, count))]
    return list("abcdefghij"[:count])


class Builder:
    """Add layers in the order of Caffe's prototxt; the output of an in-place layer is its input's name plus an x."""

    def __init__(self, seed: int) -> None:
        self.net = Net([], {})
        self.rng = np.random.default_rng(seed)

    def add(self, name: str, kind: str, inputs: list[str], output: str, block: dict[str, Any], **params: Array) -> str:
        """Add a layer with parameters named after it, and return its output variable."""
        names = [f"{name}_{p}" for p in params]
        self.net.params.update({n: v.astype(np.float32) for n, v in zip(names, params.values(), strict=True)})
        self.net.layers.append(Layer(name, f"dagnn.{kind}", inputs, [output], names, block))
        return output

    def conv(
        self, name: str, x: str, size: tuple[int, int, int, int], *, square: float, stride: int = 1, bias: float = 0.0
    ) -> str:
        """Add a convolution; its output has mean square one if that of its input is `square`."""
        h, w, c, out = size
        params = {"filter": self.rng.normal(0, (h * w * c * square) ** -0.5, size)}
        if bias:
            params["bias"] = self.rng.normal(0, bias, (out, 1))
        block = filter_block([h // 2] * 4, [stride] * 2, size=size, hasBias=bool(bias), opts=["cuDNN"])
        return self.add(name, "Conv", [x], name, block, **params)

    def norm(self, name: str, x: str, channels: int, gain: float = 1.0) -> str:
        """Add an in-place batch normalisation of an input of mean square one."""
        rng = self.rng
        mean = rng.uniform(0.4, 1.2, channels) * rng.choice([-1, 1], channels)
        moments = np.stack([mean, rng.uniform(0.8, 2.5, channels)], 1)
        mult = gain * rng.uniform(0.6, 1.6, (channels, 1)) * rng.choice([-1, 1, 1, 1], (channels, 1))
        bias = gain * rng.normal(0, 0.4, (channels, 1))
        block = {"numChannels": channels, "epsilon": 1e-5, "opts": ["NoCuDNN"], "freeze": False}
        return self.add(name, "BatchNorm", [x], f"{x}x", block, mult=mult, bias=bias, moments=moments)

    def relu(self, name: str, x: str) -> str:
        """Add an in-place ReLU; after a norm its output gets two x, one for the scale layer that the norm absorbed."""
        block = {"useShortCircuit": True, "leak": 0.0, "opts": []}
        return self.add(name, "ReLU", [x], f"{x}xx" if x.endswith("x") else f"{x}x", block)

    def unit(self, name: str, x: str, channels: int, inner: int, *, stride: int, square: float, gain: float) -> str:
        """Add a bottleneck on a variable of mean square `square`, and return the variable after its last ReLU."""
        first, branch, norms = stride > 1 or channels != 4 * inner, f"res{name}_branch", f"bn{name}_branch"
        short = x
        if first:
            short = self.conv(f"{branch}1", x, (1, 1, channels, 4 * inner), square=square, stride=stride)
            short = self.norm(f"{norms}1", short, 4 * inner)
        y = self.conv(f"{branch}2a", x, (1, 1, channels, inner), square=square, stride=stride)
        y = self.relu(f"{branch}2a_relu", self.norm(f"{norms}2a", y, inner))
        y = self.conv(f"{branch}2b", y, (3, 3, inner, inner), square=0.5)
        y = self.relu(f"{branch}2b_relu", self.norm(f"{norms}2b", y, inner))
        y = self.conv(f"{branch}2c", y, (1, 1, inner, 4 * inner), square=0.5)
        y = self.norm(f"{norms}2c", y, 4 * inner, gain)
        y = self.add(f"res{name}", "Sum", [short, y], f"res{name}", {"pickTemporalCentre": True})
        return self.relu(f"res{name}_relu", y)


def filter_block(pad: list[float], stride: list[float], **rest: Any) -> dict[str, Any]:
    """Return the properties of a layer with a window."""
    return {"pad": pad, "stride": stride, "dilate": [1, 1], **rest}


def resnet(depth: int, base: int, classes: int, *, channels: int = 3, seed: int = 0) -> Net:
    """Return a ResNet for ImageNet with `base` channels after conv1 and a softmax."""
    build = Builder(seed)
    bias = 0.5 if depth <= 50 else 0.0  # Caffe's ResNet-101 and 152 have none here
    x = build.conv("conv1", "data", (7, 7, channels, base), square=INPUT_SIZE**2, stride=2, bias=bias)
    x = build.relu("conv1_relu", build.norm("bn_conv1", x, base))
    pool = {"method": "max", "poolSize": [3, 3], "opts": ["cuDNN"]}
    x = build.add("pool1", "Pooling", [x], "pool1", filter_block([0, 1, 0, 1], [2, 2], **pool))
    width = base
    for layer in (2, 3, 4, 5):
        inner, square = base * 2 ** (layer - 2), 1.0
        for index, name in enumerate(unit_names(depth, layer)):
            gain = 0.9 if index < 2 else 0.4  # the units that links and time enter must weigh
            stride = 2 if index == 0 and layer > 2 else 1
            x = build.unit(f"{layer}{name}", x, width, inner, stride=stride, square=square, gain=gain)
            width, square = 4 * inner, (1.0 if index == 0 else square) + gain**2
    pool = {"method": "avg", "poolSize": [7, 7], "opts": ["cuDNN"]}
    x = build.add("pool5", "Pooling", [x], "pool5", filter_block([0] * 4, [1, 1], **pool))
    x = build.conv("fc1000", x, (1, 1, width, classes), square=0.3, bias=0.5)
    build.add("prob", "SoftMax", [x], "prob", {})
    kill_a_channel(build.net)
    build.net.meta = meta(np.array([123.7, 116.3, 103.5]).reshape(1, 1, 3))
    return build.net


def kill_a_channel(net: Net) -> None:
    """Zero a channel, as weight decay does in trained nets: its deviation is √ε."""
    net.params["res2a_branch2b_filter"][..., 0] = 0
    net.params["bn2a_branch2b_moments"][0] = 0, np.sqrt(np.float32(1e-5))


def meta(average: Array) -> dict[str, Any]:
    """Return the metadata of a released file: the mean image, and ImageNet's class names, which the authors left in."""
    normalization = {
        "imageSize": [224, 224, average.shape[2]],
        "averageImage": average.astype(np.float32),
        "border": [32, 32],
        "keepAspect": True,
        "interpolation": "bicubic",
        "rgbVariance": np.zeros((0, 0)),
    }
    names = [f"n{i:08d}" for i in range(1000)]
    return {"normalization": normalization, "classes": {"name": names, "description": names[:1]}, "curBatchSize": 8}


def write(path: Path, net: Net, *, nested: bool = False, compress: bool = False, rates: bool = True) -> Path:
    """Write a network as MATLAB saves `DagNN.saveobj()`, at top level or, as in training, under `net`.

    As in real files, trailing axes of size one are dropped, arrays of small integers are stored as such, whatever
    their class, and about every other block gives one number for a pad or stride of equal ones. Networks that were
    never trained have no `rates`.
    """
    layers = [
        {
            "name": layer.name,
            "type": layer.type,
            "inputs": cell(layer.inputs),
            "outputs": cell(layer.outputs),
            "params": cell(layer.params),
            "block": {k: block_value(k, v, i % 2 == 0) for k, v in layer.block.items()},
        }
        for i, layer in enumerate(net.layers)
    ]
    factors = {"learningRate": matlab(1.0), "weightDecay": matlab(1.0)} if rates else {}
    params = [{"name": n, "value": matlab(v), **factors} for n, v in net.params.items()]
    names = dict.fromkeys(v for layer in net.layers for v in [*layer.inputs, *layer.outputs])
    values: dict[str, Any] = {
        "vars": struct([{"name": v, "precious": np.False_} for v in names]),
        "params": struct(params),
        "layers": struct(layers),
        "meta": meta_value(net.meta),
        "conserveMemory": matlab(1.0),
    }
    if nested:
        values = {"net": values, "info": {"train": {"objective": matlab(0.5)}}}
    buffer = BytesIO()
    scipy.io.savemat(buffer, values)
    data = with_classes(buffer.getvalue())
    path.write_bytes(compressed(data) if compress else data)
    return path


def struct(rows: list[dict[str, Any]]) -> Array:
    """Return a struct array, 1×N."""
    array = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row.values())
    return array


def cell(values: list[str]) -> Array:
    """Return a row of cells; an empty one is 0×0."""
    array = np.empty((1, len(values)) if values else (0, 0), object)
    array[:] = [values] if values else 0
    return array


def block_value(name: str, value: Any, short: bool) -> Any:
    """Return a property of a block as MATLAB stores it."""
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return cell(value)
    if name in ("pad", "stride") and short and len(set(value)) == 1:
        value = value[0]
    return value if isinstance(value, str) else matlab(value)


def meta_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: meta_value(v) for k, v in value.items()}
    if isinstance(value, list) and isinstance(value[0], str):
        return cell(value)
    return value if isinstance(value, str) else matlab(value)


def matlab(value: Any) -> Array:
    """Return numbers, at least 2-D, in the smallest type that holds them, as MATLAB stores doubles and singles."""
    array = np.asarray(value)
    array = array.reshape(1, -1) if array.ndim < 2 else array
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype == bool or not array.size:
        return array
    array = array.astype(np.float32 if array.dtype == np.float32 else np.float64)
    small = np.isfinite(array).all() and (array == np.round(array)).all() and 0 <= array.min() <= array.max() < 256
    return array.astype(DOUBLE if array.dtype == np.float64 else SINGLE) if small else array


def with_classes(data: bytes) -> bytes:
    """Declare arrays of bytes in a MAT-file as doubles, and those of 16-bit integers as singles.

    MATLAB keeps an array's class apart from the type its numbers are stored in; scipy writes them alike. The class
    is the ninth byte of an array's flags, whose tag is eight bytes: type 6, length 8.
    """
    for stored, true in ((9, 6), (11, 7)):
        data = data.replace(
            bytes([6, 0, 0, 0, 8, 0, 0, 0, stored, 0, 0, 0]), bytes([6, 0, 0, 0, 8, 0, 0, 0, true, 0, 0, 0])
        )
    return data


def compressed(data: bytes) -> bytes:
    """Compress each variable of a MAT-file, as MATLAB does with -v7."""
    out, at = data[:128], 128
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        packed = zlib.compress(data[at:end], 1)
        out += b"".join(n.to_bytes(4, "little") for n in (15, len(packed))) + packed
        at = end
    return out
