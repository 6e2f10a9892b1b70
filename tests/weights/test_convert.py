"""Weights from elsewhere: what `convert` makes of MATLAB files, image networks and models, and what it refuses."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers import dagnn_files, dagnn_surgery
from helpers.hostile import Trap
from helpers.tiny import Command, one_line, tiny_recipe
from helpers.torchvision_names import image_weights
from stresnet.data.store import Store
from stresnet.errors import CheckpointError
from stresnet.flow import FlowSpec
from stresnet.inference.recognizer import Recognizer
from stresnet.media import write_video
from stresnet.model import STResNet, load_checkpoint
from stresnet.training import train
from stresnet.weights.convert import convert

torch.set_num_threads(1)

CLASSES = ("ApplyEyeMakeup", "Archery", "Baby Crawling", "Billiards", "日向")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released-like ST-ResNet* of 26 layers and five classes."""
    streams = dagnn_surgery.appearance(26, 4, 5), dagnn_surgery.motion(26, 4, 5)
    net = dagnn_surgery.pool_time(dagnn_surgery.st_resnet(*streams))
    return dagnn_files.write(tmp_path_factory.mktemp("released") / "ST-ResNet50 final.mat", net, nested=True)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """UCF101's way of naming classes, out of order."""
    lines = [f"{k + 1} {name}" for k, name in enumerate(CLASSES)]
    path = tmp_path / "classInd.txt"
    path.write_text("\r\n".join([*lines[2:], *lines[:2]]) + "\r\n", "utf-8")
    return path


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(CheckpointError) as found:
        convert(*arguments, **options)
    assert "\n" not in str(found.value)
    return str(found.value)


# ---------------------------------------------------------------- released files


def test_a_released_file_is_a_recogniser_at_once(
    tmp_path: Path, released: Path, names: Path, command: Command, videos: Path
) -> None:
    out = tmp_path / "new folder" / "model.safetensors"
    code, said, _ = command("convert", released, out, "--classes", names)
    assert code == 0
    assert "max pool over 5 steps, stride 2" in said
    found = load_checkpoint(out)
    assert found.classes == CLASSES
    assert found.model.config.temporal_pool == (5, 2)
    assert found.preprocessing.rgb_std == (1.0, 1.0, 1.0)
    assert found.preprocessing.rgb_mean == pytest.approx((123.7, 116.3, 103.5), abs=1e-3)
    assert Recognizer(out).store_spec.flow == FlowSpec("tvl1")
    video = tmp_path / "short.mp4"
    write_video(video, np.full((11, 64, 64, 3), 90, np.uint8), fps=25)  # TV-L1 is done at once where nothing moves
    code, said, _ = command("predict", out, video, "--json")
    assert code == 0
    assert {top["label"] for top in json.loads(said)[0]["top"]} == set(CLASSES)


def test_classes_without_names_are_numbered(tmp_path: Path, released: Path) -> None:
    report = convert(released, tmp_path / "model.safetensors")
    assert load_checkpoint(report.out).classes == ("class 1", "class 2", "class 3", "class 4", "class 5")
    assert any("--classes" in line for line in report.lines)


