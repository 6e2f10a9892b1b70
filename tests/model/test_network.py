"""The network's parts: parameter counts, names, layouts, temporal convolution, head and temporal pool."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.formula import clips_of, randomized
from helpers.torchvision_names import resnet_shapes
from stresnet.model import STREAMS, StreamLogits, STResNet, STResNetConfig
from stresnet.model.layers import TemporalConv
from stresnet.model.network import StreamNet

torch.set_num_threads(1)


def config(**changes: object) -> STResNetConfig:
    values = {"num_classes": 5, "depth": 26, "width": 1 / 16, "flow_stack": 2, **changes}
    if len(values.get("streams", STREAMS)) == 1:
        values.setdefault("link", None)
    return STResNetConfig(**values)


def shell(**changes: object) -> STResNet:
    """Return a network of the paper's size on the meta device."""
    with torch.device("meta"):
        return STResNet(config(**{"num_classes": 101, "depth": 50, "width": 1.0, "flow_stack": 10, **changes}))


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


class Spy:
    """Keep a module's last output."""

    def __init__(self, module: nn.Module) -> None:
        module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.output = output.detach()


# Counts and names


@pytest.mark.parametrize(
    ("classes", "layout", "expected"),
    [(101, "caffe", 58_624_522), (101, "torchvision", 58_624_394), (51, "caffe", 58_419_622)],
)
def test_fused_parameter_count(classes: int, layout: str, expected: int) -> None:
    assert parameters(shell(num_classes=classes, layout=layout)) == expected
    assert parameters(shell(num_classes=classes, layout=layout, temporal_pool=(5, 2))) == expected


@pytest.mark.parametrize(("stream", "expected"), [("appearance", 29_285_605), ("motion", 29_338_917)])
def test_stream_parameter_count_with_and_without_temporal_taps(stream: str, expected: int) -> None:
    temporal = shell(layout="caffe", streams=(stream,))
    assert parameters(temporal) == expected
    assert parameters(temporal) - parameters(shell(layout="caffe", streams=(stream,), temporal=None)) == 5_570_560
    assert parameters(shell(layout="caffe").get_submodule(stream)) == expected


def test_stem_channels_change_conv1_and_what_reads_it() -> None:
    thin = {"width": 0.5, "layout": "caffe", "temporal": None}
    usual, kept = (shell(stem_channels=stem, **thin).appearance.state_dict() for stem in (None, 64))
    differing = {k: (tuple(usual[k].shape), tuple(kept[k].shape)) for k in usual if usual[k].shape != kept[k].shape}
    stem = {f"bn1.{part}": ((32,), (64,)) for part in ("weight", "bias", "running_mean", "running_var")}
    assert differing == stem | {
        "conv1.weight": ((32, 3, 7, 7), (64, 3, 7, 7)),
        "conv1.bias": ((32,), (64,)),
        "layer1.0.conv1.weight": ((32, 32, 1, 1), (32, 64, 1, 1)),
        "layer1.0.downsample.0.weight": ((128, 32, 1, 1), (128, 64, 1, 1)),
    }


@pytest.mark.parametrize("layout", ["torchvision", "caffe"])
@pytest.mark.parametrize("temporal", [None, "inflate"])
def test_names_and_shapes_are_torchvisions(layout: str, temporal: str | None) -> None:
    net = shell(layout=layout, temporal=temporal)
    for stream, inputs in (("appearance", 3), ("motion", 20)):
        found = {k: tuple(v.shape) for k, v in net.get_submodule(stream).state_dict().items()}
        caffe = layout == "caffe"
        expected = resnet_shapes(inputs=inputs, classes=101, conv1_bias=caffe, taps=3 if temporal else 1)
        assert found == expected
        assert len(found) == 320 + caffe  # as torchvision's resnet50().state_dict()


def test_sixteen_convolutions_over_time_in_second_units_only() -> None:
    temporal = [n for n, m in shell().named_modules() if isinstance(m, TemporalConv)]
    expected = [f"{s}.layer{n}.1.conv{c}" for s in STREAMS for n in (1, 2, 3, 4) for c in (1, 3)]
    assert sorted(temporal) == sorted(expected)


