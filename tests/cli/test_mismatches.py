"""Stores, models, runs, recipes and scores that do not match or are damaged: one line and the documented exit code."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from helpers.commands import ONE_STEP, write_audio_only
from helpers.tiny import SPEC, VALUES, Command, one_line, prepared
from helpers.video_files import encode, ramp
from stresnet.data.datasets import read_catalog
from stresnet.data.store import Entries, Store, video_path
from stresnet.evaluation.scores import ScoreTable
from stresnet.flow import FlowSpec
from stresnet.model import load_checkpoint, save_checkpoint
from stresnet.training import Run


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
        fewer, classes=fewer.classes[1:], entries=Entries.of(e for e in fewer.entries if "down" not in e.record.id[:8])
    )
    fewer.save()
    model = copy / "motion" / "model.safetensors"
    scored = ["evaluate", model, fewer.root, "--split", "train", "--protocol", "center", "--out", tmp_path / "report"]
    code, out, err = command(*scored)
    assert code == 0, err
    assert "note: the store has 3 of the model's 4 classes; it chose among all of them" in err.splitlines()
    report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert (report["classes"], report["chance"]) == (list(store.classes), 0.25)
    assert report["facts"]["Classes"] == "4, 3 of them with videos"
    table = ScoreTable.read(tmp_path / "report" / "scores-motion.parquet")
    assert {table.classes[k] for k in table.labels} == set(fewer.classes)
    unknown = replace(fewer, root=tmp_path / "unknown", classes=(*fewer.classes, "archery"))
    unknown.root.mkdir()
    unknown.save()
    code, out, err = command("evaluate", model, unknown.root, "--split", "train")
    assert (code, out) == (1, "")
    differ = (
        "(4) differ, only the store has archery, only the model has red_down_blue_up; give a store with the model's "
    )
    assert differ in one_line(err)
    train = ["train", fewer.root, tmp_path / "new", "--recipe", recipe, *ONE_STEP, "--stage", "motion"]
    code, out, err = command(*train, "--init", f"motion={model}")
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
    assert err.splitlines()[0] == note + "a smaller clips.crop_px (--set)"


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
    command: Command, store: Store, run: Run, video: Path, recipe: Path, copy: Path, tmp_path: Path
) -> None:
    whole = (run.folder / "model.safetensors").read_bytes()
    cut, bare = tmp_path / "cut.safetensors", tmp_path / "bare.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    (copy / "motion" / "model.safetensors").write_bytes(whole[:1000])
    bare.write_bytes((2).to_bytes(8, "little") + b"{}")
    new = tmp_path / "new"
    lines = {
        ("predict", cut, video): "cut.safetensors is not a model, or is truncated",
        ("predict", bare, video): "holds weights without the metadata of an ST-ResNet",
        ("predict", run.folder / "motion" / "logs", video): "has no model.safetensors: expected a checkpoint",
        ("predict", video, video): "is not a model, or is truncated",
        ("evaluate", cut, store.root): "is not a model, or is truncated",
        ("evaluate", copy, store.root): f"{copy / 'motion' / 'model.safetensors'} is not a model, or is truncated",
        ("train", store.root, new, "--recipe", recipe, "--init", f"motion={cut}", "--stage", "motion"): "is truncated",
        (
            "train",
            store.root,
            new,
            "--recipe",
            recipe,
            "--init",
            f"motion={tmp_path / 'no'}",
        ): "does not exist: give --init an existing file",
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
        ("--recipe", "huge"): "unknown recipe 'huge': give one of ",
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


def test_videos_that_cannot_be_predicted(command: Command, run: Run, video: Path, tmp_path: Path) -> None:
    write_audio_only(tmp_path / "sound.mp4")
    (tmp_path / "zero.mp4").touch()
    encode(tmp_path / "short.mp4", ramp(3))
    videos = [tmp_path / name for name in ("sound.mp4", "zero.mp4", "short.mp4")]
    model = run.folder / "model.safetensors"
    code, out, err = command("predict", model, videos[0], video, *videos[1:], os.devnull, "--protocol", "center")
    assert code == 1
    assert one_line(out).startswith(f"{video}: ")
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert failed == [
        f"failed: {videos[0]}: no video stream (found: audio); choose a video file",
        f"failed: {videos[1]}: the file is empty (0 bytes); copy or download it again",
        f"failed: {videos[2]}: 3 frames decoded; at least 11 needed",
        f"failed: {os.devnull}: expected a video file, found a folder or a device; name a file",
    ]
    code, _, err = command("predict", model, "http://127.0.0.1:9/a.mp4")
    assert (code, "failed: http://127.0.0.1:9/a.mp4: cannot be reached" in err.splitlines()[-1]) == (1, True)


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
