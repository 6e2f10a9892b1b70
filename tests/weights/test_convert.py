"""Converting MATLAB files and image weights, and the errors of files that cannot be converted."""

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
    """Return a file like the released ones: an ST-ResNet* of 26 layers and five classes."""
    streams = dagnn_surgery.appearance(26, 4, 5), dagnn_surgery.motion(26, 4, 5)
    net = dagnn_surgery.pool_time(dagnn_surgery.st_resnet(*streams))
    return dagnn_files.write(tmp_path_factory.mktemp("released") / "ST-ResNet50 final.mat", net, nested=True)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """Return a file of class names numbered as in UCF101, in another order."""
    lines = [f"{k + 1} {name}" for k, name in enumerate(CLASSES)]
    path = tmp_path / "classInd.txt"
    path.write_text("\r\n".join([*lines[2:], *lines[:2]]) + "\r\n", "utf-8")
    return path


def convert_error(*arguments: Any, **options: Any) -> str:
    """Return the one-line error of a conversion."""
    with pytest.raises(CheckpointError) as found:
        convert(*arguments, **options)
    assert "\n" not in str(found.value)
    return str(found.value)


# ---------------------------------------------------------------- released files


def test_released_file_becomes_a_usable_model(
    tmp_path: Path, released: Path, names: Path, command: Command, videos: Path
) -> None:
    out = tmp_path / "new folder" / "model.safetensors"
    code, shown, _ = command("convert", released, out, "--classes", names)
    assert code == 0
    assert "temporal pool: max over 5 time steps, stride 2" in shown
    found = load_checkpoint(out)
    assert found.classes == CLASSES
    assert found.model.config.temporal_pool == (5, 2)
    assert found.preprocessing.rgb_std == (1.0, 1.0, 1.0)
    assert found.preprocessing.rgb_mean == pytest.approx((123.7, 116.3, 103.5), abs=1e-3)
    assert Recognizer(out).store_spec.flow == FlowSpec("tvl1")
    video = tmp_path / "short.mp4"
    write_video(video, np.full((11, 64, 64, 3), 90, np.uint8), fps=25)  # TV-L1 is done at once where nothing moves
    code, shown, _ = command("predict", out, video, "--json")
    assert code == 0
    assert {top["label"] for top in json.loads(shown)[0]["top"]} == set(CLASSES)


def test_classes_without_names_are_numbered(tmp_path: Path, released: Path) -> None:
    report = convert(released, tmp_path / "model.safetensors")
    assert load_checkpoint(report.out).classes == ("class 1", "class 2", "class 3", "class 4", "class 5")
    assert any("--classes" in line for line in report.lines)


