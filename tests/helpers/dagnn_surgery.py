"""The authors' changes to MatConvNet networks, step by step as in their scripts (feichtenhofer/st-resnet).

cnn_ucf101_{spatial,temporal}.m make a stream of an ImageNet network, STResNet_stage1.m and STMulNet.m fuse two of
them, STResNet_stage2.m adds the pooling over time. Oddities of names and order are those of the scripts.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import numpy as np

from helpers.dagnn_files import filter_block, meta, resnet
from helpers.dagnn_oracle import Array, Layer, Net

Side = Literal["spatial", "temporal"]


def appearance(depth: int, base: int, classes: int, seed: int = 1, average: int = 224) -> Net:
    """Return the appearance stream alone, with a mean image of `average` px."""
    net = resnet(depth, base, classes, seed=seed)
    around = np.random.default_rng(seed).normal(0, 20, (average, average, 3)) if average > 1 else np.zeros((1, 1, 3))
    image: Array = np.array([123.7, 116.3, 103.5]) + around - around.mean((0, 1))
    net.meta["normalization"]["averageImage"] = image.astype(np.float32)
    return trained(net)


def motion(depth: int, base: int, classes: int, seed: int = 2, dropout: float | None = 0.8) -> Net:
    """Return the motion stream alone: 20 channels of mean 128, with dropout before its classifier."""
    net = resnet(depth, base, classes, channels=20, seed=seed)
    net.meta = meta(np.full((1, 1, 20), 128.0))
    return trained(net, dropout)


def trained(net: Net, dropout: float | None = None) -> Net:
    """Change a net as training a stream does: no softmax, a loss and two errors, dropout at the end of the layers."""
    rename_var(net, "data", "input")
    if dropout is not None:
        add(net, "drop_pool5", "DropOut", ["pool5"], {"rate": dropout, "frozen": False})
        chain(net, "pool5", "drop_pool5", but="drop_pool5")
    net.layers = [layer for layer in net.layers if layer.type != "dagnn.SoftMax"]
    loss(net, "loss_fc1000", "softmaxlog", "fc1000", "objective_fc1000")
    loss(net, "top1error", "classerror", "fc1000", "top1error")
    loss(net, "top5error", "topkerror", "fc1000", "top5error")
    return net


def fuse(
    a: Net,
    b: Net,
    *,
    op: Literal["Sum", "Mul"] = "Sum",
    into: Side = "spatial",
    both: bool = False,
    scale: float | None = None,
    before_relu: bool = False,
) -> Net:
    """Join two streams in one graph, with links from the first units of conv2_x … conv5_x into the second ones.

    Args:
        a: the appearance stream.
        b: the motion stream.
        op: what a link does.
        into: the stream that links enter.
        both: whether links enter the other as well.
        scale: mean factor of the Scale layer on each link, or None for no such layer.
        before_relu: what the scripts do, perhaps unmeant, where links enter the temporal stream: the link stands in
            front of the ReLU, so that the shortcut sees it too. Otherwise as for the spatial stream.
    """
    a, b = suffixed(a, "spatial"), suffixed(b, "temporal")
    net = Net(a.layers + b.layers, a.params | b.params, b.meta)
    average = [stream.meta["normalization"]["averageImage"].mean((0, 1), keepdims=True) for stream in (b, a)]
    net.meta["normalization"]["averageImage"] = np.concatenate(average, 2).astype(np.float32)
    other: Side = "temporal" if into == "spatial" else "spatial"
    for end, start in [(into, other), (other, into)][: 2 if both else 1]:
        for number in (2, 3, 4, 5):
            link(net, f"res{number}a", end, start, op, scale, before_relu and end == "temporal")
    next(layer for layer in net.layers if "temporal" in layer.name).inputs = ["input_flow"]
    rename_var(net, "input_spatial", "input")
    return net


def suffixed(net: Net, side: Side) -> Net:
    """Mark the names of a stream; whatever layer is listed before the loss becomes `prediction`."""
    net = deepcopy(net)
    net.layers[next(i for i, layer in enumerate(net.layers) if layer.type == "dagnn.Loss") - 1].name = "prediction"
    for layer in net.layers:
        layer.name += f"_{side}"
        layer.inputs = [v if v == "label" else f"{v}_{side}" for v in layer.inputs]
        layer.outputs = [f"{v}_{side}" for v in layer.outputs]
        layer.params = [f"{p}_{side}" for p in layer.params]
    net.params = {f"{name}_{side}": value for name, value in net.params.items()}
    return net


def link(net: Net, unit: str, end: Side, start: Side, op: str, scale: float | None, before_relu: bool) -> None:
    """Insert a link after a ReLU; the next layer, the second unit's first, reads it."""
    at = net.index(f"{unit}_{end}" if before_relu else f"{unit}_relu_{end}")
    source = net.layer(f"{unit}_relu_{start}").outputs[0]
    if scale is not None:
        name = f"{net.layers[at].name}_scale"
        channels = next(net.params[layer.params[0]].shape[3] for layer in net.layers[at::-1] if len(layer.params) == 1)
        rng = np.random.default_rng(channels)
        net.params[f"{name}_f"] = rng.normal(scale, scale / 2, (1, 1, channels)).astype(np.float32)
        net.params[f"{name}_b"] = np.zeros((1, 1), np.float32)
        block = {"size": [1, 1, channels, 1], "hasBias": True}
        add(net, name, "Scale", [source], block, [f"{name}_f", f"{name}_b"], at=at + 1)
        source, at = name, at + 1
    name = f"{net.layers[at].name}_sum"
    block = {"pickTemporalCentre": True} if op == "Sum" else {"numInputs": [], "backPropInput": [1, 1]}
    add(net, name, op, [source, *net.layer(f"{unit}_{end}").outputs], block, at=at + 1)
    net.layers[at + 2].inputs[0] = name


