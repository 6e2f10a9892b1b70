"""Nets that are not an STResNet raise an error that names the layer or parameter that differs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from helpers.matconvnet_changes import (
    Change,
    both,
    changed,
    hanging,
    inserted,
    parameter,
    pooled,
    read_error,
    removed,
    unlinked,
)
from helpers.matconvnet_nets import a_net

SUM = "res3a_relu_spatial_sum"
INVALID: dict[str, tuple[str, Change, str]] = {
    "one soft-max for both": (
        "st-resnet",
        hanging("Concat", "pool5_spatial", "pool5_temporal", name="singleSoftMaxConcat"),
        r"layer singleSoftMaxConcat \(dagnn\.Concat\) is not part of an STResNet",
    ),
    "local response normalisation": ("st-resnet", inserted("LRN", "pool1_spatial"), r"layer extra \(dagnn\.LRN\)"),
    "a soft-max that is read": ("st-resnet", inserted("SoftMax", "pool5_spatial"), r"extra \(dagnn\.SoftMax\)"),
    "a loss that is read": ("st-resnet", inserted("Loss", "pool5_spatial"), r"extra \(dagnn\.Loss\)"),
    "a second head": ("st-resnet", hanging("Pooling", "res5b_relu_spatial"), r"extra|are the same"),
    "an idle ReLU": ("st-resnet", hanging("ReLU", "pool5_spatial"), r"layer extra \(dagnn\.ReLU of pool5_spatial\)"),
    "a ReLU on the logits": ("st-resnet", hanging("ReLU", "prediction_spatial"), r"extra \(dagnn\.ReLU of prediction"),
    "a ReLU between": ("st-resnet", inserted("ReLU", "pool5_spatial"), r"extra"),
    "a layer twice": (
        "st-resnet",
        hanging("ReLU", "bn_conv1_spatial", name="twin"),
        r"layers conv1_relu_spatial and twin are the same",
    ),
    "a name twice": ("st-resnet", hanging("ReLU", "pool5_spatial", name="pool1_spatial"), "2 layers are named pool1"),
    "a variable written twice": (
        "st-resnet",
        changed("pool1_spatial", outputs=("conv1_spatial",)),
        r"layer conv1_spatial \(dagnn\.Conv\) writes \[.*\]: expected one variable",
    ),
    "two outputs": (
        "st-resnet",
        changed("pool1_spatial", outputs=("a", "b")),
        "pool1_spatial .* writes .*: expected one",
    ),
    "a cycle": ("st-resnet", changed("conv1_relu_spatial", inputs=("pool1_spatial",)), "part of a cycle"),
    "no layers": ("st-resnet", lambda net: net.layers.clear(), "no 7×7 convolution reads an input"),
    "a leaking ReLU": (
        "st-resnet",
        changed("res2a_relu_spatial", leak=0.1),
        "res2a_relu_spatial .* has leak 0.1",
    ),
    "a leak by option": (
        "st-resnet",
        changed("res2a_relu_spatial", opts=["leak", 0.1]),
        r"layer res2a_relu_spatial \(dagnn\.ReLU\) has the unknown option `leak`",
    ),
    "a pad by option": (
        "st-resnet",
        changed("conv1_spatial", opts=["cuDNN", "pad", 1.0]),
        "unknown option `pad`",
    ),
    "a pool of means": (
        "st-resnet",
        changed("pool1_temporal", method="avg"),
        r"layer pool1_temporal \(dagnn\.Pooling\) has method avg, expected max",
    ),
    "a wider pool": (
        "st-resnet",
        changed("pool5_spatial", poolSize=(8.0, 8.0)),
        r"has poolSize \[8 8\], expected \[7 7\]",
    ),
    "pads of the other layout": (
        "st-resnet",
        changed("pool1_spatial", pad=1.0),
        r"pool1_spatial \(dagnn\.Pooling\) has pad \[1 1 1 1\], expected \[0 1 0 1\]",
    ),
    "one stride of the other layout": (
        "st-resnet",
        both(changed("res3a_branch2a_spatial", stride=1.0), changed("res3a_branch2b_spatial", stride=2.0)),
        r"res3a_branch2[ab]_spatial .* has stride .*, expected",
    ),
    "a dilated convolution": (
        "st-resnet",
        changed("res2a_branch2b_temporal", dilate=(2.0, 2.0)),
        r"res2a_branch2b_temporal \(dagnn\.Conv\) has dilate \[2 2\]",
    ),
    "a stride in space of a convolution over time": (
        "st-resnet",
        changed("res2b_branch2a_spatial", stride=(4.0, 1.0)),
        r"res2b_branch2a_spatial \(dagnn\.ConvTime\) has stride \[4 1\], expected \[1 1\]",
    ),
    "a stride in time": ("st-resnet", changed("res2b_branch2a_spatial", stride=(1.0, 2.0)), r"has stride \[1 2\]"),
    "no zeros at the ends of a clip": (
        "st-resnet",
        changed("res2b_branch2c_temporal", pad=0.0),
        r"has pad \[0 0 0 0\]",
    ),
    "one convolution over time alone": (
        "st-resnet",
        both(
            changed("res3b_branch2c_spatial", type="dagnn.Conv", pad=0.0),
            parameter("res3b_branch2c_filter_spatial", lambda v: v[:, :1]),
        ),
        r"expected res3b_branch2c_spatial \(dagnn\.ConvTime of .*found res3b_branch2c_spatial \(dagnn\.Conv of",
    ),
    "a convolution over time elsewhere": (
        "st-resnet",
        inserted("ConvTime", "conv1_relu_spatial", params={"t": np.zeros((1, 3, 4, 4), np.float32)}),
        r"extra",
    ),
    "norms after injected convolutions": (
        "st-mulnet",
        inserted(
            "BatchNorm",
            "res2b_branch2b_relu_spatial_Time",
            params={k: np.ones((4, n), np.float32) for k, n in (("w", 1), ("b", 1), ("m", 2))},
        ),
        r"Time|extra",
    ),
    "five steps": (
        "st-resnet",
        parameter("res2b_branch2a_filter_spatial", lambda v: np.repeat(v[:, :1], 5, axis=1)),
        r"expected res2b_branch2a_spatial .* with 1×3×16×4, found res2b_branch2a_spatial with 1×5×16×4",
    ),
    "means over time": (
        "st-resnet",
        pooled(method="avg"),
        r"layer pool_time_spatial \(dagnn\.PoolTime\) has method avg, expected max",
    ),
    "a pool over all steps": (
        "st-resnet",
        pooled(np.inf),
        r"pool_time_spatial \(dagnn\.PoolTime\) pools over inf steps",
    ),
    "a pool over time after that over space": (
        "st-resnet",
        pooled(at="pool5"),
        r"expected .*dagnn\.PoolTime of res5b_relu_spatial\), found .*pool_time_spatial \(dagnn\.PoolTime of pool5_sp",
    ),
    "pools over space and time": ("st-resnet", pooled(poolSize=(2.0, 5.0)), r"has poolSize \[2 5\]"),
    "padded pools over time": ("st-resnet", pooled(pad=(0.0, 0.0, 2.0, 2.0)), r"has pad \[0 0 2 2\]"),
    "a pool over time in one stream": (
        "st-resnet",
        inserted("PoolTime", "res5b_relu_spatial", poolSize=(1.0, 5.0)),
        r"temporal pools \(extra\) differ or are not one per stream",
    ),
    "different pools over time": (
        "st-resnet*",
        changed("res5b_relu_pool_spatial", stride=1.0),
        "temporal pools .* differ",
    ),
    "links in some layers": (
        "st-resnet",
        both(unlinked(3), unlinked(5)),
        r"links in conv2_x, conv4_x \(res2a_relu_spatial_sum, res4a_relu_spatial_sum\): expected",
    ),
    "two links in a layer": (
        "st-resnet",
        hanging("Sum", "res3a_relu_temporal", "res3a_spatial"),
        r"links in conv2_x, conv3_x, conv3_x, conv4_x, conv5_x .*extra",
    ),
    "a link that multiplies": ("st-resnet", changed(SUM, type="dagnn.Mul"), rf"some links add and some mult.*{SUM}"),
    "a link from another unit": (
        "st-resnet",
        changed(SUM, inputs=("res3b_relu_temporal", "res3a_spatial")),
        rf"expected {SUM} \(dagnn\.Sum of res3a_relu_temporal and res3a_spatial\), found .*{SUM} \(dagnn\.Sum of "
        r"res3b_relu_temporal and res3a_spatial\)",
    ),
    "a link from another layer": (
        "st-resnet",
        changed(SUM, inputs=("res2a_relu_temporal", "res3a_spatial")),
        rf"expected {SUM}.*found {SUM}",
    ),
    "a link into the ReLU": (
        "st-resnet",
        changed(SUM, inputs=("res3a_relu_temporal", "res3a_relu_spatial")),
        rf"layer {SUM} \(dagnn\.Sum\) is not a link of an STResNet",
    ),
    "a link from before the ReLU": (
        "st-resnet",
        changed(SUM, inputs=("res3a_temporal", "res3a_spatial")),
        f"layer {SUM}",
    ),
    "a link of three": (
        "st-resnet",
        changed(SUM, inputs=("res3a_relu_temporal", "res3a_spatial", "res3a_spatial")),
        f"layer {SUM} .* is not a link",
    ),
    "a link into the shortcut": (
        "st-resnet",
        changed("res3b_spatial", inputs=(SUM, "bn3b_branch2c_spatial")),
        r"expected res3b_spatial \(dagnn\.Sum of res3a_relu_spatial and bn3b_branch2c_spatial\), found res3b_spatial",
    ),
    "a link into another unit": (
        "st-resnet",
        both(
            changed("res3b_branch2a_spatial", inputs=("res3a_relu_spatial",)),
            changed("res4a_branch2a_spatial", inputs=(SUM,)),
        ),
        r"res3b_branch2a_spatial",
    ),
    "a link's bias": (
        "scaled both ways",
        parameter("res4a_relu_spatial_scale_b", lambda v: v + np.float32(0.01)),
        r"the bias res4a_relu_spatial_scale_b of a link's scale is not zero",
    ),
    "a scale on some links": ("scaled both ways", removed("res4a_relu_spatial_scale"), r"res4a_relu_spatial_scale"),
    "a scale on the other input": (
        "scaled both ways",
        both(
            changed("res2a_relu_spatial_scale", inputs=("res2a_spatial",)),
            changed("res2a_relu_spatial_scale_sum", inputs=("res2a_relu_spatial_scale", "res2a_relu_temporal")),
        ),
        r"res2a_relu_spatial_scale",
    ),
    "a shortcut that multiplies": ("st-resnet", changed("res2b_spatial", type="dagnn.Mul"), r"res2b_spatial"),
    "a missing shortcut": ("st-resnet", removed("bn2a_branch1_spatial", "res2a_branch1_spatial"), r"res2a"),
    "a missing norm": (
        "st-resnet",
        removed("bn3a_branch2a_temporal"),
        r"expected bn3a_branch2a_temporal \(dagnn\.BatchNorm of res3a_branch2a_temporal\), found",
    ),
    "a norm of two parameters": (
        "st-resnet",
        both(
            changed("bn2a_branch1_spatial", params=("bn2a_branch1_mult_spatial", "bn2a_branch1_bias_spatial")),
            lambda net: net.params.pop("bn2a_branch1_moments_spatial"),
        ),
        r"layer bn2a_branch1_spatial \(dagnn\.BatchNorm\) has 2 parameters",
    ),
    "a missing ReLU": ("st-resnet", removed("res4b_branch2a_relu_spatial"), r"expected res4b_branch2a_relu_spatial"),
    "a stray dropout": (
        "st-resnet",
        inserted("DropOut", "pool1_spatial", rate=0.5),
        r"extra \(dagnn\.DropOut of pool1",
    ),
    "dropout of logits": (
        "st-resnet",
        hanging("DropOut", "prediction_spatial", rate=0.8),
        r"extra \(dagnn\.DropOut of pred",
    ),
    "two dropouts": (
        "two streams",
        inserted("DropOut", "drop_pool5_spatial", rate=0.1),
        "has dropout in drop_pool5_spatial, extra",
    ),
    "dropout of everything": (
        "two streams",
        changed("drop_pool5_spatial", rate=1.0),
        "dropout: Input should be less than 1",
    ),
    "another kind of ResNet": (
        "depth 50",
        both(*(removed(f"res4{unit}_branch2b_spatial") for unit in "abc")),
        r"the appearance stream has 13 convolutions of 3×3; ResNets have 8 \(26 layers\), 16 \(50 layers\)",
    ),
    "a unit too many": (
        "st-resnet",
        both(
            inserted("Conv", "pool1_spatial", "c", params={"f": np.zeros((3, 3, 4, 4), np.float32)}),
            inserted("BatchNorm", "c", "n", params={k: np.ones((4, 1), np.float32) for k in "ab"}),
        ),
        r"expected res2a_branch1_spatial .* found c with 3×3×4×4",
    ),
    "another classifier": (
        "st-resnet",
        inserted("Conv", "pool1_spatial", params={"f": np.zeros((3, 3, 4, 4), np.float32)}),
        "must have one classifier, a convolution without batch norm; found extra, prediction_spatial",
    ),
    "one stream's input for both": (
        "st-resnet",
        changed("conv1_temporal", inputs=("input",)),
        "conv1_temporal reads `input`, the input of the other stream",
    ),
    "a conv1 of nothing": (
        "st-resnet",
        parameter("conv1_filter_spatial", lambda v: v[..., :0]),
        r"layer conv1_spatial \(dagnn\.Conv\) reads an input of the net: expected a conv1",
    ),
    "an odd stack of flow": (
        "st-resnet",
        parameter("conv1_filter_temporal", lambda v: v[:, :, :19]),
        "conv1_temporal reads 19 channels",
    ),
    "two of one stream": (
        "st-resnet",
        parameter("conv1_filter_temporal", lambda v: v[:, :, :3]),
        "conv1_temporal and conv1_spatial both start the appearance stream",
    ),
    "an input without a convolution": (
        "st-resnet",
        hanging("ReLU", "input"),
        r"layer extra \(dagnn\.ReLU\) reads an input",
    ),
    "a smaller conv1": (
        "st-resnet",
        parameter("conv1_filter_spatial", lambda v: v[:5, :5]),
        r"expected conv1_spatial .* with 7×7×3×4, 4×1, found conv1_spatial with 5×5×3×4",
    ),
    "a filter in groups": (
        "st-resnet",
        parameter("res2a_branch2b_filter_spatial", lambda v: v[:, :, :2]),
        "res2a_branch2b_spatial with 3×3×2×4",
    ),
    "a narrower bias": (
        "st-resnet",
        parameter("conv1_bias_spatial", lambda v: v[:3]),
        "parameter conv1_bias_spatial of layer conv1_spatial is 3×1, expected 4×1",
    ),
    "moments on their side": (
        "st-resnet",
        parameter("bn_conv1_moments_spatial", lambda v: v.T),
        "2×4, expected 4×2",
    ),
    "a parameter too many": (
        "st-resnet",
        lambda net: net.params.update(stray=np.zeros((1, 1))),
        "parameter stray belongs to no layer",
    ),
    "a parameter too few": (
        "st-resnet",
        lambda net: net.params.pop("fc1000_bias_spatial"),
        "parameter fc1000_bias_spatial of layer",
    ),
    "a shared parameter": (
        "st-resnet",
        both(
            changed(
                "bn2b_branch2a_spatial", params=tuple(f"bn2a_branch2a_{w}_spatial" for w in ("mult", "bias", "moments"))
            ),
            *(lambda net, w=w: net.params.pop(f"bn2b_branch2a_{w}_spatial") for w in ("mult", "bias", "moments")),
        ),
        "parameter bn2a_branch2a_mult_spatial is shared by bn2a_branch2a_spatial and bn2b_branch2a_spatial",
    ),
    "a bias without use": (
        "st-resnet",
        both(
            changed("res2a_branch1_spatial", params=("res2a_branch1_filter_spatial", "b")),
            lambda net: net.params.update(b=np.zeros((16, 1), np.float32)),
        ),
        r"res2a_branch1_spatial \(dagnn\.Conv\) has 2 parameters",
    ),
    "a bias too many": ("st-resnet", changed("res2a_branch1_spatial", hasBias=True), "has hasBias True, expected"),
    "different numbers of classes": (
        "st-resnet",
        both(
            parameter("fc1000_filter_temporal", lambda v: v[..., :2]),
            parameter("fc1000_bias_temporal", lambda v: v[:2]),
        ),
        "prediction_temporal with 1×1×128×2",
    ),
    "NaN": (
        "st-resnet",
        parameter("fc1000_bias_spatial", lambda v: v * np.nan),
        "fc1000_bias_spatial has NaN or infin",
    ),
    "too large a number": (
        "st-resnet",
        parameter("fc1000_bias_spatial", lambda v: v.astype(np.float64) * 1e300),
        "parameter fc1000_bias_spatial has NaN or infinite values",
    ),
    "a σ of zero": ("st-resnet", parameter("bn_conv1_moments_spatial", np.zeros((4, 2), np.float32)), "has a σ of 0"),
    "a property that is text": ("st-resnet", changed("res2a_branch2b_spatial", stride="two"), "has stride 'two'"),
}


@pytest.mark.parametrize("case", INVALID)
def test_other_nets_raise(case: str) -> None:
    name, mutate, message = INVALID[case]
    net = a_net(name)
    mutate(net)
    line = read_error(net)
    assert re.search(message, line), line
