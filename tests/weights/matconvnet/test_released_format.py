"""Files like the released ones, converted, against an interpreter that shares no code with the library."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import dagnn_files as files
from helpers import dagnn_surgery as surgery
from helpers.dagnn_mutations import MUTATIONS, Mutation
from helpers.dagnn_oracle import Net, logits, read, sources
from stresnet.errors import CheckpointError
from stresnet.model import STResNet
from stresnet.weights.matconvnet import read_matconvnet

TOLERANCE = 1e-4
"""Largest difference of logits over the largest logit; single precision makes about 1e-6."""


def clip(channels: int, steps: int, size: tuple[int, int], clips: int = 1, seed: int = 0) -> Tensor:
    """Return moving blobs with changes of brightness and noise, (B,C,T,H,W), of the magnitude of normalised pixels."""
    draw = torch.Generator().manual_seed(seed)
    n = clips * steps
    x = F.interpolate(torch.randn(n, channels, 5, 6, generator=draw), size, mode="bilinear")
    x += torch.randn(n, channels, 1, 1, generator=draw) + 0.5 * torch.randn(n, channels, *size, generator=draw)
    return (40 * x).reshape(clips, steps, channels, *size).transpose(1, 2)


def inputs_of(net: Net, steps: int, size: tuple[int, int], clips: int = 1) -> dict[str, Tensor]:
    """Return inputs for the streams of a net."""
    names = {"flow" if channels > 3 else "rgb": channels for channels in sources(net).values()}
    return {name: clip(channels, steps, size, clips, seed=channels) for name, channels in names.items()}


@torch.inference_mode()
def converted(path: Path, inputs: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Return what was read from a file, and the logits of the network."""
    imported = read_matconvnet(path)
    assert all(w.dtype in (torch.float32, torch.int64) for w in imported.weights.values())
    net = STResNet(imported.config)
    net.load_state_dict(imported.weights)
    out = net.eval()(inputs.get("rgb"), inputs.get("flow"))
    return imported, {s: x for s, x in out._asdict().items() if x is not None}


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference in any stream, relative to the stream's largest logit."""
    assert ours.keys() == theirs.keys()
    assert all(ours[s].shape == theirs[s].shape for s in theirs), {s: (ours[s].shape, theirs[s].shape) for s in theirs}
    assert all(x.isfinite().all() for x in [*ours.values(), *theirs.values()])
    return max(((ours[s] - x).abs().max() / x.abs().max()).item() for s, x in theirs.items())


@dataclass(frozen=True)
class Case:
    """A file, the expected config, and the size of its input."""

    make: Callable[[], Net]
    steps: int = 5
    size: tuple[int, int] = (224, 224)
    clips: int = 1
    nested: bool = False
    config: dict[str, Any] = field(default_factory=dict)


def streams(classes: int, depth: int = 50, motion_depth: int | None = None, base: int = 4) -> tuple[Net, Net]:
    return surgery.appearance(depth, base, classes), surgery.motion(motion_depth or depth, base, classes)


ALONE = {"link": None, "temporal": None, "temporal_pool": None}
ST_RESNET = {"link": "add", "temporal": "inflate", "temporal_pool": None, "dropout": 0.0}
ST_MULNET = {"link": "multiply", "temporal": "inject", "temporal_pool": (5, 1)}
TALL = (256, 340)

