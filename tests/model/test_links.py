"""Links and temporal convolutions, against the published equations written out in `helpers.formula`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers import formula
from helpers.formula import Mix, added, clips_of, f, multiplied, randomized
from stresnet.model import STREAMS, STResNet, STResNetConfig
from stresnet.model.checkpoint import transfer_weights
from stresnet.model.config import LAYERS
from stresnet.model.profile import temporal_reach_steps

torch.set_num_threads(1)

UNITS = (3, 4, 6, 3)


def config(**changes: object) -> STResNetConfig:
    return STResNetConfig(**{"num_classes": 5, "depth": 50, "width": 1 / 16, "flow_stack": 2, **changes})


def largest_difference(net: STResNet, mixes: dict[str, Mix], **variant: object) -> dict[str, float]:
    """Return, by stream, the largest difference to the formula's logits relative to the largest logit."""
    rgb, flow = clips_of()
    with torch.no_grad():
        found = net(rgb, flow)
        clips = {"appearance": rgb[0], "motion": flow[0]}
        caffe = net.config.layout == "caffe"
        expected = formula.forward(net.state_dict(), clips, UNITS, mixes=mixes, caffe=caffe, **variant)
    return {s: ((getattr(found, s)[0] - expected[s]).abs().max() / expected[s].abs().max()).item() for s in STREAMS}


@pytest.mark.parametrize("layout", ["torchvision", "caffe"])
def test_network_is_the_formula(layout: str) -> None:
    net = randomized(STResNet(config(layout=layout)))
    assert max(largest_difference(net, {"appearance": added}).values()) < 1e-9


def test_unlinked_network_is_two_networks() -> None:
    net = randomized(STResNet(config(link=None)))
    assert max(largest_difference(net, {}).values()) < 1e-9