@pytest.mark.parametrize(
    ("depth", "units"), [(26, (2, 2, 2, 2)), (50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))]
)
def test_depths(depth: int, units: tuple[int, ...]) -> None:
    net = shell(depth=depth, streams=("appearance",), temporal=None)
    found = {k: tuple(v.shape) for k, v in net.get_submodule("appearance").state_dict().items()}
    assert found == resnet_shapes(units, classes=101)
    assert 2 + 3 * sum(units) == depth


def test_a_single_stream_needs_only_its_input() -> None:
    rgb, flow = clips_of(steps=1)
    for stream, other in (STREAMS, STREAMS[::-1]):
        net = randomized(STResNet(config(streams=(stream,), temporal=None)))
        assert {name.split(".")[0] for name in net.state_dict()} == {stream}
        logits = net(rgb if stream == "appearance" else None, flow if stream == "motion" else None)
        assert getattr(logits, other) is None
        assert logits.fused.equal(getattr(logits, stream)[:, 0])


def test_fused_is_the_mean_over_streams_and_outputs() -> None:
    appearance, motion = torch.tensor([[[0.0, 6.0], [2.0, 0.0]]]), torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    assert StreamLogits(appearance, motion).fused.tolist() == [[1.5, 3.5]]
    assert StreamLogits(None, motion).fused.tolist() == [[2.0, 4.0]]


# Temporal convolution


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_temporal_convolution_is_a_3d_convolution(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours = TemporalConv(6, 4)
    theirs = nn.Conv3d(6, 4, (3, 1, 1), padding=(1, 0, 0), bias=False)
    with torch.no_grad():
        ours.weight.copy_(theirs.weight[..., 0])
    x = torch.randn(2 * 5, 6, 7, 4).contiguous(memory_format=layout).requires_grad_()
    found = ours(x, 2)
    volume = x.reshape(2, 5, 6, 7, 4).transpose(1, 2)
    expected = theirs(volume).transpose(1, 2).flatten(0, 1)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5
    probe = torch.randn_like(expected)
    ours_grad, theirs_grad = (
        torch.autograd.grad((y * probe).sum(), x, retain_graph=True)[0] for y in (found, expected)
    )
    assert (ours_grad - theirs_grad).abs().max() <= 1e-5


def test_first_tap_reads_the_step_before() -> None:
    conv = TemporalConv(1, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([100.0, 10.0, 1.0]).view(1, 1, 3, 1))
    two_clips = torch.tensor([1.0, 2, 3, 4, 5, 6]).view(6, 1, 1, 1)
    assert conv(two_clips, 2).flatten().tolist() == [12.0, 123.0, 230.0, 45.0, 456.0, 560.0]


def test_clips_of_a_batch_do_not_mix() -> None:
    net = randomized(STResNet(config()))
    rgb, flow = clips_of(batch=2, steps=3)
    both = net(rgb, flow)
    for b in (0, 1):
        alone = net(rgb[b : b + 1], flow[b : b + 1])
        assert (both.appearance[b] - alone.appearance[0]).abs().max() < 1e-9
        assert (both.motion[b] - alone.motion[0]).abs().max() < 1e-9


# Layouts


def test_caffe_pool_pads_only_right_and_below() -> None:
    caffe, torchvision = (STResNet(config(layout=name, streams=("appearance",))).appearance.pool1 for name in LAYOUTS)
    for side in (16, 111, 112, 113, 114):
        x = torch.rand(1, 2, side, side)
        assert caffe(x).equal(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2))
        assert torchvision(x).equal(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2))
    assert caffe(torch.rand(1, 1, 113, 113)).shape[-1] == 56
    assert torchvision(torch.rand(1, 1, 113, 113)).shape[-1] == 57


LAYOUTS = ("caffe", "torchvision")


def test_layouts_differ_in_stride_and_conv1_bias() -> None:
    for layout, after_reduction in (("caffe", 8), ("torchvision", 16)):
        net = STResNet(config(layout=layout, streams=("appearance",)))
        stream = net.get_submodule("appearance")
        assert (stream.conv1.bias is not None) == (layout == "caffe")
        first, last = Spy(stream.layer2[0].conv1), Spy(stream.layer2[0])
        net(torch.zeros(1, 3, 1, 64, 64))
        assert first.output.shape[-1] == after_reduction
        assert last.output.shape[-1] == 8


# Batch norm and random starts


