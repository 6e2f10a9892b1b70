"""Estimates: measured costs times what the recipe asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.tiny import SPEC, tiny_recipe
from stresnet.data.catalog import VideoRecord
from stresnet.data.datasets import read_catalog
from stresnet.data.store import Entries, Store, StoreEntry
from stresnet.doctor import estimates
from stresnet.doctor.calibration import StageCost
from stresnet.doctor.estimates import estimate, recipe_estimate, seconds_per_clip
from stresnet.doctor.run import diagnose
from stresnet.doctor.survey import Survey
from stresnet.recipes import Stage
from stresnet.training import Run

COST = StageCost(clip_sec=2.0, read_sec=1.0, memory_bytes=5e9, model_bytes=100, state_bytes=250)


def test_a_recipe_costs_what_its_stages_do() -> None:
    recipe = tiny_recipe()
    costs = {"appearance": COST, "motion": COST._replace(memory_bytes=8e9), "st-resnet": COST._replace(state_bytes=900)}
    found = recipe_estimate(recipe, 20, lambda stage: costs[stage.name], 6e9)
    # 20 videos in batches of 4 are 5 iterations an epoch; the stages last 3, 3 and 2 epochs.
    clips = 4 * (5 * 3 + 5 * 3 + 5 * 2)
    assert found.hours == pytest.approx(clips * seconds_per_clip(COST) / 3600)
    assert (found.memory_bytes, found.disk_bytes) == (8e9, 4 * 100 + 900)
    assert found.problem == "needs more memory than there is"
    assert recipe_estimate(recipe, 20, lambda stage: costs[stage.name], 9e9).problem == ""
    assert recipe_estimate(recipe, 20, lambda stage: costs[stage.name], math.nan).problem == ""


def test_a_stage_that_does_not_fit() -> None:
    found = recipe_estimate(tiny_recipe(), 20, lambda stage: None if stage.name == "motion" else COST, 9e9)
    assert found.problem
    assert math.isnan(found.hours)


def test_reading_shares_the_cores_with_a_network_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "usable_cores", lambda: 5)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert seconds_per_clip(COST) == pytest.approx(2.2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert seconds_per_clip(COST) == 2.0
    assert seconds_per_clip(COST._replace(clip_sec=0.1)) == 0.25


def test_stages_of_the_same_cost_are_measured_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(function: object, stages: list[Stage], workers: int, on_crash: object):  # type: ignore[no-untyped-def]
        for stage in stages:
            measured.append(stage.name)
            yield estimates._cost_key(stage), COST

    monkeypatch.setattr(estimates, "map_in_processes", measure)
    recipes = [tiny_recipe(), tiny_recipe(name="other", network={"dropout": 0.2}), tiny_recipe(clips={"crop_px": 48})]
    found = estimate(Survey(store, frozenset(), True), recipes, 1)
    assert found is not None
    assert found.prepare is None
    assert measured == ["appearance", "motion", "st-resnet"] * 2
    assert [one.recipe for one in found.recipes] == ["tiny", "other", "tiny"]


def test_a_recipe_that_cannot_be_trained_on_the_videos(store: Store) -> None:
    """Its reason is that of training, and the findings are not lost."""
    stages = {"motion": {"network": {"flow_stack": 30}}}
    found = estimate(Survey(store, frozenset(), True), [tiny_recipe(stages)], 1)
    assert found is not None
    assert "a stack of 30 flows needs 31" in found.recipes[0].problem
    assert math.isnan(found.recipes[0].hours)


def test_nothing_is_measured_without_intact_training_videos(store: Store) -> None:
    untrained = replace(store, entries=Entries.of([StoreEntry(VideoRecord("a", "", store.classes[0], "test"), 20)]))
    assert estimate(Survey(untrained, frozenset(), True), [tiny_recipe()], 1) is None
    assert estimate(Survey(store, frozenset(), True, damaged=(("a", "b"),)), [tiny_recipe()], 1) is None


def test_a_source_is_measured(videos: Path, store: Store, run: Run) -> None:
    """The sizes are about those of its store and of a run; the times and the memory are positive."""
    diagnosis = diagnose(read_catalog(videos), videos, SPEC, [tiny_recipe()], workers=1)
    found = diagnosis.estimates
    assert found is not None
    assert found.prepare is not None
    assert found.prepare.disk_bytes == pytest.approx(sum(entry.bytes for entry in store.select()), rel=0.2)
    assert 0 < found.prepare.hours < 1
    (recipe,) = found.recipes
    assert recipe.problem == ""
    assert 0 < recipe.hours < 1
    assert recipe.memory_bytes > 1e8 or math.isnan(recipe.memory_bytes)
    weights = sum(file.stat().st_size for file in run.folder.rglob("*.safetensors"))
    assert weights < recipe.disk_bytes < 3 * weights
    assert diagnosis.to_dict()["estimates"]["recipes"][0]["recipe"] == "tiny"
