"""Tiny networks as DagNNs, to be changed by tests."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from stresnet.model import Checkpoint, Preprocessing, STResNet, STResNetConfig
from stresnet.weights.matconvnet import Imported
from stresnet.weights.matconvnet.dagnn import DagNN, Layer
from stresnet.weights.matconvnet.write import to_dagnn

K = 3
TINY: dict[str, Any] = {"num_classes": K, "depth": 26, "width": 1 / 16, "layout": "caffe"}
CONFIGS: dict[str, STResNetConfig] = {
    "st-resnet": STResNetConfig(**TINY),
    "st-resnet*": STResNetConfig(**TINY, temporal_pool=(5, 2)),
    "st-mulnet": STResNetConfig(
        **TINY, motion_depth=50, temporal="inject", link="multiply", temporal_pool=(5, 1), motion_dropout=0.8
    ),
    "small mulnet": STResNetConfig(
        **TINY, temporal="inject", link="multiply", temporal_pool=(5, 1), dropout=0.5, motion_dropout=0.8
    ),
    "scaled both ways": STResNetConfig(**TINY, link_direction="both", link_scale=0.3),
    "scaled product": STResNetConfig(**TINY, link="multiply", link_scale=0.1, link_direction="appearance_to_motion"),
    "some stages": STResNetConfig(**TINY, temporal_stages=(2, 5), motion_temporal_stages=(3,)),
    "one stream over time": STResNetConfig(**TINY, motion_temporal_stages=()),
    "two streams": STResNetConfig(**TINY, link=None, temporal=None, flow_stack=5, dropout=0.3, motion_dropout=0.0),
    "torchvision": STResNetConfig(**{**TINY, "layout": "torchvision"}),
    "depth 50": STResNetConfig(**{**TINY, "depth": 50}),
    "appearance": STResNetConfig(**TINY, streams=("appearance",), link=None, temporal=None),
    "motion": STResNetConfig(**TINY, streams=("motion",), link=None, temporal=None, dropout=0.9),
    "motion over time": STResNetConfig(
        **TINY, streams=("motion",), link=None, temporal_pool=(3, 1), motion_temporal_stages=(4, 5), motion_depth=50
    ),
}


def randomized(config: STResNetConfig, seed: int = 0) -> STResNet:
    """A network whose every number is its own, counts and variances included."""
    torch.manual_seed(seed)
    model = STResNet(config).eval()
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand_like(value) * 10.0 ** torch.randint(-9, 4, value.shape))
        elif key.endswith("num_batches_tracked"):
            value.fill_(int(torch.randint(0, 10**9, ())))
        else:
            value.copy_(torch.randn_like(value))
    return model


def checkpoint(config: STResNetConfig, preprocessing: Preprocessing | None = None) -> Checkpoint:
    return Checkpoint(
        model=randomized(config),
        classes=("a", "bär 🐻", "c")[: config.num_classes],
        preprocessing=preprocessing or Preprocessing.of_layout(config.layout, crop_px=96, mirror=False),
        store_spec={"flow": {"bound_px": 20.0}, "short_side": [1, None]},
        stage="st-resnet",
        recipe={"name": "tiny", "stages": [{"lr": 0.001}]},
        training={"minutes": 1.25},
        trained_on=("0123456789ab",),
        test_groups=("g01",),
        scores=({"top1": 93.4},),
        version="1.2.3",
    )


@cache
def _net(name: str) -> DagNN:
    return to_dagnn(checkpoint(CONFIGS[name]))


def a_net(name: str = "st-resnet", *, foreign: bool = True) -> DagNN:
    """A net to change; `foreign` ones tell nothing of us."""
    net = _net(name)
    net = replace(net, layers=[*net.layers], params={**net.params}, meta=deepcopy(net.meta))
    if foreign:
        del net.meta["stresnet"]
    return net


def the(net: DagNN, name: str) -> int:
    return next(index for index, layer in enumerate(net.layers) if layer.name == name)


def change(net: DagNN, name: str, **fields: Any) -> None:
    """Change fields of a layer, or properties of its block."""
    index = the(net, name)
    of_layer = {key: value for key, value in fields.items() if key in Layer.__dataclass_fields__}
    block = {**net.layers[index].block, **{k: v for k, v in fields.items() if k not in of_layer}}
    net.layers[index] = replace(net.layers[index], **{"block": block, **of_layer})


def insert(net: DagNN, layer: Layer, *, between: str = "") -> None:
    """Add a layer; one `between` is read by all that read that variable before."""
    if between:
        net.layers[:] = [
            replace(one, inputs=tuple(layer.outputs[0] if name == between else name for name in one.inputs))
            for one in net.layers
        ]
    net.layers.append(layer)


def assert_same(found: Imported, expected: Checkpoint) -> None:
    state = expected.model.state_dict()
    assert set(found.weights) == set(state)
    for key, value in state.items():
        assert found.weights[key].dtype == value.dtype, key
        assert torch.equal(found.weights[key], value), key
