"""Recipes: packaged ones against the published schedules, changes to fields, and errors for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from stresnet.data.clips import ClipSampling
from stresnet.errors import RecipeError
from stresnet.model import STResNetConfig
from stresnet.model.config import Architecture
from stresnet.recipes import (
    IMAGENET,
    Optimisation,
    Phase,
    Recipe,
    Stage,
    differing_fields,
    load_recipe,
    packaged_recipes,
    parse_recipe,
)

UCF101_VIDEOS = 9537  # training videos of split 1, which make an epoch of the released code


def error_of(action: Any, *args: Any) -> str:
    with pytest.raises(RecipeError) as found:
        action(*args)
    assert "\n" not in str(found.value)
    return str(found.value)


def values(**changes: Any) -> dict[str, Any]:
    """Return a recipe of two stages as plain values."""
    optimisation = {"batch_videos": 8, "sub_batch_videos": 4, "schedule": [{"lr": 0.1, "epochs": 2}]}
    single = {"streams": ["motion"], "temporal": None, "link": None}
    first = {"name": "first", "network": single, "optimisation": optimisation}
    second = {"name": "second", "network": {}, "clips": {}, "optimisation": optimisation}
    return {"name": "mine", "stages": [first, second], **changes}


def with_stage(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the recipe with one stage changed; mappings are merged."""
    recipe = values()
    stage = recipe["stages"][number]
    for name, value in changes.items():
        stage[name] = stage.get(name, {}) | value if isinstance(value, dict) else value
    return recipe


# Packaged recipes


def test_every_packaged_recipe_loads_and_is_described() -> None:
    names = packaged_recipes()
    assert {"ucf101", "ucf101-paper", "hmdb51"} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert all(stage.title and stage.note for stage in recipe.stages)


