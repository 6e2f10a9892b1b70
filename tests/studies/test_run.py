"""A study trained from end to end: shared stages, interruptions, failures and other processes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from helpers.studies import CELLS, RECIPE, planned
from helpers.training import StoppedError, assert_same_weights, forbid_training
from stresnet.data.store import Store
from stresnet.errors import CheckpointError, RecipeError
from stresnet.evaluation import evaluate
from stresnet.recipes import parse_recipe
from stresnet.studies import Plan, StudyResult, run_study
from stresnet.studies.folder import StudyFolder
from stresnet.studies.plan import Row
from stresnet.training import train


@pytest.fixture(scope="module")
def plan(groups: Store, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(tmp_path_factory.mktemp("plan"), groups, folds=2)


@pytest.fixture(scope="module")
def finished(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, StudyResult]:
    """The study, trained; read only."""
    out = tmp_path_factory.mktemp("studies") / "out"
    return StudyFolder(out, plan), run_study(plan, out, workers=0)


Finished = tuple[StudyFolder, StudyResult]


def row_of(folder: StudyFolder, name: str) -> Row:
    return next(row for row in folder.plan.rows if row.name == name)


def test_cells_equal_runs_of_their_recipes(finished: Finished, groups: Store, tmp_path: Path) -> None:
    folder, _ = finished
    block = folder.plan.blocks[1]
    run = train(
        groups, tmp_path, parse_recipe(RECIPE | {"seed": 0}, "it"), workers=0, test_groups=block.fold.test_groups
    )
    (training,) = block.parts["st-resnet"]
    for needed in training.needed:
        name = needed.stage.name
        assert_same_weights(folder.run_of(training).model_file(name), run.model_file(name))
    rows = {row.table.name: row.table for row in evaluate(run, groups, protocols=["center"], examples=0).rows}
    for name, title in (("appearance", "Appearance"), ("late fusion", "late fusion"), ("st-resnet", "ST-ResNet")):
        np.testing.assert_array_equal(folder.scores(row_of(folder, name), block).logits, rows[title].logits)


def test_every_distinct_stage_is_trained_once(finished: Finished) -> None:
    folder, _ = finished
    logs = [file.relative_to(folder.root).parts for file in folder.root.rglob("metrics.csv")]
    assert sorted(parts[1] for parts in logs) == sorted(t.name for b in folder.plan.blocks for t in b.trainings)
    first = folder.plan.blocks[0]
    (linked,), (without,) = first.parts["st-resnet"], first.parts["no-link"]
    files = [folder.run_of(t).model_file("motion") for t in (linked, without)]
    assert files[0].samefile(files[1])


def test_the_table_has_every_answer(finished: Finished) -> None:
    folder, result = finished
    table = pq.read_table(folder.table).to_pylist()
    assert len(table) == 6 * 12
    assert {(row["cell"], row["row"]) for row in table} == {
        ("appearance", "appearance"),
        ("motion", "motion"),
        ("late fusion", "late fusion"),
        ("st-resnet", "st-resnet"),
        ("no-link", "st-resnet"),
        ("other-motion", "late fusion"),
    }
    groups_of = {b.fold.name: b.fold.test_groups for b in folder.plan.blocks}
    assert all(row["group"] in groups_of[row["fold"]] and row["seed"] == 0 for row in table)
    assert all(row["correct"] == (row["label"] == row["predicted"]) for row in table)
    for row in result.rows:
        right = [answer["correct"] for answer in table if answer["cell"] == row.name]
        assert row.top1.value == pytest.approx(sum(right) / 12)


def test_the_page_has_a_line_per_row(finished: Finished) -> None:
    folder, _ = finished
    page = folder.page.read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| without links | ")]
    assert len(lines) == 3  # results, folds and seeds, changes
    assert lines[2] == "| without links | `st-resnet.network.link=null` |"
    assert "12 test videos in 3 groups of 4 classes, held out once each, in 2 folds by group; seed 0;" in page
    assert "Not complete" not in page


def test_a_finished_study_trains_nothing(finished: Finished, plan: Plan) -> None:
    folder, result = finished
    before = {file: file.stat().st_mtime_ns for file in folder.root.rglob("scores-*/*")}
    assert run_study(plan, folder.root, progress=forbid_training) == result
    assert {file: file.stat().st_mtime_ns for file in folder.root.rglob("scores-*/*")} == before
    assert folder.summary()["trained"] == folder.summary()["trainings"] == 10
    assert folder.summary()["unshared"] == 2 * (1 + 1 + 2 + 3 + 3 + 2)


@pytest.mark.parametrize("stop_at", ["training st-resnet", "scoring st-resnet", "training appearance"])
def test_an_interrupted_study_resumes(groups: Store, tmp_path: Path, finished: Finished, stop_at: str) -> None:
    plan = planned(tmp_path, groups, folds=2, cells=CELLS[:1])
    plan = replace(plan, blocks=plan.blocks[:1])

    def stop(activity: str, done: int, total: int, detail: str = "") -> None:
        if stop_at in activity and done == total:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_study(plan, tmp_path / "out", workers=0, progress=stop)
    seen: list[str] = []
    run_study(plan, tmp_path / "out", workers=0, progress=lambda activity, *_: seen.append(activity))
    assert ("1/3 fold0, seed 0, training appearance" in seen) == (stop_at == "training appearance")
    for row in ("late fusion", "st-resnet"):
        resumed, whole = (
            f.scores(row_of(f, row), plan.blocks[0]) for f in (StudyFolder(tmp_path / "out", plan), finished[0])
        )
        np.testing.assert_array_equal(resumed.logits, whole.logits)


def test_results_are_written_as_folds_are_completed(groups: Store, tmp_path: Path) -> None:
    plan = planned(tmp_path, groups, folds=2, cells=CELLS[:1])

    def stop(activity: str, done: int, total: int, detail: str = "") -> None:
        if activity.startswith("4/6"):
            raise StoppedError

    with pytest.raises(StoppedError):
        run_study(plan, tmp_path / "out", workers=0, progress=stop)
    folder = StudyFolder(tmp_path / "out", plan)
    assert "**Not complete: 1 of 2 pairs of fold and seed so far.**" in folder.page.read_text("utf-8")
    assert {row["fold"] for row in pq.read_table(folder.table).to_pylist()} == {"fold0"}


def test_a_cell_that_fails_is_left_out(store: Store, tmp_path: Path) -> None:
    diverges = {
        "name": "hot",
        "title": "too hot",
        "changes": ["st-resnet.optimisation.schedule=[{lr: 1e+30, epochs: 2}]"],
    }
    plan = planned(tmp_path, store, cells=[diverges, CELLS[0]])
    result = run_study(plan, tmp_path / "out", workers=0)
    assert [row.name for row in result.rows] == ["appearance", "motion", "late fusion", "st-resnet"]
    assert result.failed["too hot"].startswith("test, seed 0: stage st-resnet: weights became NaN or infinite")
    assert "- too hot: test, seed 0: stage st-resnet" in (tmp_path / "out" / "study.md").read_text("utf-8")


def test_a_full_disk_ends_the_study(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise CheckpointError("last.ckpt cannot be written (No space left on device)") from OSError(28, "No space left")

    monkeypatch.setattr("stresnet.studies.run.train", fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        run_study(planned(tmp_path, store), tmp_path / "out")


def test_a_cell_that_is_only_tested_otherwise_is_not_trained_again(store: Store, tmp_path: Path) -> None:
    published = {"name": "published", "changes": ["protocol=dense25"]}
    run_study(planned(tmp_path, store, cells=CELLS[:1]), tmp_path / "out", workers=0)
    plan, seen = planned(tmp_path, store, cells=[CELLS[0], published]), []
    run_study(plan, tmp_path / "out", progress=lambda activity, *_: seen.append(activity))
    assert set(seen) == {"3/3 test, seed 0, scoring st-resnet"}
    folder, (block,) = StudyFolder(tmp_path / "out", plan), plan.blocks
    scores = [folder.scores(row_of(folder, name), block) for name in ("st-resnet", "published")]
    assert [table.protocol for table in scores] == ["center", "dense25"]


def test_what_another_process_trains_is_waited_for(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, store, cells=CELLS[:1])
    (motion,) = plan.blocks[0].parts["motion"]
    run = StudyFolder(tmp_path / "out", plan).run_of(motion)
    run.folder.mkdir(parents=True)
    lock, order, waits = FileLock(run.folder / ".study.lock"), [], []

    def other_process_ends(seconds: float) -> None:
        waits.append(list(dict.fromkeys(order)))
        lock.release()

    monkeypatch.setattr(time, "sleep", other_process_ends)
    with lock:
        result = run_study(plan, tmp_path / "out", workers=0, progress=lambda activity, *_: order.append(activity))
    assert result.complete == 1
    assert [activity for activity in waits[0] if "training" in activity] == ["1/3 test, seed 0, training appearance"]
    trained = [activity for activity in dict.fromkeys(order) if "training" in activity]
    assert [activity.rpartition(" ")[2] for activity in trained] == ["appearance", "motion", "st-resnet"]


def test_a_training_by_a_version_with_other_defaults(store: Store, tmp_path: Path) -> None:
    plan = planned(tmp_path, store, cells=CELLS[:1])
    run_study(plan, tmp_path / "out", workers=0)
    (motion,) = plan.blocks[0].parts["motion"]
    recipe = StudyFolder(tmp_path / "out", plan).run_of(motion).folder / "recipe.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace("momentum: 0.9", "momentum: 0.8"), "utf-8")
    with pytest.raises(RecipeError, match=r"with other defaults \(motion.optimisation.momentum differ\): delete it"):
        run_study(plan, tmp_path / "out", progress=forbid_training)


def test_a_folder_that_is_something_else(store: Store, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a prepared store: name another folder"):
        run_study(plan, store.root)
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match="is a file: name another folder"):
        run_study(plan, tmp_path / "file")
