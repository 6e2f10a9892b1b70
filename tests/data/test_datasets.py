"""The registry of data sets, and UCF101 and HMDB51 by their official lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from helpers.tiny import Command
from stresnet.data.datasets import DATASETS, read_catalog
from stresnet.errors import StoreError

ODD_NAME = "Brushing_Her_Hair__[_NEW_AUDIO_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi"


@pytest.fixture
def ucf101_videos(tmp_path: Path) -> Path:
    (tmp_path / "Archery").mkdir()
    (tmp_path / "Archery" / "v_Archery_g08_c01.avi").touch()
    return tmp_path


@pytest.fixture
def hmdb51_videos(tmp_path: Path) -> Path:
    (tmp_path / "brush_hair").mkdir()
    (tmp_path / "brush_hair" / ODD_NAME).touch()
    return tmp_path


@pytest.mark.parametrize(("split", "train", "test"), [(1, 9537, 3783), (2, 9586, 3734), (3, 9624, 3696)])
def test_ucf101(shared: Path, ucf101_videos: Path, split: int, train: int, test: int) -> None:
    catalog = read_catalog(ucf101_videos, dataset="ucf101", lists=shared / "splits" / "ucf101", split=split)
    assert Counter(r.split for r in catalog.records) == {"train": train, "test": test}
    assert len({r.id for r in catalog.records}) == 13320
    assert len(catalog.classes) == 101
    assert catalog.classes[0] == "ApplyEyeMakeup"
    assert catalog.classes[-1] == "YoYo"
    assert {r.label for r in catalog.records} == set(catalog.classes)
    record = next(r for r in catalog.records if r.id == "Archery/v_Archery_g08_c01.avi")
    assert (record.label, record.group) == ("Archery", "g08")
    assert Path(record.path).is_file()
    assert "13319 of 13320 listed videos are missing" in catalog.notes[0]


def test_ucf101_keeps_groups_apart(shared: Path, ucf101_videos: Path) -> None:
    records = read_catalog(ucf101_videos, dataset="ucf101", lists=shared / "splits" / "ucf101", split=1).records
    groups = {split: {(r.label, r.group) for r in records if r.split == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"]


def test_ucf101_side_by_side(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "v_Archery_g08_c01.avi").touch()
    catalog = read_catalog(tmp_path, dataset="ucf101", lists=shared / "splits" / "ucf101", split=1)
    record = next(r for r in catalog.records if r.id == "Archery/v_Archery_g08_c01.avi")
    assert record.path == str(tmp_path / "v_Archery_g08_c01.avi")


@pytest.mark.parametrize("split", [1, 2, 3])
def test_hmdb51(shared: Path, hmdb51_videos: Path, split: int) -> None:
    catalog = read_catalog(hmdb51_videos, dataset="hmdb51", lists=shared / "splits" / "hmdb51", split=split)
    assert Counter(r.split for r in catalog.records) == {"train": 3570, "test": 1530}
    per_class = Counter((r.label, r.split) for r in catalog.records)
    assert {(count, part) for (_, part), count in per_class.items()} == {(70, "train"), (30, "test")}
    assert len(catalog.classes) == 51
    assert catalog.classes == tuple(sorted(catalog.classes))


def test_hmdb51_names_with_special_characters(shared: Path, hmdb51_videos: Path) -> None:
    records = read_catalog(hmdb51_videos, dataset="hmdb51", lists=shared / "splits" / "hmdb51", split=1).records
    assert [r.id for r in records if Path(r.path).is_file()] == [f"brush_hair/{ODD_NAME}"]


def test_lists_of_the_wrong_data_set(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"expected UCF101's lists.*these look like HMDB51's"):
        read_catalog(tmp_path, dataset="ucf101", lists=shared / "splits" / "hmdb51", split=1)
    with pytest.raises(StoreError, match=r"expected HMDB51's lists.*these look like UCF101's"):
        read_catalog(tmp_path, dataset="hmdb51", lists=shared / "splits" / "ucf101", split=1)
    with pytest.raises(StoreError, match="expected HMDB51's lists, found no"):
        read_catalog(tmp_path, dataset="hmdb51", lists=tmp_path, split=1)
    with pytest.raises(StoreError, match="expected the folder of the official lists"):
        read_catalog(tmp_path, dataset="ucf101", lists=tmp_path / "none", split=1)
    with pytest.raises(StoreError, match="expected split 1, 2 or 3, found 4"):
        read_catalog(tmp_path, dataset="ucf101", lists=shared / "splits" / "ucf101", split=4)


def test_no_listed_video_exists(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="found none of the 13320"):
        read_catalog(tmp_path, dataset="ucf101", lists=shared / "splits" / "ucf101", split=1)
    with pytest.raises(StoreError, match="found none of the 5100"):
        read_catalog(tmp_path, dataset="hmdb51", lists=shared / "splits" / "hmdb51", split=1)
    with pytest.raises(StoreError, match="expected the folder of"):
        read_catalog(tmp_path / "none", dataset="hmdb51", lists=shared / "splits" / "hmdb51", split=1)


def test_damaged_lists(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 Archery\n")
    (tmp_path / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    (tmp_path / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 2\n")
    with pytest.raises(StoreError, match=r"trainlist01\.txt, line 1: expected lines such as"):
        read_catalog(tmp_path, dataset="ucf101", lists=tmp_path, split=1)
    (tmp_path / "wave_test_split1.txt").write_text("a b.avi 3 \n")
    with pytest.raises(StoreError, match="0, 1 or 2"):
        read_catalog(tmp_path, dataset="hmdb51", lists=tmp_path, split=1)


def test_lists_with_a_byte_order_mark(shared: Path, tmp_path: Path) -> None:
    lists = shared / "cases" / "bom_lists" / "lists"
    if not lists.is_dir():
        pytest.skip(f"no lists at {lists}")
    for name in ("g01", "g08"):
        (tmp_path / f"v_Archery_{name}_c01.avi").touch()
    catalog = read_catalog(tmp_path, dataset="ucf101", lists=lists)
    assert catalog.classes == ("Archery", "Bowling")
    assert [(r.id, r.split, r.group) for r in catalog.records] == [
        ("Archery/v_Archery_g01_c01.avi", "test", "g01"),
        ("Archery/v_Archery_g08_c01.avi", "train", "g08"),
    ]
    (tmp_path / "wave_test_split1.txt").write_text("a b.avi 1 \nc.avi 2 \nd.avi 0 \n", "utf-8-sig")
    for name in ("a b", "c", "d"):
        (tmp_path / f"{name}.avi").touch()
    catalog = read_catalog(tmp_path, dataset="hmdb51", lists=tmp_path)
    assert [(r.id, r.split) for r in catalog.records] == [("wave/a b.avi", "train"), ("wave/c.avi", "test")]


@pytest.mark.parametrize("on_disk", ["HandStandPushups/v_HandstandPushups", "HandstandPushups/v_HandStandPushups"])
@pytest.mark.parametrize("listed", ["HandstandPushups/v_HandStandPushups", "HandStandPushups/v_HandstandPushups"])
@pytest.mark.parametrize("jpegs", [False, True])
def test_the_class_of_ucf101_with_two_spellings(tmp_path: Path, on_disk: str, listed: str, jpegs: bool) -> None:
    (tmp_path / "classInd.txt").write_text("37 HandstandPushups\n")
    (tmp_path / "trainlist01.txt").write_text(f"{listed}_g08_c01.avi 37\n")
    (tmp_path / "testlist01.txt").write_text(f"{listed}_g01_c01.avi\n")
    for group in ("g01", "g08"):
        file = tmp_path / f"{on_disk}_{group}_c01{'/frame000001.jpg' if jpegs else '.avi'}"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.touch()
    catalog = read_catalog(tmp_path, dataset="ucf101", lists=tmp_path, jpegs=jpegs)
    assert {r.label for r in catalog.records} == {"HandstandPushups"}
    assert all(Path(record.path).exists() for record in catalog.records)


def test_unknown_data_set_and_missing_lists(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unknown data set 'kinetics': expected one of folders, list, ucf101, hmdb51"):
        read_catalog(tmp_path, dataset="kinetics")
    with pytest.raises(StoreError, match="ucf101 needs the folder of its official lists"):
        read_catalog(tmp_path, dataset="ucf101")


def test_help_lists_every_data_set(command: Command) -> None:
    _, out, _ = command("prepare", "--help")
    assert all(f"{dataset.name}," in out for dataset in DATASETS.values())