def test_running_moments_take_five_percent_of_the_new_value() -> None:
    torch.manual_seed(0)
    net = STResNet(config()).train()
    convolved = Spy(net.motion.conv1)
    rgb, flow = (x.float() for x in clips_of(batch=2))
    net(rgb, flow)
    mean = convolved.output.mean((0, 2, 3))
    var = convolved.output.transpose(0, 1).flatten(1).var(1)
    assert torch.allclose(net.motion.bn1.running_mean, 0.05 * mean, atol=1e-6)
    assert torch.allclose(net.motion.bn1.running_var, 0.95 + 0.05 * var, atol=1e-5)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.05)}


def test_random_weights_follow_the_paper_and_are_reproducible() -> None:
    torch.manual_seed(3)
    net = STResNet(config(num_classes=400, width=0.5, streams=("appearance",)))
    assert net.appearance.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert net.appearance.fc.weight.mean().abs() < 1e-4
    assert not net.appearance.fc.bias.any()
    taps = net.appearance.layer3[1].conv1.weight
    assert taps[:, :, 0].equal(taps[:, :, 1])
    assert taps[:, :, 0].equal(taps[:, :, 2])
    out = taps.shape[0]
    assert (3 * taps[:, :, 0]).std().item() == pytest.approx(
        (2 / out) ** 0.5, rel=0.05
    )  # that of the 1×1 filter it averages

    def start(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return STResNet(config()).state_dict()

    one, again, other = start(1), start(1), start(2)
    assert all(one[k].equal(again[k]) for k in one)
    assert not one["motion.layer2.0.conv2.weight"].equal(other["motion.layer2.0.conv2.weight"])


def test_dropout_acts_before_the_classifier_in_training_only() -> None:
    torch.manual_seed(0)
    net = STResNet(config(streams=("appearance",), dropout=0.8))
    head = net.appearance.head
    features = torch.ones(2000, net.appearance.fc.in_features, 1, 1)
    with torch.no_grad():
        net.appearance.fc.weight.fill_(1 / net.appearance.fc.in_features)
        dropped = net.train().appearance.head(features, 2000)[:, 0, 0]
        assert dropped.std() > 0.05
        assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
        assert torch.allclose(net.eval().appearance.head(features, 2000), torch.ones(()))
        assert head(features, 2000).shape == (2000, 1, 5)


# The head, and other sizes than 224 px


def windows_head(stream: StreamNet, features: Tensor) -> Tensor:
    """Return the classifier's output (T,K) averaged over the 7×7 windows of (T,C,H,W)."""
    h, w = features.shape[2:]
    high, wide = min(7, h), min(7, w)
    logits = [
        stream.fc(features[:, :, y : y + high, x : x + wide].mean((2, 3)))
        for y in range(h - high + 1)
        for x in range(w - wide + 1)
    ]
    return torch.stack(logits).mean(0)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((256, 340), (8, 11)), ((224, 224), (7, 7)), ((96, 160), (3, 5)), ((64, 288), (2, 9)), ((32, 32), (1, 1))],
)
@torch.no_grad()
def test_the_head_averages_over_its_windows(size: tuple[int, int], grid: tuple[int, int]) -> None:
    net = randomized(STResNet(config(streams=("appearance",), temporal=None))).float()
    last = Spy(net.appearance.layer4[-1])
    rgb = clips_of(steps=1, size=size)[0].float()
    logits = net(rgb).appearance[0]
    assert last.output.shape[2:] == grid
    features = last.output.clamp(min=0)
    expected = windows_head(net.appearance, features)
    assert (logits - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())
    if grid == (8, 11):
        plain = net.appearance.fc(features.mean((2, 3)))
        assert (plain - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize(
    ("rgb", "flow", "expected"),
    [
        ((1, 3, 5, 31, 64), (1, 4, 5, 31, 64), "at least 32 px"),
        ((1, 3, 64, 64), (1, 4, 5, 64, 64), r"`rgb` must be \(B,3,T,H,W\)"),
        ((1, 3, 5, 64, 64), (1, 20, 5, 64, 64), r"`flow` must be \(B,4,T,H,W\), but is \(1, 20, 5, 64, 64\)"),
        ((1, 3, 5, 64, 64), (1, 4, 6, 64, 64), "must agree"),
        ((2, 3, 5, 64, 64), (1, 4, 5, 64, 64), "must agree"),
        ((1, 3, 5, 64, 64), None, "this network needs `flow`"),
    ],
)
def test_wrong_inputs_are_rejected_in_one_line(
    rgb: tuple[int, ...], flow: tuple[int, ...] | None, expected: str
) -> None:
    net = STResNet(config())
    with pytest.raises(ValueError, match=expected) as error:
        net(torch.zeros(rgb), None if flow is None else torch.zeros(flow))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 34}, "depth: Input should be 26, 50, 101 or 152 .found 34."),
        ({"layout": "keras"}, "layout"),
        ({"link": "concat"}, "link: Input should be 'add' or 'multiply'"),
        ({"link_direction": "up"}, "link_direction"),
        ({"streams": (), "link": None}, "streams: List should have at least 1 item"),
        ({"streams": ("appearance", "audio")}, "'audio'"),
        ({"streams": ("motion", "motion")}, "each stream once"),
        ({"streams": ("motion",), "link": "add"}, "link needs both"),
        ({"streams": "motion", "link": None}, "streams: Input should be a list"),
        ({"width": 0}, "width: Input should be greater than 0"),
        ({"width": math.inf}, "width"),
        ({"width": math.nan}, "width"),
        ({"width": True}, "width"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"num_classes": "5"}, "num_classes"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": False}, "dropout"),
        ({"motion_dropout": -0.1}, "motion_dropout"),
        ({"motion_dropout": "0.5"}, "motion_dropout"),
        ({"motion_depth": 18}, "motion_depth"),
        ({"temporal": True}, "temporal"),
        ({"temporal_init": "random"}, "temporal_init"),
        ({"temporal_layers": (1, 2)}, "temporal_layers"),
        ({"temporal_layers": None}, "temporal_layers"),
        ({"motion_temporal_layers": (5, 2)}, "in order"),
        ({"temporal_pool": (5, 0)}, "temporal_pool"),
        ({"temporal_pool": (5.0, 2)}, "temporal_pool.*integer"),
        ({"temporal_pool": (5, True)}, "temporal_pool.*integer"),
        ({"temporal_pool": 5}, "temporal_pool"),
        ({"temporal_pool": (5,)}, "temporal_pool"),
        ({"flow_stack": 2.5}, "flow_stack"),
        ({"link_scale": math.nan}, "link_scale"),
        ({"colour": "red"}, "colour: no such field"),
    ],
)
def test_an_impossible_network_is_rejected_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        STResNetConfig.from_dict({"num_classes": 5, **changes})
    assert "\n" not in str(error.value)