@pytest.mark.parametrize("model", [Recipe, Stage, Architecture, ClipSampling, Optimisation, Phase])
def test_every_field_is_described(model: type[BaseModel]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def schedule(recipe: Recipe, stage: str) -> list[tuple[float, float | None, int | None]]:
    return [(r.lr, r.epochs, r.iterations) for r in recipe.stage(stage).optimisation.schedule]


def check_table(recipe: Recipe) -> None:
    """Check the part of the published table on which the released code and the paper agree."""
    found, design = {}, []
    for s in recipe.stages:
        n, c, o = s.network, s.clips, s.optimisation
        assert (n.depth, n.motion_depth, n.width, n.flow_stack, c.crop_px, c.mirror) == (50, None, 1.0, 10, 224, True)
        assert (o.momentum, o.weight_decay) == (0.9, 5e-4)
        assert (n.link_direction, n.link_scale) == ("motion_to_appearance", None)
        found[s.name] = (n.streams, s.starts_from, o.batch_videos, o.sub_batch_videos, c.steps, c.tau, c.crop)
        design.append((n.temporal, n.link, n.temporal_pool, n.dropout, c.crop_jitter, o.loss))
    both = ("appearance", "motion")
    assert found == {
        "appearance": (("appearance",), (IMAGENET,), 256, 32, 1, (1, 1), "border"),
        "motion": (("motion",), (IMAGENET,), 128, 32, 1, (1, 1), "corners"),
        "st-resnet": (both, ("appearance", "motion"), 128, 4, 5, (5, 15), "border"),
        "st-resnet-star": (both, ("st-resnet",), 128, 4, 11, (1, 15), "border"),
    }
    assert design == [
        (None, None, None, 0.0, 0.25, "sum"),
        (None, None, None, 0.8, 0.25, "sum"),
        ("inflate", "add", None, 0.0, 0.25, "sum"),
        ("inflate", "add", (5, 2), 0.0, 0.25, "sum"),
    ]


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_schedules_are_the_released_codes(name: str) -> None:
    recipe = load_recipe(name)
    check_table(recipe)
    # (rate, epochs) and k, where an epoch is 9537·k videos
    released = {
        "appearance": ([(1e-2, 2), (1e-3, 2), (1e-4, 2)], 10),
        "motion": ([(1e-2, 1), (1e-3, 1), (1e-4, 1), (1e-5, 1)], 100),
        "st-resnet": ([(1e-3, 3), (1e-4, 3), (1e-5, 2)], 10),
        "st-resnet-star": ([(1e-4, 1), (1e-5, 1)], 1),
    }
    for stage, (rates, k) in released.items():
        assert schedule(recipe, stage) == [(rate, epochs * k, None) for rate, epochs in rates]
    if name == "ucf101":
        first = recipe.stage("appearance").optimisation
        assert first.schedule[0].total_iterations(UCF101_VIDEOS, first.batch_videos) == round(20 * 9537 / 256) == 745


def test_schedules_are_the_papers() -> None:
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


# From recipe to network and iterations


def test_iterations_of_a_phase() -> None:
    assert Phase(lr=1, epochs=2.5).total_iterations(100, 8) == 31
    assert Phase(lr=1, epochs=0.01).total_iterations(10, 8) == 1
    assert Phase(lr=1, iterations=17).total_iterations(10**6, 8) == 17


def test_st_mulnet_is_the_released_scripts() -> None:
    recipe = load_recipe("st-mulnet")
    assert schedule(recipe, "appearance") == schedule(load_recipe("ucf101"), "appearance")
    assert schedule(recipe, "motion") == schedule(load_recipe("ucf101"), "motion")
    # rates of STMulNet.m with its epochs of 9537·5 videos
    assert schedule(recipe, "st-mulnet") == [(1e-3, 10, None), (1e-4, 5, None), (1e-5, 5, None), (1e-6, 5, None)]
    stage = recipe.stage("st-mulnet")
    assert (stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos) == (128, 4)
    assert (stage.clips.steps, stage.clips.tau) == (5, (5, 35))
    config = stage.network
    assert (config.link, config.temporal, config.temporal_init) == ("multiply", "inject", "identity")
    assert config.temporal_pool == (5, 1)
    assert (config.dropout_of("appearance"), config.dropout_of("motion")) == (0.0, 0.8)


def test_stages_override_the_recipes_defaults() -> None:
    recipe = with_stage(clips={"steps": 5}, network={"width": 0.25})
    recipe |= {"network": {"depth": 26, "width": 0.5}, "clips": {"tau": [2, 3]}, "optimisation": {"momentum": 0.5}}
    given = json.dumps(recipe)
    first, second = parse_recipe(recipe, "mine").stages
    assert json.dumps(recipe) == given, "the argument was changed"
    single = {"streams": ("motion",), "link": None, "temporal": None}
    assert first.network == Architecture(depth=26, width=0.5, **single)
    assert second.network == Architecture(depth=26, width=0.25)
    assert (first.clips, second.clips) == (ClipSampling(tau=(2, 3)), ClipSampling(steps=5, tau=(2, 3)))
    assert {stage.optimisation.momentum for stage in (first, second)} == {0.5}
    assert first.network.with_classes(9) == STResNetConfig(num_classes=9, depth=26, width=0.5, **single)


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_recipe_survives_a_round_trip(name: str) -> None:
    recipe = load_recipe(name, ["*.network.dropout=0.123456789", "seed=3"])
    dumped = recipe.to_dict()
    assert parse_recipe(dumped, "dump") == recipe
    assert parse_recipe(yaml.safe_load(yaml.safe_dump(dumped, allow_unicode=True)), "dump") == recipe


# Changes


def test_changes_to_the_recipe_to_one_stage_and_to_all() -> None:
    changes = ["seed=5", "network.depth=26", "network.width = 0.25", "motion.optimisation.momentum=0.5"]
    changes += ["*.optimisation.batch_videos=32", "*.optimisation.sub_batch_videos=8"]
    changes += ["st-resnet.optimisation.batch_videos=16", "motion.optimisation.schedule=[{lr: 1e-3, iterations: 5}]"]
    changes += ["appearance.starts_from=[]", "st-resnet.network.link=null", "appearance.clips.steps=3"]
    recipe = load_recipe("ucf101", changes)
    assert recipe.seed == 5
    assert {(s.network.depth, s.network.width) for s in recipe.stages} == {(26, 0.25)}
    assert [s.optimisation.batch_videos for s in recipe.stages] == [32, 32, 16, 32]
    assert [s.optimisation.momentum for s in recipe.stages] == [0.9, 0.5, 0.9, 0.9]
    assert recipe.stage("motion").optimisation.schedule == (Phase(lr=1e-3, iterations=5),)
    assert recipe.stage("appearance").starts_from == ()
    assert recipe.stage("appearance").clips.steps == 3
    assert recipe.stage("st-resnet").network.link is None
    untouched = load_recipe("ucf101")
    assert untouched.stage("motion").network.depth == 50
    assert schedule(recipe, "st-resnet-star") == schedule(untouched, "st-resnet-star")


def test_a_changed_default_does_not_override_stages() -> None:
    recipe = load_recipe("ucf101", ["clips.steps=9"])
    assert [s.clips.steps for s in recipe.stages] == [9, 9, 5, 11]


def test_differing_fields_are_named_by_their_paths() -> None:
    a = load_recipe("ucf101")
    b = load_recipe("ucf101", ["seed=1", "motion.clips.crop=border", "st-resnet.note=mine"])
    assert differing_fields(a, b) == ["seed", "motion.clips.crop", "st-resnet.note"]
    assert differing_fields(a, a) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("depth", "--set depth: write PATH=VALUE, such as seed=1"),
        ("motion.clips.steps=[", "not valid YAML"),
        ("audio.network.dropout=0.5", "no stage 'audio'; the stages are appearance, motion"),
        ("steps=7", "--set steps=7: steps is in clips: write clips.steps=7"),
        ("st-resnet.steps=7", "--set st-resnet.steps=7: steps is in clips: write st-resnet.clips.steps=7"),
        ("*.steps=7", "write *.clips.steps=7"),
        ("width=0.25", "width is in network: write network.width=0.25"),
        ("*.schedule=[]", "schedule is in optimisation: write *.optimisation.schedule=[]"),
        ("motion.network.steps=2", "steps is in clips: write motion.clips.steps=2"),
        ("clips.width=2", "width is in network: write network.width=2"),
        ("motion.seed=1", "seed is a field of the recipe: write seed=1"),
        ("title=x", "title is a field of stages: write STAGE.title=x"),
        ("stages=3", "no such field"),
        ("=3", "no such field"),
        ("colour=red", "--set colour=red: no such field"),
        ("motion.colour=red", "no such field"),
        ("widht=2", "no such field; did you mean network.width?"),
        ("motion.step=2", "no such field; did you mean motion.clips.steps?"),
        ("motion.clips.steps.more=2", "no such field"),
        ("sede=2", "did you mean seed?"),
        ("network.depth=34", "ucf101: network.depth: "),
        ("motion.network.dropout=lots", "ucf101: stage motion: network.dropout: "),
        ("clips={step: 3}", "ucf101: clips.step: no such field; did you mean clips.steps?"),
        ("motion.clips=3", "stage motion: clips: "),
        ("network=3", "network must be a mapping of fields to values, not 3"),
        ("motion.name=x y", "stages.1.name"),
        (
            "motion.optimisation.schedule=[{lr: 1, epoch: 2}]",
            "stage motion: optimisation.schedule.0.epoch: no such field; did you mean epochs?",
        ),
    ],
)
def test_wrong_changes_are_named_in_one_line(change: str, expected: str) -> None:
    assert expected in error_of(load_recipe, "ucf101", [change])


