"""The interpreter of MatConvNet files against cases computed by hand, and generated files against the scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import dagnn_files as files
from helpers import dagnn_surgery as surgery
from helpers.dagnn_oracle import Layer, Net, logits, read, run, sources


def apply(kind: str, block: dict[str, Any], x: Tensor, *params: Any, clips: int = 1) -> Tensor:
    """Return the output of one layer on folded frames (N,C,H,W)."""
    named = {f"p{i}": np.asarray(p, np.float32) for i, p in enumerate(params)}
    net = Net([Layer("only", f"dagnn.{kind}", ["x"], ["y"], list(named), block)], named)
    return run(net, {"x": x}, clips)["y"]


def frames(*values: float) -> Tensor:
    """Return frames of one channel and two positions, (N,1,1,2): a value and its negative."""
    return torch.tensor([[[[v, -v]]] for v in values])


def values(x: Tensor) -> list[float]:
    return x.flatten().tolist()


# 2 rows, 3 columns; with one row of zeros on top and one column on the right:
#   0 0 0 0
#   1 2 3 0
#   4 5 6 0
IMAGE = torch.tensor([[[[1.0, 2, 3], [4, 5, 6]]]])
FILTER = np.array([[1, 10], [100, 1000]])  # (h,w), trailing axes dropped as MATLAB does
ASYMMETRIC = {"pad": [1, 0, 0, 1], "stride": [1, 2], "hasBias": True}


def test_convolution_correlates_pads_each_side_and_strides_each_axis() -> None:
    y = apply("Conv", ASYMMETRIC, IMAGE, FILTER, [0.5])
    assert y.shape == (1, 1, 2, 2)
    assert values(y) == [100 + 2000 + 0.5, 300 + 0.5, 1 + 20 + 400 + 5000 + 0.5, 3 + 600 + 0.5]


def test_a_bias_is_added_only_where_the_block_says_so() -> None:
    y = apply("Conv", {**ASYMMETRIC, "hasBias": False}, IMAGE, FILTER, [0.5])
    assert values(y) == [2100, 300, 5421, 603]


def test_filters_are_height_width_in_out() -> None:
    weight = np.array([[1.0, 2, 3], [10, 20, 30]]).reshape(1, 1, 2, 3)
    y = apply("Conv", {"hasBias": False}, torch.tensor([5.0, 7]).view(1, 2, 1, 1), weight)
    assert values(y) == [5 + 70, 10 + 140, 15 + 210]


def test_convolution_dilates() -> None:
    y = apply("Conv", {"hasBias": False, "dilate": [1, 2]}, IMAGE, FILTER)
    assert values(y) == [1 + 30 + 400 + 6000]


def test_pooling_excludes_padding() -> None:
    x = torch.tensor([[[[-2100.0, -300], [-5421, -603]]]])
    window = {"poolSize": [2, 2], "stride": [2, 2], "pad": [0, 1, 1, 0]}  # sees the left column only
    assert values(apply("Pooling", {**window, "method": "max"}, x)) == [-2100]
    assert values(apply("Pooling", {**window, "method": "avg"}, x)) == [(-2100 - 5421) / 2]


def test_one_pad_stands_for_all_sides_and_two_for_the_ends_of_each_axis() -> None:
    pool = {"poolSize": [1, 1], "method": "max"}
    assert apply("Pooling", {**pool, "poolSize": [3, 3], "pad": 1}, IMAGE).shape[2:] == (2, 3)
    assert apply("Pooling", {**pool, "poolSize": [3, 3], "pad": [1, 0]}, IMAGE).shape[2:] == (2, 1)
    assert apply("Pooling", {**pool, "stride": 2}, IMAGE).shape[2:] == (1, 2)


def test_moments_are_a_mean_and_a_deviation_without_epsilon() -> None:
    x = torch.tensor([7.0, 7]).view(1, 2, 1, 1)
    y = apply("BatchNorm", {"epsilon": 100.0}, x, [[2], [1]], [[0.5], [0]], [[3, 4], [1, 0.5]])
    assert values(y) == [2 * (7 - 3) / 4 + 0.5, (7 - 1) / 0.5]


def test_elementwise_layers() -> None:
    x = torch.tensor([-2.0, 3]).view(1, 2, 1, 1)
    assert values(apply("ReLU", {"leak": 0.0}, x)) == [0, 3]
    assert values(apply("ReLU", {"leak": 0.5}, x)) == [-1, 3]
    assert values(apply("DropOut", {"rate": 0.9}, x)) == [-2, 3]
    assert values(apply("Scale", {"hasBias": True}, x, np.array([[[10, 100]]]), [[1]])) == [-19, 301]
    assert values(apply("Scale", {"hasBias": False}, x, np.array([[[10, 100]]]), [[1]])) == [-20, 300]


def test_time_convolution_correlates_within_each_clip() -> None:
    """Taps 1, 10, 100 on frames t−1, t, t+1; two clips of three frames, positions apart."""
    block = {"size": [1, 3, 1, 1], "pad": [0, 0, 1, 1], "stride": [1, 1], "hasBias": True}
    y = apply("ConvTime", block, frames(1, 2, 3, 4, 5, 6), np.array([[1, 10, 100]]), [0], clips=2)
    assert torch.equal(y, frames(10 + 200, 1 + 20 + 300, 2 + 30, 40 + 500, 4 + 50 + 600, 5 + 60).double())


def test_time_convolution_mixes_channels() -> None:
    weight = np.zeros((1, 3, 2, 1))
    weight[0, :, 0, 0] = 0, 1, 10
    weight[0, :, 1, 0] = 100, 0, 0
    x = torch.tensor([[1.0, 2], [3, 4]]).view(2, 2, 1, 1)  # two frames of two channels
    y = apply("ConvTime", {"pad": [0, 0, 1, 1], "hasBias": False}, x, weight)
    assert values(y) == [1 + 30, 3 + 200]


def test_time_convolution_leaves_positions_where_they_are() -> None:
    x = torch.arange(12.0).view(2, 1, 2, 3)
    y = apply("ConvTime", {"pad": [0, 0, 1, 1], "hasBias": False}, x, np.array([[0, 1, 0]]))
    assert torch.equal(y, x.double())


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"poolSize": [1, 2], "stride": [1, 1], "method": "max"}, [2, 3, 6, 6]),
        ({"poolSize": [1, 2], "stride": [1, 2], "method": "max"}, [2, 6]),
        ({"poolSize": [1, np.inf], "stride": [1, 1], "method": "max"}, [3, 6]),
        ({"poolSize": [1, 2], "stride": [1, 1], "method": "avg"}, [1.5, 2.5, 5, 5.5]),
    ],
)
def test_time_pooling_stays_within_each_clip(block: dict[str, Any], expected: list[float]) -> None:
    x = torch.tensor([1.0, 2, 3, 4, 6, 5]).view(6, 1, 1, 1).expand(6, 1, 2, 3)
    y = apply("PoolTime", {"pad": [0, 0, 0, 0], **block}, x, clips=2)
    assert y.shape[1:] == (1, 2, 3)
    assert values(y[:, 0, 1, 2]) == expected


def test_layers_run_once_their_inputs_exist_and_losses_never() -> None:
    net = Net(
        [
            Layer("loss", "dagnn.Loss", ["z", "label"], ["objective"], [], {}),
            Layer("prob", "dagnn.SoftMax", ["z"], ["prob"], [], {}),
            Layer("mul", "dagnn.Mul", ["y", "s"], ["z"], [], {}),
            Layer("sum", "dagnn.Sum", ["y", "x", "x"], ["s"], [], {}),
            Layer("relu", "dagnn.ReLU", ["x"], ["y"], [], {}),
        ],
        {},
    )
    out = run(net, {"x": torch.full((1, 1, 1, 1), 3.0)}, 1)
    assert {name: x.item() for name, x in out.items()} == {"z": 27}


@pytest.mark.parametrize("nested", [False, True])
def test_files_are_read_as_written(tmp_path: Path, nested: bool) -> None:
    net = surgery.st_mulnet(surgery.appearance(26, 4, 5), surgery.motion(26, 4, 5), scale=0.1)
    again = read(files.write(tmp_path / "net.mat", net, nested=nested, compress=nested))
    assert [(v.name, v.type, v.inputs, v.outputs, v.params) for v in again.layers] == [
        (v.name, v.type, v.inputs, v.outputs, v.params) for v in net.layers
    ]
    assert list(again.params) == list(net.params)
    for name, value in net.params.items():
        assert np.array_equal(again.params[name].reshape(value.shape), value)
    assert again.meta["normalization"]["averageImage"].shape == (1, 1, 23)
    clip = torch.randn(1, 23, 5, 200, 200, generator=torch.Generator().manual_seed(0))
    ours, theirs = (logits(n, clip[:, :3], clip[:, 3:]) for n in (net, again))
    for stream in ours:  # not to the bit: files give arrays column by column
        torch.testing.assert_close(theirs[stream], ours[stream], rtol=1e-12, atol=1e-12)


def test_activations_stay_of_order_one_in_the_deepest_net() -> None:
    """Otherwise a comparison of logits would cover only some of a file's numbers."""
    net = surgery.st_mulnet(surgery.appearance(50, 4, 5), surgery.motion(152, 4, 5))
    generator = torch.Generator().manual_seed(0)
    inputs = {n: files.INPUT_SIZE * torch.randn(5, c, 200, 200, generator=generator) for n, c in sources(net).items()}
    sizes = {n: x.square().mean().sqrt().item() for n, x in run(net, inputs, 1, keep=True).items() if n not in inputs}
    assert len(sizes) > 700
    assert min(sizes.values()) > 0.03
    assert max(sizes.values()) < 30


