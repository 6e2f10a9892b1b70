"""Class names that are the same or look alike, and classes without training or test videos."""

from __future__ import annotations

import runpy
import sys
import unicodedata
from pathlib import Path

import pytest

from helpers.tiny import SPEC
from stresnet.data.catalog import VideoRecord
from stresnet.data.class_notes import class_notes, look_alikes
from stresnet.data.datasets import read_catalog
from stresnet.data.finding import messages
from stresnet.data.store import Entries, Store, StoreEntry


def store_of(*videos: str, classes: str = "abc") -> Store:
    """Return a store of one video for each ``split/label``; those with an ! are not usable."""
    entries = [
        StoreEntry(VideoRecord(str(n), "", text.strip("!")[-1], text.split("/")[0]), 20, reason="!" * text.count("!"))
        for n, text in enumerate(videos)
    ]
    return Store(Path("store"), SPEC, tuple(classes), "videos", Entries.of(entries))


@pytest.mark.parametrize(
    ("videos", "notes"),
    [
        (("train/a", "train/b", "test/a", "test/b"), []),
        (("train/a", "train/b"), []),
        (("test/a", "test/b"), []),
        (("train/a", "train/b", "test/a"), ["1 of 3 classes have no usable test video and are not tested: 'b'"]),
        (
            ("train/a", "train/b", "test/a", "test/b!"),
            ["1 of 3 classes have no usable test video and are not tested: 'b'"],
        ),
        (("train/a", "test/a", "test/b"), ["1 of 3 classes have no usable training video and cannot be learnt: 'b'"]),
        (
            ("train/a", "test/a", "val/b", "val/c"),
            [
                "2 of 3 classes have no usable training video and cannot be learnt: 'b', 'c'",
                "2 of 3 classes have no usable test video and are not tested: 'b', 'c'",
            ],
        ),
    ],
)
def test_classes_without_videos_of_a_split(videos: tuple[str, ...], notes: list[str]) -> None:
    assert messages(class_notes(store_of(*videos))) == notes


def test_many_classes_are_counted() -> None:
    (note,) = class_notes(store_of("test/a", *(f"train/{c}" for c in "abcdefgh"), classes="abcdefgh"))
    assert note.message.endswith("are not tested: 'b', 'c', 'd', 'e', 'f', 2 more")


def test_look_alikes() -> None:
    names = ["Wave", "wave ", "brush_hair", "Brush hair", "ﬁsh", "fish", "wave2", "!", "?", "Straße", "strasse"]
    assert look_alikes(names) == [
        ["Wave", "wave "],
        ["brush_hair", "Brush hair"],
        ["ﬁsh", "fish"],
        ["Straße", "strasse"],
    ]
    (note,) = class_notes(store_of("train/w", classes="wW"))
    assert note.message == "classes 'w', 'W' have similar names; give them one name if they are the same"


@pytest.mark.parametrize("name", ["Händewaschen", "été", "ジャンプ", "한글"])
def test_composed_and_decomposed_folders_are_one_class(tmp_path: Path, name: str) -> None:
    for split, form in (("train", "NFC"), ("test", "NFD")):
        folder = tmp_path / split / unicodedata.normalize(form, name)
        folder.mkdir(parents=True)
        (folder / f"{split}.mp4").touch()
    catalog = read_catalog(tmp_path)
    assert catalog.classes == (unicodedata.normalize("NFC", name),)
    assert [r.split for r in catalog.records] == ["test", "train"]
    assert all(Path(record.path).is_file() for record in catalog.records)
    assert catalog.notes == ()
    listed = "".join(f"{r.path},{Path(r.path).parent.name},{r.split}\n" for r in catalog.records)
    (tmp_path / "list.csv").write_text(f"path,label,split\n{listed}")
    assert read_catalog(tmp_path / "list.csv").classes == catalog.classes


def test_the_case_of_a_mac(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = shared / "cases" / "nfc_nfd" / "make.py"
    if not script.is_file():
        pytest.skip(f"no script at {script}")
    (tmp_path / "video.mp4").touch()
    monkeypatch.setattr(sys, "argv", ["make.py", str(tmp_path / "video.mp4"), str(tmp_path / "out")])
    runpy.run_path(str(script))
    catalog = read_catalog(tmp_path / "out")
    assert catalog.classes == ("Händewaschen", "klatschen")
    assert len(catalog.records) == 8
