"""Training: stages hand weights on, and a run goes on wherever it was cut off, to the same bits."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import stresnet.training.run as run_module
from helpers.tiny import SPEC, STAGES, grouped, prepared, tiny_recipe
from stresnet.data.clips import ClipSampling, TrainingClips
from stresnet.data.store import Store
from stresnet.errors import CheckpointError, FlowSpecError, RecipeError, StoreError
from stresnet.evaluation import evaluate
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Preprocessing, STResNet, load_checkpoint, save_checkpoint
from stresnet.model.checkpoint import read_metadata
from stresnet.model.config import Architecture
from stresnet.training import Run, train
from stresnet.training.stage import StageTraining, VideoStream

Weights = dict[str, torch.Tensor]
ONE = {"appearance": {"optimisation": {"schedule": [{"lr": 0.01, "iterations": 1}]}}}


class StoppedError(Exception):
    """Raised by a test in the midst of training."""


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    shutil.copytree(run.folder, tmp_path / "copy")
    return tmp_path / "copy"


def starting_weights(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Weights:
    """The weights that the first stage trained starts from; it is not trained."""
    seen: list[Weights] = []

    def look(model: STResNet, *_: object) -> StageTraining:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "StageTraining", look)
        with pytest.raises(StoppedError):
            train(*arguments, workers=0, **options)
    return seen[0]


def assert_same_weights(a: Path, b: Path) -> None:
    ours, theirs = load_file(a), load_file(b)
    assert ours.keys() == theirs.keys()
    assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == []


def assert_same_run(a: Run, b: Run) -> None:
    """Losses, accuracies and rates of every epoch agree exactly, and all final weights bit for bit."""
    for stage in STAGES:
        ours, theirs = ({k: v for k, v in run.curves(stage).items() if k != "clips_per_sec"} for run in (a, b))
        assert ours == theirs
        assert_same_weights(a.model_file(stage), b.model_file(stage))


# ---------------------------------------------------------------- what a run leaves


def test_a_run_leaves_models_curves_and_logs(run: Run, store: Store) -> None:
    assert [s.name for s in run.finished()] == STAGES
    assert Run.open(run.folder) == run
    for stage, epochs in zip(STAGES, (3, 3, 2), strict=True):
        curves = run.curves(stage)
        assert curves["epoch"] == list(range(epochs))
        assert all(0 < loss < 100 for loss in curves["loss"])
        assert len(list((run.folder / stage).glob("logs/*/metrics.csv"))) == 1
        assert len(list((run.folder / stage).glob("tensorboard/*/events.*"))) == 1
        assert not run.unfinished_file(stage).exists()
    assert run.curves("motion")["lr"] == pytest.approx([0.002, 0.002, 0.0002])
    story = read_metadata(run.folder / "model.safetensors")
    assert (story["stage"], story["classes"]) == ("st-resnet", list(store.classes))
    assert (story["training"]["videos"], story["training"]["steps"]) == (8, 4)
    assert story["store_spec"] == store.spec.to_dict()
    assert list(run.folder.rglob(".*")) == []


def test_curves_of_many_attempts_are_read_in_order(tmp_path: Path, run: Run) -> None:
    for attempt in (0, 2, 10):
        log = tmp_path / "motion" / "logs" / f"attempt_{attempt}" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text(f"epoch,loss,clips_per_sec\n{min(attempt, 3)},{attempt},\n3,{attempt},\n5,,7.0\n")
    curves = Run(tmp_path, run.recipe).curves("motion")
    assert curves == {"epoch": [0, 2, 3], "loss": [0, 2, 10]}


# ---------------------------------------------------------------- where stages start


def test_a_joint_stage_starts_from_its_streams_with_averaged_taps(
    copy: Path, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "st-resnet")
    start = starting_weights(monkeypatch, store, copy, run.recipe, resume=True)
    single = load_file(run.model_file("appearance")) | load_file(run.model_file("motion"))
    assert start.keys() == single.keys()
    grown = []
    for key, value in start.items():
        if value.shape == single[key].shape:
            assert torch.equal(value, single[key]), key
        else:
            grown.append(key)
            assert value.shape[2:] == (3, 1)
            for tap in value.unbind(2):
                assert torch.equal(tap[..., None], single[key] / 3), key
    assert len(grown) == 16  # two 1×1 convolutions in the second unit of four stages of two streams


def test_a_stage_starts_from_image_weights(
    tmp_path: Path, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {k.removeprefix("appearance."): v for k, v in load_file(run.model_file("appearance")).items()}
    torch.save(image, tmp_path / "epoch=3.pth")
    recipe = tiny_recipe({"motion": {"starts_from": ["imagenet"]}})
    init = {"imagenet": tmp_path / "epoch=3.pth"}
    start = starting_weights(monkeypatch, store, tmp_path / "run", recipe, init=init)
    assert torch.equal(start["motion.layer3.1.conv2.weight"], image["layer3.1.conv2.weight"])
    expected = image["conv1.weight"].mean(1)
    assert all(torch.equal(channel, expected) for channel in start["motion.conv1.weight"].unbind(1))


def test_a_stage_starts_from_a_model_of_other_classes(
    tmp_path: Path, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = replace(
        store, classes=store.classes[:2], entries=tuple(e for e in store.entries if "red_down" in e.record.id)
    )
    recipe = tiny_recipe({"motion": {}})
    init = {"motion": run.model_file("motion")}
    start = starting_weights(monkeypatch, fewer, tmp_path / "run", recipe, init=init)
    source = load_file(run.model_file("motion"))
    assert start["motion.fc.weight"].shape[0] == 2
    assert all(torch.equal(start[key], source[key]) for key in start if ".fc." not in key)


def test_missing_starts_are_named_and_leave_no_run(tmp_path: Path, store: Store) -> None:
    recipe = tiny_recipe({"motion": {"starts_from": ["imagenet"]}})
    folder = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"motion starts from image weights: give them with --init FILE"):
        train(store, folder, recipe)
    with pytest.raises(CheckpointError, match=r"no weights at .*nowhere.pth"):
        train(store, folder, recipe, init={"imagenet": tmp_path / "nowhere.pth"})
    with pytest.raises(RecipeError, match="--init flow=…: no such stage in recipe tiny"):
        train(store, folder, recipe, init={"flow": tmp_path})
    with pytest.raises(RecipeError, match="st-resnet starts from appearance, which is not trained"):
        train(store, folder, tiny_recipe(), only="st-resnet")
    with pytest.raises(RecipeError, match="no stage 'flow': it has appearance, motion, st-resnet"):
        train(store, folder, tiny_recipe(), only="flow")
    assert not folder.exists()


def test_a_model_of_another_flow_is_no_start(tmp_path: Path, run: Run, store: Store) -> None:
    other = replace(store, spec=replace(store.spec, flow=replace(store.spec.flow, bound_px=10.0)))
    with pytest.raises(FlowSpecError, match=r"bound_px.*10.0.*20.0|bound_px.*20.0.*10.0|10.*20|20.*10"):
        train(other, tmp_path / "run", tiny_recipe({"motion": {}}), init={"motion": run.model_file("motion")})


def test_a_video_shorter_than_a_stack_is_named_before_training(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match="has 26 frames, but a stack of 30 flows needs 31"):
        train(store, tmp_path / "run", tiny_recipe({"motion": {}}, network={"flow_stack": 30}))


def test_devices_that_cannot_share_a_batch_are_refused_before_training(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match="stage appearance: a batch of 4 cannot be shared by 4 devices"):
        train(store, tmp_path / "run", tiny_recipe(), devices=4)
    assert not (tmp_path / "run").exists()


def test_videos_seen_in_training_are_no_test_videos(tmp_path: Path, run: Run, store: Store) -> None:
    swapped = {"train": "test", "test": "train"}
    entries = tuple(replace(e, record=replace(e.record, split=swapped[e.record.split])) for e in store.entries)
    other = replace(store, entries=entries)
    with pytest.raises(StoreError, match="8 of the 8 videos of split 'test' were trained on"):
        evaluate(run.folder, other, tmp_path / "report")
    with pytest.raises(RecipeError, match=r"other data \(training_videos differ\)"):
        train(other, run.folder, run.recipe, resume=True)
    init = {"motion": run.model_file("motion")}
    with pytest.raises(RecipeError, match="was trained on 8 of the videos held out here"):
        train(other, tmp_path / "run", tiny_recipe({"motion": {}}), init=init)


def test_one_class_is_refused(tmp_path: Path, store: Store) -> None:
    label = store.classes[0]
    entries = tuple(e for e in store.entries if e.record.label == label)
    with pytest.raises(RecipeError, match=f"has one class, {label}"):
        train(replace(store, classes=(label,), entries=entries), tmp_path / "run", tiny_recipe())


def test_the_bar_of_a_stage_shows_steps_loss_and_speed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    train(store, tmp_path / "run", tiny_recipe({"motion": {}}), workers=0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"motion .*6/6 loss \d+\.\d+ · accuracy \d+% · \d+ clips/s", shown), shown


def test_no_training_videos(tmp_path: Path, store: Store) -> None:
    with pytest.raises(RecipeError, match="has no training videos: give some a `train` split"):
        train(replace(store, entries=store.select("test")), tmp_path / "run", tiny_recipe())


def test_a_start_that_nobody_takes_is_refused(tmp_path: Path, run: Run, store: Store) -> None:
    file = run.model_file("appearance")
    for only, init in ((None, {"imagenet": file}), ("motion", {"appearance": file})):
        with pytest.raises(RecipeError, match="no stage to be trained takes it"):
            train(store, tmp_path / "run", tiny_recipe(), init=init, only=only)
    assert not (tmp_path / "run").exists()


def test_a_start_that_does_not_fit_is_found_before_anything_is_trained(tmp_path: Path, run: Run, store: Store) -> None:
    def forbidden(stage: str) -> None:
        raise AssertionError(f"{stage} is trained")

    (tmp_path / "text.safetensors").write_text("no weights")
    motion = run.model_file("motion")
    for file, said in (
        (tmp_path / "text.safetensors", "is not a model, or is truncated"),
        (
            motion,
            f"{motion}, ResNet-26 (motion), cannot start stage st-resnet, ST-ResNet-26: the weights are of another "
            "network: no appearance stream in them; give another file, or change the recipe with --set",
        ),
    ):
        with pytest.raises(CheckpointError, match=re.escape(said)):
            train(store, tmp_path / "run", tiny_recipe(), init={"st-resnet": file}, on_stage=forbidden)


def test_a_classifier_of_other_classes_is_not_taken_over(tmp_path: Path, run: Run, store: Store) -> None:
    start = load_checkpoint(run.model_file("appearance"))
    recipe = tiny_recipe({"appearance": {"optimisation": {"schedule": [{"lr": 1e-9, "iterations": 1}]}}})
    kept = []
    for classes in (start.classes, start.classes[::-1]):
        file = tmp_path / f"{classes[0]}.safetensors"
        save_checkpoint(file, start.replace(classes=classes))
        trained = train(store, tmp_path / f"run {classes[0]}", recipe, init={"appearance": file}, workers=0)
        found = load_checkpoint(trained.model_file("appearance")).model.state_dict()
        kept.append(torch.allclose(found["appearance.fc.weight"], start.model.appearance.fc.weight, atol=1e-6))
        assert torch.allclose(found["appearance.layer1.0.conv1.weight"], start.model.appearance.layer1[0].conv1.weight)
    assert kept == [True, False]


def test_a_start_that_fails_need_not_be_resumed(tmp_path: Path, run: Run, store: Store) -> None:
    recipe = tiny_recipe({"motion": {"starts_from": ["imagenet"]}})
    with pytest.raises(CheckpointError, match="a motion stream alone"):
        train(store, tmp_path / "run", recipe, init={"imagenet": run.model_file("motion")})
    train(store, tmp_path / "run", tiny_recipe(ONE), workers=0)


# ---------------------------------------------------------------- going on


SCRIPT = """
    import os, signal, sys

    import torch

    sys.path.insert(0, {tests!r})
    from helpers.tiny import tiny_recipe

    from stresnet.data.store import Store
    from stresnet.training import train
    from stresnet.training.stage import StageTraining

    step = StageTraining.training_step

    def step_or_die(self, batch, batch_idx):
        if (self.stage.name, self.current_epoch, batch_idx) == ("motion", 2, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, batch_idx)

    StageTraining.training_step = step_or_die
    torch.set_num_threads({threads})
    if __name__ == "__main__":
        train(Store.open({store!r}), {folder!r}, tiny_recipe(), workers=1)