@pytest.mark.parametrize("value", ["7", "seven"])
def test_a_default_that_every_stage_overrides_is_refused(value: str) -> None:
    line = error_of(load_recipe, "small", [f"clips.steps={value}"])
    assert "every stage sets steps itself, so the default has no effect" in line
    assert f"write *.clips.steps={value} for all stages, or appearance.clips.steps={value} for one" in line
    assert {stage.clips.steps for stage in load_recipe("small", ["*.clips.steps=7"]).stages} == {7}


# Mistakes

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"stages": values()["stages"]}, "mine.yaml: name: Field required"),
    (values(stages=[{"clips": {}}]), "stages.0.name: Field required"),
    (values(stages=[{"name": "first"}]), "stage first: optimisation: Field required"),
    (values(colour="red"), "mine.yaml: colour: no such field"),
    (values(widht=1), "mine.yaml: widht: no such field; did you mean network.width?"),
    (values(steps=1), "mine.yaml: steps: no such field; did you mean clips.steps?"),
    (with_stage(steps=1), "stage second: steps: no such field; did you mean clips.steps?"),
    (with_stage(network={"steps": 1}), "stage second: network.steps: no such field; did you mean clips.steps?"),
    (with_stage(clips=None), "stage second: clips: "),
    (values(network={"depth": 34}), "mine.yaml: network.depth: "),
    (values(network={"width": 0}), "network.width"),
    (values(network={"width": float("inf")}), "network.width"),
    (values(network=[]), "network must be a mapping of fields to values, not []"),
    (values(clips={"crop_px": 31}), "mine.yaml: clips.crop_px"),
    (values(optimisation={"momentum": 1.0}), "mine.yaml: optimisation.momentum"),
    (with_stage(network={"layout": "keras"}), "stage second: network.layout"),
    (with_stage(network={"link_direction": "up"}), "stage second: network.link_direction"),
    (with_stage(network={"flow_stack": 0}), "stage second: network.flow_stack"),
    (with_stage(optimisation={"weight_decay": -1}), "stage second: optimisation.weight_decay"),
    (with_stage(optimisation={"precision": "8"}), "stage second: optimisation.precision"),
    (values(seed=-1), "seed"),
    (values(name="a\nb", seed="a\nb"), "seed"),
    (values(stages=[]), "stages"),
    (values(stages=[3]), "stages.0"),
    (values(stages=3), "stages"),
    (with_stage(name="A b"), "stages.1.name"),
    (with_stage(name="a\nb"), "stages.1.name"),
    (with_stage(name="first"), "two stages are called 'first'"),
    (with_stage(name="imagenet"), "a stage cannot be called 'imagenet'"),
    (with_stage(name="clips"), "a stage cannot be called 'clips'"),
    (with_stage(network={"streams": ["audio"]}), "stage second: network.streams.0"),
    (with_stage(network={"streams": []}), "stage second: network.streams"),
    (with_stage(starts_from=["third"]), "second starts from 'third', which is not an earlier stage"),
    (with_stage(starts_from=["second"]), "second starts from 'second'"),
    (with_stage(0, starts_from=["second"]), "first starts from 'second'"),
    (with_stage(starts_from=["first", "imagenet"]), "starts_from"),
    (with_stage(starts_from=["first"]), "second starts from no stage that has its appearance stream"),
    (with_stage(network={"link": "concat"}), "stage second: network.link"),
    (with_stage(0, network={"link": "add"}), "stage first: network: a link needs both streams"),
    (
        with_stage(network={"temporal_pool": (5, 2)}, clips={"steps": 4}),
        "stage second: a temporal pool of 5 needs clips of at least 5 steps, not 4",
    ),
    (with_stage(network={"dropout": 1.0}), "stage second: network.dropout"),
    (with_stage(clips={"steps": 0}), "stage second: clips.steps"),
    (with_stage(clips={"tau": [5]}), "stage second: clips.tau"),
    (with_stage(clips={"tau": [5, 4]}), "stage second: clips: tau must be [least, greatest], not [5, 4]"),
    (with_stage(clips={"tau": [0, 4]}), "stage second: clips.tau.0"),
    (with_stage(clips={"crop": "middle"}), "stage second: clips.crop"),
    (with_stage(clips={"crop_jitter": 1.0}), "stage second: clips.crop_jitter"),
    (with_stage(optimisation={"batch_videos": 6}), "batch_videos (6) must be a multiple of sub_batch_videos (4)"),
    (with_stage(optimisation={"sub_batch_videos": 0}), "stage second: optimisation.sub_batch_videos"),
    (with_stage(optimisation={"schedule": []}), "stage second: optimisation.schedule"),
    (with_stage(optimisation={"loss": "mean"}), "stage second: optimisation.loss"),
    (with_stage(ceiling=1.1), "stage second: ceiling"),
    (with_stage(title="Late fusion"), "two rows of the report would be called 'late fusion'"),
    (with_stage(title="First"), "two rows of the report would be called 'first'"),
    *(
        (with_stage(optimisation={"schedule": [phase]}), f"stage second: optimisation.schedule.0{said}")
        for phase, said in (
            ({"lr": 0, "epochs": 1}, ".lr"),
            ({"lr": float("inf"), "epochs": 1}, ".lr"),
            ({"lr": 1}, ": give either `epochs` or `iterations`"),
            ({"lr": 1, "epochs": 1, "iterations": 1}, ": give either `epochs` or `iterations`"),
            ({"lr": 1, "epochs": float("inf")}, ".epochs"),
            ({"lr": 1, "iterations": 1.5}, ".iterations"),
        )
    ),
]