WRONG: dict[str, tuple[dict[str, Mix], tuple[int, ...]]] = {
    "no link": ({}, (1,)),
    "branch reads the appearance sum after its ReLU": (
        {"appearance": lambda a, m, layer: (f(a) + f(m), f(a))},
        (1,),
    ),
    "motion sum not rectified": ({"appearance": lambda a, m, layer: (a + m, f(a))}, (1,)),
    "a ReLU on the sum of both": ({"appearance": lambda a, m, layer: (f(a + f(m)), f(a))}, (1,)),
    "shortcut linked too": ({"appearance": lambda a, m, layer: (a + f(m), f(a) + f(m))}, (1,)),
    "shortcut linked instead": ({"appearance": lambda a, m, layer: (f(a), f(a) + f(m))}, (1,)),
    "shortcut not rectified": ({"appearance": lambda a, m, layer: (a + f(m), a)}, (1,)),
    "product for sum": ({"appearance": multiplied}, (1,)),
    "in the first unit": ({"appearance": added}, (0,)),
    "in every unit but the first": ({"appearance": added}, (1, 2, 3, 4, 5)),
    "the other direction": ({"motion": added}, (1,)),
    "both directions": ({"appearance": added, "motion": added}, (1,)),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_formula_detects_a_wrong_link(name: str) -> None:
    mixes, units = WRONG[name]
    net = randomized(STResNet(config()))
    assert max(largest_difference(net, mixes, linked_units=units).values()) > 1e-3


@pytest.mark.parametrize("link", ["add", "multiply"])
@pytest.mark.parametrize(
    ("direction", "into"),
    [
        ("motion_to_appearance", ["appearance"]),
        ("appearance_to_motion", ["motion"]),
        ("both", ["appearance", "motion"]),
    ],
)
def test_kinds_and_directions_of_link(link: str, direction: str, into: list[str]) -> None:
    net = randomized(STResNet(config(link=link, link_direction=direction)))
    mix = added if link == "add" else multiplied
    assert max(largest_difference(net, dict.fromkeys(into, mix)).values()) < 1e-9


@pytest.mark.parametrize("link", ["add", "multiply"])
def test_learned_scale_acts_on_the_incoming_stream_by_channel(link: str) -> None:
    fresh = STResNet(config(link=link, link_scale=0.1))
    scales = {k: v for k, v in fresh.state_dict().items() if k.startswith("links.")}
    assert {k: v.shape[0] for k, v in scales.items()} == {
        f"links.appearance.{layer}.scale": 16 * 2**layer for layer in range(4)
    }
    assert all((v == 0.1).all() for v in scales.values())
    net = randomized(fresh)
    scale = [net.state_dict()[name] for name in scales]

    def scaled(x: Tensor, other: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        entering = f(other) * scale[layer].reshape(-1, 1, 1)
        return (x + entering if link == "add" else x * entering), f(x)

    assert max(largest_difference(net, {"appearance": scaled}).values()) < 1e-9
    assert largest_difference(net, {"appearance": added})["appearance"] > 1e-3


@pytest.mark.parametrize("link", ["add", "multiply"])
def test_residual_links_read_the_stream_after_its_relu(link: str) -> None:
    net = randomized(STResNet(config(link=link, link_form="residual", link_scale=0.1)))
    scale = [net.state_dict()[f"links.appearance.{layer}.scale"] for layer in range(4)]

    def residual(x: Tensor, other: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        entering = f(other) * scale[layer].reshape(-1, 1, 1)
        return (f(x) + entering if link == "add" else f(x) * (1 + entering)), f(x)

    assert max(largest_difference(net, {"appearance": residual}).values()) < 1e-9


@pytest.mark.parametrize("link", ["add", "multiply"])
@pytest.mark.parametrize("direction", ["motion_to_appearance", "both"])
def test_residual_links_of_scale_zero_and_identity_taps_start_at_the_two_streams(link: str, direction: str) -> None:
    single = [
        randomized(STResNet(config(streams=(s,), link=None, temporal=None)), seed) for seed, s in enumerate(STREAMS)
    ]
    start = {"link_form": "residual", "link_scale": 0.0, "inflate_init": "identity"}
    net = STResNet(config(link=link, link_direction=direction, **start)).double().eval()
    transfer_weights(net, [s.state_dict() for s in single])
    rgb, flow = clips_of()
    with torch.no_grad():
        found = net(rgb, flow)
        assert torch.allclose(found.appearance, single[0](rgb=rgb).appearance, atol=1e-9)
        assert torch.allclose(found.motion, single[1](flow=flow).motion, atol=1e-9)


# A silent motion stream


def silence(net: STResNet) -> None:
    """Make every motion sum that a link reads negative, so that its ReLU passes nothing."""
    for layer in map(net.motion.layer, LAYERS):
        for norm in (layer[0].bn3, layer[0].downsample[1]):
            norm.weight.data.zero_()
            norm.bias.data.fill_(-1)


def test_silent_motion_leaves_the_appearance_sum_alone() -> None:
    net = randomized(STResNet(config()))
    silence(net)
    alone: dict[str, Mix] = {"appearance": lambda a, m, layer: (a, f(a))}
    assert largest_difference(net, alone)["appearance"] < 1e-9
    rgb, flow = clips_of()
    with torch.no_grad():
        assert net(rgb, flow).appearance.equal(net(rgb, -3 * flow).appearance)


def test_silent_motion_and_positive_sums_are_independent_streams() -> None:
    linked = randomized(STResNet(config()))
    silence(linked)
    for layer in map(linked.appearance.layer, LAYERS):
        for norm in (layer[0].bn3, layer[0].downsample[1]):
            norm.running_var.fill_(1e6)
            norm.bias.data.fill_(5)  # every sum that a linked branch reads is above 0, where f(x) = x
    apart = STResNet(config(link=None)).double().eval()
    apart.load_state_dict(linked.state_dict())
    rgb, flow = clips_of()
    with torch.no_grad():
        for found, expected in zip(linked(rgb, flow), apart(rgb, flow), strict=True):
            assert (found - expected).abs().max() < 1e-9 * expected.abs().max()


# Still clips


def still_clips(steps: int) -> tuple[Tensor, Tensor]:
    rgb, flow = clips_of(steps=1)
    return rgb.repeat(1, 1, steps, 1, 1), flow.repeat(1, 1, steps, 1, 1)


@pytest.mark.parametrize("link", ["add", "multiply", None])
def test_a_still_clip_gives_the_output_of_the_image_networks(link: str | None) -> None:
    single = [
        randomized(STResNet(config(streams=(s,), link=None, temporal=None)), seed) for seed, s in enumerate(STREAMS)
    ]
    net = STResNet(config(link=link)).double().eval()
    transfer_weights(net, [s.state_dict() for s in single])
    rgb, flow = still_clips(25)
    mixes: dict[str, Mix] = {} if link is None else {"appearance": added if link == "add" else multiplied}
    images = {k: v for s in single for k, v in s.state_dict().items()}
    clips = {"appearance": rgb[0, :, :1], "motion": flow[0, :, :1]}
    with torch.no_grad():
        expected = formula.forward(images, clips, UNITS, mixes=mixes)
        found = net(rgb, flow)
        motion_alone = single[1](flow=flow[:, :, :1]).motion[0]
    assert (found.motion[0, 8:17] - motion_alone).abs().max() < 1e-9
    for stream in STREAMS:
        logits, size = getattr(found, stream)[0], expected[stream].abs().max()
        assert (logits[8:17] - expected[stream]).abs().max() < 1e-9 * size
        # within eight steps of either end, the zero padding is visible
        assert (logits[[0, 24]] - expected[stream]).abs().amax(1).min() > 1e-4 * size


# ST-MulNet


def mulnet(**changes: object) -> STResNet:
    return randomized(STResNet(config(**{"link": "multiply", "temporal": "inject", **changes})))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layout": "caffe"},
        {"link_direction": "both"},
        {"depth": 26, "motion_depth": 50, "motion_temporal_layers": (2, 5)},
        {"motion_depth": 26, "temporal_layers": (3,)},
    ],
)
def test_multiplier_network_is_the_formula(changes: dict[str, object]) -> None:
    net = mulnet(**changes)
    both = {"appearance": multiplied, "motion": multiplied}
    mixes = both if net.config.link_direction == "both" else {"appearance": multiplied}
    assert max(largest_difference(net, mixes).values()) < 1e-9


def test_the_formula_detects_a_wrong_injection() -> None:
    net = mulnet()
    for name, value in net.state_dict().items():
        if "layer3.1.temporal" in name and name.startswith("motion"):
            kept = value.clone()
            value.copy_(value.flip(2) if name.endswith("weight") else value + 0.1)
            wrong = net.state_dict() | {name: kept}
            with torch.no_grad():
                rgb, flow = clips_of()
                clips = {"appearance": rgb[0], "motion": flow[0]}
                expected = formula.forward(wrong, clips, UNITS, mixes={"appearance": multiplied})
                found = net(rgb, flow)
            for stream in STREAMS:
                assert (getattr(found, stream)[0] - expected[stream]).abs().max() > 1e-6 * expected[stream].abs().max()


def test_only_second_units_have_injected_convolutions() -> None:
    names = {k.rsplit(".", 2)[0] for k in mulnet().state_dict() if ".temporal." in k}
    assert names == {f"{stream}.layer{layer}.1" for stream in STREAMS for layer in (1, 2, 3, 4)}
    assert not [k for k, v in mulnet().state_dict().items() if v.shape[2:] == (3, 1) and ".temporal." not in k]
    some = {k.rsplit(".", 2)[0] for k in mulnet(motion_temporal_layers=(2, 5)).state_dict() if ".temporal." in k}
    assert some == {*(f"appearance.layer{layer}.1" for layer in (1, 2, 3, 4)), "motion.layer1.1", "motion.layer4.1"}


@pytest.mark.parametrize(
    ("start", "taps"),
    [("identity", (0, 1, 0)), ("average", (1 / 3, 1 / 3, 1 / 3)), ("difference", (-1, 3, -1))],
)
def test_injected_convolutions_start_from_the_chosen_taps(start: str, taps: tuple[float, ...]) -> None:
    net = STResNet(config(temporal="inject", temporal_init=start)).double()
    unit = net.motion.layer2[1]
    x = torch.randn(6, unit.temporal.weight.shape[0], 4, 4, dtype=torch.float64)  # 2 clips of 3 steps
    with torch.no_grad():
        found = unit.temporal(x, 2).unflatten(0, (2, 3))
    clips = torch.nn.functional.pad(x.unflatten(0, (2, 3)), (0, 0, 0, 0, 0, 0, 1, 1))
    expected = sum(tap * clips[:, k : k + 3] for k, tap in enumerate(taps))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "taps"),
    [("identity", (0, 1, 0)), ("average", (1 / 3, 1 / 3, 1 / 3)), ("difference", (-1, 3, -1))],
)
def test_inflated_convolutions_start_from_the_chosen_multiples_of_the_image_filter(
    start: str, taps: tuple[float, ...]
) -> None:
    plain = randomized(STResNet(config(link=None, temporal=None)))
    net = STResNet(config(link=None, inflate_init=start))
    transfer_weights(net, [plain.state_dict()])
    for name in ("conv1", "conv3"):
        image, inflated = (model.motion.layer2[1].get_submodule(name).weight.double() for model in (plain, net))
        assert torch.allclose(inflated, image * torch.tensor(taps, dtype=torch.float64)[:, None], atol=1e-7)