def test_a_config_survives_json() -> None:
    written = config(temporal_pool=(5, 2), motion_temporal_layers=(2, 5), streams=("motion", "appearance"))
    assert written.streams == STREAMS
    assert STResNetConfig.from_dict(json.loads(json.dumps(written.to_dict()))) == written
    assert written.replace(depth=50).depth == 50
    with pytest.raises(ValueError, match="frozen"):
        written.depth = 50


# Temporal pool


@pytest.mark.parametrize(
    ("steps", "stride", "outputs"), [(5, 2, 1), (6, 2, 1), (7, 2, 2), (11, 2, 4), (25, 2, 11), (5, 1, 1), (25, 1, 21)]
)
@torch.no_grad()
def test_temporal_pool_takes_the_maximum_before_the_spatial_mean(steps: int, stride: int, outputs: int) -> None:
    net = randomized(STResNet(config(temporal_pool=(5, stride))))
    last = {s: Spy(net.get_submodule(s).layer4[-1]) for s in STREAMS}
    logits = net(*clips_of(steps=steps))
    for stream in STREAMS:
        fc = net.get_submodule(stream).fc
        features = last[stream].output.clamp(min=0)  # (T,C,2,2)
        windows = [features[t : t + 5] for t in range(0, steps - 4, stride)]
        assert len(windows) == outputs
        max_first = fc(torch.stack([w.amax(0).mean((1, 2)) for w in windows]))
        mean_first = fc(torch.stack([w.mean((2, 3)).amax(0) for w in windows]))
        found = getattr(logits, stream)[0]
        assert (found - max_first).abs().max() < 1e-9
        assert (found - mean_first).abs().max() > 1e-3


def test_temporal_pool_needs_five_steps() -> None:
    rgb, flow = (x.float() for x in clips_of(steps=4))
    with pytest.raises(ValueError, match="at least 5 time steps, but a clip has 4"):
        STResNet(config(temporal_pool=(5, 2)))(rgb, flow)
    assert STResNet(config())(rgb, flow).appearance.shape == (1, 4, 5)