"""


def test_cut_off_anywhere_it_ends_as_an_unbroken_run(
    tmp_path: Path, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    values = {"tests": str(Path(__file__).parents[1]), "threads": torch.get_num_threads()}
    script = textwrap.dedent(SCRIPT).format(store=str(store.root), folder=str(folder), **values)
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    broken = Run(folder, run.recipe)
    assert [s.name for s in broken.finished()] == ["appearance"]
    assert broken.unfinished_file("motion").is_file()
    assert broken.curves("motion")["epoch"] == [0, 1]  # what was logged before the kill is not lost

    epoch_end = StageTraining.on_train_epoch_end

    def stop(self: StageTraining) -> None:
        epoch_end(self)
        if self.stage.name == "st-resnet" and self.current_epoch == 1:
            raise StoppedError

    started: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "on_train_epoch_end", stop)
        with pytest.raises(StoppedError):
            train(store, folder, run.recipe, resume=True, workers=0, on_stage=started.append)
    assert started == ["motion", "st-resnet"]
    assert read_metadata(folder / "model.safetensors")["stage"] == "motion"

    def full_disk(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:  # trained to its last step, but not written
        patch.setattr(run_module, "save_checkpoint", full_disk)
        with pytest.raises(StoppedError):
            train(store, folder, run.recipe, resume=True, workers=0)
    assert broken.unfinished_file("st-resnet").is_file()
    assert_same_run(train(store, folder, run.recipe, resume=True, workers=0), run)
    assert not broken.unfinished_file("st-resnet").exists()
    assert list(folder.rglob(".*")) == []


def test_seconds_of_earlier_attempts_count(store: Store) -> None:
    recipe = tiny_recipe()
    model = STResNet(recipe.stages[0].network.with_classes(4))
    module = StageTraining(model, recipe, recipe.stages[0], Preprocessing(), 8)
    kept: dict[str, Any] = {}
    levels = Preprocessing(rgb_mean=(1.0, 2.0, 3.0))
    module.on_load_checkpoint({"seconds": 600.0, "preprocessing": levels.to_dict()})
    module.on_save_checkpoint(kept)
    assert 600 < kept["seconds"] < 700
    assert module.preprocessing == Preprocessing.from_dict(kept["preprocessing"]) == levels


def test_pixels_are_normalised_as_the_weights_of_the_start_want_it(tmp_path: Path, run: Run, store: Store) -> None:
    started = load_checkpoint(run.model_file("appearance"))
    levels = started.preprocessing.replace(rgb_mean=(1.0, 2.0, 3.0), rgb_std=(4.0, 5.0, 6.0), flow_std=7.0)
    save_checkpoint(tmp_path / "start.safetensors", started.replace(preprocessing=levels, trained_on=()))
    stages = {"appearance": {"starts_from": ["imagenet"]}, "motion": {}, "st-resnet": {}}
    trained = train(
        store, tmp_path / "run", tiny_recipe(stages), init={"imagenet": tmp_path / "start.safetensors"}, workers=0
    )
    found = {stage: load_checkpoint(trained.model_file(stage)).preprocessing for stage in STAGES}
    assert found["appearance"] == levels
    assert found["motion"] == load_checkpoint(run.model_file("motion")).preprocessing
    assert found["st-resnet"] == levels.replace(flow_std=found["motion"].flow_std)


def test_finished_stages_are_not_trained_again(copy: Path, run: Run, store: Store) -> None:
    def forbidden(stage: str) -> None:
        raise AssertionError(f"{stage} is trained again")

    train(store, copy, run.recipe, resume=True, on_stage=forbidden)
    assert_same_run(Run(copy, run.recipe), run)
    # nor do they need what they started from
    text = (copy / "recipe.yaml").read_text("utf-8")
    (copy / "recipe.yaml").write_text(text.replace("starts_from: []", "starts_from: [imagenet]"), "utf-8")
    changes = {"starts_from": ["imagenet"]}
    recipe = tiny_recipe({"appearance": changes, "motion": changes, "st-resnet": {}})
    train(store, copy, recipe, resume=True, on_stage=forbidden)


def test_one_stage_alone_does_not_replace_a_later_model(copy: Path, run: Run, store: Store) -> None:
    shutil.rmtree(copy / "appearance")
    again = train(store, copy, run.recipe, only="appearance", resume=True, workers=0)
    assert read_metadata(copy / "model.safetensors")["stage"] == "st-resnet"
    assert_same_run(again, run)  # the same seed gives the same losses


def test_another_seed_gives_other_losses(tmp_path: Path, run: Run, store: Store) -> None:
    other = train(store, tmp_path / "run", tiny_recipe({"appearance": {}}, seed=8), workers=0)
    assert other.curves("appearance")["loss"] != run.curves("appearance")["loss"]


def test_a_folder_with_a_run_is_not_taken(copy: Path, run: Run, store: Store) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(RecipeError, match="holds a run already: pass --resume to go on with it"):
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


def test_a_damaged_interim_checkpoint_is_named(copy: Path, run: Run, store: Store) -> None:
    run.model_file("st-resnet")
    (copy / "st-resnet" / "model.safetensors").unlink()
    for content in (b"", b"PK\3\4 no such thing", run.model_file("motion").read_bytes()):
        (copy / "st-resnet" / "last.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"last.ckpt is damaged: delete it") as error:
            train(store, copy, run.recipe, resume=True, workers=0)
        assert "\n" not in str(error.value)


# ---------------------------------------------------------------- what is learnt, and from what


def test_a_batch_is_the_mean_of_its_sub_batches(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step against the same by hand: gradients averaged over sub-batches, each with its own statistics."""
    optimisation = {"weight_decay": 0.1, "schedule": [{"lr": 0.05, "iterations": 1}]}
    recipe = tiny_recipe({"appearance": {"network": {"dropout": 0.0}, "optimisation": optimisation}})
    start = starting_weights(monkeypatch, store, tmp_path / "run", recipe)
    trained = load_file(train(store, tmp_path / "run", recipe, workers=0).model_file("appearance"))

    model = STResNet(recipe.stages[0].network.with_classes(4))
    model.load_state_dict(start)
    model.train()
    network = Architecture(streams=("appearance",), link=None)
    clips = TrainingClips(store, store.select("train"), ClipSampling(crop_px=32), network, recipe.seed)
    order = list(VideoStream(8, 4, recipe.seed))[:4]
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