CASES = {
    "an image network, 1000 classes": Case(
        lambda: files.resnet(50, 8, 1000), config={**ALONE, "streams": ("appearance",), "num_classes": 1000}
    ),
    "appearance": Case(
        lambda: surgery.appearance(50, 8, 51), clips=2, config={**ALONE, "streams": ("appearance",), "depth": 50}
    ),
    "appearance of 152 layers": Case(
        lambda: surgery.appearance(152, 4, 101, average=1), 1, config={"depth": 152, "num_classes": 101}
    ),
    "motion": Case(lambda: surgery.motion(50, 4, 101), 2, TALL, nested=True, config={**ALONE, "streams": ("motion",)}),
    "motion of 152 layers": Case(lambda: surgery.motion(152, 4, 51), nested=True, config={"num_classes": 51}),
    "ST-ResNet": Case(lambda: surgery.st_resnet(*streams(101, base=8)), clips=2, nested=True, config=ST_RESNET),
    "ST-ResNet, 51 classes, taller": Case(lambda: surgery.st_resnet(*streams(51)), 5, TALL, config=ST_RESNET),
    "ST-ResNet of 101 layers": Case(
        lambda: surgery.st_resnet(*streams(5, 101)), config={"depth": 101, "temporal_layers": (2, 5)}
    ),
    "ST-ResNet of 152 layers": Case(
        lambda: surgery.st_resnet(*streams(5, 152)), config={"depth": 152, "temporal_layers": (2, 5)}
    ),
    "ST-ResNet*": Case(
        lambda: surgery.pool_time(surgery.st_resnet(*streams(101))), 11, config={**ST_RESNET, "temporal_pool": (5, 2)}
    ),
    "ST-ResNet*, 51 classes, 25 steps": Case(
        lambda: surgery.pool_time(surgery.st_resnet(*streams(51))),
        25,
        nested=True,
        config={**ST_RESNET, "temporal_pool": (5, 2), "num_classes": 51},
    ),
    "ST-MulNet": Case(lambda: surgery.st_mulnet(*streams(101, base=8)), clips=2, config=ST_MULNET),
    "ST-MulNet 50/152, 11 steps": Case(
        lambda: surgery.st_mulnet(*streams(101, 50, 152)),
        11,
        config={**ST_MULNET, "depth": 50, "motion_depth": 152, "motion_temporal_layers": (2, 5)},
    ),
    "ST-MulNet 50/152, 51 classes, taller": Case(
        lambda: surgery.st_mulnet(*streams(51, 50, 152)), 6, TALL, nested=True, config={**ST_MULNET, "num_classes": 51}
    ),
    "ST-MulNet 152/50": Case(
        lambda: surgery.st_mulnet(*streams(5, 152, 50)), config={"depth": 152, "motion_depth": 50}
    ),
    "ST-MulNet untrained: identity taps, which files keep as bytes": Case(
        lambda: surgery.finish(surgery.inject(surgery.fuse(*streams(5, 26), op="Mul"), trained=False), None),
        config={"link": "multiply", "temporal": "inject", "depth": 26},
    ),
    "links into the temporal stream": Case(
        lambda: surgery.st_resnet(*streams(5, 26), into="temporal"),
        3,
        config={"link_direction": "appearance_to_motion"},
    ),
    "links both ways, scaled": Case(
        lambda: surgery.st_resnet(*streams(5, 26), both=True, scale=0.1), 3, config={"link_direction": "both"}
    ),
    "ST-MulNet both ways, scaled": Case(
        lambda: surgery.st_mulnet(*streams(5, 26), both=True, scale=0.1),
        config={**ST_MULNET, "link_direction": "both"},
    ),
    "fused without temporal convolutions": Case(
        lambda: surgery.finish(surgery.fuse(*streams(5, 26))), 2, config={"temporal": None, "link": "add"}
    ),
    "a dropout of rate 0 left in": Case(
        lambda: surgery.finish(surgery.fuse(surgery.appearance(26, 4, 5), surgery.motion(26, 4, 5, dropout=0.0)), None),
        2,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_converted_networks_match_the_interpreter(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    made = case.make()
    trained = any(layer.type == "dagnn.Loss" for layer in made.layers)
    path = files.write(tmp_path / "released.mat", made, nested=case.nested, compress=case.nested, rates=trained)
    net = read(path)
    inputs = inputs_of(net, case.steps, case.size, case.clips)
    imported, ours = converted(path, inputs)
    assert {k: getattr(imported.config, k) for k in case.config} == case.config
    assert imported.config.layout == "caffe"
    # double precision takes four times as long and finds nothing more
    dtype = torch.float64 if case.steps * case.clips <= 5 else torch.float32
    assert difference(ours, logits(net, **inputs, dtype=dtype)) <= TOLERANCE


def test_dropout_and_preprocessing_are_read(tmp_path: Path) -> None:
    net = surgery.st_mulnet(*streams(51, 26))
    imported = read_matconvnet(files.write(tmp_path / "released.mat", net))
    config = imported.config
    assert (config.dropout_of("appearance"), config.dropout_of("motion")) == (0.0, 0.8)
    assert imported.preprocessing.rgb_mean == pytest.approx((123.7, 116.3, 103.5), rel=1e-4)
    assert imported.preprocessing.rgb_std == (1.0, 1.0, 1.0)
    assert imported.preprocessing.flow_std == 1.0
    assert all(note and "\n" not in note for note in imported.notes)


@pytest.mark.parametrize("average", [1, 224])
def test_mean_image_is_averaged_over_space(average: int, tmp_path: Path) -> None:
    """As in the released nets with both streams."""
    net = surgery.appearance(26, 4, 5, average=average)
    imported = read_matconvnet(files.write(tmp_path / "released.mat", net))
    assert imported.preprocessing.rgb_mean == pytest.approx((123.7, 116.3, 103.5), rel=1e-4)


def test_other_mean_of_flow_raises(tmp_path: Path) -> None:
    net = surgery.st_resnet(*streams(5, 26))
    net.meta["normalization"]["averageImage"][..., :20] = 120
    path = files.write(tmp_path / "released.mat", net)
    with pytest.raises(CheckpointError, match="128"):
        read_matconvnet(path)


@dataclass(frozen=True)
class Base:
    """A file before a mutation, its input and its logits."""

    net: Net
    inputs: dict[str, Tensor]
    logits: dict[str, Tensor]


@cache
def base(name: str) -> Base:
    """Return a net to mutate; its pools are smaller than the authors', so that short clips give two outputs."""
    make: dict[str, Callable[[], Net]] = {
        "ST-ResNet*": lambda: surgery.pool_time(surgery.st_resnet(*streams(5, 26, base=8)), 3, 2),
        "ST-ResNet 50": lambda: surgery.st_resnet(*streams(5, 50)),
        "ST-MulNet": lambda: surgery.finish(
            surgery.pool_time(surgery.inject(surgery.fuse(*streams(5, 26, base=8), op="Mul")), 3, 1, append=True), 0.8
        ),
        "scaled": lambda: surgery.st_resnet(*streams(5, 26), scale=0.5),
    }
    net = make[name]()
    net.meta["classes"]["name"] = net.meta["classes"]["name"][:5]  # a thousand names take long to write
    inputs = inputs_of(net, {"ST-ResNet*": 5, "ST-MulNet": 4}.get(name, 3), (200, 200))
    return Base(net, inputs, logits(net, **inputs, dtype=torch.float32))


def error_of(read_it: Callable[[], object]) -> str:
    """Return the error of reading a file, or "" if it is read."""
    try:
        read_it()
    except CheckpointError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutated_files_are_converted_or_rejected(name: str, tmp_path: Path) -> None:
    """A mutated file is either rejected, or read with the interpreter's logits."""
    mutation = MUTATIONS[name]
    before = base(mutation.base)
    net = deepcopy(before.net)
    mutation.change(net)
    path = files.write(tmp_path / "mutated.mat", net, rates=False)
    if line := error_of(lambda: read_matconvnet(path)):
        assert "\n" not in line
        assert not mutation.must_be_converted, line
        return
    assert not mutation.must_be_rejected
    _, ours = converted(path, before.inputs)
    theirs = logits(read(path), **before.inputs, dtype=torch.float32)
    assert difference(ours, theirs) <= TOLERANCE
    assert_changed(mutation, theirs, before.logits)


def assert_changed(mutation: Mutation, after: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    """Assert that a mutation changes the logits; otherwise it could not detect a wrong reader."""
    if after["motion"].shape == before["motion"].shape:
        changed = difference(after, before)
        assert (changed > 10 * TOLERANCE) == mutation.shows, changed
