"""Runs: the files of the folder, resuming, and folders that cannot be used."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from helpers.tiny import SPEC, STAGES, tiny_recipe
from helpers.training import StoppedError, assert_same_run, assert_same_weights, forbid_training, with_validation
from stresnet.data.store import Store
from stresnet.errors import CheckpointError, RecipeError
from stresnet.model import Preprocessing, STResNet
from stresnet.model.checkpoint import read_metadata
from stresnet.training import Run, train
from stresnet.training.run import validation_note
from stresnet.training.stage import StageTraining


def test_a_run_contains_models_curves_and_logs(run: Run, store: Store) -> None:
    assert [s.name for s in run.finished()] == STAGES
    assert Run.open(run.folder) == run
    for stage, epochs in zip(STAGES, (3, 3, 2), strict=True):
        curves = run.curves(stage)
        assert curves["epoch"] == list(range(epochs))
        assert all(0 < loss < 100 for loss in curves["loss"])
        assert len(list((run.folder / stage).glob("logs/*/metrics.csv"))) == 1
        assert len(list((run.folder / stage).glob("tensorboard/*/events.*"))) == 1
        assert not run.resume_file(stage).exists()
    assert run.curves("motion")["lr"] == pytest.approx([0.002, 0.002, 0.0002])
    metadata = read_metadata(run.folder / "model.safetensors")
    assert (metadata["stage"], metadata["classes"]) == ("st-resnet", list(store.classes))
    assert (metadata["training"]["videos"], metadata["training"]["iterations"]) == (8, 4)
    assert metadata["store_spec"] == store.spec.to_dict()
    assert [file.name for file in run.folder.rglob(".*")] == [".lock"]


def test_curves_of_later_attempts_replace_earlier_ones(tmp_path: Path, run: Run) -> None:
    for attempt in (0, 2, 10):
        log = tmp_path / "motion" / "logs" / f"attempt_{attempt}" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text(f"epoch,loss,clips_per_sec\n{min(attempt, 3)},{attempt},\n3,{attempt},\n5,,7.0\n")
    curves = Run(tmp_path, run.recipe).curves("motion")
    assert curves == {"epoch": [0, 2, 3], "loss": [0, 2, 10]}


SCRIPT = """
    import os, signal, sys

    import torch

    sys.path.insert(0, {tests!r})
    from helpers.tiny import tiny_recipe

    from stresnet.data.store import Store
    from stresnet.training import train
    from stresnet.training.stage import StageTraining

    training_step = StageTraining.training_step

    def step_or_die(self, batch, batch_idx):
        if (self.stage.name, self.current_epoch, batch_idx) == ("motion", 2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, batch, batch_idx)

    StageTraining.training_step = step_or_die
    torch.set_num_threads({threads})
    if __name__ == "__main__":
        train(Store.open({store!r}), {folder!r}, tiny_recipe(), workers=1)