def times(net: Net) -> list[str]:
    return [layer.name for layer in net.layers if layer.type == "dagnn.ConvTime"]


def test_surgery_inserts_temporal_layers_where_the_scripts_do() -> None:
    shallow = surgery.st_resnet(surgery.appearance(50, 2, 5), surgery.motion(50, 2, 5))
    assert len(times(shallow)) == 16
    mixed = surgery.st_mulnet(surgery.appearance(50, 2, 5), surgery.motion(152, 2, 5))
    assert times(mixed) == [
        *(f"res{layer}b_branch2b_relu_spatial_Time" for layer in (2, 3, 4, 5)),
        *(f"res{layer}b_branch2b_relu_temporal_Time" for layer in (2, 5)),
    ]


def test_surgery_adds_links_to_the_residual_branch_only() -> None:
    net = surgery.st_resnet(surgery.appearance(50, 2, 5), surgery.motion(50, 2, 5))
    assert net.layer("res3a_relu_spatial_sum").inputs == ["res3ax_temporal", "res3a_spatial"]
    assert net.layer("res3b_branch2a_spatial").inputs == ["res3a_relu_spatial_sum"]
    assert net.layer("res3b_spatial").inputs == ["res3ax_spatial", "res3b_branch2cx_spatial"]
    assert net.layer("res3b_branch2a_temporal").inputs == ["res3ax_temporal"]


def test_surgery_renames_the_layer_before_the_loss_to_prediction() -> None:
    """With dropout at the end of the list, the dropout is renamed, and the classifier keeps its name."""
    net = surgery.st_mulnet(surgery.appearance(50, 2, 5), surgery.motion(50, 2, 5))
    assert net.layer("prediction_spatial").type == "dagnn.Conv"
    assert net.layer("prediction_temporal").type == "dagnn.DropOut"
    assert net.layer("fc1000_temporal").inputs == ["drop_pool5_temporal"]
