"""Small changes of released files, most of which change the output of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from helpers.dagnn_oracle import Array, Net
from helpers.dagnn_surgery import add, chain

Change = Callable[[Net], None]

SIDES = ("spatial", "temporal")
STAR, FIFTY, MUL, SCALED = "ST-ResNet*", "ST-ResNet 50", "ST-MulNet", "scaled"
LINK = "res3a_relu_spatial_sum"
BRANCH = "res3b_branch2cx_spatial"
MOMENTS = "bn3b_branch2b_moments_spatial"
FILTER3 = "res3b_branch2b_filter_spatial"
TIME = "res3b_branch2a_filter_spatial"
INJECTED = "res3b_branch2b_relu_spatial_Time"
MEANS = [[0.5, 0.7]] * 16
PAIRS = {"poolSize": [1, 2], "stride": [1, 1], "method": "max"}


@dataclass(frozen=True)
class Mutation:
    """A change to a net.

    Attributes:
        base: which net is changed.
        change: does it, in place.
        must_be_converted: only numbers change, or nothing that affects the logits, so the reader must accept it.
        must_be_rejected: no STResNet computes it, so the reader must reject it.
        shows: whether the logits change.
    """

    base: str
    change: Change
    must_be_converted: bool = False
    must_be_rejected: bool = False
    shows: bool = True


def numbers(change: Change, base: str = STAR) -> Mutation:
    return Mutation(base, change, must_be_converted=True)


def nothing(change: Change, base: str = STAR) -> Mutation:
    return Mutation(base, change, must_be_converted=True, shows=False)


def value(name: str, change: Callable[[Array], Any]) -> Change:
    """Change a parameter."""

    def mutate(net: Net) -> None:
        net.params[name] = np.ascontiguousarray(change(net.params[name]), np.float32)

    return mutate


def exchange(first: str, second: str) -> Change:
    """Swap two parameters."""

    def mutate(net: Net) -> None:
        net.params[first], net.params[second] = net.params[second], net.params[first]

    return mutate


def share(layer: str, other: str) -> Change:
    """Let a layer use the parameters of another."""

    def mutate(net: Net) -> None:
        net.layer(layer).params = list(net.layer(other).params)

    return mutate


def block(layer: str, **properties: Any) -> Change:
    """Change properties of a layer."""
    return lambda net: net.layer(layer).block.update(properties)


def pools(**properties: Any) -> Change:
    """Change the temporal pools of both streams."""
    return all_of(*(block(f"res5b_relu_pool_{side}", **properties) for side in SIDES))


def kind(layer: str, name: str) -> Change:
    """Change the type of a layer."""
    return lambda net: setattr(net.layer(layer), "type", f"dagnn.{name}")


def reads(layer: str, *inputs: str) -> Change:
    """Change the inputs of a layer."""

    def mutate(net: Net) -> None:
        net.layer(layer).inputs = list(inputs)

    return mutate


def without(name: str) -> Change:
    """Remove a layer; its readers read its first input instead."""

    def mutate(net: Net) -> None:
        layer = net.layer(name)
        net.layers.remove(layer)
        chain(net, layer.outputs[0], layer.inputs[0])

    return mutate


def after(variable: str, name: str, properties: dict[str, Any], *params: Any) -> Change:
    """Insert a layer between a variable and its readers."""

    def mutate(net: Net) -> None:
        names = [f"new_p{i}" for i in range(len(params))]
        net.params.update({n: np.asarray(p, np.float32) for n, p in zip(names, params, strict=True)})
        chain(net, variable, "new")
        add(net, "new", name, [variable], properties, names)

    return mutate


def all_of(*changes: Change) -> Change:
    def mutate(net: Net) -> None:
        for change in changes:
            change(net)

    return mutate


def reverse_time(net: Net) -> None:
    for layer in net.layers:
        if layer.type == "dagnn.ConvTime":
            value(layer.params[0], lambda w: w[:, ::-1])(net)


def middle_tap_only(net: Net) -> None:
    """Replace temporal convolutions by spatial ones."""
    for layer in net.layers:
        if layer.type == "dagnn.ConvTime":
            value(layer.params[0], lambda w: w * np.array([0, 1, 0]).reshape(1, 3, 1, 1))(net)


def shuffle(net: Net) -> None:
    net.layers = [net.layers[i] for i in np.random.default_rng(0).permutation(len(net.layers))]


def rename_variables(net: Net) -> None:
    """Rename everything but inputs and logits, by which the interpreter distinguishes the streams."""
    kept = ("input", "input_flow", "label", "fc1000_spatial", "fc1000_temporal")
    names = {v: f"v{i}" for i, v in enumerate(dict.fromkeys(v for layer in net.layers for v in layer.outputs))}
    for layer in net.layers:
        layer.inputs = [v if v in kept else names[v] for v in layer.inputs]
        layer.outputs = [v if v in kept else names[v] for v in layer.outputs]


def move_strides(net: Net) -> None:
    """Move the strides to the 3×3 convolutions, as in torchvision's ResNets."""
    for layer in net.layers:
        if "a_branch2" in layer.name and layer.type == "dagnn.Conv" and layer.name[3] in "345":
            layer.block["stride"] = [2, 2] if "branch2b" in layer.name else [1, 1]


