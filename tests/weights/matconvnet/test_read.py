"""Reading MatConvNet files: parameters, axes, preprocessing and class names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.matconvnet_nets import CONFIGS, a_net, encode, randomized, to_dagnn, write_dagnn
from stresnet.errors import CheckpointError
from stresnet.model import Preprocessing
from stresnet.weights.matconvnet import read_matconvnet
from stresnet.weights.matconvnet.dagnn import DagNN
from stresnet.weights.matconvnet.graph import graph_of, unit_name
from stresnet.weights.matconvnet.parameters import SMALLEST_SIGMA, decode
from stresnet.weights.matconvnet.read import from_dagnn

# ---- parameters


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_survive_a_round_trip_bit_for_bit(name: str, tmp_path: Path) -> None:
    """All weights are exact except variances, which a file stores as single-precision σ."""
    model = randomized(CONFIGS[name])
    found = read_matconvnet(write_dagnn(tmp_path / "net.mat", to_dagnn(model)))
    assert graph_of(found.config) == graph_of(CONFIGS[name])
    expected = model.state_dict()
    assert set(found.weights) == set(expected)
    for key, value in found.weights.items():
        assert value.dtype == expected[key].dtype, key
        if key.endswith("running_var"):
            torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-8)
        elif not key.endswith("num_batches_tracked"):
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", ["st-resnet*", "st-mulnet", "scaled both ways", "torchvision"])
def test_parameters_survive_a_round_trip_bit_for_bit(name: str, tmp_path: Path) -> None:
    """All parameters are exact, including every σ down to the smallest, which is converted to a variance."""
    net = a_net(name)
    graph = graph_of(CONFIGS[name])
    rng = np.random.default_rng(1)
    for weight in graph.weights.values():
        if weight.kind != "zero":
            value = rng.standard_normal(weight.shape)
            if weight.kind == "moments":
                value[:, 1] = SMALLEST_SIGMA * 10 ** rng.uniform(1e-6, 6, len(value))
            net.params[weight.name] = value.astype(np.float32)
    found = read_matconvnet(write_dagnn(tmp_path / "net.mat", net))
    for weight in graph.weights.values():
        value = encode(weight, found.weights)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, net.params[weight.name], strict=True, err_msg=weight.name)


def test_every_sigma_survives_a_round_trip() -> None:
    """Test a million floats above the smallest, and those next to √ε, where the variance changes sign."""
    sigma = np.float32(SMALLEST_SIGMA) * np.exp(np.linspace(0, 12, 1_000_000)).astype(np.float32)
    near = np.float32(1e-5**0.5) + np.arange(-500, 500, dtype=np.float32) * np.spacing(np.float32(1e-5**0.5))
    sigma = np.concatenate([sigma[sigma >= SMALLEST_SIGMA], near.astype(np.float32)])
    weight = replace(graph_of(CONFIGS["appearance"]).weights["bn_conv1_moments"], shape=(len(sigma), 2))
    state = decode(weight, np.stack([np.zeros_like(sigma), sigma], axis=1))
    np.testing.assert_array_equal(encode(weight, state)[:, 1], sigma)


@pytest.mark.parametrize("name", CONFIGS)
def test_reads_layers_in_any_order_under_any_names(name: str) -> None:
    net = a_net(name)
    rename = {old: f"n{index}" for index, old in enumerate(sorted({n for one in net.layers for n in (
        one.name, *one.inputs, *one.outputs, *one.params)}))}  # fmt: skip
    layers = [
        replace(
            one,
            name=rename[one.name],
            inputs=tuple(rename[n] for n in one.inputs)[:: -1 if one.type in ("dagnn.Sum", "dagnn.Mul") else 1],
            outputs=tuple(rename[n] for n in one.outputs),
            params=tuple(rename[n] for n in one.params),
        )
        for one in net.layers
    ]
    order = np.random.default_rng(0).permutation(len(layers))
    net = replace(
        net, layers=[layers[index] for index in order], params={rename[n]: value for n, value in net.params.items()}
    )
    found = from_dagnn(net)
    graph = graph_of(CONFIGS[name])
    assert graph_of(found.config) == graph
    expected = a_net(name).params
    for weight in graph.weights.values():
        for key, tensor in decode(weight, expected[weight.name]).items():
            assert torch.equal(found.weights[key], tensor), key


# ---- names of the released files


def test_unit_names() -> None:
    names = {depth: [unit_name(depth, layer, index) for layer, index in ((0, 1), (1, 1), (2, 5), (3, 2))]
             for depth in (50, 101, 152)}  # fmt: skip
    assert names == {50: ["2b", "3b", "4f", "5c"], 101: ["2b", "3b1", "4b5", "5c"], 152: ["2b", "3b1", "4b5", "5c"]}


def test_graph_has_the_names_and_blocks_of_released_files() -> None:
    graph = graph_of(CONFIGS["st-resnet*"])
    layers = {layer.name: layer for layer in graph.layers}
    assert layers["res2a_relu_spatial_sum"].type == "dagnn.Sum"
    assert layers["res2a_relu_spatial_sum"].inputs == ("res2a_relu_temporal", "res2a_spatial")
    assert layers["res2b_branch2a_spatial"].inputs == ("res2a_relu_spatial_sum",)
    assert set(layers["res2b_spatial"].inputs) == {"res2a_relu_spatial", "bn2b_branch2c_spatial"}
    time = layers["res2b_branch2a_temporal"].block
    assert (time["size"], time["pad"]) == ((1, 3, 16, 4), (0, 0, 1, 1))
    assert graph.weights["res2b_branch2a_filter_temporal"].shape == (1, 3, 16, 4)
    assert layers["res5b_relu_pool_spatial"].type == "dagnn.PoolTime"
    assert layers["prediction_temporal"].params == ("fc1000_filter_temporal", "fc1000_bias_temporal")


def test_time_is_the_second_axis_and_not_reversed() -> None:
    net = a_net("st-mulnet")
    taps = np.zeros((1, 3, 4, 4), np.float32)
    taps[0, 0, 1, 2] = 5  # from channel 1 to channel 2, one step back
    net.params["res2b_branch2b_relu_spatial_Time_f"] = taps
    weight = from_dagnn(net).weights["appearance.layer1.1.temporal.weight"]
    assert weight.nonzero().tolist() == [[2, 1, 0, 0]]


# ---- normalisation and classes


def averages(*levels: float) -> np.ndarray[Any, Any]:
    return np.array(levels, np.float64).reshape(1, 1, -1)


def with_average(name: str, image: Any) -> DagNN:
    net = a_net(name)
    net.meta["normalization"]["averageImage"] = image
    return net


def test_preprocessing_is_read() -> None:
    net = with_average("two streams", averages(*[128.0] * 10, 1, 2, 3))
    net.meta["normalization"]["imageSize"] = np.array([[160.0, 160.0, 10.0]])
    found = from_dagnn(net)
    assert found.preprocessing == Preprocessing(
        rgb_mean=(1.0, 2.0, 3.0), rgb_std=(1.0, 1.0, 1.0), flow_std=1.0, crop_px=160
    )
    image = np.zeros((4, 5, 3), np.float32)
    image[:2] = (10, 20, 30)
    assert from_dagnn(with_average("appearance", image)).preprocessing.rgb_mean == (5.0, 10.0, 15.0)


@pytest.mark.parametrize(
    ("name", "image", "mean", "note"),
    [
        ("st-resnet", averages(1, 2, 3), (1, 2, 3), "has 3 channels, for RGB: 128 assumed for flow"),
        ("motion", np.zeros((0, 0)), None, "no averageImage in meta.normalization: 128 assumed for flow"),
        ("motion", averages(1, 2, 3), None, "128 assumed for flow"),
        ("appearance", np.zeros((0, 0)), (123.68, 116.779, 103.939), "ImageNet's mean .* assumed for RGB"),
        ("st-resnet", [], (123.68, 116.779, 103.939), "assumed for RGB 128 assumed for flow"),
    ],
)
def test_assumed_means_are_noted(name: str, image: Any, mean: Any, note: str) -> None:
    found = from_dagnn(with_average(name, image))
    assert any(re.search(note, line) for line in found.notes), found.notes
    if mean is not None:
        assert found.preprocessing.rgb_mean == mean


def test_a_net_without_meta_is_read_with_notes() -> None:
    net = replace(a_net(), meta={})
    found = from_dagnn(net)
    assert found.preprocessing == Preprocessing(
        rgb_mean=(123.68, 116.779, 103.939), rgb_std=(1.0, 1.0, 1.0), flow_std=1.0, crop_px=224
    )
    assert any("224 px assumed" in note for note in found.notes)
    assert found.classes is None


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("st-resnet", averages(*[128.0] * 19, 127, 1, 2, 3), "averageImage is 127 for flow, expected 128"),
        ("st-resnet", averages(1, 2, 3, *[128.0] * 20), "is 1 for flow"),
        ("motion", averages(*[0.0] * 20), "is 0 for flow"),
        ("st-resnet", averages(*[128.0] * 20), "averageImage is 1×1×20, expected 23 channels"),
        ("appearance", averages(1.0), "averageImage is 1×1×1"),
        ("appearance", np.full((224, 224), 120.0), "averageImage is 224×224"),
        ("appearance", averages(1, 2, np.nan), "expected values of 0 to 255"),
        ("appearance", averages(1, 2, 300), "expected values of 0 to 255"),
        ("appearance", {"r": 1}, "averageImage is not an array"),
    ],
)
def test_other_means_raise(name: str, image: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_dagnn(with_average(name, image))


def test_other_sizes_raise() -> None:
    net = a_net()
    net.meta["normalization"]["imageSize"] = np.array([[224.0, 320.0, 20.0]])
    with pytest.raises(CheckpointError, match="imageSize is 224×320: expected a square"):
        from_dagnn(net)


def test_class_names() -> None:
    net = a_net()
    assert from_dagnn(a_net()).classes == ("a", "bär 🐻", "c")
    net.meta["classes"]["name"] = [f"n{k}" for k in range(1000)]
    found = from_dagnn(net)
    assert found.classes is None
    assert "ignored 1000 class names, because the net has 3 classes" in found.notes
