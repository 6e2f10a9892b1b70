"""MatConvNet files, in and out: nothing changes on the way, and what is written has the released names."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import loadmat

from helpers.matconvnet_nets import CONFIGS, a_net, assert_same, checkpoint, insert
from stresnet.errors import CheckpointError
from stresnet.model import Checkpoint, Preprocessing, STResNet, load_checkpoint, save_checkpoint
from stresnet.weights.matconvnet import read_matconvnet, write_matconvnet
from stresnet.weights.matconvnet.dagnn import DagNN, Layer, read_dagnn, write_dagnn
from stresnet.weights.matconvnet.graph import graph_of, unit_name
from stresnet.weights.matconvnet.read import from_dagnn
from stresnet.weights.matconvnet.values import SMALLEST_SIGMA, decode, encode
from stresnet.weights.matconvnet.write import to_dagnn

# ---- round trips


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpoint_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    before = checkpoint(CONFIGS[name])
    write_matconvnet(tmp_path / "net.mat", before)
    found = read_matconvnet(tmp_path / "net.mat")
    assert_same(found, before)
    assert found.config == before.model.config
    assert found.preprocessing == before.preprocessing
    assert found.story is not None
    assert found.classes == found.story["classes"]

    save_checkpoint(tmp_path / "direct.safetensors", before)  # JSON is the only thing that may change values
    direct = load_checkpoint(tmp_path / "direct.safetensors")
    back = Checkpoint(model=direct.model, preprocessing=found.preprocessing, **found.story)
    assert back == direct
    assert [note for note in found.notes if "left out, as they follow" not in note] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_are_recognised_without_names(name: str) -> None:
    """In any order, under any names, MatConvNet's own file gives the config and the weights."""
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
    assert found.story is None
    expected = a_net(name).params
    for weight in graph.weights.values():
        for key, tensor in decode(weight, expected[weight.name]).items():
            assert torch.equal(found.weights[key], tensor), key


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing(), Preprocessing(rgb_std=(1, 1, 1), flow_std=12.5, crop_px=64)]
)
def test_scales_are_folded_into_conv1_and_come_back(preprocessing: Preprocessing, tmp_path: Path) -> None:
    before = checkpoint(CONFIGS["torchvision"], preprocessing)
    write_matconvnet(tmp_path / "net.mat", before)
    net = read_dagnn(tmp_path / "net.mat")
    state = before.model.state_dict()
    for stream, suffix, std in (
        ("appearance", "spatial", torch.tensor(preprocessing.rgb_std)),
        ("motion", "temporal", torch.tensor(preprocessing.flow_std)),
    ):
        conv1 = state[f"{stream}.conv1.weight"] / std.reshape(-1, 1, 1)
        theirs = torch.tensor(net.params[f"conv1_filter_{suffix}"]).permute(3, 2, 0, 1)
        torch.testing.assert_close(theirs, conv1, rtol=1e-6, atol=0)
    found = read_matconvnet(tmp_path / "net.mat")
    assert_same(found, before)
    assert found.preprocessing == preprocessing


