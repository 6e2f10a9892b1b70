"""Lists of videos in every format, with rows that cannot be used."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from stresnet.data.catalog import Catalog
from stresnet.data.datasets import read_catalog
from stresnet.errors import StoreError

FILES = ("jump/a b.avi", "jump/c.avi", "wave/d.avi")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three empty videos in class folders."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def of_list(folder: Path, text: str | bytes, **options: object) -> Catalog:
    """Return the catalog of a list."""
    path = folder / "list.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_catalog(path, **options)  # type: ignore[arg-type]


def rows(catalog: Catalog) -> list[tuple[str, str, str]]:
    return [(r.id, r.label, r.split) for r in catalog.records]


TRAIN = [("jump/a b.avi", "1", "train"), ("jump/c.avi", "1", "train"), ("wave/d.avi", "0", "train")]
SPLIT = [("jump/a b.avi", "jump", "train"), ("jump/c.avi", "jump", "test"), ("wave/d.avi", "wave", "val")]
FORMATS: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "path label": ("jump/a b.avi 1\njump/c.avi 1\nwave/d.avi 0\n", TRAIN),
    "path tab label": ("jump/a b.avi\t1\njump/c.avi\t1\nwave/d.avi\t0\n", TRAIN),
    "path comma label": ('"jump/a b.avi",1\njump/c.avi, 1\nwave/d.avi,0', TRAIN),
    "path name": (
        "jump/a b.avi one\r\njump/c.avi one\r\nwave/d.avi zero\r\n",
        [(i, {"1": "one", "0": "zero"}[number], split) for i, number, split in TRAIN],
    ),
    "path alone": ("jump/a b.avi\njump/c.avi\nwave/d.avi\n", [(i, n, "train") for i, n, _ in SPLIT]),
    "semicolons": (
        "Video;Class;Subset\njump/a b.avi;jump;Training\njump/c.avi;jump;testing\nwave/d.avi;wave;validate\n",
        SPLIT,
    ),
    "tabs": (
        "file_name\tlabel\tsplit\njump/a b.avi\tjump\ttrain\njump/c.avi\tjump\ttest\nwave/d.avi\twave\tval\n",
        SPLIT,
    ),
    "three columns": ("jump/a b.avi,jump,train\njump/c.avi,jump,test\nwave/d.avi,wave,val\n", SPLIT),
    "backslashes": (
        "path,label,split\njump\\a b.avi,jump,train\n.\\jump\\c.avi,jump,test\nwave\\d.avi,wave,val\n",
        SPLIT,
    ),
    "other spelling": ("path,label,split\njump/A B.AVI,jump,train\nJump/c.mp4,jump,test\nwave/d,wave,val\n", SPLIT),
    "ids": ("label,youtube_id,split\njump,a b,train\njump,c,test\nwave,d,val\n", SPLIT),
    "JSON by name": (
        json.dumps({n: {"annotations": {"label": k}, "subset": s, "url": "x"} for n, k, s in
                    [("a b", "jump", "train"), ("c", "jump", "test"), ("d", "wave", "validation")]}), SPLIT,
    ),
    "JSON database": (
        json.dumps({"version": 1, "database": {n: {"annotations": [{"label": k}], "subset": s} for n, k, s in
                    [("a b", "jump", "training"), ("c", "jump", "testing"), ("d", "wave", "validation")]}}), SPLIT,
    ),
    "JSON list": (json.dumps([{"path": i, "label": n, "split": s, "id": 7} for i, n, s in SPLIT]), SPLIT),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_formats(videos: Path, name: str, encoding: str) -> None:
    text, expected = FORMATS[name]
    catalog = of_list(videos, text.encode(encoding))
    assert rows(catalog) == expected
    assert catalog.rejected == ()
    assert all(Path(record.path).is_file() for record in catalog.records)


def test_columns_that_are_not_used_are_named(videos: Path) -> None:
    catalog = of_list(videos, "id,path,label,class,fps\n1,jump/c.avi,jump,7,25\n2,wave/d.avi,wave,8,25\n")
    assert rows(catalog) == [("jump/c.avi", "jump", "train"), ("wave/d.avi", "wave", "train")]
    assert "list.txt: columns that are not used: id, class, fps" in catalog.notes


def test_the_listed_folder_is_the_class(videos: Path) -> None:
    catalog = of_list(videos, "JUMP/c.avi\nwave/D.avi\n")
    assert [(r.label, r.id) for r in catalog.records] == [("JUMP", "jump/c.avi"), ("wave", "wave/d.avi")]


def test_other_spellings_are_named(videos: Path) -> None:
    catalog = of_list(videos, "path,label\nJUMP/c.avi,jump\nwave/d.mp4,wave\njump/a b.avi,jump\n")
    expected = f"2 listed video(s) have other paths than listed: 'JUMP/c.avi' is {str(videos / 'jump/c.avi')!r}"
    assert expected in catalog.notes


def test_a_name_of_several_videos_is_missing(videos: Path) -> None:
    (videos / "wave/c.avi").touch()
    (videos / "wave/D.avi").touch()
    catalog = of_list(videos, "path,label\nc,jump\nwave/d.mp4,wave\njump/c.avi,jump\n")
    assert [r.id for r in catalog.records if Path(r.path).is_file()] == ["jump/c.avi"]
    assert any(note.startswith("2 of 3 listed videos are missing") for note in catalog.notes)


def test_names_that_a_mac_decomposed(tmp_path: Path) -> None:
    label = "Händewaschen"
    composed, decomposed = (unicodedata.normalize(form, f"{label}/é.avi") for form in ("NFC", "NFD"))
    file = tmp_path / decomposed
    file.parent.mkdir()
    file.touch()
    catalog = of_list(
        tmp_path, f"path,label\n{composed},Händewaschen\n{unicodedata.normalize('NFD', composed)},Händewaschen\n"
    )
    assert [Path(record.path) for record in catalog.records] == [file]
    assert unicodedata.is_normalized("NFD", catalog.records[0].id)


def folders_of_frames(root: Path) -> None:
    for name in ("v_1", "v_2"):
        (root / name).mkdir()
        (root / name / "img_00001.jpg").touch()


def test_mmaction2_folders_of_frames(tmp_path: Path) -> None:
    folders_of_frames(tmp_path)
    catalog = of_list(tmp_path, "v_1 120 3\nv_2 90 4\n", jpegs=True)
    assert rows(catalog) == [("v_1", "3", "train"), ("v_2", "4", "train")]
    assert "list.txt: columns that are not used: frames" in catalog.notes
    catalog = of_list(tmp_path, "v_1 0 120 3\nv_2 10 90 4\n", jpegs=True)
    assert [r.id for r in catalog.records] == ["v_1"]
    ((where, reason),) = catalog.rejected
    assert where.endswith("list.txt, line 2")
    assert reason.startswith("frames from an offset of 10 are not supported")


def test_several_labels(videos: Path) -> None:
    with pytest.raises(StoreError, match="several labels for a video are not supported"):
        of_list(videos, "jump/c.avi 1 3\nwave/d.avi 0 2\n")


ODD_ROWS: dict[str, tuple[str, str]] = {
    "a NUL": ("wave/\0d.avi,wave", "the path has control characters"),
    "a NUL in the label": ("wave/d.avi,wa\0ve", "the label has control characters"),
    "an escape": ("wave/d.avi,\x1b[31mwave", "the label has control characters"),
    "a long path": (f"{'x' * 5000},wave", "the path has 5000 characters, more than 4096"),
    "a long label": (f"wave/d.avi,{'x' * 300}", "the label has 300 characters, more than 255"),
    "a huge field": (f"wave/d.avi,{'x' * 200_000}", "expected values separated by ',' (field larger"),
    "an open quote": ('"wave/d.avi,wave', "expected values separated by ',' ("),
    "a stray quote": ('"wave"/d.avi,wave', "expected values separated by ',' (',' expected after"),
    "an extra comma": ("wave,d.avi,wave", "expected 2 columns, found 3"),
    "no label": ("wave/d.avi", "expected 2 columns, found 1"),
    "an empty label": ("wave/d.avi,", "the label is empty"),
    "an empty path": (",wave", "the path is empty"),
}


@pytest.mark.parametrize("case", ODD_ROWS)
def test_an_odd_row_is_rejected_and_the_others_are_kept(videos: Path, case: str) -> None:
    row, reason = ODD_ROWS[case]
    catalog = of_list(videos, f'path,label\njump/c.avi,jump\n{row}\n"jump/a b.avi",jump\n')
    assert [r.id for r in catalog.records] == ["jump/a b.avi", "jump/c.avi"]
    ((where, found),) = catalog.rejected
    assert where == f"{videos / 'list.txt'}, line 3"
    assert found.startswith(reason)


def test_a_row_that_is_not_utf8_is_rejected(videos: Path) -> None:
    catalog = of_list(videos, b"path,label\njump/c.avi,jump\ncaf\xe9.avi,wave\n")
    assert [r.id for r in catalog.records] == ["jump/c.avi"]
    assert [reason for _, reason in catalog.rejected] == ["expected UTF-8, found other bytes; save the list as UTF-8"]


def test_a_quoted_cell_may_contain_line_breaks(videos: Path) -> None:
    catalog = of_list(videos, 'path,remark,label\njump/c.avi,"first\nsecond",jump\nwave/d.avi,,wave\n')
    assert [r.id for r in catalog.records] == ["jump/c.avi", "wave/d.avi"]
    assert catalog.rejected == ()


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_breaks_end_a_row(videos: Path, separator: str) -> None:
    catalog = of_list(videos, f"path,remark,label\njump/c.avi,a{separator}b,jump\nwave/d.avi,,wave\n")
    assert [r.id for r in catalog.records] == ["jump/c.avi", "wave/d.avi"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"annotations": {"label": "x"}}, "a": {}}', "'a' is there twice"),
        ('{"a": ', "expected a list in JSON, found something else"),
        ('["a.avi"]', "entry 1: expected an object with a path and a label, found 'a.avi'"),
        ('{"a": {"annotations": {"label": ["x", "y"]}}}', r"entry 1: expected one value for label, found \['x', 'y'\]"),
        ('{"a": {"label": "x", "segment": [1, 2, 3]}}', "entry 1: expected a segment of a start and an end, found"),
        ('{"a": {"label": "x", "segment": [0, [1]]}}', r"entry 1: expected one value for end, found \[1\]"),
        ('{"a": {"annotations": []}}', "entry 1: a: expected annotations with a label"),
        ("[" * 100_000, "expected a list in JSON"),
    ],
)
def test_json_that_is_no_list(videos: Path, text: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        of_list(videos, text)


@pytest.mark.parametrize("names", ["0 wave\n1 jump\n", "1 jump\n0 wave\n", "wave\njump\n", "0,wave\n1,jump"])
def test_class_names(videos: Path, names: str) -> None:
    (videos / "names.txt").write_text(names, "utf-8-sig")
    text = "jump/a b.avi 1\njump/c.avi 2\nwave/d.avi 0\n"
    catalog = of_list(videos, text, class_names=videos / "names.txt")
    assert catalog.classes == ("wave", "jump")
    assert rows(catalog) == [("jump/a b.avi", "jump", "train"), ("wave/d.avi", "wave", "train")]
    reason = "label '2' is not among the 2 class names"
    assert catalog.rejected == ((f"{videos / 'list.txt'}, line 2", reason),)


def test_class_names_of_which_some_have_no_video(videos: Path) -> None:
    (videos / "names.txt").write_text("1 clap\n2 jump\n3 wave\n")
    catalog = of_list(videos, "path,label\njump/c.avi,2\nwave/d.avi,wave\n", class_names=videos / "names.txt")
    assert catalog.classes == ("clap", "jump", "wave")
    assert rows(catalog) == [("jump/c.avi", "jump", "train"), ("wave/d.avi", "wave", "train")]


def test_labels_from_1_and_names_from_0(videos: Path) -> None:
    (videos / "names.txt").write_text("jump\nwave\n")
    with pytest.raises(StoreError, match="labels count up to 2, but the class names count from 0 to 1"):
        of_list(videos, "jump/c.avi 1\nwave/d.avi 2\n", class_names=videos / "names.txt")


@pytest.mark.parametrize("names", ["", "jump\njump\n", "1 jump\n1 wave\n", "1 jump\nwave\n"])
def test_class_names_that_are_not_unique(videos: Path, names: str) -> None:
    (videos / "names.txt").write_text(names)
    with pytest.raises(StoreError, match=r"names\.txt: expected a class name on each line, each once"):
        of_list(videos, "jump/c.avi 1\n", class_names=videos / "names.txt")


def test_a_list_for_each_split(videos: Path, tmp_path: Path) -> None:
    lists = {split: tmp_path / f"{split}.lst" for split in ("train", "val", "test")}
    lists["train"].write_text("jump/a b.avi 0\n")
    lists["val"].write_text("label,youtube_id,split\n1,d,validate\n1,c,test\n")
    lists["test"].write_text("jump/c.avi 0\n")
    catalog = read_catalog(videos, split_lists=lists)
    assert rows(catalog) == [("jump/a b.avi", "0", "train"), ("jump/c.avi", "0", "test"), ("wave/d.avi", "1", "val")]
    assert catalog.rejected == ((f"{lists['val']}, line 3", "it says split 'test' in the list of split 'val'"),)
    assert catalog.name == videos.name
    lists["test"].write_text("jump/a b.avi 0\n")
    with pytest.raises(StoreError, match=r"train\.lst, line 1, and .*test\.lst, line 1: both list jump/a b\.avi but"):
        read_catalog(videos, split_lists=lists)


def test_invalid_combinations(videos: Path) -> None:
    (videos / "list.txt").write_text("jump/c.avi 0\n")
    with pytest.raises(StoreError, match="class names, are only for lists of videos, not for folders"):
        read_catalog(videos, class_names=videos / "list.txt")
    with pytest.raises(StoreError, match="expected the folder of the listed videos, found none"):
        read_catalog(videos / "none", split_lists={"train": videos / "list.txt"})
    with pytest.raises(StoreError, match=r"none\.txt: cannot be read"):
        read_catalog(videos, split_lists={"train": videos / "none.txt"})