@pytest.mark.parametrize(("mistake", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_mistakes_are_named_in_one_line(mistake: dict[str, Any], said: str) -> None:
    message = error_of(parse_recipe, mistake, "mine.yaml")
    assert message.startswith("mine.yaml: ")
    assert said in message


def test_values_without_mistakes_are_accepted() -> None:
    assert parse_recipe(values(), "mine").stage("second").network.streams == ("appearance", "motion")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"temporal": "inflate"}, "temporal must be inflate, not None"),
        ({"depth": 26}, "motion depth must be 26, not 50"),
        ({"width": 0.5}, "width must be 0.5, not 1.0"),
        ({"stem_channels": 32}, "stem_channels must be 32, not 64"),
        ({"layout": "caffe"}, "layout must be caffe, not torchvision"),
        ({"flow_stack": 5}, "flow_stack must be 5, not 10"),
    ],
)
def test_a_stage_must_fit_the_weights_it_starts_from(source: dict[str, Any], said: str) -> None:
    recipe = with_stage(starts_from=["first"], network={"streams": ["motion"], "temporal": None, "link": None})
    assert parse_recipe(recipe, "mine")
    recipe["stages"][0]["network"] |= source
    assert f"stage second starts from stage first, so its {said}" in error_of(parse_recipe, recipe, "mine")


