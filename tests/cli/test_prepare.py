"""`stresnet prepare`: output, notes and rejected settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from helpers.commands import ONE_STEP
from helpers.tiny import Command, one_line, prepared
from helpers.video_files import encode
from stresnet.data.datasets import read_catalog
from stresnet.data.store import Store


def test_prepare(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1"]
    code, out, err = command("prepare", videos, tmp_path / "store", *options, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["done"], found["kept"], found["failed"], found["empty_classes"]) == (12, 0, {}, [])
    assert found["truncated"] == []
    assert found["frames"] == 12 * 26
    assert err.splitlines()[0] == "note: 1 file(s) that are not videos are left out, such as 'synthetic.json'"
    assert err.splitlines()[1] == "preparing videos: 0/12"
    assert err.splitlines()[-1].startswith("preparing videos: 12/12")
    code, out, _ = command("prepare", videos, tmp_path / "store", *options)
    assert code == 0
    assert one_line(out).startswith("0 videos prepared, 12 kept, 0 failed; 312 frames, ")
    store = Store.open(tmp_path / "store")
    assert (store.spec.flow.method, store.spec.flow.preset, store.spec.flow.bound_px) == ("dis", "medium", 20.0)
    assert store.spec.jpeg_quality == 95


def test_prepare_prints_notes(command: Command, videos: Path, tmp_path: Path) -> None:
    folder = videos / "test" / "red_up_blue_down"
    shutil.copytree(folder, tmp_path / "clips" / "up [1]")
    options = ["--short-side", "32", "--workers", "1", "--flow", "farneback", "--bound", "10"]
    code, _, err = command("prepare", tmp_path / "clips", tmp_path / "store", *options)
    assert code == 0
    assert "note: no test split: all 1 videos are for training" in err
    store = Store.open(tmp_path / "store")
    assert (store.spec.flow.method, store.spec.flow.bound_px, store.classes) == ("farneback", 10.0, ("up [1]",))


def test_prepare_and_train_name_odd_classes(command: Command, videos: Path, recipe: Path, tmp_path: Path) -> None:
    sources = read_catalog(videos).records
    for name, n in (("train/Wave", 0), ("train/jump", 1), ("test/wave", 2), ("test/wave", 0)):
        (tmp_path / "clips" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(sources[n].path, tmp_path / "clips" / name / f"{n}.mp4")
    options = ["--short-side", "32", "--workers", "1", "--preset", "ultrafast"]
    notes = [
        "note: classes 'Wave', 'wave' have similar names; give them one name if they are the same",
        "note: 1 of 3 classes have no usable training video and cannot be learnt: 'wave'",
        "note: 2 of 3 classes have no usable test video and are not tested: 'Wave', 'jump'",
        "note: 1 video(s) are there twice, in several splits, such as test/wave/0.mp4 and train/Wave/0.mp4; evaluate "
        "refuses to test on training videos",
    ]
    code, out, err = command("prepare", tmp_path / "clips", tmp_path / "store", *options, "--json")
    assert code == 0
    assert err.splitlines()[-4:] == notes
    assert [f"note: {text}" for text in json.loads(out)["notes"]] == notes
    train = ["train", tmp_path / "store", tmp_path / "run", "--recipe", recipe, "--stage", "motion", *ONE_STEP]
    code, _, err = command(*train)
    assert code == 0
    assert err.splitlines()[:4] == notes


def test_prepare_with_motion_vectors(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1", "--flow", "mv", "--subtract-median"]
    assert command("prepare", videos / "test", tmp_path / "store", *options)[0] == 0
    store = Store.open(tmp_path / "store")
    assert (store.spec.flow.method, store.spec.flow.subtract_median) == ("mv", True)
    assert all(store.video(e.record.id).flow(range(25)).std() > 0 for e in store.select())


def test_prepare_notes_videos_that_are_no_longer_listed(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1", "--preset", "ultrafast"]
    assert "note: 12 videos of" not in command("prepare", videos, tmp_path / "store", *options)[2]
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{read_catalog(videos).records[0].path},{name}\n")
    code, out, err = command("prepare", tmp_path / "one.csv", tmp_path / "store", *options, "--json")
    assert code == 0
    assert len(json.loads(out)["no_longer_listed"]) == 12
    expected = "note: 12 videos of the store are not in this source, such as test/red_"
    assert [line for line in err.splitlines() if line.startswith(expected)]
    assert len(list((tmp_path / "store" / "videos").rglob("*.arrow"))) == 13
    code, _, err = command("prepare", tmp_path / "two.csv", tmp_path / "store", *options)
    assert code == 0
    assert "not in this source" not in err  # the same video under another label


def test_prepare_names_the_first_of_many_damaged_videos(command: Command, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), dtype=np.uint8)
    whole = encode(tmp_path / "whole.mp4", list(noise), mux={"movflags": "faststart"}).read_bytes()
    folder = tmp_path / "clips" / "up"
    folder.mkdir(parents=True)
    for n in range(22):
        (folder / f"{n:02}.mp4").write_bytes(whole[: len(whole) // 2])
    options = ["--short-side", "32", "--workers", "1", "--preset", "ultrafast", "--jpeg-quality", "80"]
    code, _, err = command("prepare", tmp_path / "clips", tmp_path / "store", *options)
    assert code == 0
    store = Store.open(tmp_path / "store")
    frames = store.entries[0].frames
    notes = [line for line in err.splitlines() if line.startswith("note: ") and "damaged" in line]
    named = [
        f"note: up/{n:02}.mp4: damaged; only the {frames} frames that could be decoded are used" for n in range(20)
    ]
    index = store.root / "index.parquet"
    assert notes == [*named, f"note: 2 more are damaged; all are marked as truncated in {index}"]
    assert (store.spec.flow.preset, store.spec.jpeg_quality) == ("ultrafast", 80)
    code, out, _ = command("prepare", tmp_path / "clips", tmp_path / "store", *options, "--json")
    assert code == 0
    assert json.loads(out)["truncated"] == [f"up/{n:02}.mp4" for n in range(22)]


def test_prepare_rejects_other_settings(command: Command, videos: Path, tmp_path: Path) -> None:
    options = ["--short-side", "32", "--workers", "1"]
    code, _, err = command("prepare", videos, tmp_path / "store", *options, "--preset", "slow")
    assert code == 1
    assert err.splitlines()[-1] == (
        "stresnet: unknown flow preset 'slow' of dis: expected one of ultrafast, fast, medium"
    )
    assert not (tmp_path / "store").exists()
    prepared(read_catalog(videos), tmp_path / "store")
    options += ["--preset", "ultrafast", "--jpeg-quality", "80"]
    code, _, err = command("prepare", videos, tmp_path / "store", *options)
    assert code == 1
    expected = "this run: expected jpeg_quality 95, found 80; prepare with one of them"
    assert err.splitlines()[-1].endswith(expected)