def test_hmdb51_folder_gives_the_released_class_order(tmp_path: Path, released: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("kick", "climb", "sword", "kick_ball", "sword_exercise"):
        for split in (1, 2, 3):
            (folder / f"{name}_test_split{split}.txt").touch()
    report = convert(released, tmp_path / "model.safetensors", classes=str(folder))
    assert load_checkpoint(report.out).classes == (
        *("climb", "kick_ball", "kick", "sword_exercise", "sword"),  # cnn_setup_data.m
    )


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"1 one\n2 two\n", "has 2 class names, but the network has 5 classes"),
        (b"1 a\n2 b\n3 c\n4 d\n6 e\n", "numbered 1 to 5"),
        (b"a\nb\nc\nd\na\n", "expected each class name once, found 'a' twice"),
        (b"1 a\n2 b\n\nc\n4 d\n5 e\n", "or before none, found 'c' in line 4 and '1 a' in line 1"),
        (b"a\nb\n3 point shot\nd\n5\n", "or before none, found 'a' in line 1 and '3 point shot' in line 3"),
        (b"0 a\n1 b\n2 c\n3 d\n4 e\n", "numbered 1 to 5, each once; found 0 in place of 1"),
        (b"", "a class name on each line"),
        (b"\xff\xfe\x00\x01", "not UTF-8 text"),
        (b"a" * (10**7 + 1), "expected a file of class names, found more than 10000000 bytes"),
        (b"a\nb\nc\0\nd\ne\n", "found control characters in line 3"),
        (b"id,name\n0,a\n1,b\n2,c\n3,d\n", "found '0,a' in line 2: number from 1, with a space after the number"),
    ],
)
def test_invalid_class_files(tmp_path: Path, released: Path, content: bytes, shown: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    out = tmp_path / "model.safetensors"
    message = convert_error(released, out, classes=str(path))
    assert shown in message
    assert str(path) in message
    assert not out.exists()


# ---------------------------------------------------------------- image weights


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
    start_weights = start.model.state_dict()
    assert torch.allclose(
        start_weights["motion.conv1.weight"][:, 7], start_weights["appearance.conv1.weight"].mean(1), atol=1e-6
    )
    assert start_weights["appearance.fc.weight"].std().item() == pytest.approx(0.01, rel=0.3)
    assert any("mean over R, G, B" in line for line in report.lines)
    assert any("ignored: fc" in line for line in report.lines)

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


def test_start_is_not_a_recognizer(tmp_path: Path) -> None:
    torch.save(image_weights(base=4), tmp_path / "r.pth")
    start = convert(tmp_path / "r.pth", tmp_path / "start.safetensors", classes="3").out
    with pytest.raises(CheckpointError, match="initial model: train it first"):
        Recognizer(start)


def test_start_initialises_a_single_stage(tmp_path: Path, store: Store) -> None:
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
def test_start_needs_classes(tmp_path: Path, classes: str) -> None:
    torch.save(image_weights(base=4), tmp_path / "r.pth")
    assert "--classes" in convert_error(tmp_path / "r.pth", tmp_path / "o.safetensors", classes=classes)
    assert not (tmp_path / "o.safetensors").exists()


# ---------------------------------------------------------------- errors


def test_unconvertible_files(tmp_path: Path, released: Path) -> None:
    out = tmp_path / "o.safetensors"
    assert "expected a .mat, .pth or .safetensors file, found nothing" in convert_error(tmp_path / "none.mat", out)
    assert "must end in .safetensors" in convert_error(released, tmp_path / "o.onnx")
    basic = {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}
    torch.save(basic, tmp_path / "resnet18.pth")
    assert "18 or 34 layers" in convert_error(tmp_path / "resnet18.pth", out, classes="5")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg.pth")
    assert "its first names are features.0.weight" in convert_error(tmp_path / "vgg.pth", out, classes="5")
    incomplete = {k: v for k, v in image_weights().items() if k != "layer3.1.bn2.running_var"}
    torch.save(incomplete, tmp_path / "incomplete.pth")
    assert "layer3.1.bn2.running_var is missing" in convert_error(tmp_path / "incomplete.pth", out, classes="5")
    done = convert(released, tmp_path / "done.safetensors").out
    assert "is already a stresnet checkpoint" in convert_error(done, out)
    assert "already exists" in convert_error(released, done)
    assert "already exists" in convert_error(released, released)
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("layer2.0.bn1.weight", torch.full((16,), torch.nan), "layer2.0.bn1.weight has NaN or infinite values"),
        ("layer1.0.conv1.weight", torch.zeros(8, 8, 1, 1, dtype=torch.int8), "torch.int8"),
        ("layer1.0.conv1.weight", torch.zeros(8, 8, 1, 1, dtype=torch.complex64), "torch.complex64"),
        ("conv1.weight", torch.zeros(8, 20, 7, 7), "conv1 has 20 input channels, expected 3"),
        ("conv1.weight", torch.tensor(1.0), "is not a ResNet"),
        (7, torch.zeros(1), "not a bare state dict"),
    ],
)
def test_unusable_image_weights(tmp_path: Path, key: Any, value: torch.Tensor, shown: str) -> None:
    torch.save({**image_weights(), key: value}, tmp_path / "w.pth")
    assert shown in convert_error(tmp_path / "w.pth", tmp_path / "o.safetensors", classes="5")


def test_unreadable_files_are_explained_without_torchs_advice_to_unpickle(tmp_path: Path) -> None:
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"conv1.weight": Trap(tmp_path / "sprung")}))
    for content, shown in (
        ((tmp_path / "trap.pth").read_bytes(), "it is damaged, or contains more than named tensors"),
        (b"<HTML>404", "it is a web page: download the file itself"),
        (b"", "it is empty: copy or download it again"),
        (b"version https://git-lfs", "it is a Git LFS pointer: fetch the file itself with `git lfs pull`"),
        (b"no weights", "it is damaged, or contains more than named tensors"),
    ):
        (tmp_path / "w.pth").write_bytes(content)
        message = convert_error(tmp_path / "w.pth", tmp_path / "o.safetensors", classes="5")
        assert message == f"{tmp_path / 'w.pth'} cannot be read as weights: {shown}"


def test_mislabelled_files_are_identified(tmp_path: Path, released: Path) -> None:
    values, out = image_weights(base=4), tmp_path / "o.safetensors"
    torch.save(values, tmp_path / "torch")
    save_file(values, tmp_path / "safe")
    for content, ending, shown in (
        (released, "pth", "it is a MATLAB file: rename it to end in .mat"),
        (released, "safetensors", "it is a MATLAB file: rename it to end in .mat"),
        (tmp_path / "safe", "pth", "it is a safetensors file: rename it to end in .safetensors"),
        (tmp_path / "safe", "MAT", "it is a safetensors file: rename it to end in .safetensors"),
        (tmp_path / "torch", "mat", "it is a zip file, as PyTorch writes: rename it to end in .pth, or unpack it"),
        (
            tmp_path / "torch",
            "safetensors",
            "it is a zip file, as PyTorch writes: rename it to end in .pth, or unpack it",
        ),
    ):
        assert convert_error(shutil.copyfile(content, tmp_path / f"w.{ending}"), out, classes="5").endswith(shown)


