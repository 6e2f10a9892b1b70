"""What a study trains: which stages cells share, and what makes two trainings the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.studies import CELLS, planned
from stresnet.data.store import Entries, Store
from stresnet.errors import CheckpointError, RecipeError, StresnetError
from stresnet.studies import Plan
from stresnet.training import Run


def digests(plan: Plan) -> list[set[str]]:
    """Return the trainings of each block."""
    return [{training.digest for training in block.trainings} for block in plan.blocks]


def test_rows_and_the_stages_they_share(store: Store, tmp_path: Path) -> None:
    plan = planned(tmp_path, store)
    (block,) = plan.blocks
    assert [row.name for row in plan.rows] == ["appearance", "motion", "late fusion", *(c["name"] for c in CELLS)]
    shared = {t.stage.name: block.rows_with(t) for t in block.trainings[:2]}
    assert shared["appearance"] == [row.name for row in plan.rows if row.name != "motion"]
    assert shared["motion"] == ["motion", "late fusion", "st-resnet", "no-link"]
    assert [t.stage.name for t in block.trainings] == ["appearance", "motion", "st-resnet", "st-resnet", "motion"]
    assert [t.stage.name for t in block.parts["other-motion"]] == ["appearance", "motion"]
    assert block.parts["other-motion"][0] is not block.parts["late fusion"][0]
    assert block.parts["other-motion"][0].digest == block.parts["late fusion"][0].digest


def test_folds_by_group_and_seeds(groups: Store, tmp_path: Path) -> None:
    plan = planned(tmp_path, groups, folds=3, seeds=[5, 6])
    assert [(b.seed, b.fold.name) for b in plan.blocks] == [(s, f"fold{k}") for s in (5, 6) for k in range(3)]
    held_out = [video for block in plan.blocks[:3] for video in plan.test_videos(block.fold).column("id").to_pylist()]
    assert sorted(held_out) == groups.select().column("id").to_pylist()
    assert len(set.union(*digests(plan))) == 5 * 6
    assert {t.recipe.seed for t in plan.blocks[0].trainings} == {5}


def test_cross_validation_leaves_the_test_split_alone(groups: Store, tmp_path: Path) -> None:
    entries = Entries.of(
        replace(e, record=replace(e.record, split="test" if e.record.group == "g3" else "train"))
        for e in groups.entries
    )
    plan = planned(tmp_path, replace(groups, entries=entries), folds=2)
    assert sorted(block.fold.test_groups for block in plan.blocks) == [("g1",), ("g2",)]
    assert "g3" not in plan.store.entries.distinct("group")


def test_names_titles_and_order_do_not_change_what_is_trained(store: Store, tmp_path: Path) -> None:
    cells = [{**cell, "name": f"new-{i}", "title": f"title {i}"} for i, cell in enumerate(reversed(CELLS))]
    plan, other = planned(tmp_path / "a", store), planned(tmp_path / "b", store, name="other", cells=cells)
    assert digests(plan) == digests(other)
    assert {t.name: t.recipe for t in plan.blocks[0].trainings} == {t.name: t.recipe for t in other.blocks[0].trainings}


def test_the_protocol_of_the_study_holds_for_all_rows(store: Store, tmp_path: Path) -> None:
    cells = [CELLS[0], {"name": "published", "changes": ["protocol=dense25"]}]
    by_recipe, same = planned(tmp_path, store, cells=cells), planned(tmp_path, store, cells=cells, protocol="dense")
    assert [row.protocol for row in by_recipe.rows] == ["center"] * 4 + ["dense25"]
    assert {row.protocol for row in same.rows} == {"dense"}
    assert digests(by_recipe) == digests(same)


def test_what_a_stage_starts_from_changes_what_is_trained(store: Store, tmp_path: Path) -> None:
    cells = [{"name": "x", "changes": ["motion.clips.steps=5"]}, CELLS[0]]
    block = planned(tmp_path, store, cells=cells).blocks[0]
    (x,), (base,) = block.parts["x"], block.parts["st-resnet"]
    assert x.stage == base.stage
    assert x.digest != base.digest
    assert [a.digest == b.digest for a, b in zip(x.sources, base.sources, strict=True)] == [True, False]


def test_the_content_of_an_initial_model_changes_what_is_trained(store: Store, run: Run, tmp_path: Path) -> None:
    model = run.model_file("motion")
    plain, started = planned(tmp_path / "a", store), planned(tmp_path / "b", store, {"motion": model})
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(model.read_bytes())
    assert digests(started) == digests(planned(tmp_path / "c", store, {"motion": copied}))
    same = digests(plain)[0] & digests(started)[0]
    assert [t.stage.name for t in plain.blocks[0].trainings if t.digest in same] == ["appearance"]


def test_a_stage_with_its_own_file_needs_no_sources(store: Store, run: Run, tmp_path: Path) -> None:
    plan = planned(tmp_path, store, {"st-resnet": run.model_file("st-resnet")}, cells=CELLS[:1])
    (training,) = plan.blocks[0].parts["st-resnet"]
    assert training.needed == (training,)


def test_other_videos_change_what_is_trained(store: Store, tmp_path: Path) -> None:
    fewer = replace(store, entries=store.entries[1:])
    assert not digests(planned(tmp_path, store))[0] & digests(planned(tmp_path, fewer))[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "x"}, "reference: 'x' is no row of the study; its rows are appearance, motion, late fusion, "),
        ({"cells": [{"name": "motion"}]}, "two rows of the study are called 'motion'"),
        ({"cells": [{"name": "a", "title": "Motion"}]}, "two rows of the study are titled 'motion'"),
        ({"cells": [{"name": "a", "row": "fusion"}]}, "has no stage 'fusion'"),
        ({"cells": [{"name": "a", "recipe": "mono.yaml", "row": "late fusion"}]}, "cell a: its recipe has no two"),
        ({"cells": [{"name": "a", "changes": ["appearance.starts_from=[imagenet]"]}]}, "give them with --init FILE"),
        ({"folds": 2}, "has videos without a group: 2 folds need"),
    ],
)
def test_mistakes_that_need_the_store(store: Store, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "mono.yaml").write_text(
        "name: mono\noptimisation: {batch_videos: 2, sub_batch_videos: 2, schedule: [{lr: 1, epochs: 1}]}\n"
        "stages: [{name: both, network: {link: null}}]"
    )
    with pytest.raises(RecipeError) as error:
        planned(tmp_path, store, **changes)
    assert message in str(error.value)


def test_too_few_groups_or_no_test_videos(groups: Store, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has only 3 groups outside its test split: 4 folds need"):
        planned(tmp_path, groups, folds=4)
    with pytest.raises(RecipeError, match="has no test videos: set `folds`"):
        planned(tmp_path, groups)


def test_initial_models_are_checked_before_training(store: Store, run: Run, tmp_path: Path) -> None:
    model = run.model_file("motion")
    with pytest.raises(RecipeError, match="--init fusion=…: no stage of the study starts from it"):
        planned(tmp_path, store, {"fusion": model})
    with pytest.raises(CheckpointError, match="does not exist"):
        planned(tmp_path, store, {"motion": tmp_path / "none"})
    with pytest.raises(StresnetError, match="cannot start stage appearance"):
        planned(tmp_path, store, {"appearance": model})
