"""The table of networks: counts against the paper's and against counts by hand, and its printed forms."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
import typer

from stresnet.cli.models import models
from stresnet.model import Stream, STResNet, STResNetConfig
from stresnet.model.profile import flops_of, network_name, on_meta, parameters, temporal_reach_steps
from stresnet.recipes import packaged_recipes
from stresnet.recipes.networks import ModelRow, model_table

UNITS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@cache
def table() -> dict[str, ModelRow]:
    return {row.name: row for row in model_table()}


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(("classes", "total"), [(101, 58_624_522), (51, 58_419_622)])
def test_parameter_counts_are_the_papers(classes: int, total: int) -> None:
    net = on_meta(STResNetConfig(num_classes=classes, layout="caffe"))
    assert parameters(net) == total
    if classes == 101:
        assert parameters(net.get_submodule("appearance")) == 29_285_605
        assert parameters(net.get_submodule("motion")) == 29_338_917


def test_parameters_in_the_table() -> None:
    row = table()["ST-ResNet-50"]  # in torchvision's layout, where conv1 has no bias: 64 fewer per stream
    assert (row.appearance_parameters, row.motion_parameters) == (29_285_605 - 64, 29_338_917 - 64)
    assert row.parameters == 58_624_522 - 128
    plain = table()["two-stream fusion"]
    assert row.appearance_parameters - plain.appearance_parameters == 5_570_560, "the temporal taps"
    assert row.motion_parameters - plain.motion_parameters == 5_570_560
    for row in table().values():
        scales = 0 if row.config.link_scale is None else 256 + 512 + 1024 + 2048  # a factor for each channel
        assert row.parameters == row.appearance_parameters + row.motion_parameters + scales


def test_the_meta_device_changes_no_shape() -> None:
    config = STResNetConfig(num_classes=7, depth=26, width=0.125, link="multiply", temporal="inject", link_scale=0.1)
    expected = {key: value.shape for key, value in STResNet(config).state_dict().items()}
    found = on_meta(config)
    assert {key: value.shape for key, value in found.state_dict().items()} == expected
    assert all(p.device.type == "meta" for p in found.parameters())
    assert parameters(found) == sum(p.numel() for p in STResNet(config).parameters())


def flops_of_stream(config: STResNetConfig, stream: Stream, steps: int, side_px: int) -> int:
    """Return two per multiply-add of convolutions and classifier, counted from the paper and its code."""
    channels_in = 3 if stream == "appearance" else 2 * config.flow_stack
    base = round(64 * config.width)
    caffe = config.layout == "caffe"
    side = -(-side_px // 2)
    per_step = side**2 * 7 * 7 * channels_in * base
    side = -(-(side - 3) // 2) + 1 if caffe else (side + 2 - 3) // 2 + 1
    channels = base
    depth = config.motion_depth if stream == "motion" and config.motion_depth else config.depth
    temporal = config.motion_temporal_layers if stream == "motion" and config.motion_temporal_layers else (2, 3, 4, 5)
    for layer, units in zip((2, 3, 4, 5), UNITS[depth], strict=True):
        inner = base * 2 ** (layer - 2)
        for unit in range(units):
            before = side
            if unit == 0 and layer > 2:
                side = -(-side // 2)
            over_time = unit == 1 and layer in temporal
            taps = 3 if over_time and config.temporal == "inflate" else 1
            per_step += (side if caffe else before) ** 2 * channels * inner * taps
            per_step += side**2 * 9 * inner * inner
            per_step += side**2 * inner * 4 * inner * taps
            if over_time and config.temporal == "inject":
                per_step += side**2 * 3 * inner * inner
            if unit == 0:
                per_step += side**2 * channels * 4 * inner
            channels = 4 * inner
    outputs = (
        steps if config.temporal_pool is None else (steps - config.temporal_pool[0]) // config.temporal_pool[1] + 1
    )
    return 2 * (per_step * steps + outputs * channels * config.num_classes)


SMALL = STResNetConfig(num_classes=7, depth=26, width=0.25)


@pytest.mark.parametrize(
    ("config", "steps", "side_px"),
    [
        (SMALL, 5, 64),
        (SMALL.replace(layout="caffe"), 5, 70),
        (SMALL.replace(temporal=None, link=None), 1, 64),
        (SMALL.replace(temporal_pool=(5, 2)), 11, 56),
        (SMALL.replace(temporal="inject", link="multiply", temporal_pool=(5, 1)), 7, 64),
        (SMALL.replace(layout="caffe", temporal="inject", motion_depth=50, motion_temporal_layers=(2, 5)), 5, 64),
    ],
)
def test_flops_by_hand(config: STResNetConfig, steps: int, side_px: int) -> None:
    expected = sum(flops_of_stream(config, stream, steps, side_px) for stream in config.streams)
    assert flops_of(on_meta(config), steps, side_px, side_px) == expected


def test_flops_of_one_stream() -> None:
    config = SMALL.replace(link=None, streams=("motion",))
    assert flops_of(on_meta(config), 5, 64, 64) == flops_of_stream(config, "motion", 5, 64)


def test_flops_in_the_table() -> None:
    for row in table().values():
        by_hand = sum(flops_of_stream(row.config, stream, row.steps, row.side_px) for stream in row.config.streams)
        assert row.flops == by_hand, row.name
    assert table()["ST-ResNet-50"].flops == pytest.approx(104.9e9, rel=1e-3)


# ---------------------------------------------------------------- rows


def test_rows_describe_the_published_networks() -> None:
    rows = table()
    assert all(row.config.num_classes == 101 for row in rows.values())
    star, mulnet, released = rows["ST-ResNet*-50"], rows["ST-MulNet-50"], rows["ST-MulNet-50/152"]
    assert (star.steps, star.side_px, star.config.temporal_pool) == (11, 224, (5, 2))
    assert (mulnet.config.link, mulnet.config.temporal, mulnet.config.temporal_pool) == ("multiply", "inject", (5, 1))
    assert (released.config.motion_depth, released.config.motion_temporal_layers) == (152, (2, 5))
    assert released.config.layout == "caffe"
    assert {rows[f"ST-ResNet-{depth}"].config.depth for depth in (26, 50, 101, 152)} == {26, 50, 101, 152}
    for row in rows.values():
        if row.name not in (*row.recipes, "two-stream fusion"):
            assert network_name(row.config) == row.name


def test_every_recipe_is_in_one_row() -> None:
    named = [name for row in table().values() for name in row.recipes]
    assert sorted(named) == packaged_recipes()
    assert {"ucf101", "ucf101-paper", "hmdb51"} <= set(table()["ST-ResNet*-50"].recipes)
    assert "st-mulnet" in table()["ST-MulNet-50"].recipes
    small = table()["small"]
    assert (small.config.depth, small.config.width, small.side_px, small.recipes) == (26, 0.25, 112, ("small",))


def test_temporal_reach() -> None:
    found = {name: row.reach_steps for name, row in table().items()}
    assert found["two-stream fusion"] == 1
    assert found["ST-ResNet-50"] == 17
    assert found["ST-ResNet*-50"] == 17 + 4  # a pool over five steps
    assert found["ST-MulNet-50"] == 9 + 4
    assert found["ST-MulNet-50/152"] == 9 + 4  # that of its appearance stream


def test_the_reach_is_measured_on_a_network() -> None:
    """Changing one step changes outputs up to half the reach away, and none beyond."""
    torch.manual_seed(0)
    net = STResNet(STResNetConfig(num_classes=3, depth=26, width=0.125, temporal_pool=(5, 1))).double().eval()
    rgb = torch.randn(1, 3, 45, 32, 32, dtype=torch.float64)
    flow = torch.randn(1, 20, 45, 32, 32, dtype=torch.float64)
    other = rgb.clone()
    other[:, :, 22] += 1
    with torch.no_grad():
        changed = (net(rgb, flow).appearance != net(other, flow).appearance)[0].any(1).nonzero().flatten()
    reach = temporal_reach_steps(net.config)[-1] + 4
    assert int(changed.max() - changed.min()) + 1 == reach == 21


def test_only_confirmed_accuracies_are_shown() -> None:
    published = {name: row.published_ucf101 for name, row in table().items() if row.published_ucf101 is not None}
    assert published == {"ST-ResNet*-50": 93.4}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "ST-ResNet-50"),
        ({"temporal_pool": (5, 2), "depth": 101}, "ST-ResNet*-101"),
        ({"link": "multiply", "temporal": "inject", "motion_depth": 152}, "ST-MulNet-50/152"),
        ({"link": None, "temporal": None}, "two-stream ResNet-50"),
        ({"link": None}, "two-stream ResNet-50 with inflated temporal convolutions"),
        ({"link": None, "temporal": "inject"}, "two-stream ResNet-50 with injected temporal convolutions"),
        ({"temporal": None}, "two-stream ResNet-50 with additive links"),
        ({"temporal_layers": ()}, "two-stream ResNet-50 with additive links"),
        ({"link": "multiply"}, "two-stream ResNet-50 with multiplicative links and inflated temporal convolutions"),
        ({"link": None, "temporal": None, "temporal_pool": (5, 2)}, "two-stream ResNet-50 with a temporal pool"),
        ({"link_direction": "both"}, "ST-ResNet-50 with links in both directions"),
        (
            {"temporal": None, "link": "multiply", "link_direction": "appearance_to_motion", "motion_depth": 101},
            "two-stream ResNet-50/101 with multiplicative links from appearance to motion",
        ),
        (
            {"link": None, "streams": ("appearance",), "temporal_pool": (5, 1)},
            "ResNet-50 (appearance) with inflated temporal convolutions and a temporal pool",
        ),
        ({"link": None, "temporal": None, "streams": ("motion",), "motion_depth": 26}, "ResNet-26 (motion)"),
    ],
)
def test_names(changes: dict[str, object], name: str) -> None:
    assert network_name(STResNetConfig(num_classes=101).replace(**changes)) == name


# ---------------------------------------------------------------- the command


@pytest.fixture
def _one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse one table, because counting takes seconds."""
    rows = list(table().values())
    monkeypatch.setattr("stresnet.recipes.networks.model_table", lambda: rows)