def test_edited_file_counts_for_itself() -> None:
    """Where somebody trained on our file, what it holds now is taken, and the exact values kept in it are not."""
    before = checkpoint(CONFIGS["torchvision"], Preprocessing())
    net = deepcopy(to_dagnn(before))
    edited = net.params["conv1_filter_spatial"].copy()
    edited[0, 0, 0, 0] += 1
    net.params["conv1_filter_spatial"] = edited
    net.params["bn2a_branch1_moments_temporal"] = net.params["bn2a_branch1_moments_temporal"] * np.float32(2)
    net.meta["classes"]["name"] = ["x", "y", "z"]
    net.meta["normalization"]["averageImage"][..., -1] = 7
    found = from_dagnn(net)
    assert found.preprocessing == Preprocessing(rgb_mean=(123.675, 116.28, 7.0), rgb_std=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(found.weights["appearance.conv1.weight"].permute(2, 3, 1, 0), edited)
    assert found.weights["motion.layer1.0.downsample.1.num_batches_tracked"] == 0
    state = before.model.state_dict()
    torch.testing.assert_close(
        found.weights["motion.layer1.0.downsample.1.running_var"],
        state["motion.layer1.0.downsample.1.running_var"] * 4 + 3e-5,
    )
    same = [k for k, v in found.weights.items() if torch.equal(v, state[k])]
    assert len(state) - len(same) == 4  # conv1, and mean, variance and count of one norm
    assert found.story is not None
    assert found.story["classes"] == found.classes == ("x", "y", "z")
    assert any("conv1_filter_spatial, bn2a_branch1_moments_temporal changed" in note for note in found.notes)


def test_regrown_file_is_read_by_its_graph() -> None:
    net = a_net("st-resnet", foreign=False)
    pool = {"method": "max", "poolSize": (1.0, 5.0), "stride": (1.0, 2.0), "pad": (0.0,) * 4}
    for suffix in ("spatial", "temporal"):
        layer = Layer(f"pool_{suffix}", "dagnn.PoolTime", (f"res5b_relu_{suffix}",), (f"p_{suffix}",), (), pool)
        insert(net, layer, between=f"res5b_relu_{suffix}")
    found = from_dagnn(net)
    assert found.config == CONFIGS["st-resnet*"]
    assert_same(found, checkpoint(CONFIGS["st-resnet"]))
    assert "the net changed since stresnet wrote the file: its config is read from the graph" in found.notes


@pytest.mark.parametrize("name", ["st-resnet*", "st-mulnet", "scaled both ways", "torchvision"])
def test_foreign_parameters_come_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    """`.mat` → checkpoint → `.mat`: σ survives the way through a variance, down to the smallest."""
    net = a_net(name)
    rng = np.random.default_rng(1)
    for weight in graph_of(CONFIGS[name]).weights.values():
        if weight.kind != "zero":
            value = rng.standard_normal(weight.shape)
            if weight.kind == "moments":
                value[:, 1] = SMALLEST_SIGMA * 10 ** rng.uniform(1e-6, 6, len(value))
            net.params[weight.name] = value.astype(np.float32)
    write_dagnn(tmp_path / "theirs.mat", net)
    found = read_matconvnet(tmp_path / "theirs.mat")
    model = STResNet(found.config)
    model.load_state_dict(found.weights)
    ours = Checkpoint(model.eval(), found.classes or (), found.preprocessing, {})
    write_matconvnet(tmp_path / "ours.mat", ours)
    back = read_dagnn(tmp_path / "ours.mat").params
    assert list(back) == list(net.params)
    for key, value in net.params.items():
        assert back[key].dtype == value.dtype == np.float32
        np.testing.assert_array_equal(back[key], value, strict=True, err_msg=key)


def test_every_sigma_comes_back() -> None:
    """A million floats above the smallest, and those next to √ε, where the variance changes sign."""
    sigma = np.float32(SMALLEST_SIGMA) * np.exp(np.linspace(0, 12, 1_000_000)).astype(np.float32)
    near = np.float32(1e-5**0.5) + np.arange(-500, 500, dtype=np.float32) * np.spacing(np.float32(1e-5**0.5))
    sigma = np.concatenate([sigma[sigma >= SMALLEST_SIGMA], near.astype(np.float32)])
    weight = replace(graph_of(CONFIGS["appearance"]).weights["bn_conv1_moments"], shape=(len(sigma), 2))
    state = decode(weight, np.stack([np.zeros_like(sigma), sigma], axis=1))
    np.testing.assert_array_equal(encode(weight, state)[:, 1], sigma)


# ---- what a written file looks like


def test_names_of_units() -> None:
    names = {depth: [unit_name(depth, stage, index) for stage, index in ((0, 1), (1, 1), (2, 5), (3, 2))]
             for depth in (50, 101, 152)}  # fmt: skip
    assert names == {50: ["2b", "3b", "4f", "5c"], 101: ["2b", "3b1", "4b5", "5c"], 152: ["2b", "3b1", "4b5", "5c"]}


def test_written_file_has_the_released_names(tmp_path: Path) -> None:
    write_matconvnet(tmp_path / "net.mat", checkpoint(CONFIGS["st-resnet*"]))
    raw = loadmat(tmp_path / "net.mat", mat_dtype=True)
    assert {k for k in raw if not k.startswith("_")} == {"layers", "params", "vars", "meta", "conserveMemory"}
    layers = {str(r["name"].item()): r for r in raw["layers"].flat}
    params = {str(r["name"].item()): r for r in raw["params"].flat}
    link = layers["res2a_relu_spatial_sum"]
    assert link["type"].item() == "dagnn.Sum"
    assert [str(v.item()) for v in link["inputs"].flat] == ["res2a_relu_temporal", "res2a_spatial"]
    assert [str(v.item()) for v in layers["res2b_branch2a_spatial"]["inputs"].flat] == ["res2a_relu_spatial_sum"]
    assert {str(v.item()) for v in layers["res2b_spatial"]["inputs"].flat} == {
        "res2a_relu_spatial",
        "bn2b_branch2c_spatial",
    }
    assert not layers["res2a_relu_spatial"]["block"]["useShortCircuit"].item().item()
    time = layers["res2b_branch2a_temporal"]["block"].flat[0]
    np.testing.assert_array_equal(time["size"], [[1, 3, 16, 4]])
    np.testing.assert_array_equal(time["pad"], [[0, 0, 1, 1]])
    assert params["res2b_branch2a_filter_temporal"]["value"].shape == (1, 3, 16, 4)
    assert layers["res5b_relu_pool_spatial"]["type"].item() == "dagnn.PoolTime"
    assert [str(v.item()) for v in layers["prediction_temporal"]["params"].flat] == [
        "fc1000_filter_temporal", "fc1000_bias_temporal"
    ]  # fmt: skip
    for name, rate, decay in (
        ("conv1_filter_spatial", 1, 1), ("conv1_bias_spatial", 2, 0), ("bn_conv1_mult_spatial", 2, 0),
        ("bn_conv1_bias_spatial", 1, 0), ("bn_conv1_moments_spatial", 0.05, 0), ("fc1000_bias_temporal", 2, 0),
    ):  # fmt: skip
        assert (params[name]["learningRate"].item(), params[name]["weightDecay"].item()) == (rate, decay), name
    variables = [str(r["name"].item()) for r in raw["vars"].flat]
    used = {str(v.item()) for r in layers.values() for field in ("inputs", "outputs") for v in r[field].flat}
    assert variables[0] == "input"
    assert set(variables) == used
    assert raw["meta"]["normalization"].item()["averageImage"].item().shape == (1, 1, 23)


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
    assert found.preprocessing == Preprocessing((1.0, 2.0, 3.0), (1.0, 1.0, 1.0), 1.0, 160)
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
    assert found.preprocessing == Preprocessing((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), 1.0, 224)
    assert any("224 px assumed" in note for note in found.notes)
    assert found.classes is None


@pytest.mark.parametrize(
    ("name", "image", "told"),
    [
        ("st-resnet", averages(*[128.0] * 19, 127, 1, 2, 3), "averageImage takes 127 off flow channels, where 128"),
        ("st-resnet", averages(1, 2, 3, *[128.0] * 20), "takes 1 off flow"),
        ("motion", averages(*[0.0] * 20), "takes 0 off flow"),
        ("st-resnet", averages(*[128.0] * 20), "averageImage is 1×1×20, where 23 channels are expected"),
        ("appearance", averages(1.0), "averageImage is 1×1×1"),
        ("appearance", np.full((224, 224), 120.0), "averageImage is 224×224"),
        ("appearance", averages(1, 2, np.nan), "where levels are 0 to 255"),
        ("appearance", averages(1, 2, 300), "where levels are 0 to 255"),
        ("appearance", {"r": 1}, "averageImage is no array"),
    ],
)
def test_other_means_are_refused(name: str, image: Any, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        from_dagnn(with_average(name, image))


def test_other_sizes_are_refused() -> None:
    net = a_net()
    net.meta["normalization"]["imageSize"] = np.array([[224.0, 320.0, 20.0]])
    with pytest.raises(CheckpointError, match="imageSize is 224×320: crops are squares"):
        from_dagnn(net)


def test_class_names() -> None:
    net = a_net()
    assert from_dagnn(a_net()).classes == ("a", "bär 🐻", "c")
    net.meta["classes"]["name"] = [f"n{k}" for k in range(1000)]
    found = from_dagnn(net)
    assert found.classes is None
    assert "left out 1000 class names, as the net has 3 classes" in found.notes


def test_names_that_are_no_text_survive_in_the_story(tmp_path: Path) -> None:
    """A folder name with bytes that are no UTF-8 cannot be shown by MATLAB, and still comes back."""
    before = replace(checkpoint(CONFIGS["appearance"]), classes=("a", "half \ud83d", ""))
    write_matconvnet(tmp_path / "net.mat", before)
    assert read_dagnn(tmp_path / "net.mat").meta["classes"]["name"] == ["a", "half ?", ""]
    assert read_matconvnet(tmp_path / "net.mat").classes == before.classes


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"format": 99}'])
def test_damaged_descriptions_are_refused(text: str) -> None:
    net = a_net(foreign=False)
    net.meta["stresnet"]["description"] = text
    with pytest.raises(CheckpointError, match=r"remove meta\.stresnet"):
        from_dagnn(net)