def two_groups(net: Net) -> None:
    """Give a 3×3 convolution two groups."""
    layer = net.layer("res3b_branch2b_spatial")
    half = layer.block["size"][2] // 2
    layer.block["size"] = [3, 3, half, 2 * half]
    value(layer.params[0], lambda w: w[:, :, :half])(net)


def bias_in(layer: str) -> Change:
    """Give a convolution a bias."""

    def mutate(net: Net) -> None:
        conv = net.layer(layer)
        conv.block["hasBias"] = True
        conv.params.append("new_bias")
        net.params["new_bias"] = np.full((net.params[conv.params[0]].shape[3], 1), 0.7, np.float32)

    return mutate


def scripts_other_direction(net: Net) -> None:
    """Add links into the temporal stream where the authors' scripts put them: before the ReLU, shortcut included."""
    for number in (2, 3, 4, 5):
        name = f"res{number}a_temporal_sum"
        add(net, name, "Sum", [f"res{number}ax_spatial", f"res{number}a_temporal"], {})
        net.layer(f"res{number}a_relu_temporal").inputs = [name]


def inflate_elsewhere(net: Net) -> None:
    """Move the temporal convolution from res3b to res3c."""
    first, second = (net.layer(f"res3{unit}_branch2a_spatial") for unit in "bc")
    first.type, second.type = second.type, first.type
    first.block, second.block = second.block, first.block
    exchange(first.params[0], second.params[0])(net)


def deflate(net: Net) -> None:
    """Make only the first convolution of res3b spatial."""
    layer = net.layer("res3b_branch2a_spatial")
    layer.type, layer.block["pad"] = "dagnn.Conv", [0, 0, 0, 0]
    value(layer.params[0], lambda w: w[:, 1:2])(net)


def five_taps(net: Net) -> None:
    layer = net.layer(INJECTED)
    value(layer.params[0], lambda w: np.concatenate([w[:, :1], w, w[:, 2:]], 1))(net)
    layer.block.update(pad=[0, 0, 2, 2], size=net.params[layer.params[0]].shape)


def pool_after_pool5(net: Net) -> None:
    """Pool over space first, then over time, as in the text of the paper."""
    pool, last = net.layer("pool5_spatial"), net.layer("res5b_relu_pool_spatial")
    pool.inputs, last.inputs = list(last.inputs), list(pool.outputs)
    chain(net, pool.outputs[0], last.outputs[0], but=last.name)


def one_softmax(net: Net) -> None:
    """Use one classifier for the features of both streams."""
    layer = net.layer("prediction_spatial")
    other = next(v for v in net.layers if v.outputs == ["fc1000_temporal"])
    net.params[layer.params[0]] = np.concatenate([net.params[v.params[0]] for v in (layer, other)], 2)
    net.layers = [v for v in net.layers if "fc1000_temporal" not in [*v.inputs, *v.outputs]]
    add(net, "singleSoftMaxConcat", "Concat", [f"pool5_{side}" for side in SIDES], {"dim": 3})
    layer.inputs = ["singleSoftMaxConcat"]