def test_wrapped_state_dicts(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    torch.save({"epoch": 7, "model": image_weights(base=4)}, tmp_path / "a.pth")
    assert convert_error(tmp_path / "a.pth", out, classes="5").endswith(
        "`model.state_dict()`, here `torch.load(file)['model']`"
    )
    torch.save({f"module.{key}": value for key, value in image_weights(base=4).items()}, tmp_path / "b.pth")
    assert convert_error(tmp_path / "b.pth", out, classes="5").endswith(": remove the prefix 'module.'")


def test_endings_are_case_insensitive(tmp_path: Path, released: Path) -> None:
    big = Path(shutil.copyfile(released, tmp_path / "NET.MAT"))
    out = convert(big, tmp_path / "a.SafeTensors").out
    assert load_checkpoint(out).model.config.temporal_pool == (5, 2)
    save_file(image_weights(base=4), tmp_path / "r.SAFETENSORS")
    torch.save(image_weights(base=4), tmp_path / "r.PTH")
    dagnn_files.write(tmp_path / "r.MAT", dagnn_surgery.appearance(26, 4, 1000))
    for ending in ("SAFETENSORS", "PTH", "MAT"):
        made = convert(tmp_path / f"r.{ending}", tmp_path / f"{ending}.safetensors", classes="5").out
        assert load_checkpoint(made).stage == "start"


def test_output_errors_are_reported_before_a_download(tmp_path: Path, command: Command) -> None:
    (tmp_path / "file").write_text("a\nb\n")
    for arguments, shown in (
        (["o.onnx"], "must end in .safetensors"),
        ([tmp_path / "file" / "o.safetensors"], f"because {tmp_path / 'file'} is not a folder: choose another file"),
        ([tmp_path / "o.safetensors", "--classes", tmp_path / "none.txt"], "cannot be read: No such file or directory"),
        ([tmp_path / "o.safetensors", "--classes", "1"], "expected 2 to 100000 classes"),
        ([tmp_path / "o.mat"], "must end in .safetensors"),
    ):
        code, out, error = command("convert", "https://nowhere.invalid/a.mat", *arguments)
        assert (code, out) == (1, "")
        assert shown in one_line(error)


def test_released_network_rejects_a_number_of_classes(tmp_path: Path, released: Path) -> None:
    assert "--classes 5: the network already has its classes: give a file of their names" in convert_error(
        released, tmp_path / "o.safetensors", classes="5"
    )


def test_thousand_classes_alone_are_not_an_image_network(tmp_path: Path) -> None:
    streams = dagnn_surgery.appearance(26, 2, 1000), dagnn_surgery.motion(26, 2, 1000)
    source = dagnn_files.write(tmp_path / "net.mat", dagnn_surgery.st_resnet(*streams))
    first = convert(source, tmp_path / "a.safetensors").out
    assert load_checkpoint(first).model.config.link == "add"


def test_appearance_only_model_computes_no_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: Path) -> None:
    source = dagnn_files.write(tmp_path / "a.mat", dagnn_surgery.appearance(26, 4, 5))
    recognizer = Recognizer(convert(source, tmp_path / "a.safetensors").out)

    def forbidden(*_: object) -> None:
        raise AssertionError("flow is computed")

    monkeypatch.setattr("stresnet.data.encode_rows.flow_of", forbidden)
    video = next(videos.rglob("*.mp4"))
    assert recognizer.predict(video).label in recognizer.classes
    with pytest.raises(CheckpointError, match="use dense25"):
        recognizer.predict(tmp_path / "not even there.mp4", protocol="center")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"conv1.weight": Trap(sprung)}))
    assert "cannot be read" in convert_error(tmp_path / "trap.pth", tmp_path / "o.safetensors", classes="5")
    assert not sprung.exists()


def test_command_line_error_is_one_line(tmp_path: Path, command: Command) -> None:
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut short")
    code, shown, error = command("convert", tmp_path / "broken.mat", tmp_path / "o.safetensors")
    assert (code, shown) == (1, "")
    assert "broken.mat" in one_line(error)


def test_report_as_json(tmp_path: Path, released: Path, command: Command) -> None:
    out = tmp_path / "model.safetensors"
    code, shown, _ = command("convert", released, out, "--json")
    assert code == 0
    assert json.loads(shown)["out"] == str(out)
    assert STResNet(load_checkpoint(out).model.config) is not None