def test_temporal_convolutions_cannot_change_their_kind() -> None:
    recipe = with_stage(starts_from=["first"], network={"streams": ["motion"], "link": None, "temporal": "inject"})
    assert parse_recipe(recipe, "mine")
    recipe["stages"][0]["network"] |= {"temporal": "inflate"}
    assert "its temporal must be inflate, not inject" in error_of(parse_recipe, recipe, "mine")


def test_recipe_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values()), "utf-8")
    assert load_recipe(file) == load_recipe(str(file)) == parse_recipe(values(), "mine")
    assert "cannot be read" in error_of(load_recipe, tmp_path / "none.yaml")
    assert "give one of" in error_of(load_recipe, "ucf102")
    wrong = [(b"a: [", "YAML"), (b"- 1", "list of `stages`"), (b"", "`stages`"), (b"\xff\xfe\x80", "UTF-8")]
    for content, said in wrong:
        file.write_bytes(content)
        message = error_of(load_recipe, file)
        assert said in message
        assert str(file) in message


def test_unknown_stage_is_named() -> None:
    assert "has no stage 'third': it has first, second" in error_of(parse_recipe(values(), "mine").stage, "third")


def test_the_benchmark_on_real_actions_trains_by_the_packaged_recipe() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "real_actions.yaml"
    thin = ["network.width=0.5", "network.stem_channels=64", "network.layout=caffe"]
    assert load_recipe(file).replace(name="finetune") == load_recipe("finetune", thin)
