"""Sources with invalid or unusual videos and lists: each is named, and the rest is prepared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from helpers.commands import TINY, unfinished, write_audio_only
from helpers.tiny import Command, one_line
from helpers.video_files import encode, ramp, with_matrix
from stresnet.data.store import Store


def test_invalid_sources(command: Command, tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "an empty folder"
    folder.mkdir()
    (tmp_path / "notes.txt").write_text("path,label")
    (tmp_path / "wrong.csv").write_text("Datei;Klasse\na.mp4;jump\n")
    cases = {
        folder: "expected class folders with videos",
        tmp_path / "nowhere": "nowhere does not exist: expected a folder of class folders, or a list of videos",
        tmp_path / "notes.txt": "notes.txt: expected one row per video, found none",
        tmp_path / "wrong.csv": "expected a header such as path,label,split,group, found 'Datei;Klasse'",
        store.root: "found a prepared store (give the source first, then the store)",
    }
    for source, expected in cases.items():
        code, out, err = command("prepare", source, tmp_path / "store", *TINY)
        assert (code, out) == (1, "")
        assert one_line(err).startswith(f"stresnet: {source}")
        assert expected in err
    assert not (tmp_path / "store").exists()


def test_valid_videos_are_prepared_beside_invalid_ones(command: Command, video: Path, tmp_path: Path) -> None:
    """One run with every kind of invalid file and of unusual valid file."""
    folder = tmp_path / "Meine Videos (1) 影片"
    good, odd, bad = (folder / name for name in ("Gut & schön", "unusual", "nothing usable"))
    for sub in (good, odd, bad):
        sub.mkdir(parents=True)
    shutil.copyfile(video, good / "Ünïcødé [1] 100% #1.mp4")
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
    lines = [line for line in err.splitlines() if not line.startswith(("preparing", "note: no test split"))]
    note, lonely, *failures = lines
    assert lonely == "class nothing usable: no usable video"
    failed = dict(line.removeprefix("failed: ").split(": ", 1) for line in failures)
    assert list(failed) == [
        f"nothing usable/{name}" for name in ("1 frames.mp4", "3 frames.mp4", "sound only.mp4", "text.avi", "zero.mp4")
    ]
    assert list(failed.values()) == [
        "1 frames decoded; at least 11 needed",
        "3 frames decoded; at least 11 needed",
        "no video stream (found: audio); choose a video file",
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


def test_list_with_a_missing_file(command: Command, video: Path, tmp_path: Path) -> None:
    shutil.copyfile(video, tmp_path / "here.mp4")
    (tmp_path / "list.csv").write_text("path,label,split\nhere.mp4,jump,train\ngone.mp4,jump,test\n")
    code, out, err = command("prepare", tmp_path / "list.csv", tmp_path / "store", *TINY)
    assert code == 1
    assert one_line(out).startswith("1 videos prepared, 0 kept, 1 failed")
    assert f"note: 1 of 2 listed videos are missing, the first is {tmp_path / 'gone.mp4'}" in err
    assert err.splitlines()[-1] == "failed: gone.mp4: no such file; check its name"


def test_first_of_many_missing_files_are_named(command: Command, video: Path, tmp_path: Path) -> None:
    rows = [f"gone{n}.mp4,a" for n in range(30)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", f"{video},a", *rows]), "utf-8")
    code, _, err = command("prepare", tmp_path / "list.csv", tmp_path / "store", *TINY)
    assert code == 1
    assert sum(line.startswith("failed: ") for line in err.splitlines()) == 20
    assert f"and 10 more failed; all reasons are in {tmp_path / 'store' / 'index.parquet'}" in err
    reasons = [entry.reason for entry in Store.open(tmp_path / "store").entries]
    assert sum(bool(reason) for reason in reasons) == 30


def test_prepare_names_rejected_rows(command: Command, video: Path, tmp_path: Path) -> None:
    root = tmp_path / "real"
    root.mkdir()
    shutil.copyfile(video, root / "a.mp4")
    rest = "a.mp4,\n" * 21
    (root / "train.csv").write_text(f"path,label\na.mp4,jump\nb\0.mp4,jump\n{rest}")
    code, out, err = command("prepare", root, tmp_path / "store", "--train", root / "train.csv", *TINY)
    assert code == 1
    assert out.startswith("1 videos prepared, 0 kept, 0 failed;")
    rejected = [line for line in err.splitlines() if line.startswith("rejected: ")]
    assert rejected[0] == f"rejected: {root / 'train.csv'}, line 3: the path has control characters"
    assert rejected[1] == f"rejected: {root / 'train.csv'}, line 4: the label is empty"
    assert len(rejected) == 20
    assert err.splitlines()[-1] == "and 2 more rows; --json names all"
    code, out, _ = command("prepare", root, tmp_path / "store", "--train", root / "train.csv", *TINY, "--json")
    assert code == 1
    assert len(json.loads(out)["rejected"]) == 22


def test_labels_numbered_from_1(command: Command, video: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copyfile(video, tmp_path / name)
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
