"""`adjust`: schedules keep their proportions, and batches stay divisible."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.tiny import tiny_recipe
from stresnet.errors import RecipeError
from stresnet.recipes import Phase, Recipe, load_recipe
from stresnet.recipes.adjust import adjust, extend


def lengths(recipe: Recipe, stage: str) -> list[float | None]:
    return [phase.epochs for phase in recipe.stage(stage).optimisation.schedule]


def rates(recipe: Recipe, stage: str) -> list[float]:
    return [phase.lr for phase in recipe.stage(stage).optimisation.schedule]


def with_schedule(*phases: dict[str, Any]) -> Recipe:
    recipe = tiny_recipe()
    first = recipe.stages[0]
    optimisation = first.optimisation.replace(schedule=tuple(Phase(**phase) for phase in phases))
    return recipe.replace(stages=(first.replace(optimisation=optimisation), *recipe.stages[1:]))


def test_nothing_changes_by_default() -> None:
    assert adjust(tiny_recipe()) == tiny_recipe()


def test_epochs_scale_every_stage_in_proportion() -> None:
    recipe = load_recipe("small")
    assert lengths(recipe, "appearance") == [100, 30]
    changed = adjust(recipe, epochs=13)
    assert lengths(changed, "appearance") == [10, 3]
    assert [sum(lengths(changed, stage.name)) for stage in changed.stages] == pytest.approx([13] * 3)
    assert rates(changed, "appearance") == rates(recipe, "appearance")


def test_iterations_become_epochs_in_the_same_proportion() -> None:
    recipe = with_schedule({"lr": 0.1, "iterations": 300}, {"lr": 0.01, "iterations": 100})
    assert lengths(adjust(recipe, epochs=2), "appearance") == [1.5, 0.5]


def test_epochs_need_a_schedule_in_one_unit() -> None:
    recipe = with_schedule({"lr": 0.1, "epochs": 3}, {"lr": 0.01, "iterations": 100})
    with pytest.raises(RecipeError, match="stage appearance has phases in epochs and in iterations; set its schedule"):
        adjust(recipe, epochs=2)
    assert adjust(recipe, epochs=2, stage="motion").stage("appearance") == recipe.stage("appearance")


def test_later_rates_keep_their_ratio_to_the_first() -> None:
    recipe = with_schedule({"lr": 0.1, "epochs": 3}, {"lr": 0.01, "epochs": 2}, {"lr": 0.001, "iterations": 7})
    changed = adjust(recipe, lr=0.3)
    assert rates(changed, "appearance") == [0.3, 0.03, 0.003]
    lengths_before = [(p.epochs, p.iterations) for p in recipe.stage("appearance").optimisation.schedule]
    assert [(p.epochs, p.iterations) for p in changed.stage("appearance").optimisation.schedule] == lengths_before


def test_final_rates_and_warming_up_are_rescaled_too() -> None:
    recipe = with_schedule({"lr": 0.1, "final_lr": 0.01, "epochs": 3}, {"lr": 0.01, "final_lr": 0, "epochs": 1})
    first = recipe.stages[0]
    first = first.replace(optimisation=first.optimisation.replace(warmup_epochs=0.5))
    changed = adjust(recipe.replace(stages=(first, *recipe.stages[1:])), lr=0.3, epochs=8).stages[0].optimisation
    assert [(p.lr, p.final_lr, p.epochs) for p in changed.schedule] == [(0.3, 0.03, 6), (0.03, 0, 2)]
    assert changed.warmup_epochs == 1


@pytest.mark.parametrize(("batch", "sub_batch"), [(1, 1), (2, 2), (3, 1), (4, 2), (8, 2), (7, 1)])
def test_sub_batch_is_lowered_to_a_divisor_of_the_batch(batch: int, sub_batch: int) -> None:
    before = tiny_recipe().stages[0].optimisation
    assert (before.batch_videos, before.sub_batch_videos) == (4, 2)
    for stage in adjust(tiny_recipe(), batch_videos=batch).stages:
        assert (stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos) == (batch, sub_batch)


def test_one_stage_only() -> None:
    recipe = tiny_recipe()
    changed = adjust(recipe, epochs=6, lr=0.5, batch_videos=6, stage="motion")
    assert lengths(changed, "motion") == [4, 2]
    assert rates(changed, "motion") == [0.5, 0.05]
    assert changed.stage("motion").optimisation.batch_videos == 6
    assert [s for s in changed.stages if s.name != "motion"] == [s for s in recipe.stages if s.name != "motion"]
    with pytest.raises(RecipeError, match="no stage 'fusion'"):
        adjust(recipe, lr=1.0, stage="fusion")


def test_extending_repeats_the_last_phase_in_a_further_stage() -> None:
    recipe = load_recipe("small")
    longer = extend(recipe, 12.5)
    *before, last, more = longer.stages
    assert (*before, last) == recipe.stages
    assert (more.name, more.title, more.starts_from) == ("st-resnet-2", "ST-ResNet, 12.5 more epochs", ("st-resnet",))
    assert [(p.lr, p.epochs) for p in more.optimisation.schedule] == [(4e-4, 12.5)]
    assert (more.network, more.clips) == (last.network, last.clips)
    assert extend(longer, 3).stages[-1].name == "st-resnet-2-2"