def test_hmdb51s_lists_name_classes_in_their_order(tmp_path: Path, released: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("kick", "climb", "sword", "kick_ball", "sword_exercise"):
        for split in (1, 2, 3):
            (folder / f"{name}_test_split{split}.txt").touch()
    report = convert(released, tmp_path / "model.safetensors", classes=str(folder))
    assert load_checkpoint(report.out).classes == (
        *("climb", "kick_ball", "kick", "sword_exercise", "sword"),  # cnn_setup_data.m; sorted, but for these
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"1 one\n2 two\n", "names 2 classes, but the network tells 5 apart"),
        (b"1 a\n2 b\n3 c\n4 d\n6 e\n", "numbered 1 to 5"),
        (b"a\nb\nc\nd\na\n", "expected each class name once, found 'a' twice"),
        (b"1 a\n2 b\n\nc\n4 d\n5 e\n", "or before none; line 4, 'c', has none, but line 1, '1 a', has"),
        (b"a\nb\n3 point shot\nd\n5\n", "or before none; line 1, 'a', has none, but line 3, '3 point shot', has"),
        (b"0 a\n1 b\n2 c\n3 d\n4 e\n", "numbered 1 to 5, each once; found 0 in place of 1"),
        (b"", "a class name on each line"),
        (b"\xff\xfe\x00\x01", "no text in UTF-8"),
        (b"a" * (10**7 + 1), "expected a file of class names, found more than 10000000 bytes"),
        (b"a\nb\nc\0\nd\ne\n", "found control characters in line 3"),
        (b"id,name\n0,a\n1,b\n2,c\n3,d\n", "found '0,a' in line 2: number from 1, with a blank after the number"),
    ],
)
def test_wrong_class_files(tmp_path: Path, released: Path, content: bytes, said: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    out = tmp_path / "model.safetensors"
    message = refusal(released, out, classes=str(path))
    assert said in message
    assert str(path) in message
    assert not out.exists()


# ---------------------------------------------------------------- a start from images


@pytest.mark.parametrize("ending", ["pth", "safetensors", "mat"])
def test_image_networks_become_a_start_that_trains(tmp_path: Path, store: Store, ending: str) -> None:
    source = tmp_path / f"resnet.{ending}"
    if ending == "mat":
        net = dagnn_files.resnet(26, 4, 1000)
        dagnn_files.write(source, net)
    elif ending == "pth":
        torch.save(image_weights(base=4), source)
    else:
        save_file(image_weights(base=4), source)
    report = convert(source, tmp_path / "start.safetensors", classes="4")
    start = load_checkpoint(report.out)
    config = start.model.config
    assert (config.streams, config.link, config.temporal, config.num_classes) == (
        ("appearance", "motion"),
        None,
        None,
        4,
    )
    assert config.layout == ("caffe" if ending == "mat" else "torchvision")
    own = start.model.state_dict()
    assert torch.allclose(own["motion.conv1.weight"][:, 7], own["appearance.conv1.weight"].mean(1), atol=1e-6)
    assert own["appearance.fc.weight"].std().item() == pytest.approx(0.01, rel=0.3)
    assert any("mean over R, G, B" in line for line in report.lines)
    assert any("left out: fc" in line for line in report.lines)

    # the same file straight into training, or through the start, gives the same networks
    changes = {"starts_from": ["imagenet"], "optimisation": {"schedule": [{"lr": 0.001, "iterations": 1}]}}
    recipe = tiny_recipe({"appearance": changes, "motion": changes}, network={"layout": config.layout})
    runs = [train(store, tmp_path / f.stem, recipe, init={"imagenet": f}, workers=0) for f in (source, report.out)]
    for stage in ("appearance", "motion"):
        one, other = (load_checkpoint(r.model_file(stage)) for r in runs)
        assert one.preprocessing == other.preprocessing
        for key, value in one.model.state_dict().items():
            assert torch.equal(value, other.model.state_dict()[key]), key
    assert one.preprocessing.rgb_mean == pytest.approx(start.preprocessing.rgb_mean)


def test_a_start_is_no_recogniser(tmp_path: Path) -> None:
    torch.save(image_weights(base=4), tmp_path / "r.pth")
    start = convert(tmp_path / "r.pth", tmp_path / "start.safetensors", classes="3").out
    with pytest.raises(CheckpointError, match="start from images: train it first"):
        Recognizer(start)


def test_a_start_for_one_stage(tmp_path: Path, store: Store) -> None:
    torch.save(image_weights(base=4), tmp_path / "r.pth")
    start = convert(tmp_path / "r.pth", tmp_path / "start.safetensors", classes="4").out
    recipe = tiny_recipe(
        {"st-resnet": {"starts_from": [], "optimisation": {"schedule": [{"lr": 1e-9, "iterations": 1}]}}}
    )
    run = train(store, tmp_path / "run", recipe, init={"st-resnet": start}, workers=0)
    filter_, taps = (
        load_checkpoint(f).model.state_dict()["motion.layer2.1.conv1.weight"]
        for f in (start, run.model_file("st-resnet"))
    )
    assert torch.allclose(taps, (filter_ / 3).expand_as(taps), atol=1e-6)


@pytest.mark.parametrize("classes", ["", "1", "0", "1000000000000"])
def test_a_start_needs_classes(tmp_path: Path, classes: str) -> None:
    torch.save(image_weights(base=4), tmp_path / "r.pth")
    assert "--classes" in refusal(tmp_path / "r.pth", tmp_path / "o.safetensors", classes=classes)
    assert not (tmp_path / "o.safetensors").exists()


# ---------------------------------------------------------------- wrong inputs


def test_what_cannot_be_converted_is_named(tmp_path: Path, released: Path) -> None:
    out = tmp_path / "o.safetensors"
    assert "no weights at" in refusal(tmp_path / "none.mat", out)
    assert "must end in .safetensors" in refusal(released, tmp_path / "o.onnx")
    basic = {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}
    torch.save(basic, tmp_path / "resnet18.pth")
    assert "18 or 34 layers" in refusal(tmp_path / "resnet18.pth", out, classes="5")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg.pth")
    assert "begins with features.0.weight" in refusal(tmp_path / "vgg.pth", out, classes="5")
    incomplete = {k: v for k, v in image_weights().items() if k != "layer3.1.bn2.running_var"}
    torch.save(incomplete, tmp_path / "incomplete.pth")
    assert "layer3.1.bn2.running_var is missing" in refusal(tmp_path / "incomplete.pth", out, classes="5")
    done = convert(released, tmp_path / "done.safetensors").out
    assert "is already a stresnet checkpoint" in refusal(done, out)
    assert "exists already" in refusal(released, done)
    assert "exists already" in refusal(released, released)
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layer2.0.bn1.weight", torch.full((16,), torch.nan), "layer2.0.bn1.weight holds infinities or no numbers"),
        ("layer1.0.conv1.weight", torch.zeros(8, 8, 1, 1, dtype=torch.int8), "torch.int8"),
        ("layer1.0.conv1.weight", torch.zeros(8, 8, 1, 1, dtype=torch.complex64), "torch.complex64"),
        ("conv1.weight", torch.zeros(8, 20, 7, 7), "reads 20 channels, where images have 3"),
        ("conv1.weight", torch.tensor(1.0), "no ResNet"),
        (7, torch.zeros(1), "no bare state dict"),
    ],
)
def test_image_weights_that_would_train_to_nothing(tmp_path: Path, key: Any, value: torch.Tensor, said: str) -> None:
    torch.save({**image_weights(), key: value}, tmp_path / "w.pth")
    assert said in refusal(tmp_path / "w.pth", tmp_path / "o.safetensors", classes="5")


