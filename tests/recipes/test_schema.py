"""Recipes: the packaged ones against the published schedules, and every way to get one wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stresnet.errors import RecipeError
from stresnet.model import STResNetConfig
from stresnet.recipes import IMAGENET, Phase, Recipe, load_recipe, packaged_recipes, parse_recipe

UCF101_VIDEOS = 9537  # training videos of split 1, by which the released code counts its epochs


def refusal(action: Any, *args: Any) -> str:
    with pytest.raises(RecipeError) as found:
        action(*args)
    assert "\n" not in str(found.value)
    return str(found.value)


def values(**changes: Any) -> dict[str, Any]:
    """A recipe of two stages as plain values."""
    rates = [{"lr": 0.1, "epochs": 2}]
    single = {"name": "first", "streams": ["motion"], "batch_videos": 8, "sub_batch_videos": 4, "schedule": rates}
    fused = {"name": "second", "batch_videos": 8, "sub_batch_videos": 4, "schedule": rates}
    return {"name": "mine", "stages": [single, fused], **changes}


def with_stage(number: int = 1, **changes: Any) -> dict[str, Any]:
    recipe = values()
    recipe["stages"][number].update(changes)
    return recipe


# What comes with the library


def test_every_packaged_recipe_loads_and_describes_networks() -> None:
    names = packaged_recipes()
    assert {"ucf101", "ucf101-paper", "hmdb51"} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        for stage in recipe.stages:
            assert recipe.config(stage, 7).num_classes == 7
            assert stage.title
            assert stage.note


def schedule(recipe: Recipe, stage: str) -> list[tuple[float, float | None, int | None]]:
    return [(r.lr, r.epochs, r.iterations) for r in recipe.stage(stage).schedule]


def check_table(recipe: Recipe) -> None:
    """All of the published table that holds for the released code and the paper alike."""
    assert (recipe.depth, recipe.width, recipe.flow_stack, recipe.crop_px) == (50, 1.0, 10, 224)
    assert (recipe.momentum, recipe.weight_decay, recipe.mirror) == (0.9, 5e-4, True)
    assert recipe.link_direction == "motion_to_appearance"
    assert recipe.link_scale is None
    found = {}
    for s in recipe.stages:
        found[s.name] = (s.streams, s.starts_from, s.batch_videos, s.sub_batch_videos, s.steps, s.tau, s.crop)
    both = ("appearance", "motion")
    assert found == {
        "appearance": (("appearance",), (IMAGENET,), 256, 32, 1, (1, 1), "border"),
        "motion": (("motion",), (IMAGENET,), 128, 32, 1, (1, 1), "corners"),
        "st-resnet": (both, ("appearance", "motion"), 128, 4, 5, (5, 15), "border"),
        "st-resnet-star": (both, ("st-resnet",), 128, 4, 11, (1, 15), "border"),
    }
    design = [(s.temporal, s.link, s.temporal_pool, s.dropout, s.crop_jitter, s.loss) for s in recipe.stages]
    assert design == [
        (None, None, None, 0.0, 0.25, "sum"),
        (None, None, None, 0.8, 0.25, "sum"),
        ("inflate", "add", None, 0.0, 0.25, "sum"),
        ("inflate", "add", (5, 2), 0.0, 0.25, "sum"),
    ]


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_released_codes_schedule(name: str) -> None:
    recipe = load_recipe(name)
    check_table(recipe)
    # (rate, epochs) and k, an epoch being 9537·k videos
    released = {
        "appearance": ([(1e-2, 2), (1e-3, 2), (1e-4, 2)], 10),
        "motion": ([(1e-2, 1), (1e-3, 1), (1e-4, 1), (1e-5, 1)], 100),
        "st-resnet": ([(1e-3, 3), (1e-4, 3), (1e-5, 2)], 10),
        "st-resnet-star": ([(1e-4, 1), (1e-5, 1)], 1),
    }
    for stage, (rates, k) in released.items():
        assert schedule(recipe, stage) == [(rate, epochs * k, None) for rate, epochs in rates]
    if name == "ucf101":
        first = recipe.stage("appearance")
        assert first.schedule[0].steps(UCF101_VIDEOS, first.batch_videos) == round(20 * 9537 / 256) == 745


def test_papers_schedule() -> None:
    recipe = load_recipe("ucf101-paper")
    check_table(recipe)
    iterations = {
        "appearance": [(1e-2, 10_000), (1e-3, 10_000)],
        "motion": [(1e-2, 30_000), (1e-3, 10_000)],
        "st-resnet": [(1e-3, 30_000), (1e-4, 30_000), (1e-5, 20_000)],
        "st-resnet-star": [(1e-4, 2_000), (1e-5, 2_000)],
    }
    for stage, rates in iterations.items():
        assert schedule(recipe, stage) == [(rate, None, count) for rate, count in rates]


# From recipe to network and steps


def test_steps_of_a_rate() -> None:
    assert Phase(lr=1, epochs=2.5).steps(100, 8) == 31
    assert Phase(lr=1, epochs=0.01).steps(10, 8) == 1
    assert Phase(lr=1, iterations=17).steps(10**6, 8) == 17


def test_multiplier_recipe_is_the_released_scripts() -> None:
    recipe = load_recipe("st-mulnet")
    assert schedule(recipe, "appearance") == schedule(load_recipe("ucf101"), "appearance")
    assert schedule(recipe, "motion") == schedule(load_recipe("ucf101"), "motion")
    # rates of STMulNet.m with its epochs of 9537·5 videos
    assert schedule(recipe, "st-mulnet") == [(1e-3, 10, None), (1e-4, 5, None), (1e-5, 5, None), (1e-6, 5, None)]
    stage = recipe.stage("st-mulnet")
    assert (stage.batch_videos, stage.sub_batch_videos, stage.steps, stage.tau) == (128, 4, 5, (5, 35))
    config = recipe.config(stage, 101)
    assert (config.link, config.temporal, config.temporal_init) == ("multiply", "inject", "identity")
    assert config.temporal_pool == (5, 1)
    assert (config.dropout_of("appearance"), config.dropout_of("motion")) == (0.0, 0.8)


def test_every_choice_reaches_the_network() -> None:
    recipe = parse_recipe(
        values(
            depth=26,
            width=0.5,
            layout="caffe",
            link_direction="both",
            link_scale=0.1,
            flow_stack=3,
            stages=[
                {**values()["stages"][0], "dropout": 0.3},
                values()["stages"][1]
                | {"link": "multiply", "temporal": "inflate", "temporal_pool": [5, 2], "steps": 5},
            ],
        ),
        "mine",
    )
    first, second = (recipe.config(stage, 9) for stage in recipe.stages)
    shared = {"num_classes": 9, "depth": 26, "width": 0.5, "layout": "caffe", "flow_stack": 3}
    shared["link_direction"] = "both"
    single = {"streams": ("motion",), "link": None, "link_scale": None, "temporal": None, "temporal_pool": None}
    assert first == STResNetConfig(**shared, **single, dropout=0.3)
    fused = {"streams": ("appearance", "motion"), "link": "multiply", "link_scale": 0.1, "temporal": "inflate"}
    assert second == STResNetConfig(**shared, **fused, temporal_pool=(5, 2), dropout=0.0)


@pytest.mark.parametrize("name", packaged_recipes())
def test_dumped_recipe_parses_to_itself(name: str) -> None:
    recipe = load_recipe(name, ["*.dropout=0.123456789", "seed=3"])
    dumped = recipe.model_dump(mode="json")
    assert parse_recipe(dumped, "dump") == recipe
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(dumped, allow_unicode=True)), "dump") == recipe


# Changes


def test_changes_of_the_recipe_of_one_stage_and_of_all() -> None:
    changes = ["depth=26", "width = 0.25", "*.batch_videos=32", "*.sub_batch_videos=8", "st-resnet.batch_videos=16"]
    changes += ["motion.schedule=[{lr: 1e-3, iterations: 5}]", "appearance.starts_from=[]", "st-resnet.link=null"]
    recipe = load_recipe("ucf101", changes)
    assert (recipe.depth, recipe.width) == (26, 0.25)
    assert [s.batch_videos for s in recipe.stages] == [32, 32, 16, 32]
    assert recipe.stage("motion").schedule == (Phase(lr=1e-3, iterations=5),)
    assert recipe.stage("appearance").starts_from == ()
    assert recipe.stage("st-resnet").link is None
    untouched = load_recipe("ucf101")
    assert untouched.depth == 50
    assert recipe.stage("st-resnet-star").schedule == untouched.stage("st-resnet-star").schedule


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("depth", "write field=value"),
        ("colour=red", "colour"),
        ("*.colour=red", "colour"),
        ("motion.colour=red", "ucf101: stage motion: colour: no such field"),
        ("audio.dropout=0.5", "no stage 'audio'; the stages are appearance, motion"),
        ("depth=34", "depth"),
        ("motion.dropout=lots", "stage motion: dropout: "),
        ("motion.schedule=[", "no valid YAML"),
        ("stages=3", "stages"),
        ("=3", "no such field"),
        ("widht=2", "ucf101: widht: no such field; is width meant?"),
        ("motion.step=2", "stage motion: step: no such field; is steps meant?"),
        ("motion.schedule=[{lr: 1, epoch: 2}]", "stage motion: schedule.0.epoch: no such field; is epochs meant?"),
        ("motion.name=x y", "stages.1.name"),
    ],
)
def test_wrong_changes_are_refused_in_one_line(change: str, said: str) -> None:
    assert said in refusal(load_recipe, "ucf101", [change])


# Mistakes

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"stages": values()["stages"]}, "mine.yaml: name: Field required"),
    (values(stages=[{"steps": 0}]), "stages.0.name: Field required"),
    (values(colour="red"), "colour"),
    (values(depth=34), "depth"),
    (values(width=0), "width"),
    (values(width=float("inf")), "width"),
    (values(layout="keras"), "layout"),
    (values(link_direction="up"), "link_direction"),
    (values(flow_stack=0), "flow_stack"),
    (values(crop_px=31), "crop_px"),
    (values(momentum=1.0), "momentum"),
    (values(weight_decay=-1), "weight_decay"),
    (values(precision="8"), "precision"),
    (values(seed=-1), "seed"),
    (values(name="a\nb", seed="a\nb"), "seed"),
    (values(stages=[]), "stages"),
    (values(stages=[3]), "stages.0"),
    (with_stage(name="A b"), "stages.1.name"),
    (with_stage(name="a\nb"), "stages.1.name"),
    (with_stage(name="first"), "two stages are called 'first'"),
    (with_stage(name="imagenet"), "'imagenet'"),
    (with_stage(streams=["audio"]), "stage second: streams.0"),
    (with_stage(streams=[]), "streams"),
    (with_stage(streams=["motion", "motion"], link="add"), "streams"),
    (with_stage(starts_from=["third"]), "second starts from 'third'"),
    (with_stage(starts_from=["second"]), "second starts from 'second'"),
    (with_stage(0, starts_from=["second"]), "first starts from 'second'"),
    (with_stage(starts_from=["first", "imagenet"]), "starts_from"),
    (with_stage(starts_from=["first"]), "second starts from no stage that has its appearance stream"),
    (with_stage(link="concat"), "stage second: link"),
    (with_stage(0, link="add"), "link needs both streams"),
    (with_stage(temporal_pool=(5, 2), steps=4), "a temporal pool of 5 needs clips as long, not 4 steps"),
    (with_stage(dropout=1.0), "stage second: dropout"),
    (with_stage(steps=0), "stage second: steps"),
    (with_stage(tau=[5]), "stage second: tau"),
    (with_stage(tau=[5, 4]), "tau"),
    (with_stage(tau=[0, 4]), "tau"),
    (with_stage(crop="middle"), "stage second: crop"),
    (with_stage(crop_jitter=1.0), "stage second: crop_jitter"),
    (with_stage(batch_videos=6), "stage second: batch_videos (6) must be a multiple of sub_batch_videos (4)"),
    (with_stage(sub_batch_videos=0), "stage second: sub_batch_videos"),
    (with_stage(schedule=[]), "stage second: schedule"),
    (with_stage(schedule=[{"lr": 0, "epochs": 1}]), "stage second: schedule.0.lr"),
    (with_stage(schedule=[{"lr": float("inf"), "epochs": 1}]), "stage second: schedule.0.lr"),
    (with_stage(schedule=[{"lr": 1}]), "stage second: schedule.0: give either `epochs` or `iterations`"),
    (with_stage(schedule=[{"lr": 1, "epochs": 1, "iterations": 1}]), "either `epochs` or `iterations`"),
    (with_stage(schedule=[{"lr": 1, "epochs": float("inf")}]), "stage second: schedule.0.epochs"),
    (with_stage(schedule=[{"lr": 1, "iterations": 1.5}]), "stage second: schedule.0.iterations"),
    (with_stage(loss="mean"), "stage second: loss"),
    (with_stage(ceiling=1.1), "stage second: ceiling"),
    (with_stage(title="Late fusion"), "two rows of the report would be called 'late fusion'"),
    (with_stage(title="First"), "two rows of the report would be called 'first'"),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_mistakes_are_named_in_one_line(mistake: dict[str, Any], said: str) -> None:
    message = refusal(parse_recipe, mistake, "mine.yaml")
    assert message.startswith("mine.yaml: ")
    assert said in message


def test_values_without_a_mistake_are_taken() -> None:
    assert parse_recipe(values(), "mine").stage("second").streams == ("appearance", "motion")
    assert parse_recipe(with_stage(0, streams=["appearance", "motion"], temporal="inflate"), "mine")


def test_image_taps_cannot_be_had_back_from_a_temporal_stage() -> None:
    recipe = with_stage(streams=["motion"], starts_from=["first"])
    recipe["stages"][0]["temporal"] = "inflate"
    assert "second starts from stage first, so its temporal must be inflate" in refusal(parse_recipe, recipe, "mine")
    recipe["stages"][1]["temporal"] = "inject"
    assert "its temporal must be inflate" in refusal(parse_recipe, recipe, "mine")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values()), "utf-8")
    assert load_recipe(file) == load_recipe(str(file)) == parse_recipe(values(), "mine")
    assert "cannot be read" in refusal(load_recipe, tmp_path / "none.yaml")
    assert "give one of" in refusal(load_recipe, "ucf102")
    wrong = [(b"a: [", "YAML"), (b"- 1", "list of `stages`"), (b"", "`stages`"), (b"\xff\xfe\x80", "UTF-8")]
    for content, said in wrong:
        file.write_bytes(content)
        message = refusal(load_recipe, file)
        assert said in message
        assert str(file) in message


def test_unknown_stage_is_named() -> None:
    assert "has no stage 'third': it has first, second" in refusal(parse_recipe(values(), "mine").stage, "third")
