"""Catalogs of class folders, split folders and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresnet.data.catalog import Catalog
from stresnet.data.datasets import read_catalog
from stresnet.errors import StoreError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def rows(catalog: Catalog) -> list[tuple[str, str, str, str]]:
    return [(r.id, r.label, r.split, r.group) for r in catalog.records]


def write_csv(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "wave/b.avi", "wave/deep/er/a.MP4", "jump/c.mov", "jump/notes.txt", "loose.avi")
    touch(tmp_path, ".hidden/x.avi", "jump/._c.mov")
    (tmp_path / "empty").mkdir()
    catalog = read_catalog(tmp_path)
    assert catalog.name == tmp_path.name
    assert catalog.classes == ("jump", "wave")
    assert rows(catalog) == [
        ("jump/c.mov", "jump", "train", ""),
        ("wave/b.avi", "wave", "train", ""),
        ("wave/deep/er/a.MP4", "wave", "train", ""),
    ]
    assert catalog.records[0].path == str(tmp_path / "jump/c.mov")
    notes = "\n".join(catalog.notes)
    for expected in (
        "jump/notes.txt",
        "1 video(s) directly in",
        "'empty' has no video",
        "all 3 videos are for training",
    ):
        assert expected in notes


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/wave/a.avi", "train/jump/b.avi", "test/wave/c.avi", "Validation/jump/d.avi")
    catalog = read_catalog(tmp_path)
    assert catalog.classes == ("jump", "wave")
    assert rows(catalog) == [
        ("Validation/jump/d.avi", "jump", "val", ""),
        ("test/wave/c.avi", "wave", "test", ""),
        ("train/jump/b.avi", "jump", "train", ""),
        ("train/wave/a.avi", "wave", "train", ""),
    ]
    assert catalog.notes == ()


def test_a_class_named_train_is_not_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.avi", "bus/b.avi")
    assert read_catalog(tmp_path).classes == ("bus", "train")


def test_folders_named_as_splits_without_subfolders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.avi", "test/b.avi")
    assert read_catalog(tmp_path).classes == ("test", "train")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.avi", "root/wave/b.avi")
    root = tmp_path / "root"
    (root / "jump").symlink_to(tmp_path / "elsewhere")
    (root / "wave" / "again").symlink_to(root)
    assert [r.id for r in read_catalog(root).records] == ["jump/a.avi", "wave/b.avi"]


def test_names_that_are_not_utf8_are_left_out_with_a_note(tmp_path: Path) -> None:
    touch(tmp_path, "wave/Grüße an müde Männer.avi")
    try:
        (tmp_path / "wave" / "caf\udce9.avi").touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    catalog = read_catalog(tmp_path)
    assert [r.id for r in catalog.records] == ["wave/Grüße an müde Männer.avi"]
    assert any("not UTF-8" in note for note in catalog.notes)


@pytest.mark.parametrize(
    ("names", "found"),
    [((), "no video at all"), (("wave/a.txt",), "no video at all"), (("a.avi",), "1 videos outside any folder")],
)
def test_folder_without_videos(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(StoreError, match=found):
        read_catalog(tmp_path)


def test_invalid_sources(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        read_catalog(tmp_path / "none")
    touch(tmp_path, "a.avi")
    with pytest.raises(StoreError, match="is a video: expected a folder"):
        read_catalog(tmp_path / "a.avi")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(tmp_path: Path, encoding: str) -> None:
    touch(tmp_path, "data/wave/Grüße, du.avi", "data/b.avi", "other/c.avi")
    file = write_csv(
        tmp_path / "data/list.csv",
        f'Path, class ,split,group,frames\n"wave/Grüße, du.avi",wave,test,g1,7\n\n./b.avi,jump,Train,,\n'
        f"../other/c.avi,jump,valid,g2,9\n{tmp_path}/data/gone.avi,jump,train,,\n",
        encoding,
    )
    catalog = read_catalog(file)
    outside = f"{tmp_path}/other/c.avi".lstrip("/")
    assert catalog.name == "list"
    assert catalog.classes == ("jump", "wave")
    assert sorted(rows(catalog)) == sorted(
        [
            ("b.avi", "jump", "train", ""),
            ("gone.avi", "jump", "train", ""),
            (outside, "jump", "val", "g2"),
            ("wave/Grüße, du.avi", "wave", "test", "g1"),
        ]
    )
    assert {r.path for r in catalog.records} >= {str(tmp_path / "other/c.avi"), str(tmp_path / "data/b.avi")}
    unused, missing = catalog.notes
    assert unused == "list.csv: columns that are not used: frames"
    assert "1 of 4 listed videos are missing" in missing
    assert "gone.avi" in missing


def test_csv_without_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.avi")
    catalog = read_catalog(write_csv(tmp_path / "l.csv", "path,label\na.avi,x\n"))
    assert rows(catalog) == [("a.avi", "x", "train", "")]
    assert any("no test split" in note for note in catalog.notes)


def test_whole_numbers_are_class_names_in_numerical_order(tmp_path: Path) -> None:
    touch(tmp_path, "a.avi")
    lines = "".join(f"a{n}.avi,{n},train\n" for n in (10, 2, 1))
    catalog = read_catalog(write_csv(tmp_path / "l.csv", f"path,label,split\n{lines}"))
    assert catalog.classes == ("1", "2", "10")
    assert any('"1" is class index 0' in note for note in catalog.notes)
    catalog = read_catalog(write_csv(tmp_path / "m.csv", "path,label,split\na.avi,0,train\nb.avi,1,train\n"))
    assert catalog.classes == ("0", "1")
    assert not any("numerical" in note for note in catalog.notes)


def test_csv_repeats_and_contradictions(tmp_path: Path) -> None:
    catalog = read_catalog(write_csv(tmp_path / "l.csv", "path,label,split\na.avi,x,train\n./a.avi,x,train\n"))
    assert len(catalog.records) == 1
    assert any("1 row(s) repeat" in note for note in catalog.notes)
    with pytest.raises(StoreError, match=r"m\.csv, line 2, and .*m\.csv, line 3: both list a\.avi"):
        read_catalog(write_csv(tmp_path / "m.csv", "path,label,split\na.avi,x,train\na.avi,x,test\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("\n \n", "found an empty file"),
        ("Datei;Klasse\na.avi;x\n", "expected a header such as path,label,split,group, found 'Datei;Klasse'"),
        ("group,label\na.avi,x\n", "found 'group,label', which names no path"),
        ("path,label,path\na.avi,x,b\n", "expected each column once, found 'path' twice"),
        ("path,label\n", "expected one row per video"),
        ("path,label\na.avi,\n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ("path,label,split\na.avi,x,dev\n", "line 2: expected a split of train, val or test, found 'dev'"),
        ("path,label\na,b.avi,x\n", "line 2: expected 2 columns, found 3"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as error:
        read_catalog(write_csv(tmp_path / "l.csv", text))
    assert "\n" not in str(error.value)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="line 2: expected UTF-8, found other bytes"):
        read_catalog(write_csv(tmp_path / "l.csv", "path,label\ncafé.avi,x\n", "latin-1"))


def test_a_real_list(shared: Path) -> None:
    catalog = read_catalog(shared / "clips" / "index.csv")
    assert len(catalog.records) > 100
    assert all(Path(record.path).is_file() for record in catalog.records)
    assert {r.group for r in catalog.records} >= {"P1", "set1_seq3"}
