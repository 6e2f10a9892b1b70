"""`stresnet train`: stages, initial weights, test groups and shortcuts for the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.commands import ONE_STEP
from helpers.tiny import STAGES, Command, grouped, one_line, prepared
from stresnet.data.store import Store
from stresnet.model.checkpoint import read_metadata
from stresnet.recipes import load_recipe
from stresnet.training import Run


def test_train_stage_by_stage(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run [a]"
    train = ["train", store.root, folder, "--recipe", recipe, *ONE_STEP]
    code, out, err = command(*train, "--stage", "motion", "--set", "seed=3")
    assert code == 0
    assert one_line(out) == f"trained: motion; model: {folder / 'model.safetensors'}"
    assert err.splitlines()[0] == "training motion: 0/1"
    assert err.splitlines()[1].startswith("training motion: 1/1  epoch 1/1 · loss ")
    code, out, err = command(*train, "--resume", "--set", "seed=3")
    assert code == 0
    assert out.startswith("trained: appearance, motion, st-resnet; model: ")
    assert "training motion" not in err
    metadata = read_metadata(folder / "model.safetensors")
    assert (metadata["stage"], metadata["recipe"]["seed"], metadata["training"]["iterations"]) == ("st-resnet", 3, 1)


def test_train_with_another_length_rate_and_batch(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, "--stage", "motion", "--workers", "0"]
    code, _, err = command(*train, "--epochs", "0.5", "--lr", "0.001", "--batch", "2")
    assert code == 0, err
    trained = Run.open(tmp_path / "run").recipe
    optimisation = trained.stage("motion").optimisation
    assert (optimisation.batch_videos, optimisation.sub_batch_videos) == (2, 2)
    assert [phase.lr for phase in optimisation.schedule] == [0.001, 0.0001]
    assert sum(phase.epochs or 0 for phase in optimisation.schedule) == pytest.approx(0.5)
    assert trained.stage("appearance") == load_recipe(recipe).stage("appearance")


def test_a_finished_run_is_trained_further(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train = ["train", store.root, folder]
    assert command(*train, "--extend", "1")[0] == 1  # there is no run yet
    assert command(*train, "--recipe", recipe, *ONE_STEP, "--stage", "appearance")[0] == 0
    code, out, err = command(*train, "--extend", "1", "--workers", "0")
    assert code == 0
    assert f"note: {folder} is not finished: training motion, st-resnet only" in err
    assert one_line(out).startswith("trained: appearance, motion, st-resnet; model: ")
    before = read_metadata(folder / "st-resnet" / "model.safetensors")
    code, out, err = command(*train, "--extend", "1", "--workers", "0")
    assert (code, "training st-resnet-2: 2/2" in err) == (0, True), err
    metadata = read_metadata(folder / "model.safetensors")
    assert (metadata["stage"], metadata["training"]["iterations"]) == ("st-resnet-2", 2)
    assert read_metadata(folder / "st-resnet" / "model.safetensors") == before
    code, _, err = command(*train, "--extend", "1", "--epochs", "3")
    assert (code, "--extend keeps the recipe of the run: leave out --set" in err) == (2, True)


def test_train_from_initial_weights(
    command: Command, store: Store, run: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("stresnet.training.train", lambda *_, init, **__: seen.update(init) or run)
    odd = tmp_path / "epoch=3.pth"
    odd.touch()
    files = ["--init", odd, "--init", f"motion={run.model_file('motion')}", "--init", f"st-resnet={odd}"]
    assert command("train", store.root, tmp_path / "run", "--recipe", recipe, *files)[0] == 0
    assert seen == {"imagenet": odd, "motion": run.model_file("motion"), "st-resnet": odd}


def test_train_with_test_groups(command: Command, videos: Path, recipe: Path, tmp_path: Path) -> None:
    store = prepared(grouped(videos), tmp_path / "store")
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, *ONE_STEP, "--stage", "motion"]
    code, _, err = command(*train, "--test-group", "g9")
    assert code == 1
    assert one_line(err).endswith("has no group 'g9': its groups are g1, g2, g3")
    assert command(*train, "--test-group", "g1", "--test-group", "g3")[0] == 0
    train[2] = tmp_path / "everything"
    code, _, err = command(*train)
    assert code == 0
    assert err.splitlines()[0].endswith("none are left for testing; hold some out with --test-group: g1, g2, g3")
    assert read_metadata(tmp_path / "run" / "model.safetensors")["test_groups"] == ["g1", "g3"]


def test_unknown_stage(command: Command, store: Store, recipe: Path) -> None:
    code, _, err = command("train", store.root, recipe.parent / "run", "--recipe", recipe, "--stage", "fusion")
    assert code == 1
    assert one_line(err).endswith(f"has no stage 'fusion': it has {', '.join(STAGES)}")
