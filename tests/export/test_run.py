"""The whole of `export`: what it writes, prints and refuses, and that the files predict what the model predicts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers.exporting import exportable, require_same_at_any_size
from helpers.tiny import Command
from stresnet.errors import CheckpointError, StresnetError
from stresnet.export.check import Comparison
from stresnet.export.network import as_openvino, exported_metadata, write_openvino
from stresnet.export.run import _too_bad, export
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.runtime import open_runtime
from stresnet.media import write_video
from stresnet.model import load_checkpoint, save_checkpoint

MOST_KINDS = {"temporal_pool": (5, 2), "layout": "caffe", "link_direction": "both", "link_scale": 0.1}
"""A network with most kinds of layers; exporting one takes ten seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, the same as an ONNX and an OpenVINO file, and a video."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint = exportable(**MOST_KINDS)
    save_checkpoint(folder / "model.safetensors", checkpoint)
    result = export(folder / "model.safetensors", folder / "model.onnx")
    assert result.precision == "fp32"
    assert len(result.comparisons) == 1
    assert result.comparisons[0].error <= 1e-4
    assert result.comparisons[0].agreement == 1
    assert result.megabytes == pytest.approx((folder / "model.onnx").stat().st_size / 1e6)
    proto = onnx.load(folder / "model.onnx")
    write_openvino(folder / "model.xml", as_openvino(proto), exported_metadata(checkpoint, "fp32"))
    rng = np.random.default_rng(0)
    write_video(folder / "video.mp4", rng.integers(0, 255, (26, 32, 48, 3), np.uint8), fps=25)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "model.xml"])
def test_logits_and_metadata_are_those_of_the_model(folder: Path, name: str) -> None:
    checkpoint = load_checkpoint(folder / "model.safetensors")
    require_same_at_any_size(folder / name, checkpoint)
    assert open_runtime(folder / name).metadata.to_dict() == checkpoint.to_dict() | {"precision": "fp32"}


def test_the_file_predicts_what_the_model_predicts(folder: Path) -> None:
    ours, theirs = Recognizer(folder / "model.onnx"), Recognizer(folder / "model.safetensors")
    found, expected = ours.predict(folder / "video.mp4"), theirs.predict(folder / "video.mp4")
    assert (found.label, found.protocol, found.frames) == (expected.label, expected.protocol, expected.frames)
    np.testing.assert_allclose(found.scores.fused, expected.scores.fused, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        ours.timeline(folder / "video.mp4").logits, theirs.timeline(folder / "video.mp4").logits, rtol=1e-4, atol=1e-5
    )
    assert ours.numerics == "onnxruntime fp32"
    with pytest.raises(CheckpointError, match=r"give the \.safetensors file"):
        ours.live()


def test_predicting_does_not_import_torch(folder: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "without_torch.py"  # it checks the modules loaded
    label = Recognizer(folder / "model.safetensors").predict(folder / "video.mp4").label
    for name in ("model.onnx", "model.xml"):
        command = [sys.executable, str(example), str(folder / name), str(folder / "video.mp4")]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        assert f"video.mp4: {label} " in printed


def test_the_command_line_predicts_with_the_file(folder: Path, command: Command) -> None:
    code, out, _ = command("predict", folder / "model.onnx", folder / "video.mp4", "--json")
    assert code == 0
    expected = Recognizer(folder / "model.safetensors").predict(folder / "video.mp4")
    assert json.loads(out)[0]["label"] == expected.label


def test_damaged_and_foreign_files_are_named(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    for name, content, expected in (
        ("cut.onnx", whole[:1000], "not a model"),
        ("empty.xml", b"", "does not exist"),
        ("gone.onnx", None, "does not exist"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=expected) as found:
            open_runtime(tmp_path / name)
        assert "\n" not in str(found.value)
    shutil.copy(folder / "model.onnx", tmp_path / "foreign.onnx")
    proto = onnx.load(tmp_path / "foreign.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match="without the metadata"):
        open_runtime(tmp_path / "foreign.onnx")


def test_what_cannot_be_done_is_said_before_work_begins(tmp_path: Path) -> None:
    for out, options, expected in (
        ("model.pt", {}, r"ends in one of \.onnx, \.xml"),
        ("model.onnx", {"int8": True}, "--calibrate"),
    ):
        with pytest.raises(StresnetError, match=expected):
            export(tmp_path / "missing.safetensors", tmp_path / out, **options)  # type: ignore[arg-type]
    for model, options, expected in (("a.onnx", {"device": "cuda"}, "CPU"), ("a.onnx", {"precision": "bf16"}, "bf16")):
        with pytest.raises(StresnetError, match=expected):
            open_runtime(tmp_path / model, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"accuracy": 0.785}, "loses 1.5 points of top-1"),
        ({"speed": 1.4}, "is 1.40 × as fast"),
        ({"accuracy": None, "agreement": 0.9}, "loses 10.0 points of the decisions"),
    ],
)
def test_int8_must_be_as_good_and_faster(changes: dict[str, float | None], expected: str) -> None:
    good = {"error": 0.1, "agreement": 0.97, "accuracy": 0.795, "accuracy_against": 0.8, "speed": 1.6}
    judged = Comparison("openvino int8 fp32", "openvino fp32", 200, **(good | changes))  # type: ignore[arg-type]
    assert _too_bad(judged).startswith(expected)
    assert bool(_too_bad(judged)) == bool(expected)
