"""Checkpoints, and weights passed from stage to stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.formula import clips_of, randomized
from helpers.networks import bits, error_of, network, single
from helpers.torchvision_names import Weights, image_weights
from stresnet.model import Checkpoint, Preprocessing, STResNet, load_checkpoint, load_model, save_checkpoint
from stresnet.model import checkpoint as checkpoint_module
from stresnet.model.checkpoint import transfer_weights

torch.set_num_threads(1)

BOTH = "appearance and motion: expected"


# From stage to stage


def test_streams_are_joined_and_taps_averaged() -> None:
    appearance, motion = (randomized(single(s), seed) for seed, s in enumerate(("appearance", "motion")))
    net = network(link_scale=0.1, temporal_pool=(5, 2)).double()
    transfer_weights(net, [appearance.state_dict(), motion.state_dict()])
    sources = appearance.state_dict() | motion.state_dict()
    for key, value in net.state_dict().items():
        if key.startswith("links."):
            assert (value.float() == 0.1).all()
        elif value.shape[2:] == (3, 1):
            assert (value - sources[key] / 3).abs().max() < 1e-15
        else:
            assert value.equal(sources[key])


def test_an_unchanged_transfer_is_exact_and_the_later_source_wins() -> None:
    source = randomized(network(link_scale=0.1))
    taken = network(link_scale=0.1, temporal_pool=(5, 2)).double()
    transfer_weights(taken, [source.state_dict()])
    assert bits(taken.state_dict()) == bits(source.state_dict())
    other = randomized(network(link_scale=0.1), seed=5)
    transfer_weights(taken, [source.state_dict(), other.state_dict()])
    assert bits(taken.state_dict()) == bits(other.state_dict())


def test_one_stream_of_a_fused_network_can_be_taken_alone() -> None:
    fused = randomized(network())
    alone = single("motion", temporal="inflate").double()
    transfer_weights(alone, [fused.state_dict()])
    rgb, flow = clips_of(steps=3)
    with torch.no_grad():
        assert (alone.eval()(flow=flow).motion - fused(rgb, flow).motion).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("sources", "target", "expected"),
    [
        ([single("appearance")], network(), "no motion stream in them"),
        ([network()], network(temporal=None), f"{BOTH} temporal null; found temporal inflate"),
        ([network(temporal="inject")], network(temporal=None), f"{BOTH} temporal null; found temporal inject"),
        ([network(layout="caffe")], network(), f"{BOTH} layout torchvision; found layout caffe"),
        ([network()], network(layout="caffe"), f"{BOTH} layout caffe; found layout torchvision"),
        ([network(depth=50)], network(), f"{BOTH} depth 26; found depth 50"),
        ([network()], network(depth=50, width=0.25), f"{BOTH} depth 50, width 0.25; found depth 26, width 0.125"),
        ([network(stem_channels=16)], network(), f"{BOTH} stem_channels null; found stem_channels 16"),
        ([network(motion_depth=50)], network(), "motion: expected depth 26; found depth 50"),
        ([network(num_classes=6)], network(), f"{BOTH} num_classes 5; found num_classes 6"),
        ([network(flow_stack=3)], network(), "motion: expected flow_stack 2; found flow_stack 3"),
        ([network(link_scale=0.1)], network(link_scale=0.1, depth=50), f"{BOTH} depth 50; found depth 26"),
    ],
)
def test_weights_of_another_network_are_rejected(sources: list[STResNet], target: STResNet, expected: str) -> None:
    before = bits(target.state_dict())
    line = error_of(transfer_weights, target, [s.state_dict() for s in sources])
    assert line == f"the weights belong to another network: {expected}"
    assert bits(target.state_dict()) == before


def test_single_weights_that_do_not_fit_are_named() -> None:
    weights = network().state_dict()
    del weights["motion.layer1.0.bn1.bias"]
    weights["appearance.layer2.0.conv2.weight"] = torch.zeros(1)
    assert error_of(transfer_weights, network(), [weights]).endswith(
        "motion.layer1.0.bn1.bias is missing; appearance.layer2.0.conv2.weight is (1,), not (16, 16, 3, 3)"
    )


@pytest.mark.parametrize("classes", [5, 6])
def test_a_new_classifier_keeps_its_random_start(classes: int) -> None:
    source, target = randomized(network(num_classes=classes)).float(), network()
    fc = target.motion.fc.weight.clone()
    transfer_weights(target, [source.state_dict()], new_classifier=True)
    assert target.motion.fc.weight.equal(fc)
    assert target.motion.conv1.weight.equal(source.motion.conv1.weight)


# The checkpoint for use


def checkpoint(**changes: object) -> Checkpoint:
    return Checkpoint(
        model=randomized(network(**changes)).float(),
        classes=("run", "jump", 'Ö, \n"x"', "wave", "caf\udce9"),
        preprocessing=Preprocessing(rgb_mean=(1.5, 2.0, 0.1), flow_std=3.3, crop_px=56, mirror=False),
        store_spec={"flow": {"method": "dis", "preset": "medium", "short_side": 64, "bound_px": 20.0}},
        trained_on=("0a1b2c",),
        stage="st-resnet",
        recipe={"name": "demo", "stages": [{"name": "st-resnet", "schedule": [{"lr": 0.1, "epochs": 0.3}]}]},
        training={"store": "ours", "videos": 7, "minutes": 0.25},
        test_groups=("g01", "g02"),
        scores=({"protocol": "dense25", "top1": 0.123456789012345},),
        version="9.9.9",
    )


def test_a_round_trip_keeps_every_bit_and_all_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.safetensors"
    saved = checkpoint(link_scale=0.1, link_direction="both", temporal_pool=(5, 2), layout="caffe", dropout=0.5)
    saved.model.to(memory_format=torch.channels_last).train()
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert bits(loaded.model.state_dict()) == bits(saved.model.state_dict())
    assert loaded.model.config == saved.model.config
    for name in vars(saved):
        if name != "model":
            assert getattr(loaded, name) == getattr(saved, name), name
    assert not loaded.model.training
    rgb, flow = (x.float() for x in clips_of(steps=5))
    model = load_model(path)
    with torch.no_grad():
        assert model(rgb, flow).fused.equal(loaded.model(rgb, flow).fused)
        expected = saved.model.eval()(rgb, flow).fused
        assert (model(rgb, flow).fused - expected).abs().max() < 1e-4 * expected.abs().max()
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, loaded)
    assert load_file(again).keys() == load_file(path).keys()


def test_loading_draws_no_random_weights(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.safetensors", checkpoint())
    before = torch.get_rng_state()
    load_checkpoint(tmp_path / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_interrupted_save_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, checkpoint())
    assert list(tmp_path.iterdir()) == [path]
    before = path.read_bytes()

    def full_disk(tensors: Weights, file: Path, metadata: dict[str, str]) -> None:
        file.write_bytes(before[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "save_file", full_disk)
    assert "No space left" in error_of(save_checkpoint, path, checkpoint())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in error_of(save_checkpoint, tmp_path / "file" / "model.safetensors", checkpoint())


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.05, 0.5, 0.999])
def test_truncated_checkpoint_is_rejected(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, checkpoint())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is not a model, or is truncated" in error_of(load_checkpoint, path)


def test_a_file_that_is_not_a_checkpoint_is_named(tmp_path: Path) -> None:
    assert "none.safetensors does not exist" in error_of(load_checkpoint, tmp_path / "none.safetensors")
    foreign = tmp_path / "image.safetensors"
    save_file(image_weights(), foreign)
    assert "without the metadata of an ST-ResNet" in error_of(load_checkpoint, foreign)
    torch.save(image_weights(), tmp_path / "pickle.safetensors")
    assert "pickle.safetensors" in error_of(load_checkpoint, tmp_path / "pickle.safetensors")
    assert str(tmp_path) in error_of(load_checkpoint, tmp_path)


def rewritten(folder: Path, change: Any) -> Path:
    """Return a checkpoint file whose weights and metadata were edited by `change(weights, metadata)`."""
    path = folder / "model.safetensors"
    save_checkpoint(path, checkpoint())
    metadata = checkpoint_module.read_metadata(path)
    values = load_file(path)
    change(values, metadata)
    save_file(values, path, metadata={"stresnet": json.dumps(metadata)})
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w, s: w.pop("motion.layer2.0.bn1.running_var"), "motion.layer2.0.bn1.running_var is missing"),
        (lambda w, s: w.update(stray=torch.zeros(1)), "stray is not expected"),
        (lambda w, s: w.update({"motion.fc.bias": torch.zeros(4)}), "motion.fc.bias is (4,), not (5,)"),
        (lambda w, s: s["config"].update(colour="red"), "colour: no such field"),
        (lambda w, s: s["config"].pop("num_classes"), "num_classes: Field required"),
        (lambda w, s: s["config"].update(depth=34), "depth"),
        (lambda w, s: s["config"].update(width=1e6), "width: Input should be less than or equal to 16"),
        (lambda w, s: s["config"].update(flow_stack=10**9), "flow_stack: Input should be less than or equal to 1024"),
        (lambda w, s: s["config"].update(num_classes=10**30), "num_classes: Input should be less than or equal to"),
        (lambda w, s: s["config"].update(num_classes=10**8), "expected 100000000 class names"),  # 25 GB of weights
        (lambda w, s: s["config"].update(width=16.0), "width"),
        (lambda w, s: s["preprocessing"].update(crop_px=10**6), "crop_px: Input should be less than or equal to 8192"),
        (lambda w, s: w["motion.fc.bias"].fill_(torch.nan), "motion.fc.bias has NaN or infinite values"),
        (lambda w, s: w["motion.conv1.weight"][0, 0, 0].fill_(torch.inf), "motion.conv1.weight has NaN or infinite"),
        (lambda w, s: s["config"].update(streams=["audio", "motion"]), "audio"),
        (lambda w, s: s["config"].update(layout="caffe"), f"{BOTH} layout caffe; found layout torchvision"),
        (lambda w, s: s["preprocessing"].update(gamma=2), "preprocessing.gamma: no such field"),
        (
            lambda w, s: s["preprocessing"].update(rgb_std=[1.0, 0.0, 1.0]),
            "rgb_std.1: Input should be greater than 0",
        ),
        (
            lambda w, s: s["preprocessing"].update(rgb_std=[1.0, -1, 1]),
            "rgb_std.1: Input should be greater than 0",
        ),
        (lambda w, s: s["preprocessing"].update(rgb_mean=[1.0, 2.0]), "rgb_mean.2: Field required"),
        (lambda w, s: s["preprocessing"].update(flow_std=0.0), "flow_std: Input should be greater than 0"),
        (
            lambda w, s: s["preprocessing"].update(crop_px=56.0),
            "crop_px: Input should be a valid integer",
        ),
        (lambda w, s: s["preprocessing"].update(mirror=1), "mirror: Input should be a valid boolean"),
        (lambda w, s: s.update(preprocessing=None), "preprocessing: Input should be a valid dictionary"),
        (lambda w, s: s.update(config=[]), "not a valid STResNetConfig: Input should be a valid dictionary"),
        (lambda w, s: s["config"].update(temporal_pool=[5, 2.0]), "temporal_pool.1: Input should be a valid integer"),
        (lambda w, s: s.update(classes="abcde"), "classes: Input should be a list"),
        (lambda w, s: s.update(classes=[1, 2, 3, 4, 5]), "classes.0: Input should be a valid string"),
        (lambda w, s: s.update(store_spec="dis"), "store_spec: Input should be a valid dictionary"),
        (lambda w, s: s.update(scores=[0.5]), "scores.0: Input should be a valid dictionary"),
        (lambda w, s: s.pop("preprocessing"), "preprocessing"),
        (lambda w, s: s.pop("classes"), "classes"),
        (lambda w, s: s["classes"].pop(), "expected 5 class names, one per logit, not 4"),
        (lambda w, s: s.update(format=99), "format 99"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_rejected(tmp_path: Path, change: Any, expected: str) -> None:
    path = rewritten(tmp_path, change)
    message = error_of(load_checkpoint, path)
    assert expected in message
    assert str(path) in message


def test_damaged_metadata_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for text in ("{", "7", "null", "[" * 10**6):
        save_file({"x": torch.zeros(1)}, path, metadata={"stresnet": text})
        assert "damaged" in error_of(load_checkpoint, path)


def test_many_problems_are_summarised(tmp_path: Path) -> None:
    path = rewritten(tmp_path, lambda w, s: [w.pop(k) for k in list(w)[:50]])
    assert "and 47 more" in error_of(load_checkpoint, path)