def test_what_cannot_be_read_is_not_advised_to_be_run(tmp_path: Path) -> None:
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"conv1.weight": Trap(tmp_path / "sprung")}))
    for content, said in (
        ((tmp_path / "trap.pth").read_bytes(), "it is damaged, or holds more than tensors by name"),
        (b"<HTML>404", "it is a web page: download the file itself"),
        (b"", "it is empty: copy or download it again"),
        (b"version https://git-lfs", "it is a pointer of Git LFS: fetch the file itself, with `git lfs pull`"),
        (b"no weights", "it is damaged, or holds more than tensors by name"),
    ):
        (tmp_path / "w.pth").write_bytes(content)
        message = refusal(tmp_path / "w.pth", tmp_path / "o.safetensors", classes="5")
        assert message == f"{tmp_path / 'w.pth'} cannot be read as weights: {said}"


def test_files_of_another_kind_than_their_name_says(tmp_path: Path, released: Path) -> None:
    values, out = image_weights(base=4), tmp_path / "o.safetensors"
    torch.save(values, tmp_path / "torch")
    save_file(values, tmp_path / "safe")
    for content, ending, said in (
        (released, "pth", "it is a MATLAB file: give it the ending .mat"),
        (released, "safetensors", "it is a MATLAB file: give it the ending .mat"),
        (tmp_path / "safe", "pth", "it is a safetensors file: give it the ending .safetensors"),
        (tmp_path / "safe", "MAT", "it is a safetensors file: give it the ending .safetensors"),
        (tmp_path / "torch", "mat", "it is a zip file, as PyTorch writes: give it the ending .pth, or unpack it"),
        (
            tmp_path / "torch",
            "safetensors",
            "it is a zip file, as PyTorch writes: give it the ending .pth, or unpack it",
        ),
    ):
        assert refusal(shutil.copyfile(content, tmp_path / f"w.{ending}"), out, classes="5").endswith(said)