def test_groups_held_out_are_not_looked_at(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = prepared(grouped(videos), tmp_path / "store")
    opened: list[str] = []
    video = Store.video

    def note(self: Store, record_id: str) -> Any:
        opened.append(record_id)
        return video(self, record_id)

    monkeypatch.setattr(Store, "video", note)
    recipe = tiny_recipe({"appearance": {"optimisation": {"schedule": [{"lr": 0.01, "epochs": 2}]}}})
    done = train(store, tmp_path / "run", recipe, test_groups=("g2",), workers=0)
    group = {e.record.id: e.record.group for e in store.entries}
    assert {group[i] for i in opened} == {"g1", "g3"}
    assert len(set(opened)) == 8
    story = read_metadata(done.model_file("appearance"))
    assert (story["test_groups"], story["training"]["videos"]) == (["g2"], 8)
    with pytest.raises(RecipeError, match=r"other data \(test_groups, training_videos differ\)"):
        train(store, tmp_path / "run", recipe, test_groups=("g1",), resume=True)


def with_validation(store: Store) -> Store:
    """The store, its test videos for validation."""
    split = {"train": "train", "test": "val"}
    return replace(
        store,
        entries=tuple(replace(e, record=replace(e.record, split=split[e.record.split])) for e in store.entries),
    )


def test_validation_videos_are_watched_not_learnt_from(tmp_path: Path, store: Store) -> None:
    watched = with_validation(store)
    stages = {"st-resnet": {"starts_from": [], "optimisation": {"schedule": [{"lr": 0.01, "epochs": 2}]}}}
    done = train(watched, tmp_path / "run", tiny_recipe(stages), workers=0)
    curves = done.curves("st-resnet")
    assert len(curves["val_accuracy"]) == len(curves["loss"]) == 2
    checkpoint = load_checkpoint(done.model_file("st-resnet"))
    assert checkpoint.training["videos"] == 8
    recognizer = Recognizer(checkpoint)
    right = 0
    for entry in watched.select("val"):
        scores = recognizer.score(watched.video(entry.record.id), "center")
        right += watched.classes[int(scores.fused.argmax())] == entry.record.label
    assert curves["val_accuracy"][-1] == pytest.approx(right / 4)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of loader processes, from Python 3.12 on
def test_a_stage_with_validation_ends_in_the_midst_of_an_epoch(
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
        assert int(batches) == 10  # five steps of two sub-batches each; an epoch has two steps
        assert run.curves("appearance")["epoch"] == [0, 1, 2]
    for name in ("loss", "accuracy", "val_accuracy"):
        assert broken.curves("appearance")[name] == whole.curves("appearance")[name]
    assert_same_weights(whole.model_file("appearance"), broken.model_file("appearance"))


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


def test_two_devices_share_a_run(tmp_path: Path, store: Store) -> None:
    """Lightning starts the same script once more for the second device, which finds the folder taken."""
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
    assert int(batches) == 6  # of the two sub-batches of each step, every device takes one