def inflate(net: Net, seed: int = 5) -> Net:
    """Replace the 1×1 convolutions of second units by ST-ResNet's temporal ones, with trained taps."""
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        named = "b_branch2a" in layer.name or "b_branch2c" in layer.name
        if layer.type == "dagnn.Conv" and named and layer.block["size"][0] == 1 and layer.block["stride"][0] == 1:
            image: Array = net.params[layer.params[0]]
            taps = np.concatenate([image / 3] * 3, 1)
            net.params[layer.params[0]] = (taps + rng.normal(0, image.std() / 2, taps.shape)).astype(np.float32)
            block = filter_block([0, 0, 1, 1], [1, 1], size=taps.shape, hasBias=layer.block["hasBias"], opts=["cuDNN"])
            layer.type, layer.block = "dagnn.ConvTime", block
    return net


def inject(net: Net, seed: int = 6, trained: bool = True) -> Net:
    """Append ST-MulNet's temporal convolutions, after the ReLU of the second units' 3×3."""
    rng = np.random.default_rng(seed)
    for i, conv in list(enumerate(net.layers)):
        if conv.type == "dagnn.Conv" and conv.block["size"][0] == 3 and "b_branch2b" in conv.name:
            relu, channels = net.layers[i + 2], conv.block["size"][3]
            name = f"{relu.name}_Time"
            taps, bias = np.zeros((1, 3, channels, channels)), np.zeros((channels, 1))
            taps[0, 1] = np.eye(channels)
            if trained:
                taps += rng.normal(0, 0.4 * channels**-0.5, taps.shape)
                bias = 0.3 * rng.standard_normal((channels, 1))
            net.params |= {f"{name}_f": taps.astype(np.float32), f"{name}_b": bias.astype(np.float32)}
            block = filter_block([0, 0, 1, 1], [1, 1], size=taps.shape, hasBias=True, opts=["cuDNN"])
            add(net, name, "ConvTime", relu.outputs, block, [f"{name}_f", f"{name}_b"])
            chain(net, relu.outputs[0], name, but=name)
    return net


def pool_time(net: Net, size: float = 5, stride: int = 2, *, method: str = "max", append: bool = False) -> Net:
    """Add temporal pools before the spatial ones; STResNet_stage2.m inserts them, STMulNet.m appends them."""
    for side in ("spatial", "temporal"):
        last = next(layer for layer in net.layers if layer.name == f"pool5_{side}").inputs[0]
        i = next(i for i, layer in enumerate(net.layers) if layer.outputs == [last])
        name = net.layers[i].name.replace(f"_{side}", f"_pool_{side}") + ("1" if append else "")
        block = filter_block([0] * 4, [1, stride], poolSize=[1, size], method=method, opts=["cuDNN"])
        add(net, name, "PoolTime", [last], block, at=None if append else i + 1)
        chain(net, last, name, but=name)
    return net


def finish(net: Net, dropout: float | None = 0.0) -> Net:
    """Finish as the scripts do: set the rate of any dropout (0 removes it, None keeps it) and add new errors."""
    for layer in [layer for layer in net.layers if layer.type == "dagnn.DropOut"]:
        if dropout == 0:
            net.layers.remove(layer)
            chain(net, layer.outputs[0], layer.inputs[0])
        elif dropout:
            layer.block["rate"] = dropout
    net.layers = [layer for layer in net.layers if "err" not in layer.name]
    for layer in [layer for layer in net.layers if layer.type == "dagnn.Loss"]:
        loss(net, f"err1_{layer.name[-8:]}", "classerror", layer.inputs[0], "error")
    return net


def st_resnet(a: Net, b: Net, **links: Any) -> Net:
    """Return an ST-ResNet without its temporal pool."""
    return finish(inflate(fuse(a, b, **links)))


def st_mulnet(a: Net, b: Net, **links: Any) -> Net:
    """Return an ST-MulNet."""
    return finish(pool_time(inject(fuse(a, b, **{"op": "Mul", **links})), 5, 1, append=True), 0.8)


def add(
    net: Net, name: str, kind: str, inputs: list[str], block: dict[str, Any], params: Any = (), at: int | None = None
) -> None:
    """Add a layer with an output of the same name, at the end or at a place in the list."""
    layer = Layer(name, f"dagnn.{kind}", list(inputs), [name], list(params), block)
    net.layers.insert(len(net.layers) if at is None else at, layer)


def loss(net: Net, name: str, kind: str, logits: str, output: str) -> None:
    """Add a loss or error on logits."""
    block = {"loss": kind, "ignoreAverage": False, "opts": [], "hard_temporal_mining": 0.0}
    net.layers.append(Layer(name, "dagnn.Loss", [logits, "label"], [output], [], block))


def chain(net: Net, old: str, new: str, but: str = "") -> None:
    """Let all readers of a variable, except one layer, read another."""
    for layer in net.layers:
        if layer.name != but:
            layer.inputs = [new if v == old else v for v in layer.inputs]


def rename_var(net: Net, old: str, new: str) -> None:
    """Rename a variable."""
    chain(net, old, new)
    for layer in net.layers:
        layer.outputs = [new if v == old else v for v in layer.outputs]