def test_state_dicts_that_are_wrapped(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    torch.save({"epoch": 7, "model": image_weights(base=4)}, tmp_path / "a.pth")
    assert refusal(tmp_path / "a.pth", out, classes="5").endswith("alone, here `torch.load(file)['model']`")
    torch.save({f"module.{key}": value for key, value in image_weights(base=4).items()}, tmp_path / "b.pth")
    assert refusal(tmp_path / "b.pth", out, classes="5").endswith("; take 'module.' off all of them")


def test_endings_are_of_either_case(tmp_path: Path, released: Path) -> None:
    big = Path(shutil.copyfile(released, tmp_path / "NET.MAT"))
    out = convert(big, tmp_path / "a.SafeTensors").out
    assert load_checkpoint(out).model.config.temporal_pool == (5, 2)
    save_file(image_weights(base=4), tmp_path / "r.SAFETENSORS")
    torch.save(image_weights(base=4), tmp_path / "r.PTH")
    dagnn_files.write(tmp_path / "r.MAT", dagnn_surgery.appearance(26, 4, 1000))
    for ending in ("SAFETENSORS", "PTH", "MAT"):
        made = convert(tmp_path / f"r.{ending}", tmp_path / f"{ending}.safetensors", classes="5").out
        assert load_checkpoint(made).stage == "start"


def test_what_cannot_be_written_is_said_before_anything_is_fetched(tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("a\nb\n")
    for arguments, said in (
        (["o.onnx"], "must end in .safetensors"),
        ([tmp_path / "file" / "o.safetensors"], f"as {tmp_path / 'file'} is no folder: name another file"),
        ([tmp_path / "o.safetensors", "--classes", tmp_path / "none.txt"], "cannot be read: No such file or directory"),
        ([tmp_path / "o.safetensors", "--classes", "1"], "expected 2 to 100000 classes"),
        ([tmp_path / "o.mat"], "must end in .safetensors"),
    ):
        code, out, error = command("convert", "https://nowhere.invalid/a.mat", *arguments)
        assert (code, out) == (1, "")
        assert said in one_line(error)


def test_a_released_network_wants_names_not_their_number(tmp_path: Path, released: Path) -> None:
    assert "--classes 5: the network has its classes; give a file of their names" in refusal(
        released, tmp_path / "o.safetensors", classes="5"
    )


def test_a_thousand_classes_do_not_make_an_image_network(tmp_path: Path) -> None:
    streams = dagnn_surgery.appearance(26, 2, 1000), dagnn_surgery.motion(26, 2, 1000)
    source = dagnn_files.write(tmp_path / "net.mat", dagnn_surgery.st_resnet(*streams))
    first = convert(source, tmp_path / "a.safetensors").out
    assert load_checkpoint(first).model.config.link == "add"


def test_a_model_of_frames_alone_is_told_of_no_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: Path
) -> None:
    source = dagnn_files.write(tmp_path / "a.mat", dagnn_surgery.appearance(26, 4, 5))
    recognizer = Recognizer(convert(source, tmp_path / "a.safetensors").out)

    def forbidden(*_: object) -> None:
        raise AssertionError("flow is computed")

    monkeypatch.setattr("stresnet.data.encode_video.flow_of", forbidden)
    video = next(videos.rglob("*.mp4"))
    assert recognizer.predict(video).label in recognizer.classes
    with pytest.raises(CheckpointError, match="use dense25"):
        recognizer.predict(tmp_path / "not even there.mp4", protocol="center")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"conv1.weight": Trap(sprung)}))
    assert "cannot be read" in refusal(tmp_path / "trap.pth", tmp_path / "o.safetensors", classes="5")
    assert not sprung.exists()


def test_a_refusal_is_one_line_on_the_command_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut short")
    code, said, error = command("convert", tmp_path / "broken.mat", tmp_path / "o.safetensors")
    assert (code, said) == (1, "")
    assert "broken.mat" in one_line(error)


def test_report_as_json(tmp_path: Path, released: Path, command: Command) -> None:
    out = tmp_path / "model.safetensors"
    code, said, _ = command("convert", released, out, "--json")
    assert code == 0
    assert json.loads(said)["out"] == str(out)
    assert STResNet(load_checkpoint(out).model.config) is not None