def test_identity_inflation_changes_nothing_until_trained() -> None:
    plain = randomized(STResNet(config(link=None, temporal=None)))
    net = STResNet(config(link=None, inflate_init="identity")).double().eval()
    transfer_weights(net, [plain.state_dict()])
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(net(*clips_of()), plain(*clips_of()), strict=True))


def test_identity_injection_changes_nothing_until_trained() -> None:
    plain = randomized(STResNet(config(link="multiply", temporal=None)))
    net = STResNet(config(link="multiply", temporal="inject")).double().eval()
    transfer_weights(net, [plain.state_dict()])
    clips = clips_of()
    with torch.no_grad():
        for injected, without in zip(net(*clips), plain(*clips), strict=True):
            assert torch.equal(injected, without)


# Reach and gradients


@pytest.mark.parametrize("temporal", ["inflate", "inject", None])
@pytest.mark.parametrize("stream", [0, 1])
def test_temporal_reach(temporal: str | None, stream: int) -> None:
    net = randomized(STResNet(config(temporal=temporal)))
    kept: list[Tensor] = []
    for layer in map(net.appearance.layer, LAYERS):
        layer[-1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    steps, middle = 25, 12
    inputs = clips_of(steps=steps)
    changed = [x.clone() for x in inputs]
    changed[stream][:, :, middle] += torch.randn(64, 64, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        net(*inputs)
        net(*changed)
    felt = [(a - b).abs().amax((1, 2, 3)) > 1e-9 for a, b in zip(kept[:4], kept[4:], strict=True)]
    reach = temporal_reach_steps(net.config)
    assert reach == {"inflate": (5, 9, 13, 17), "inject": (3, 5, 7, 9), None: (1, 1, 1, 1)}[temporal]
    for by_step, steps_felt in zip(felt, reach, strict=True):
        first = middle - steps_felt // 2
        assert by_step.nonzero().flatten().tolist() == list(range(first, first + steps_felt))


def gradients(net: STResNet, stream: str) -> set[str]:
    """Return the weights that the logits of a stream depend on."""
    net.zero_grad(set_to_none=True)
    getattr(net(*clips_of(steps=2)), stream).square().sum().backward()
    return {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}


def test_gradients_reach_both_streams_through_the_links() -> None:
    net = randomized(STResNet(config()))
    appearance = gradients(net, "appearance")
    appearance_weights = {name for name, _ in net.named_parameters() if name.startswith("appearance.")}
    motion = {name for name, _ in net.named_parameters() if name.startswith("motion.")}
    # all of motion except what follows the last link: the later units of conv5_x and the classifier
    after = {n for n in motion if n.startswith(("motion.layer4.1.", "motion.layer4.2.", "motion.fc."))}
    assert appearance == appearance_weights | (motion - after)
    assert gradients(net, "motion") == motion


def test_gradients_cross_streams_only_along_links() -> None:
    def crossing(**changes: object) -> tuple[bool, bool]:
        net = randomized(STResNet(config(depth=26, **changes)))
        return (
            any(n.startswith("motion.") for n in gradients(net, "appearance")),
            any(n.startswith("appearance.") for n in gradients(net, "motion")),
        )

    assert crossing(link=None) == (False, False)
    assert crossing(link_direction="motion_to_appearance") == (True, False)
    assert crossing(link_direction="appearance_to_motion") == (False, True)
    assert crossing(link_direction="both", link="multiply") == (True, True)
