"""Networks over a stream: the same logits as at once, each step computed once."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from helpers.networks import calibrated, network
from stresnet.model import StreamLogits, STResNet
from stresnet.model.folding import fold_batch_norm
from stresnet.model.incremental import IncrementalNet
from stresnet.model.layers import TemporalConv
from stresnet.model.profile import temporal_reach_steps

STEPS = 13
NETWORKS: dict[str, dict[str, Any]] = {
    "appearance": {"streams": ("appearance",), "link": None},
    "motion, spatial": {"streams": ("motion",), "link": None, "temporal": None},
    "ST-ResNet": {},
    "ST-ResNet*": {"temporal_pool": (5, 2)},
    "ST-MulNet": {"link": "multiply", "temporal": "inject", "temporal_pool": (5, 1), "motion_temporal_layers": (2, 5)},
    "some layers": {"temporal_layers": (3, 5), "motion_temporal_layers": (4,)},
    "from appearance": {"link_direction": "appearance_to_motion", "temporal_layers": (5,), "temporal": "inject"},
    "both ways": {"link_direction": "both", "link_scale": 0.1, "link_form": "residual", "layout": "caffe"},
    "without links": {"link": None, "temporal_layers": (2, 3), "motion_temporal_layers": (5,)},
}
DELAYS = {"some layers": 6, "without links": 6}  # streams are kept level after every layer


@cache
def made(name: str) -> STResNet:
    net = calibrated(network(**NETWORKS[name]))
    for module in net.modules():  # taps that differ, so that an exchange shows
        if isinstance(module, TemporalConv):
            with torch.no_grad():
                module.weight.mul_(torch.tensor([0.5, 1.0, 1.5]).view(1, 1, 3, 1))
    return fold_batch_norm(net).to(memory_format=torch.channels_last)


def clip(steps: int = STEPS, side: int = 32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, steps, side, side, generator=draw), torch.randn(1, 4, steps, side, side, generator=draw)


@torch.inference_mode()
def at_once(net: STResNet, *, future: bool = True) -> list[Tensor]:
    """Return the logits (T′,K) of each stream of the whole clip; on request without the taps into the future."""
    if not future:
        net = copy.deepcopy(net)
        for module in net.modules():
            if isinstance(module, TemporalConv):
                module.weight[:, :, 2] = 0
    return [logits[0] for logits in net(*clip()) if logits is not None]


def parts(logits: StreamLogits) -> list[Tensor]:
    return [stream[0] for stream in logits if stream is not None]


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("name", "immediate"), [(name, False) for name in NETWORKS] + [(name, True) for name in ("ST-ResNet", "ST-MulNet")]
)
def test_a_stream_gives_the_logits_of_the_whole_clip(name: str, immediate: bool) -> None:
    net = made(name)
    incremental = IncrementalNet(net, immediate=immediate)
    rgb, flow = clip()
    found = [parts(incremental.push(rgb[:, :, t : t + 1], flow[:, :, t : t + 1])) for t in range(STEPS)]
    assert incremental.delay_steps == (0 if immediate else DELAYS.get(name, temporal_reach_steps(net.config)[-1] // 2))
    size, stride = net.config.temporal_pool or (1, 1)
    for t, new in enumerate(found):  # each output comes when the last step that it sees does
        last_of_window = t - incremental.delay_steps
        due = last_of_window >= size - 1 and (last_of_window - (size - 1)) % stride == 0
        assert [len(stream) for stream in new] == [due] * len(net.config.streams)
    found.append(parts(incremental.finish()))
    for stream, expected in enumerate(at_once(net, future=not immediate)):
        assert relative(torch.cat([new[stream] for new in found]), expected) < 1e-5


def test_any_number_of_steps_may_come_at_a_time() -> None:
    net = made("ST-MulNet")
    incremental = IncrementalNet(net)
    chunks = zip(*(x.split([2, 5, 1, 2, 3], 2) for x in clip()), strict=True)
    found = [parts(incremental.push(rgb, flow)) for rgb, flow in chunks] + [parts(incremental.finish())]
    for stream, expected in enumerate(at_once(net)):
        assert relative(torch.cat([new[stream] for new in found]), expected) < 1e-5


def test_streams_of_one_network_are_apart_and_leave_it_alone() -> None:
    net = made("ST-ResNet")
    before = at_once(net)
    first, second = IncrementalNet(net), IncrementalNet(net)
    rgb, flow = clip()
    first.push(rgb[:, :, :9], flow[:, :, :9])
    second.push(rgb, flow)
    first.push(rgb[:, :, 9:], flow[:, :, 9:])
    for one, other in zip(parts(first.finish()), parts(second.finish()), strict=True):
        assert relative(one, other) < 1e-5
    assert all(one.equal(other) for one, other in zip(before, at_once(net), strict=True))
    held = {id(p) for p in net.parameters()}
    assert {id(p) for p in first._net.parameters()} <= held  # no second copy of the weights


def test_a_clip_of_one_step_is_the_same_in_both_modes() -> None:
    net = made("ST-ResNet")
    rgb, flow = clip(steps=1)
    exact, immediate = IncrementalNet(net), IncrementalNet(net, immediate=True)
    exact.push(rgb, flow)
    with torch.inference_mode():
        expected = parts(net(rgb, flow))
    for late, soon, one in zip(parts(exact.finish()), parts(immediate.push(rgb, flow)), expected, strict=True):
        assert max(relative(late, one), relative(soon, one)) < 1e-5


def test_a_step_costs_a_fraction_of_a_clip() -> None:
    net = made("ST-ResNet")
    rgb, flow = clip(steps=5, side=64)

    def flops(forward: Any, steps: int) -> int:
        with FlopCounterMode(display=False) as counter:
            forward(rgb[:, :, :steps], flow[:, :, :steps])
        return int(counter.get_total_flops())

    incremental = IncrementalNet(net)
    for _ in range(2 * incremental.delay_steps):
        incremental.push(rgb[:, :, :1], flow[:, :, :1])
    assert 5 * flops(incremental.push, 1) <= flops(net, 5)