MUTATIONS: dict[str, Mutation] = {
    # only numbers change
    "two taps swapped": numbers(value(TIME, lambda w: w[:, [0, 2, 1]])),
    "time reversed": numbers(reverse_time),
    "injected taps reversed": numbers(reverse_time, MUL),
    "outer taps zero": numbers(middle_tap_only),
    "a 3×3 transposed": numbers(value(FILTER3, lambda w: w.transpose(1, 0, 2, 3))),
    "a 3×3 turned by 180°": numbers(value(FILTER3, lambda w: w[::-1, ::-1])),
    "in and out of a 3×3 transposed": numbers(value(FILTER3, lambda w: w.transpose(0, 1, 3, 2))),
    "conv1 transposed": numbers(value("conv1_filter_temporal", lambda w: w.transpose(1, 0, 2, 3))),
    "channels of flow reversed": numbers(value("conv1_filter_temporal", lambda w: w[:, :, ::-1])),
    "BGR": numbers(value("conv1_filter_spatial", lambda w: w[:, :, ::-1])),
    "mean and deviation swapped": numbers(value(MOMENTS, lambda m: abs(m[:, ::-1]))),
    "factor and bias of a norm swapped": numbers(exchange("bn3b_branch2b_mult_spatial", "bn3b_branch2b_bias_spatial")),
    "filters of the streams swapped": numbers(exchange(FILTER3, "res3b_branch2b_filter_temporal")),
    "classifiers swapped": numbers(exchange("fc1000_filter_spatial", "fc1000_filter_temporal")),
    "parameters shared": Mutation(STAR, share("res3b_branch2b_spatial", "res3b_branch2b_temporal")),
    "a link's factors": numbers(value("res3a_relu_spatial_scale_f", lambda f: -3 * f), SCALED),
    "a pool over time of stride 1": numbers(pools(stride=[1, 1])),
    # nothing that affects the logits changes
    "layers shuffled": nothing(shuffle),
    "injected layers shuffled": nothing(shuffle, MUL),
    "variables renamed": nothing(rename_variables),
    "an unused parameter": Mutation(STAR, lambda net: net.params.update(unused=np.ones((3, 2))), shows=False),
    "epsilon, which the deviations include": nothing(block("bn3b_branch2b_spatial", epsilon=0.1)),
    "a link's inputs exchanged": nothing(reads(LINK, "res3a_spatial", "res3ax_temporal")),
    # batch norms
    "a negative deviation": Mutation(STAR, value(MOMENTS, lambda m: m * [1, -1])),
    "deviations below the root of epsilon": Mutation(STAR, value(MOMENTS, lambda m: m * [1e-3, 1e-3])),
    "a deviation of zero": Mutation(STAR, value(MOMENTS, lambda m: m * [1, 0]), must_be_rejected=True),
    "a NaN": Mutation(STAR, value(FILTER3, lambda w: w * np.nan), must_be_rejected=True),
    "a norm left out": Mutation(STAR, without("bn3b_branch2b_spatial")),
    # strides, pads, windows
    "the stride in one unit's 3×3": Mutation(
        STAR, all_of(block("res3a_branch2a_spatial", stride=[1, 1]), block("res3a_branch2b_spatial", stride=[2, 2]))
    ),
    "the stride in every unit's 3×3": Mutation(STAR, move_strides),
    "pool1 padded in front": Mutation(STAR, block("pool1_spatial", pad=[1, 0, 1, 0])),
    "pool1 padded as torchvision": Mutation(STAR, block("pool1_temporal", pad=[1, 1, 1, 1])),
    "pool1 not padded": Mutation(STAR, all_of(*(block(f"pool1_{s}", pad=[0, 0, 0, 0]) for s in SIDES))),
    "pool1 of averages": Mutation(STAR, block("pool1_spatial", method="avg")),
    "pool1 of 2×2": Mutation(STAR, block("pool1_spatial", poolSize=[2, 2], pad=[0, 0, 0, 0])),
    "pool5 of maxima": Mutation(STAR, block("pool5_spatial", method="max")),
    "pool5 of 5×5": Mutation(STAR, block("pool5_spatial", poolSize=[5, 5])),
    "conv1 padded less in front": Mutation(STAR, block("conv1_spatial", pad=[2, 3, 2, 3])),
    "a 3×3 dilated": Mutation(STAR, block("res3b_branch2b_spatial", pad=[2, 2, 2, 2], dilate=[2, 2])),
    "a 3×3 padded to one side": Mutation(STAR, block("res3b_branch2b_spatial", pad=[2, 0, 2, 0])),
    "a 3×3 in two groups": Mutation(STAR, two_groups),
    # biases
    "a bias of conv1 not used": numbers(block("conv1_spatial", hasBias=False)),
    "a bias of the classifier not used": Mutation(STAR, block("prediction_spatial", hasBias=False)),
    "a bias of an injected convolution not used": Mutation(MUL, block(INJECTED, hasBias=False)),
    "an inflated convolution with bias": Mutation(STAR, bias_in("res3b_branch2a_spatial")),
    "a 3×3 with bias": Mutation(STAR, bias_in("res3b_branch2b_spatial")),
    # rectifiers and sums
    "a leaky ReLU": Mutation(STAR, block("res3b_branch2b_relu_spatial", leak=0.3)),
    "a ReLU left out": Mutation(STAR, without("res3b_branch2b_relu_spatial")),
    "a ReLU on a link": Mutation(STAR, after(LINK, "ReLU", {"leak": 0.0})),
    "a ReLU before a sum": Mutation(STAR, after(BRANCH, "ReLU", {"leak": 0.0})),
    "a shortcut from before the ReLU": Mutation(STAR, reads("res3b_spatial", "res3a_spatial", BRANCH)),
    "a branch without shortcut": Mutation(STAR, reads("res3b_spatial", BRANCH)),
    "a shortcut added twice": Mutation(STAR, reads("res3b_spatial", *["res3ax_spatial"] * 2, BRANCH)),
    "a residual product": Mutation(STAR, kind("res3b_spatial", "Mul")),
    # links
    "a link into the third unit": Mutation(
        FIFTY,
        all_of(reads("res3b_branch2a_spatial", "res3ax_spatial"), reads("res3c_branch2a_spatial", LINK)),
    ),
    "a link from the second unit": Mutation(STAR, reads(LINK, "res3bx_temporal", "res3a_spatial")),
    "a link from before the ReLU": Mutation(STAR, reads(LINK, "res3a_temporal", "res3a_spatial")),
    "a link to after the ReLU": Mutation(STAR, reads(LINK, "res3ax_temporal", "res3ax_spatial")),
    "a link from the same stream": Mutation(STAR, reads(LINK, "res3ax_spatial", "res3a_spatial")),
    "a link missing": Mutation(STAR, reads("res3b_branch2a_spatial", "res3ax_spatial")),
    "a link into the shortcut too": Mutation(STAR, reads("res3b_spatial", LINK, BRANCH)),
    "a link into the shortcut only": Mutation(
        STAR, all_of(reads("res3b_branch2a_spatial", "res3ax_spatial"), reads("res3b_spatial", LINK, BRANCH))
    ),
    "a link that multiplies among sums": Mutation(STAR, kind(LINK, "Mul")),
    "a link that sums among products": Mutation(MUL, kind(LINK, "Sum")),
    "a link that adds twice": Mutation(STAR, reads(LINK, *["res3ax_temporal"] * 2, "res3a_spatial")),
    "links both ways as the scripts make them": Mutation(STAR, scripts_other_direction),
    "a summand on a scaled link": Mutation(SCALED, value("res3a_relu_spatial_scale_b", lambda b: b + 0.7)),
    "one factor for all channels": Mutation(SCALED, value("res3a_relu_spatial_scale_f", lambda f: f[:, :, :1])),
    "one link not scaled": Mutation(SCALED, without("res3a_relu_spatial_scale")),
    # time
    "taps that see only the past": Mutation(STAR, block("res3b_branch2a_spatial", pad=[0, 0, 2, 0])),
    "taps of five steps": Mutation(MUL, five_taps),
    "time in the third unit": Mutation(FIFTY, inflate_elsewhere),
    "time in one end of a unit": Mutation(STAR, deflate),
    "time injected before the ReLU": Mutation(
        MUL,
        all_of(
            reads(INJECTED, "res3b_branch2bx_spatial"),
            reads("res3b_branch2b_relu_spatial", INJECTED),
            reads("res3b_branch2c_spatial", "res3b_branch2bxxx_spatial"),
        ),
    ),
    "time injected in three layers": Mutation(MUL, without(INJECTED)),
    "time injected with a norm": Mutation(MUL, after(INJECTED, "BatchNorm", {}, [[1.3]] * 16, [[0.2]] * 16, MEANS)),
    "averages over time": Mutation(STAR, block("res5b_relu_pool_spatial", method="avg")),
    "averages over time in both streams": Mutation(STAR, pools(method="avg")),
    "a pool over all steps": Mutation(STAR, pools(poolSize=[1, np.inf])),
    "a pool over time with padding": Mutation(STAR, pools(pad=[0, 0, 1, 1])),
    "a pool over time of another size in one stream": Mutation(STAR, block("res5b_relu_pool_spatial", poolSize=[1, 2])),
    "a pool over time after that over space": Mutation(STAR, pool_after_pool5),
    "a pool over time twice": Mutation(STAR, after("res5b_relu_pool_spatial", "PoolTime", PAIRS)),
    # other networks
    "one softmax for both streams": Mutation(STAR, one_softmax, must_be_rejected=True),
    "a layer of an unknown type": Mutation(STAR, after("pool1_spatial", "LRN", {}), must_be_rejected=True),
    "a parameter missing": Mutation(STAR, lambda net: net.params.__delitem__(FILTER3), must_be_rejected=True),
}
