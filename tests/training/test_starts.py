"""Starting weights: passed from stage to stage, checked before training, with mismatches named."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny import STAGES, tiny_recipe
from helpers.training import forbid_training, starting_weights
from stresnet.data.store import Entries, Store
from stresnet.errors import CheckpointError, FlowSpecError, RecipeError, StoreError
from stresnet.evaluation import evaluate
from stresnet.model import load_checkpoint, save_checkpoint
from stresnet.training import Run, train


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
    assert len(grown) == 16  # two 1×1 convolutions in the second units of four layers of two streams


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


def test_a_stage_starts_from_a_model_with_other_classes(
    tmp_path: Path, run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = replace(
        store, classes=store.classes[:2], entries=Entries.of(e for e in store.entries if "red_down" in e.record.id)
    )
    recipe = tiny_recipe({"motion": {}})
    init = {"motion": run.model_file("motion")}
    start = starting_weights(monkeypatch, fewer, tmp_path / "run", recipe, init=init)
    source = load_file(run.model_file("motion"))
    assert start["motion.fc.weight"].shape[0] == 2
    assert all(torch.equal(start[key], source[key]) for key in start if ".fc." not in key)


def test_missing_weights_are_named_before_a_run_is_created(tmp_path: Path, store: Store) -> None:
    recipe = tiny_recipe({"motion": {"starts_from": ["imagenet"]}})
    folder = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"motion starts from image weights: give them with --init FILE"):
        train(store, folder, recipe)
    with pytest.raises(CheckpointError, match=r"nowhere.pth does not exist"):
        train(store, folder, recipe, init={"imagenet": tmp_path / "nowhere.pth"})
    with pytest.raises(RecipeError, match="--init flow=…: recipe tiny has no such stage"):
        train(store, folder, recipe, init={"flow": tmp_path})
    with pytest.raises(RecipeError, match="st-resnet starts from appearance, which is not trained"):
        train(store, folder, tiny_recipe(), only="st-resnet")
    with pytest.raises(RecipeError, match="no stage 'flow': it has appearance, motion, st-resnet"):
        train(store, folder, tiny_recipe(), only="flow")
    assert not folder.exists()


def test_a_model_of_another_flow_is_rejected(tmp_path: Path, run: Run, store: Store) -> None:
    other = replace(store, spec=replace(store.spec, flow=replace(store.spec.flow, bound_px=10.0)))
    with pytest.raises(FlowSpecError, match=r"bound_px.*10.0.*20.0|bound_px.*20.0.*10.0|10.*20|20.*10"):
        train(other, tmp_path / "run", tiny_recipe({"motion": {}}), init={"motion": run.model_file("motion")})


def test_models_trained_on_held_out_videos_are_rejected(tmp_path: Path, run: Run, store: Store) -> None:
    swapped = {"train": "test", "test": "train"}
    records = [replace(e.record, id=f"renamed/{e.record.id}", split=swapped[e.record.split]) for e in store.entries]
    entries = Entries.of(replace(e, record=record) for e, record in zip(store.entries, records, strict=True))
    other = replace(store, entries=entries)
    with pytest.raises(
        StoreError, match="8 of the 8 videos of split 'test' were used for training, maybe by another name"
    ):
        evaluate(run.folder, other, tmp_path / "report")
    with pytest.raises(RecipeError, match=r"other data \(training_videos differ\)"):
        train(other, run.folder, run.recipe, resume=True)
    init = {"motion": run.model_file("motion")}
    with pytest.raises(RecipeError, match="was trained on 8 of the videos held out here"):
        train(other, tmp_path / "run", tiny_recipe({"motion": {}}), init=init)


def test_weights_that_no_stage_starts_from_are_rejected(tmp_path: Path, run: Run, store: Store) -> None:
    file = run.model_file("appearance")
    for only, init in ((None, {"imagenet": file}), ("motion", {"appearance": file})):
        with pytest.raises(RecipeError, match="no stage to be trained starts from them"):
            train(store, tmp_path / "run", tiny_recipe(), init=init, only=only)
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_are_found_before_training(tmp_path: Path, run: Run, store: Store) -> None:
    (tmp_path / "text.safetensors").write_text("text")
    motion = run.model_file("motion")
    for file, said in (
        (tmp_path / "text.safetensors", "is not a model, or is truncated"),
        (
            motion,
            f"{motion}, ResNet-26 (motion), cannot start stage st-resnet, ST-ResNet-26: the weights belong to another "
            "network: no appearance stream in them; give another file, or change the recipe with --set",
        ),
    ):
        with pytest.raises(CheckpointError, match=re.escape(said)):
            train(store, tmp_path / "run", tiny_recipe(), init={"st-resnet": file}, progress=forbid_training)


def test_a_classifier_of_other_classes_is_not_copied(tmp_path: Path, run: Run, store: Store) -> None:
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


def test_a_failed_start_leaves_no_run_to_resume(tmp_path: Path, run: Run, store: Store) -> None:
    recipe = tiny_recipe({"motion": {"starts_from": ["imagenet"]}})
    with pytest.raises(CheckpointError, match="has only a motion stream"):
        train(store, tmp_path / "run", recipe, init={"imagenet": run.model_file("motion")})
    train(
        store,
        tmp_path / "run",
        tiny_recipe({"appearance": {"optimisation": {"schedule": [{"lr": 0.01, "iterations": 1}]}}}),
        workers=0,
    )


def test_preprocessing_comes_with_the_starting_weights(tmp_path: Path, run: Run, store: Store) -> None:
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