@pytest.mark.usefixtures("_one_table")
def test_the_printed_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    models()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines), "truncated"
    assert lines[0].split() == ["network", "M", "parameters", "clip", "GFLOPs", "reach", "UCF101"]
    shown = [" ".join(line.split()) for line in lines]
    assert shown[3] == "ST-ResNet-50 29.3 + 29.3 = 58.6 5 × 224² 104.9 17"
    assert shown[4] == "ST-ResNet*-50 29.3 + 29.3 = 58.6 11 × 224² 230.7 21 93.4"
    notes = " ".join(shown[len(table()) + 1 :])
    for note in (
        "two per multiply-add",
        "mean of three splits",
        "101 classes",
        "ST-MulNet-50 by st-mulnet",
        "small is a",
    ):
        assert note in notes


@pytest.mark.usefixtures("_one_table")
def test_the_table_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    models(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == list(table())
    row = found[2]
    assert row["flops"] == table()["ST-ResNet-50"].flops
    assert STResNetConfig.from_dict(row["config"]) == table()["ST-ResNet-50"].config
    assert [row["published_ucf101"] for row in found[2:4]] == [None, 93.4]


@pytest.mark.usefixtures("_one_table")
def test_the_table_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    models(markdown=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"
    rows = lines[2 : 2 + len(table())]
    assert "| ST-ResNet\\*-50 | 29.3 + 29.3 = 58.6 | 11 × 224² | 230.7 | 21 | 93.4 |" in rows
    assert all(row.count(" | ") == 5 for row in rows)
    assert lines[2 + len(table())] == ""
    assert all(line.startswith("- ") for line in lines[3 + len(table()) :])


def test_json_and_markdown_exclude_each_other() -> None:
    with pytest.raises(typer.BadParameter, match="either --json or --markdown"):
        models(as_json=True, markdown=True)
