"""Wrong inputs, full disks and interruptions: one clear line, the documented exit code, and no lost work."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from safetensors import SafetensorError

from helpers.tiny import SPEC, VALUES, Command, one_line, prepared
from helpers.video_files import encode, ramp, with_matrix
from stresnet.cli.app import RESUME_HINTS
from stresnet.data.datasets import read_catalog
from stresnet.data.store import Store, video_path
from stresnet.flow import FlowSpec
from stresnet.model import load_checkpoint, save_checkpoint
from stresnet.training import Run

TINY = ["--short-side", "32", "--workers", "1"]
ONE_STEP = ["--set", "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]", "--workers", "0"]
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """A copy of the trained run that a command may change."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


@pytest.fixture
def store_copy(store: Store, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage."""
    return Path(shutil.copytree(store.root, tmp_path / "store"))


@pytest.fixture
def clip(store: Store) -> Path:
    """An intact video."""
    return Path(store.select("test")[0].record.path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root on Linux to mount a small file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def unfinished(folder: Path) -> list[Path]:
    """Return files and folders that still have a temporary name."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def write_audio_only(path: Path) -> None:
    """Write a video file with an audio stream only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples) + stream.encode(None))


# ---------------------------------------------------------------- sources


def test_invalid_sources(command: Command, tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "an empty folder"
    folder.mkdir()
    (tmp_path / "notes.txt").write_text("path,label")
    (tmp_path / "wrong.csv").write_text("file;class\na.mp4;jump\n")
    cases = {
        folder: "expected class folders with videos",
        tmp_path / "nowhere": "expected a folder of class folders or a .csv file, found nothing at that path",
        tmp_path / "notes.txt": "expected a folder of class folders or a .csv file, found a file of another kind",
        tmp_path / "wrong.csv": "expected the header path,label[,split][,group], found 'file;class'",
        store.root: "found a prepared store (give the source first, then the store)",
    }
    for source, expected in cases.items():
        code, out, err = command("prepare", source, tmp_path / "store", *TINY)
        assert (code, out) == (1, "")
        assert one_line(err).startswith(f"stresnet: {source}: ")
        assert expected in err
    assert not (tmp_path / "store").exists()


def test_valid_videos_are_prepared_beside_invalid_ones(command: Command, clip: Path, tmp_path: Path) -> None:
    """One run with every kind of invalid file and of unusual valid file."""
    folder = tmp_path / "Meine Videos (1) 影片"
    good, odd, bad = (folder / name for name in ("Gut & schön", "unusual", "nothing usable"))
    for sub in (good, odd, bad):
        sub.mkdir(parents=True)
    shutil.copyfile(clip, good / "Ünïcødé [1] 100% #1.mp4")
    noisy = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    whole = encode(odd / "truncated.mp4", list(noisy), mux={"movflags": "faststart"}).read_bytes()
    (odd / "truncated.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    encode(odd / "4K.mp4", [np.zeros((2160, 3840, 3), np.uint8)] * 11, preset="ultrafast")
    with_matrix(encode(odd / "rotated.mp4", ramp(12, 32, 64)), (0, 1, -1, 0))
    encode(odd / "odd size.mkv", ramp(12, 35, 51), pix_fmt="yuv444p")
    encode(odd / "variable rate.mkv", ramp(12), ticks_ms=[40 * i + 7 * i * i for i in range(12)])
    for count in (1, 3):
        encode(bad / f"{count} frames.mp4", ramp(count))
    (bad / "zero.mp4").touch()
    (bad / "text.avi").write_text("not a video")
    write_audio_only(bad / "sound only.mp4")

    code, out, err = command("prepare", folder, tmp_path / "store", *TINY)
    assert code == 1
    assert one_line(out).startswith("6 videos prepared, 0 kept, 5 failed;")
    lines = [line for line in err.splitlines() if not line.startswith(("preparing", "note: no split"))]
    note, lonely, *failures = lines
    assert lonely == "class nothing usable: no usable video"
    failed = dict(line.removeprefix("failed: ").split(": ", 1) for line in failures)
    assert list(failed) == [
        f"nothing usable/{name}" for name in ("1 frames.mp4", "3 frames.mp4", "sound only.mp4", "text.avi", "zero.mp4")
    ]
    assert list(failed.values()) == [
        "1 frames decoded; at least 11 needed",
        "3 frames decoded; at least 11 needed",
        "no video stream (found: audio)",
        failed["nothing usable/text.avi"],
        "the file is empty (0 bytes); copy or download it again",
    ]
    assert "not a video" in failed["nothing usable/text.avi"]

    store = Store.open(tmp_path / "store")
    sizes = {Path(e.record.id).name: (e.frames, e.height, e.width) for e in store.select()}
    truncated = sizes.pop("truncated.mp4")
    assert 15 <= truncated[0] <= 30
    assert store.video("unusual/truncated.mp4").meta.truncated
    assert [e.record.id for e in store.entries if e.truncated] == ["unusual/truncated.mp4"]
    assert (
        note == f"note: unusual/truncated.mp4: damaged; only the {truncated[0]} frames that could be decoded are used"
    )
    assert sizes == {
        "Ünïcødé [1] 100% #1.mp4": (26, 32, 48),
        "4K.mp4": (11, 32, 57),
        "rotated.mp4": (12, 64, 32),
        "odd size.mkv": (12, 32, 47),
        "variable rate.mkv": (12, 32, 48),
    }
    assert unfinished(tmp_path / "store") == []
    # The same command again keeps the valid videos and names the invalid ones again.
    code, out, again = command("prepare", folder, tmp_path / "store", *TINY)
    assert code == 1
    assert one_line(out).startswith("0 videos prepared, 6 kept, 5 failed;")
    assert again.splitlines()[-7:] == lines


def test_no_usable_video(command: Command, tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "clips" / "jump").mkdir(parents=True)
    (tmp_path / "clips" / "jump" / "a.mp4").touch()
    code, _, err = command("prepare", tmp_path / "clips", tmp_path / "store", *TINY)
    assert code == 1
    assert "class jump: no usable video" in err
    code, out, err = command("train", tmp_path / "store", tmp_path / "run", "--recipe", recipe)
    assert (code, out) == (1, "")
    assert "has no training videos" in one_line(err)


def test_list_with_a_missing_file(command: Command, clip: Path, tmp_path: Path) -> None:
    shutil.copyfile(clip, tmp_path / "here.mp4")
    (tmp_path / "list.csv").write_text("path,label,split\nhere.mp4,jump,train\ngone.mp4,jump,test\n")
    code, out, err = command("prepare", tmp_path / "list.csv", tmp_path / "store", *TINY)
    assert code == 1
    assert one_line(out).startswith("1 videos prepared, 0 kept, 1 failed")
    assert f"note: 1 of 2 listed videos are missing, the first is {tmp_path / 'gone.mp4'}" in err
    assert err.splitlines()[-1] == "failed: gone.mp4: cannot be read (No such file or directory)"


def test_first_of_many_missing_files_are_named(command: Command, clip: Path, tmp_path: Path) -> None:
    rows = [f"gone{n}.mp4,a" for n in range(30)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", f"{clip},a", *rows]), "utf-8")
    code, _, err = command("prepare", tmp_path / "list.csv", tmp_path / "store", *TINY)
    assert code == 1
    assert sum(line.startswith("failed: ") for line in err.splitlines()) == 20
    assert f"and 10 more failed; all reasons are in {tmp_path / 'store' / 'index.parquet'}" in err
    reasons = [entry.reason for entry in Store.open(tmp_path / "store").entries]
    assert sum(bool(reason) for reason in reasons) == 30


def test_labels_numbered_from_1(command: Command, clip: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copyfile(clip, tmp_path / name)
    (tmp_path / "list.csv").write_text("path,label,split\na.mp4,10,train\nb.mp4,9,test\n")
    code, _, err = command("prepare", tmp_path / "list.csv", tmp_path / "store", *TINY)
    assert code == 0
    assert 'taken as class names in numerical order, so "9" is class index 0' in err
    assert Store.open(tmp_path / "store").classes == ("9", "10")


def test_lists_of_another_data_set(command: Command, tmp_path: Path) -> None:
    hmdb51, ucf101 = tmp_path / "hmdb51", tmp_path / "ucf101"
    hmdb51.mkdir()
    ucf101.mkdir()
    (hmdb51 / "catch_test_split1.txt").write_text("a.avi 1 \nb.avi 2 \n")
    (ucf101 / "classInd.txt").write_text("1 Archery\n")
    for part in ("train", "test"):
        (ucf101 / f"{part}list01.txt").write_text("Archery/v_Archery_g01_c01.avi 1\n")
    prepare = ["prepare", tmp_path, tmp_path / "store", *TINY]
    code, _, err = command(*prepare, "--dataset", "ucf101", "--splits", hmdb51)
    assert code == 1
    assert "expected UCF101's lists, found no classInd.txt" in one_line(err)
    code, _, err = command(*prepare, "--dataset", "hmdb51", "--splits", ucf101)
    assert code == 1
    assert "HMDB51" in one_line(err)
    code, _, err = command(*prepare, "--dataset", "ucf101", "--splits", ucf101)
    assert code == 1
    assert "expected the videos of UCF101 split 1, found none of the " in one_line(err)
    assert not (tmp_path / "store").exists()


# ---------------------------------------------------------------- mismatches


def test_mismatched_flow_is_rejected_and_both_specs_are_named(
    command: Command, videos: Path, store_copy: Path, copy: Path, recipe: Path, tmp_path: Path
) -> None:
    before = {p: p.read_bytes() for p in store_copy.rglob("*") if p.is_file()}
    code, out, err = command("prepare", videos, store_copy, "--short-side", "48")
    assert (code, out) == (1, "")
    line = err.splitlines()[-1]
    assert str(SPEC.flow) in line
    assert str(FlowSpec(short_side=48)) in line
    assert {p: p.read_bytes() for p in store_copy.rglob("*") if p.is_file()} == before
    other = prepared(read_catalog(videos), tmp_path / "other", replace(SPEC, flow=FlowSpec(short_side=32)))
    code, out, err = command("evaluate", copy, other.root)
    assert (code, out) == (1, "")
    assert str(SPEC.flow) in one_line(err)
    assert str(other.spec.flow) in err
    code, out, err = command("train", other.root, copy, "--recipe", recipe, "--resume")
    assert (code, out) == (1, "")
    assert "was started on other data (flow differ)" in one_line(err)


def test_model_with_other_classes(
    command: Command, videos: Path, store: Store, copy: Path, recipe: Path, tmp_path: Path
) -> None:
    fewer = prepared(read_catalog(videos / "train"), tmp_path / "fewer")
    fewer = replace(
        fewer, classes=fewer.classes[1:], entries=tuple(e for e in fewer.entries if "down" not in e.record.id[:8])
    )
    fewer.save()
    code, out, err = command("evaluate", copy, fewer.root, "--split", "train")
    assert (code, out) == (1, "")
    differ = "(4) differ, only the model has red_down_blue_up; give a store with the model's classes"
    assert one_line(err).endswith(differ)
    train = ["train", fewer.root, tmp_path / "new", "--recipe", recipe, *ONE_STEP, "--stage", "motion"]
    code, out, err = command(*train, "--init", f"motion={copy / 'motion' / 'model.safetensors'}")
    assert code == 0, err
    assert out.startswith("trained: motion;")


def test_initial_model_cannot_be_evaluated(command: Command, store: Store, run: Run, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, load_checkpoint(run.folder / "model.safetensors").replace(store_spec={}, trained_on=()))
    code, out, err = command("evaluate", start, store.root)
    assert (code, out) == (1, "")
    expected = f"stresnet: {start} is an initial model; train it first with stresnet train --init FILE"
    assert one_line(err) == expected


def test_crops_larger_than_the_frames_are_noted(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, *ONE_STEP, "--stage", "motion"]
    code, _, err = command(*train, "--set", "clips.crop_px=40")
    assert code == 0
    note = "note: crops of 40 px are upscaled from frames of 32 px; prepare with a larger --short-side, or train with "
    assert err.splitlines()[0] == note + "a smaller --set clips.crop_px"


def test_arguments_that_are_not_a_run(command: Command, store: Store, run: Run, recipe: Path, tmp_path: Path) -> None:
    code, out, err = command("evaluate", store.root, run.folder)
    assert (code, out) == (2, "")
    assert "is a prepared store: give the model or run first, then the store" in one_line(err)
    code, out, err = command("evaluate", run.folder / "motion", store.root)
    assert (code, out) == (1, "")
    assert one_line(err).endswith(f"it has no recipe.yaml; give {run.model_file('motion')}")
    code, out, err = command("train", store.root, store.root, "--recipe", recipe)
    assert (code, out) == (1, "")
    assert one_line(err) == f"stresnet: {store.root} is a prepared store: name another folder for the run"
    assert not (store.root / "recipe.yaml").exists()
    (tmp_path / "file").touch()
    code, out, err = command("train", store.root, tmp_path / "file", "--recipe", recipe)
    assert (code, out) == (1, "")
    assert one_line(err) == f"stresnet: {tmp_path / 'file'} is a file: name another folder for the run"


def test_diverging_training_ends_with_an_error(command: Command, store: Store, recipe: Path, tmp_path: Path) -> None:
    rate = ["--set", "motion.optimisation.schedule=[{lr: 1e+30, epochs: 1000}]", "--stage", "motion", "--workers", "0"]
    code, out, err = command("train", store.root, tmp_path / "run", "--recipe", recipe, *rate)
    assert (code, out) == (1, "")
    line = err.splitlines()[-1]
    assert line.startswith("stresnet: stage motion: weights became NaN or infinite by iteration ")
    assert line.endswith(" of 2000: lower the learning rate in its schedule, and train in another folder")
    assert not (tmp_path / "run" / "motion" / "last.ckpt").exists()


def test_unwritable_report_fails_before_scoring(
    command: Command, store: Store, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stresnet.inference.recognizer.Recognizer.score", lambda *_: pytest.fail("scored before checking the folder")
    )
    (tmp_path / "file").touch()
    code, out, err = command(
        "evaluate", run.folder / "model.safetensors", store.root, "--out", tmp_path / "file", "--split", "train"
    )
    assert (code, out) == (1, "")
    assert one_line(err) == f"stresnet: {tmp_path / 'file' / '.parts'}: Not a directory"


def test_damaged_models(
    command: Command, store: Store, run: Run, clip: Path, recipe: Path, copy: Path, tmp_path: Path
) -> None:
    whole = (run.folder / "model.safetensors").read_bytes()
    cut, bare = tmp_path / "cut.safetensors", tmp_path / "bare.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    (copy / "motion" / "model.safetensors").write_bytes(whole[:1000])
    bare.write_bytes((2).to_bytes(8, "little") + b"{}")
    new = tmp_path / "new"
    lines = {
        ("predict", cut, clip): "cut.safetensors is not a model, or is truncated",
        ("predict", bare, clip): "holds weights without the metadata of an ST-ResNet",
        ("predict", run.folder / "motion" / "logs", clip): "has no model.safetensors: expected a checkpoint",
        ("predict", clip, clip): "is not a model, or is truncated",
        ("evaluate", cut, store.root): "is not a model, or is truncated",
        ("evaluate", copy, store.root): f"{copy / 'motion' / 'model.safetensors'} is not a model, or is truncated",
        ("train", store.root, new, "--recipe", recipe, "--init", f"motion={cut}", "--stage", "motion"): "is truncated",
        ("train", store.root, new, "--recipe", recipe, "--init", f"motion={tmp_path / 'no'}"): "no weights at",
    }
    for arguments, expected in lines.items():
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        line = err.splitlines()[-1]
        assert line.startswith("stresnet: ")
        assert expected in line
        assert "Traceback" not in err


def test_invalid_recipes(command: Command, store: Store, tmp_path: Path) -> None:
    new = tmp_path / "run"
    (tmp_path / "no.yaml").write_text("stages: [")
    (tmp_path / "field.yaml").write_text(yaml.safe_dump({**VALUES, "widht": 1}))
    cases: dict[tuple[object, ...], str] = {
        ("--recipe", "huge"): "no recipe 'huge': give one of ",
        ("--recipe", tmp_path / "none.yaml"): "cannot be read: No such file or directory",
        ("--recipe", tmp_path / "no.yaml"): "is not valid YAML",
        ("--recipe", tmp_path / "field.yaml"): "field.yaml: widht: no such field; did you mean network.width?",
        ("--set", "network.depth=27"): "small: network.depth: Input should be 26, 50, 101 or 152 (found 27)",
        ("--set", "flow.optimisation.schedule=[]"): "no stage 'flow'; the stages are appearance, ",
        ("--set", "depth"): "--set depth: write PATH=VALUE",
    }
    for options, expected in cases.items():
        code, out, err = command("train", store.root, new, *options)
        assert (code, out) == (1, "")
        assert expected in one_line(err)
    assert not new.exists()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of loader processes, from Python 3.12 on
@pytest.mark.parametrize("workers", ["0", "1"])
def test_damaged_video_in_training_is_named(
    command: Command, store_copy: Path, recipe: Path, tmp_path: Path, workers: str
) -> None:
    entry = Store.open(store_copy).select("train")[0]
    path = video_path(store_copy, entry.record.id)
    path.write_bytes(path.read_bytes()[:5000])
    train = ["train", store_copy, tmp_path / "run", "--recipe", recipe, "--stage", "appearance", "--workers", workers]
    code, out, err = command(*train)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith(f"stresnet: {path}: this prepared video is damaged (")
    assert line.endswith("delete its file and run prepare again")


def test_videos_that_cannot_be_predicted(command: Command, run: Run, clip: Path, tmp_path: Path) -> None:
    write_audio_only(tmp_path / "sound.mp4")
    (tmp_path / "zero.mp4").touch()
    encode(tmp_path / "short.mp4", ramp(3))
    videos = [tmp_path / name for name in ("sound.mp4", "zero.mp4", "short.mp4")]
    model = run.folder / "model.safetensors"
    code, out, err = command("predict", model, videos[0], clip, *videos[1:], tmp_path, "--protocol", "center")
    assert code == 1
    assert one_line(out).startswith(f"{clip}: ")
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert failed == [
        f"failed: {videos[0]}: no video stream (found: audio)",
        f"failed: {videos[1]}: the file is empty (0 bytes); copy or download it again",
        f"failed: {videos[2]}: 3 frames decoded; at least 11 needed",
        f"failed: {tmp_path}: expected a video file, found a folder or a device",
    ]
    code, _, err = command("predict", model, "https://example.com/a.mp4")
    expected = "failed: https://example.com/a.mp4: expected a file, found a URL; download it first"
    assert (code, err.splitlines()[-1]) == (1, expected)


def test_mismatched_scores(command: Command, run: Run, store: Store, tmp_path: Path) -> None:
    model = run.folder / "model.safetensors"
    for split in ("train", "test"):
        out = tmp_path / split
        assert command("evaluate", model, store.root, "--out", out, "--split", split, "--protocol", "center")[0] == 0
    files = [tmp_path / split / "scores-st-resnet.parquet" for split in ("train", "test")]
    (tmp_path / "cut.parquet").write_bytes(files[0].read_bytes()[:-10])
    for pair, expected in (
        (files, "must score the same videos"),
        ([files[0], tmp_path / "cut.parquet"], "cannot be read as Parquet scores"),
        ([files[0], tmp_path / "none.parquet"], "no score file at"),
        ([files[0], store.root / "index.parquet"], "is a Parquet file without scores"),
    ):
        code, out_text, err = command("fuse", *pair)
        assert (code, out_text) == (1, "")
        assert expected in one_line(err)


# ---------------------------------------------------------------- disks


def test_a_full_disk_while_training(
    command: Command, store: Store, recipe: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at an interim checkpoint, then at the model of a stage. The resumed run is unaffected."""
    train = ["train", store.root, tmp_path / "run", "--recipe", recipe, "--workers", "0"]

    def full(*_: object, **__: object) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, out, err = command(*train)
        assert (code, out) == (1, "")
        path = tmp_path / "run" / "appearance" / "last.ckpt"
        assert f"{path} cannot be written (No space left on device): fix this, then resume with --resume" in err
        assert "Traceback" not in err
    assert unfinished(tmp_path / "run") == []

    def full_when_saving(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("stresnet.model.checkpoint.save_file", full_when_saving)
        code, out, err = command(*train, "--resume")
        assert (code, out) == (1, "")
        assert "appearance/model.safetensors cannot be written (I/O error: No space left" in err.splitlines()[-1]
    assert unfinished(tmp_path / "run") == []
    code, _, err = command(*train, "--resume")
    assert code == 0, err
    for stage in ("appearance", "motion", "st-resnet"):
        assert Run(tmp_path / "run", run.recipe).curves(stage)["loss"] == run.curves(stage)["loss"]


def test_a_full_disk_while_evaluating(
    command: Command, store: Store, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}

    def full(*_: object, **__: object) -> None:
        raise FULL

    evaluate = ["evaluate", copy, store.root, "--protocol", "center"]
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        code, out, err = command(*evaluate)
        assert (code, out) == (1, "")
        assert "cannot write scores to " in err.splitlines()[-1]
        assert "No space left on device" in err.splitlines()[-1]
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    with monkeypatch.context() as patch:
        patch.setattr("stresnet.model.checkpoint.save_file", full)
        code, out, err = command(*evaluate)
        assert (code, out) == (1, "")
        assert "cannot be written (" in err.splitlines()[-1]
    assert {p: p.read_bytes() for p in copy.rglob("*.safetensors")} == {
        p: content for p, content in before.items() if p.suffix == ".safetensors"
    }
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        assert command(*evaluate)[0] == 1
    assert (copy / "model.safetensors").read_bytes() == before[copy / "model.safetensors"]
    assert command(*evaluate)[0] == 0
    assert unfinished(copy) == []


def test_full_file_system(
    command: Command, store: Store, videos: Path, recipe: Path, small_disk: Path, run: Run
) -> None:
    folder = small_disk / "run"
    train = ["train", store.root, folder, "--recipe", recipe, "--workers", "0"]
    code, out, err = command(*train)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("stresnet: ")
    assert "No space left on device" in line
    assert (folder / "appearance" / "model.safetensors").is_file()  # finished stages are kept
    assert unfinished(folder) == []
    (small_disk / "filling").write_bytes(bytes(shutil.disk_usage(small_disk).free - 200_000))
    code, out, err = command("prepare", videos, small_disk / "store", *TINY)
    assert (code, out) == (1, "")
    assert "cannot be written (No space left on device)" in err.splitlines()[-1]
    assert unfinished(small_disk) == []
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert command(*train, "--resume")[0] == 0
    assert Run.open(folder).curves("st-resnet")["loss"] == run.curves("st-resnet")["loss"]
    assert command("prepare", videos, small_disk / "store", *TINY)[0] == 0


def test_full_temporary_file_system(
    command: Command, clip: Path, run: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_disk / "filling").write_bytes(bytes(shutil.disk_usage(small_disk).free - 20_000))
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    code, out, err = command("predict", run.folder / "model.safetensors", clip)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"failed: {clip}: {small_disk}: cannot hold the decoded video (No space left on device); make room there, or "
        "name another folder in the environment variable TMPDIR"
    )
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_files_where_folders_should_be(
    command: Command, videos: Path, store: Store, run: Run, recipe: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a file"
    file.write_text("precious")
    model = run.folder / "model.safetensors"
    for arguments in (
        ["prepare", videos, file, *TINY],
        ["train", store.root, file, "--recipe", recipe, *ONE_STEP],
        ["train", store.root, file / "run", "--recipe", recipe, *ONE_STEP],
        ["evaluate", model, store.root, "--out", file, "--protocol", "center"],
        ["demo", file],
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (1, ""), arguments
        line = err.splitlines()[-1]
        assert line.startswith("stresnet: ")
        assert str(file) in line
        assert "Traceback" not in err
    assert file.read_text() == "precious"


@pytest.mark.parametrize("real", [True, False])
def test_no_permission(
    command: Command,
    store: Store,
    videos: Path,
    recipe: Path,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    real: bool,
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    if real:
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        locked.chmod(0o500)
    else:
        # Simulate a read-only folder: all files and folders are created through one of these.
        mkdir, open_file = Path.mkdir, Path.open

        def deny(path: Path) -> None:
            if path.is_relative_to(locked):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))

        def guarded_mkdir(self: Path, *arguments: Any, **options: Any) -> None:
            if not self.exists():
                deny(self)
            mkdir(self, *arguments, **options)

        def guarded_open(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if mode != "r":
                deny(self)
            return open_file(self, mode, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", guarded_mkdir)
        monkeypatch.setattr(Path, "open", guarded_open)
    for arguments in (
        ["prepare", videos, locked / "store", *TINY],
        ["train", store.root, locked / "run", "--recipe", recipe, *ONE_STEP],
        ["evaluate", copy / "model.safetensors", store.root, "--out", locked / "report", "--protocol", "center"],
        ["demo", locked / "demo"],
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        line = err.splitlines()[-1]
        assert line.startswith("stresnet: ")
        assert "Permission denied" in line
        assert str(locked) in line
        assert "Traceback" not in err


# ---------------------------------------------------------------- Ctrl-C and SIGTERM


def interrupt(
    arguments: list[object], sign: str, times: int = 1, by: signal.Signals = signal.SIGINT
) -> tuple[int, list[str]]:
    """Start a command, interrupt it after `times` lines of stderr with `sign`, and return its exit code and stderr."""
    command = [sys.executable, "-m", "stresnet", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        times -= sign in line
        if not times:
            break
    time.sleep(0.2)
    os.killpg(process.pid, by)  # to all processes of the command, as a terminal does
    rest = process.communicate(timeout=120)[1]
    return process.returncode, [*lines, *rest.splitlines(keepends=True)]


def assert_interrupted(
    code: int, lines: list[str], expected: int = 130, hint: str = "run the same command again to resume"
) -> None:
    assert code == expected, "".join(lines)
    assert lines[-1] == f"interrupted; {hint}\n"
    assert sum("interrupted" in line for line in lines) == 1
    assert not any("Traceback" in line or "Error" in line for line in lines), "".join(lines)


def test_ctrl_c_while_preparing(command: Command, videos: Path, tmp_path: Path) -> None:
    # TV-L1 is slow, which leaves time to interrupt.
    prepare: list[object] = ["prepare", videos / "test", tmp_path / "store", "--flow", "tvl1", *TINY[:3], 1]
    assert_interrupted(*interrupt(prepare, "preparing videos: 1/4"))
    assert unfinished(tmp_path / "store") == []
    kept = len(list((tmp_path / "store").rglob("*.arrow")))
    assert 1 <= kept < 4
    code, out, _ = command("train", tmp_path / "store", tmp_path / "run")
    assert (code, out) == (1, "")
    code, out, _ = command(*prepare)
    assert code == 0
    assert one_line(out).startswith(f"{4 - kept} videos prepared, {kept} kept, 0 failed")


def test_sigterm_while_preparing(videos: Path, tmp_path: Path) -> None:
    prepare: list[object] = ["prepare", videos / "test", tmp_path / "store", "--flow", "tvl1", *TINY[:3], 1]
    assert_interrupted(*interrupt(prepare, "preparing videos: 1/4", by=signal.SIGTERM), expected=143)
    assert unfinished(tmp_path / "store") == []


def test_ctrl_c_and_sigterm_while_training(store: Store, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = ["--set", "appearance.optimisation.schedule=[{lr: 0.001, iterations: 300}]", "--stage", "appearance"]
    train: list[object] = ["train", store.root, folder, "--recipe", recipe, *long, "--workers", "1"]
    code, lines = interrupt(train, "training appearance: ", 2)  # at the start, and after a tenth
    assert_interrupted(code, lines, hint=RESUME_HINTS["train"])
    assert unfinished(folder) == []
    trained = iterations(lines)[-1]
    assert trained >= 30
    code, lines = interrupt([*train, "--resume"], "training appearance: ", 2, by=signal.SIGTERM)
    assert_interrupted(code, lines, 143, hint=RESUME_HINTS["train"])
    assert trained - 2 <= iterations(lines)[0] < 300  # an epoch has two iterations
    assert not (folder / "model.safetensors").exists()


def iterations(lines: list[str]) -> list[int]:
    """The iterations in lines of progress such as `training appearance: 30/300  loss 1.23`."""
    return [int(line.split()[2].partition("/")[0]) for line in lines if line.startswith("training appearance: ")]
