"""Copies of videos, found by content: among training and test videos, in a store, and by their segments."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from helpers.counting import count_calls
from helpers.tiny import SPEC, prepared
from helpers.video_files import encode
from helpers.video_kinds import textured
from stresnet.data.catalog import VideoRecord
from stresnet.data.copies import copy_notes, find_copies, identities, unchecked_note, videos_among
from stresnet.data.datasets import read_catalog
from stresnet.data.finding import messages
from stresnet.data.store import Entries, Store, StoreEntry


def entry(name: str, content: int, start: float = 0, end: float = math.inf, split: str = "train") -> StoreEntry:
    return StoreEntry(VideoRecord(name, "", name[0], split, "", start, end), 20, content=content)


def store_of(*entries: StoreEntry) -> Store:
    return Store(Path("store"), SPEC, tuple("abc"), "videos", Entries.of(entries))


def test_names_do_not_count(tmp_path: Path) -> None:
    """Other videos of equal names are no copies; renamed videos are, but not if they were encoded again."""
    for folder, first in (("one", 0), ("two", 20)):
        for n in range(2):
            (tmp_path / folder / "wave").mkdir(parents=True, exist_ok=True)
            encode(tmp_path / folder / "wave" / f"{n}.mp4", textured(60)[first + n :][:30])
    shutil.copytree(tmp_path / "one" / "wave", tmp_path / "three" / "jump")
    (tmp_path / "three" / "jump" / "0.mp4").rename(tmp_path / "three" / "jump" / "new name.mp4")
    encode(tmp_path / "three" / "jump" / "1.mp4", textured(60)[1:31], crf="30")
    one, two, three = (
        prepared(read_catalog(tmp_path / name), tmp_path / f"{name} store").select() for name in ("one", "two", "three")
    )
    assert one.column("id").to_pylist() == two.column("id").to_pylist()
    assert videos_among(identities(one), two) == []
    assert videos_among(identities(one), three) == ["jump/new name.mp4"]
    assert videos_among(identities(one), one) == ["wave/0.mp4", "wave/1.mp4"]


def test_the_form_of_identities() -> None:
    entries = [entry("a", 1), entry("b", 2**64 - 1, 0.5, 1.25), entry("c", 16, 3), entry("d", 0)]
    found = identities(Entries.of(entries))
    assert found == ["0000000000000001", "ffffffffffffffff#t=0.5,1.25", "0000000000000010#t=3"]
    assert videos_among(found, Entries.of(entries)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("trained", "tested", "is_seen"),
    [
        ((0, math.inf), (5, 6), True),
        ((5, 6), (0, math.inf), True),
        ((0, 5), (5, 10), False),
        ((0, 5), (4.9, 10), True),
        ((5, 10), (0, 5), False),
        ((5, math.inf), (0, 5), False),
        ((5, math.inf), (9, 10), True),
    ],
)
def test_segments_of_one_file_are_copies_where_they_overlap(
    trained: tuple[float, float], tested: tuple[float, float], is_seen: bool
) -> None:
    known = identities(Entries.of([entry("a", 7, *trained), entry("b", 8)]))
    assert videos_among(known, Entries.of([entry("x", 7, *tested), entry("y", 9)])) == ["x"] * is_seen


def test_hashes_of_other_forms_match_nothing() -> None:
    entries = Entries.of([entry("a", 1), entry("b", 0)])
    for text in ("", "000000000000", "000000000000000G", "0000000000000001#t=x", "0000000000000001#t=1.2.3", "0" * 16):
        assert videos_among([text], entries) == []


def test_looking_for_copies_makes_objects_of_copies_only() -> None:
    def calls(count: int) -> int:
        entries = Entries.of(entry(f"{n:05}", n + 1) for n in range(count))
        return count_calls(lambda: videos_among(["0000000000000001", "0000000000000002"], entries))

    assert calls(2_000) < calls(200) + 50


def test_what_is_not_known_is_said() -> None:
    known, unknown = entry("a", 1), entry("b", 0)
    assert unchecked_note(identities(Entries.of([known])), Entries.of([known])) == ""
    assert unchecked_note((), Entries.of([known])) == ""
    assert unchecked_note(("0a1b2c3d4e5f",), Entries.of([known])).startswith("the model is from a version that did not")
    assert unchecked_note((), Entries.of([known, unknown])).startswith(
        "1 videos are from a version that did not record"
    )


def test_copies_in_a_store_are_named() -> None:
    store = store_of(
        entry("a1", 1),
        entry("a2", 1, split="test"),
        entry("b1", 1, split="val"),
        entry("b3", 2),
        entry("c3", 2),
        entry("a4", 3),
        entry("a5", 3),
        entry("a6", 4, 0, 5),
        entry("a7", 4, 5, 9, split="test"),
        entry("b8", 5, 0, 5),
        entry("b9", 5, 5, 9),
        entry("c8", 6, 0, 5),
        entry("c9", 6, 4, 9),
        entry("c0", 0),
        entry("b0", 0),
    )
    groups = [(copies.ids, copies.overlap) for copies in find_copies(store.entries)]
    assert groups == [
        (("a1", "a2", "b1"), True),
        (("b3", "c3"), True),
        (("a4", "a5"), True),
        (("a6", "a7"), False),
        (("c8", "c9"), True),
    ]
    notes = copy_notes(store)
    assert messages(notes) == [
        "1 video(s) are there twice, in several splits, such as a1 and a2; evaluate refuses to test on training videos",
        "1 video(s) are there twice, in several classes, such as b3 and c3; a network cannot tell them apart",
        "2 video(s) are there twice, in one class, such as a4 and a5",
        "1 file(s) have segments in several splits, such as a6 and a7; these show the same people and place",
        "2 videos have no hash of their content; prepare again to find copies",
    ]
    assert [note.videos for note in notes] == [
        ("a1", "a2", "b1"),
        ("b3", "c3"),
        ("a4", "a5", "c8", "c9"),
        ("a6", "a7"),
        (),
    ]


def test_a_long_overlap_joins_segments_that_do_not_touch() -> None:
    entries = Entries.of([entry("a", 1, 0, 9), entry("b", 1, 1, 2), entry("c", 1, 3, 4), entry("d", 1, 9, 10)])
    assert [copies.ids for copies in find_copies(entries)] == [("a", "b", "c")]