"""


def test_an_interrupted_run_resumes_to_the_same_bits(
    tmp_path: Path, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    values = {"tests": str(Path(__file__).parents[1]), "threads": torch.get_num_threads()}
    script = textwrap.dedent(SCRIPT).format(store=str(store.root), folder=str(folder), **values)
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    broken = Run(folder, run.recipe)
    assert [s.name for s in broken.finished()] == ["appearance"]
    assert broken.resume_file("motion").is_file()
    assert broken.curves("motion")["epoch"] == [0, 1]  # what was logged before the kill is kept

    epoch_end = StageTraining.on_train_epoch_end

    def stop(self: StageTraining) -> None:
        epoch_end(self)
        if self.stage.name == "st-resnet" and self.current_epoch == 1:
            raise StoppedError

    started: dict[str, None] = {}
    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "on_train_epoch_end", stop)
        with pytest.raises(StoppedError):
            train(
                store,
                folder,
                run.recipe,
                resume=True,
                workers=0,
                progress=lambda activity, *_: started.setdefault(activity),
            )
    assert list(started) == ["training motion", "training st-resnet"]
    assert read_metadata(folder / "model.safetensors")["stage"] == "motion"

    def full_disk(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:  # trained to its last iteration, but not saved
        patch.setattr("stresnet.training.fit.save_checkpoint", full_disk)
        with pytest.raises(StoppedError):
            train(store, folder, run.recipe, resume=True, workers=0)
    assert broken.resume_file("st-resnet").is_file()
    assert_same_run(train(store, folder, run.recipe, resume=True, workers=0), run)
    assert not broken.resume_file("st-resnet").exists()
    assert [file.name for file in folder.rglob(".*")] == [".lock"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of loader processes, from Python 3.12 on
def test_a_stage_with_validation_resumes_and_ends_within_an_epoch(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe({"appearance": {"optimisation": {"schedule": [{"lr": 0.02, "iterations": 5}]}}})
    watched = with_validation(store)
    whole = train(watched, tmp_path / "whole", recipe, workers=0)
    step = StageTraining.training_step

    def stop(self: StageTraining, batch: Any, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) == (1, 2):
            raise StoppedError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "training_step", stop)
        with pytest.raises(StoppedError):
            train(watched, tmp_path / "broken", recipe, workers=0)
    broken = train(watched, tmp_path / "broken", recipe, resume=True, workers=1)
    for run in (whole, broken):
        batches = load_file(run.model_file("appearance"))["appearance.bn1.num_batches_tracked"]
        assert int(batches) == 10  # five iterations of two sub-batches each; an epoch has two iterations
        assert run.curves("appearance")["epoch"] == [0, 1, 2]
    for name in ("loss", "accuracy", "val_accuracy"):
        assert broken.curves("appearance")[name] == whole.curves("appearance")[name]
    assert_same_weights(whole.model_file("appearance"), broken.model_file("appearance"))


def test_the_time_of_earlier_attempts_counts(store: Store) -> None:
    recipe = tiny_recipe()
    model = STResNet(recipe.stages[0].network.with_classes(4))
    module = StageTraining(model, recipe.stages[0], Preprocessing(), np.zeros(8, dtype=np.int64), seed=0)
    saved: dict[str, Any] = {}
    levels = Preprocessing(rgb_mean=(1.0, 2.0, 3.0))
    module.on_load_checkpoint({"seconds": 600.0, "preprocessing": levels.to_dict()})
    module.on_save_checkpoint(saved)
    assert 600 < saved["seconds"] < 700
    assert module.preprocessing == Preprocessing.from_dict(saved["preprocessing"]) == levels


def test_finished_stages_are_not_trained_again(copy: Path, run: Run, store: Store) -> None:
    train(store, copy, run.recipe, resume=True, progress=forbid_training)
    assert_same_run(Run(copy, run.recipe), run)
    # nor are the weights they started from needed
    text = (copy / "recipe.yaml").read_text("utf-8")
    (copy / "recipe.yaml").write_text(text.replace("starts_from: []", "starts_from: [imagenet]"), "utf-8")
    changes = {"starts_from": ["imagenet"]}
    recipe = tiny_recipe({"appearance": changes, "motion": changes, "st-resnet": {}})
    train(store, copy, recipe, resume=True, progress=forbid_training)


def test_what_a_killed_process_left_is_put_right(copy: Path, run: Run, store: Store) -> None:
    shutil.copyfile(run.model_file("motion"), copy / "model.safetensors")  # killed before the copy was replaced
    orphans = [copy / "st-resnet" / "last.ckpt", copy / "motion" / ".last.4242.tmp.ckpt", copy / ".recipe.7.tmp.yaml"]
    for file in orphans:
        file.write_bytes(b"half")
    train(store, copy, run.recipe, resume=True, progress=forbid_training)
    assert (copy / "model.safetensors").read_bytes() == run.model_file("st-resnet").read_bytes()
    assert [file for file in orphans if file.exists()] == []


def test_a_second_training_in_the_same_folder_is_refused(copy: Path, run: Run, store: Store) -> None:
    with FileLock(copy / ".lock"), pytest.raises(RecipeError, match=r"another process is training in .*copy: wait"):
        train(store, copy, run.recipe, resume=True, progress=forbid_training)
    train(store, copy, run.recipe, resume=True, progress=forbid_training)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, run: Run, store: Store) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"file/run cannot be written \(Not a directory\)"):
        train(store, tmp_path / "file" / "run", run.recipe)


def test_one_stage_alone_does_not_replace_a_later_model(copy: Path, run: Run, store: Store) -> None:
    shutil.rmtree(copy / "appearance")
    again = train(store, copy, run.recipe, only="appearance", resume=True, workers=0)
    assert read_metadata(copy / "model.safetensors")["stage"] == "st-resnet"
    assert_same_run(again, run)  # the same seed gives the same losses


def test_another_seed_gives_other_losses(tmp_path: Path, run: Run, store: Store) -> None:
    other = train(store, tmp_path / "run", tiny_recipe({"appearance": {}}, seed=8), workers=0)
    assert other.curves("appearance")["loss"] != run.curves("appearance")["loss"]


def test_a_folder_with_a_run_is_rejected_unless_it_matches(copy: Path, run: Run, store: Store) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(RecipeError, match="already contains a run: add --resume to continue it"):
        train(store, copy, run.recipe)
    with pytest.raises(RecipeError, match=r"another recipe \(seed, appearance.network.width, motion.network.width, …"):
        train(store, copy, tiny_recipe(network={"width": 0.125}, seed=8), resume=True)
    backwards = replace(store, classes=tuple(reversed(store.classes)))
    with pytest.raises(RecipeError, match=r"other data \(classes differ\)"):
        train(backwards, copy, run.recipe, resume=True)
    with pytest.raises(RecipeError, match=r"other data \(jpeg_quality differ\)"):
        train(replace(store, spec=replace(SPEC, jpeg_quality=90)), copy, run.recipe, resume=True)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    (copy / "recipe.yaml").write_text("stages: [")
    with pytest.raises(RecipeError, match=r"recipe.yaml is damaged \("):
        train(store, copy, run.recipe, resume=True)


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_no_checkpoint_runs_code(copy: Path, run: Run, store: Store, tmp_path: Path) -> None:
    canary, trapped = tmp_path / "canary", copy / "st-resnet" / "last.ckpt"
    torch.save({"state_dict": {}, "global_step": 0, "trap": _Trap(canary)}, trapped)
    torch.load(trapped, weights_only=False)
    canary.unlink()  # the trap works
    (copy / "st-resnet" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged: delete it"):
        train(store, copy, run.recipe, resume=True, workers=0)
    module = StageTraining(
        STResNet(run.recipe.stages[0].network.with_classes(4)),
        run.recipe.stages[0],
        Preprocessing(),
        np.zeros(8, dtype=np.int64),
        seed=0,
    )
    with pytest.raises(CheckpointError, match=r"the best weights, is missing or damaged"):
        module.load_best(trapped)
    assert not canary.exists()


def test_a_damaged_resume_file_is_named(copy: Path, run: Run, store: Store) -> None:
    (copy / "st-resnet" / "model.safetensors").unlink()
    for content in (b"", b"PK\3\4 no such thing", run.model_file("motion").read_bytes()):
        (copy / "st-resnet" / "last.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"last.ckpt is damaged: delete it") as error:
            train(store, copy, run.recipe, resume=True, workers=0)
        assert "\n" not in str(error.value)


def test_a_stage_that_is_ahead_on_the_validation_videos_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, tiny_recipe({"appearance": {"optimisation": {"keep": "best"}}, "motion": {}}))
    curves = {"appearance": [0.25, 0.5, 0.25], "motion": [0.75, math.nan, 0.375]}
    monkeypatch.setattr(Run, "finished", lambda run: list(run.recipe.stages))
    monkeypatch.setattr(Run, "curves", lambda run, stage: {"val_accuracy": curves[stage]})
    assert validation_note(run) == (
        "on the validation videos Appearance is right on 50.0%, Motion, whose model the run is, on 37.5%: compare them "
        "with stresnet evaluate"
    )
    curves["motion"] = [0.5]
    assert validation_note(run) == ""
    curves["appearance"] = curves["motion"] = []
    assert validation_note(run) == ""
