"""Training: batches, held-out groups, validation, devices, progress, and invalid data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

from helpers.tiny import VALUES, grouped, prepared, tiny_recipe
from helpers.training import StoppedError, assert_same_weights, starting_weights, with_validation
from stresnet.data.clips import ClipSampling
from stresnet.data.copies import identities
from stresnet.data.store import Store
from stresnet.data.training_clips import Sample, TrainingClips
from stresnet.errors import RecipeError
from stresnet.inference.recognizer import Recognizer
from stresnet.model import STResNet, load_checkpoint
from stresnet.model.checkpoint import read_metadata
from stresnet.model.config import Architecture
from stresnet.recipes import Recipe
from stresnet.training import Run, train
from stresnet.training.order import VideoOrder
from stresnet.training.stage import StageTraining


def test_a_video_shorter_than_a_flow_stack_is_named(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match="has 26 frames, but a stack of 30 flows needs 31"):
        train(store, tmp_path / "run", tiny_recipe({"motion": {}}, network={"flow_stack": 30}))


def test_devices_that_cannot_share_a_batch_are_rejected(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match="stage appearance: a batch of 4 cannot be shared by 4 devices"):
        train(store, tmp_path / "run", tiny_recipe(), devices=4)
    assert not (tmp_path / "run").exists()


def test_one_class_is_rejected(tmp_path: Path, store: Store) -> None:
    label = store.classes[0]
    entries = store.entries.where("label", [label])
    with pytest.raises(RecipeError, match=f"has one class, {label}"):
        train(replace(store, classes=(label,), entries=entries), tmp_path / "run", tiny_recipe())


def test_a_store_without_training_videos_is_rejected(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match="has no training videos: give some the split `train`"):
        train(replace(store, entries=store.select("test")), tmp_path / "run", tiny_recipe())


def test_progress_reports_iterations_loss_and_speed(tmp_path: Path, store: Store) -> None:
    reports: list[tuple[str, int, int, str]] = []

    def progress(activity: str, done: int, total: int, detail: str = "") -> None:
        reports.append((activity, done, total, detail))

    train(store, tmp_path / "run", tiny_recipe({"motion": {}}), workers=0, progress=progress)
    assert reports[0] == ("training motion", 0, 6, "")
    assert reports[-1][:3] == ("training motion", 6, 6)
    assert re.fullmatch(r"epoch 3/3 · loss \d+\.\d+ · accuracy \d+ % · \d+ clips/s", reports[-1][3])
    assert [done for _, done, _, _ in reports] == sorted(done for _, done, _, _ in reports)


def test_a_store_and_a_recipe_may_be_given_by_their_paths(tmp_path: Path, store: Store, run: Run) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(VALUES), "utf-8")
    done = train(str(store.root), str(tmp_path / "run"), file, only="motion", workers=0)
    assert done.recipe == run.recipe
    assert done.curves("motion")["loss"] == run.curves("motion")["loss"]


def test_a_batch_is_the_mean_of_its_sub_batches(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare an iteration with a plain loop: gradients averaged over sub-batches, with batch statistics of each."""
    optimisation = {"weight_decay": 0.1, "schedule": [{"lr": 0.05, "iterations": 1}]}
    recipe = tiny_recipe({"appearance": {"network": {"dropout": 0.0}, "optimisation": optimisation}})
    start = starting_weights(monkeypatch, store, tmp_path / "run", recipe)
    trained = load_file(train(store, tmp_path / "run", recipe, workers=0).model_file("appearance"))

    model = STResNet(recipe.stages[0].network.with_classes(4))
    model.load_state_dict(start)
    model.train()
    network = Architecture(streams=("appearance",), link=None)
    clips = TrainingClips(store, store.select("train"), ClipSampling(crop_px=32), network, recipe.seed)
    order = list(VideoOrder(8, 4, recipe.seed))[:4]
    assert len({i % 8 for i in order}) == 4
    for pair in (order[:2], order[2:]):
        samples = [clips[i] for i in pair]
        rgb = torch.stack([s["rgb"] for s in samples]).float()
        rgb = (rgb - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
        logits = model(rgb.permute(0, 4, 1, 2, 3)).appearance[:, 0]
        (F.cross_entropy(logits, torch.stack([s["label"] for s in samples])) / 2).backward()
    norms = {name for name, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            module, _, kind = name.rpartition(".")
            filters = kind == "weight" and module not in norms
            rate = 0.05 * (1 if filters or (module in norms and kind == "bias") else 2)
            parameter -= rate * (parameter.grad + (0.1 * parameter if filters else 0))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6, msg=name)
    moved = max(float((trained[k] - v).abs().max()) for k, v in start.items() if k.endswith("conv2.weight"))
    assert moved > 1e-4


def test_groups_held_out_are_not_read(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = prepared(grouped(videos), tmp_path / "store")
    opened: list[str] = []
    video = Store.video

    def record(self: Store, record_id: str) -> Any:
        opened.append(record_id)
        return video(self, record_id)

    monkeypatch.setattr(Store, "video", record)
    recipe = tiny_recipe({"appearance": {"optimisation": {"schedule": [{"lr": 0.01, "epochs": 2}]}}})
    done = train(store, tmp_path / "run", recipe, test_groups=("g2",), workers=0)
    group = {e.record.id: e.record.group for e in store.entries}
    assert {group[i] for i in opened} == {"g1", "g3"}
    assert len(set(opened)) == 8
    metadata = read_metadata(done.model_file("appearance"))
    assert (metadata["test_groups"], metadata["training"]["videos"]) == (["g2"], 8)
    with pytest.raises(RecipeError, match=r"other data \(test_groups, training_videos differ\)"):
        train(store, tmp_path / "run", recipe, test_groups=("g1",), resume=True)


def test_validation_videos_are_scored_but_not_trained_on(tmp_path: Path, store: Store) -> None:
    validated = with_validation(store)
    stages = {"st-resnet": {"starts_from": [], "optimisation": {"schedule": [{"lr": 0.01, "epochs": 2}]}}}
    done = train(validated, tmp_path / "run", tiny_recipe(stages), workers=0)
    curves = done.curves("st-resnet")
    assert len(curves["val_accuracy"]) == len(curves["loss"]) == 2
    checkpoint = load_checkpoint(done.model_file("st-resnet"))
    assert checkpoint.training["videos"] == 8
    recognizer = Recognizer(checkpoint)
    correct = 0
    for entry in validated.select("val"):
        scores = recognizer.score(validated.video(entry.record.id), "center")
        correct += validated.classes[int(scores.fused.argmax())] == entry.record.label
    assert curves["val_accuracy"][-1] == pytest.approx(correct / 4)


@pytest.fixture
def validated(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a store with validation videos, whose accuracy is best after the second epoch."""

    def validation_step(self: StageTraining, batch: Sample, batch_idx: int) -> None:
        self.log("val_accuracy", [0.2, 0.6, 0.4, 0.6, 0.5][self.current_epoch], batch_size=len(batch["label"]))

    monkeypatch.setattr(StageTraining, "validation_step", validation_step)
    return with_validation(store)


def appearance_for(epochs: int, **optimisation: Any) -> Recipe:
    schedule = [{"lr": 0.01, "epochs": epochs}]
    return tiny_recipe({"appearance": {"optimisation": {"schedule": schedule, **optimisation}}})


def test_the_best_weights_are_kept_even_if_interrupted(
    tmp_path: Path, validated: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = train(validated, tmp_path / "short", appearance_for(2), workers=0)
    recipe = appearance_for(5, keep="best")
    best = train(validated, tmp_path / "best", recipe, workers=0)
    assert_same_weights(best.model_file("appearance"), short.model_file("appearance"))
    assert_same_weights(best.folder / "model.safetensors", short.model_file("appearance"))
    assert read_metadata(best.model_file("appearance"))["training"]["iterations"] == 4
    assert sorted(p.name for p in (best.folder / "appearance").glob("*.*")) == ["model.safetensors"]

    start = StageTraining.on_train_epoch_start

    def stop(self: StageTraining) -> None:
        if self.current_epoch == 3:
            raise StoppedError
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "on_train_epoch_start", stop)
        with pytest.raises(StoppedError):
            train(validated, tmp_path / "resumed", recipe, workers=0)
    resumed = train(validated, tmp_path / "resumed", recipe, workers=0, resume=True)
    assert_same_weights(resumed.model_file("appearance"), short.model_file("appearance"))


def test_a_stage_ends_when_its_patience_does(tmp_path: Path, validated: Store) -> None:
    done = train(validated, tmp_path / "run", appearance_for(5, patience=2), workers=0)
    assert done.curves("appearance")["val_accuracy"] == pytest.approx([0.2, 0.6, 0.4, 0.6])
    assert read_metadata(done.model_file("appearance"))["training"]["iterations"] == 8  # the last weights are kept


@pytest.mark.parametrize("wish", [{"keep": "best"}, {"patience": 3}])
def test_watching_validation_needs_validation_videos(tmp_path: Path, store: Store, wish: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"stage appearance watches its validation .* add --val-fraction 0.1, or"):
        train(store, tmp_path / "run", appearance_for(1, **wish))


def test_a_part_of_the_training_videos_validates(tmp_path: Path, store: Store) -> None:
    done = train(store, tmp_path / "run", appearance_for(1), workers=0, val_fraction=0.5)
    checkpoint = load_checkpoint(done.model_file("appearance"))
    training = store.with_validation(0.5).select("train")
    assert checkpoint.training["videos"] == len(training) < len(store.select("train"))
    assert checkpoint.trained_on == tuple(sorted(identities(training)))
    assert len(done.curves("appearance")["val_accuracy"]) == 1
    with pytest.raises(RecipeError, match=r"other data \(training_videos differ\).* --val-fraction as before"):
        train(store, tmp_path / "run", appearance_for(1), resume=True)


TWO_DEVICES = """
    import sys

    sys.path.insert(0, {tests!r})
    from helpers.tiny import tiny_recipe

    from stresnet.data.store import Store
    from stresnet.training import train

    once = {{"optimisation": {{"schedule": [{{"lr": 0.01, "iterations": 1}}]}}}}
    stages = {{"appearance": {{}}, "motion": once}}
    train(Store.open({store!r}), {folder!r}, tiny_recipe(stages), workers=0, devices=2)
"""


def test_two_devices_train_one_run(tmp_path: Path, store: Store) -> None:
    """Lightning runs the same script again for the second device, which finds the run started."""
    script, folder = tmp_path / "script.py", tmp_path / "run"
    values = {"tests": str(Path(__file__).parents[1]), "store": str(store.root), "folder": str(folder)}
    script.write_text(textwrap.dedent(TWO_DEVICES).format(**values))
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else None  # needs no network
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    run = Run.open(folder)
    assert [s.name for s in run.finished()] == ["appearance", "motion"]
    assert len(run.curves("appearance")["loss"]) == 3
    batches = load_file(run.model_file("appearance"))["appearance.bn1.num_batches_tracked"]
    assert int(batches) == 6  # each device gets one of the two sub-batches of each iteration
