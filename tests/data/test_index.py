"""The columnar index: the same rows as entries and as columns, and work that grows only with the rows asked for."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stresnet.data.index as index_module
from helpers.counting import count_calls
from stresnet.data.catalog import VideoRecord
from stresnet.data.index import FILE_SCHEMA, Entries, StoreEntry
from stresnet.data.store import Store, StoreSpec, write_header
from stresnet.errors import StoreError
from stresnet.flow.spec import FlowSpec

MIXED = [
    StoreEntry(VideoRecord("a/é 1.avi", "/videos/a/é 1.avi", "a", "train", "g1"), 14, 32, 43, 29.97, 12_345),
    StoreEntry(VideoRecord("a/2.avi", "/elsewhere/2.avi", "a", "test", ""), reason="no frame decodes"),
    StoreEntry(VideoRecord("b/x.avi", "C:\\b\\x.avi", "b", "val", "g2"), 20, 32, 40, 25.0, 2**40, "", True, 0.25),
    StoreEntry(VideoRecord("b/y.avi", "", "b", "train", "g2"), 11, 32, 40, 25.0, 1),
]
SEGMENT = StoreEntry(
    VideoRecord("b/z.avi#t=1,2", "/b/z.avi", "b", "train", "", 1.0, 2.0),
    25,
    content=2**64 - 1,
    conversions="deinterlaced",
)


def rows_of(count: int) -> list[StoreEntry]:
    return [
        StoreEntry(
            VideoRecord(f"c{i % 3}/{i:06}.avi", f"/videos/c{i % 3}/{i:06}.avi", f"c{i % 3}", "train", f"g{i % 7}"),
            frames=i,
            reason="" if i % 5 else "no frame decodes",
        )
        for i in range(count)
    ]


def written(folder: Path, count: int) -> Path:
    folder.mkdir()
    write_header(folder, StoreSpec(FlowSpec()), ("c0", "c1", "c2"), "many")
    Entries.of(rows_of(count)).write(folder / "index.parquet")
    return folder


def by_id(entries: list[StoreEntry]) -> list[StoreEntry]:
    return sorted(entries, key=lambda entry: entry.record.id)


def test_an_older_index_can_be_read(tmp_path: Path) -> None:
    Entries.of([*MIXED, SEGMENT]).write(tmp_path / "index.parquet")
    assert list(Entries.read(tmp_path / "index.parquet")) == by_id([*MIXED, SEGMENT])
    table = pq.read_table(tmp_path / "index.parquet").drop_columns(["start_sec", "end_sec", "content", "conversions"])
    pq.write_table(table, tmp_path / "old.parquet")
    older = replace(
        SEGMENT, record=replace(SEGMENT.record, start_sec=0, end_sec=float("inf")), content=0, conversions=""
    )
    assert list(Entries.read(tmp_path / "old.parquet")) == by_id([*MIXED, older])


def test_entries_are_what_they_were_made_of() -> None:
    entries = Entries.of(MIXED)
    assert list(entries) == by_id(MIXED)
    assert entries[-1] == by_id(MIXED)[-1]
    assert list(entries[1:3]) == by_id(MIXED)[1:3]
    assert repr(entries[1:]) == "Entries(3 videos)"
    with pytest.raises(IndexError):
        entries[4]
    assert pickle.loads(pickle.dumps(entries[1:])) == entries[1:]
    assert entries[1:] != entries[:3]


@pytest.mark.parametrize("rows_per_group", [1, 3, 100])
def test_file_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_group: int) -> None:
    monkeypatch.setattr(index_module, "_ROWS_WRITTEN", rows_per_group)
    monkeypatch.setattr(index_module, "_ROWS_READ", 2)
    Entries.of(MIXED).write(tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet")
    assert table.schema.equals(FILE_SCHEMA)
    assert table.column("path").to_pylist() == [e.record.path for e in by_id(MIXED)]
    assert list(Entries.read(tmp_path / "index.parquet")) == by_id(MIXED)
    Entries.of(rows_of(50)).write(tmp_path / "index.parquet")
    assert list(Entries.read(tmp_path / "index.parquet")) == by_id(rows_of(50))


def test_no_rows(tmp_path: Path) -> None:
    Entries.of([]).write(tmp_path / "index.parquet")
    empty = Entries.read(tmp_path / "index.parquet")
    assert empty == Entries.of([])
    assert not empty
    assert empty.find("a") is None
    assert not empty.where("split", ["train"])


def test_columns_of_selections() -> None:
    entries = Entries.of(MIXED)
    assert entries.distinct("split") == {"train", "test", "val"}
    chosen = entries.where("label", ["b", "nothing"]).where("split", ["train"])
    assert chosen.column("id").to_pylist() == ["b/y.avi"]
    assert chosen.distinct("group") == {"g2"}
    assert entries[1:].column("path").to_pylist() == [e.record.path for e in by_id(MIXED)[1:]]
    assert entries.where("label", ["b"]).column("bytes").to_pylist() == [2**40, 1]
    assert entries.where("label", ["b"]).column("truncated").to_pylist() == [True, False]


def test_find() -> None:
    entries = Entries.of(MIXED)
    for entry in MIXED:
        assert entries.find(entry.record.id) == entry
        assert (entries.where("label", ["b"]).find(entry.record.id) is None) == (entry.record.label == "a")
    for other in ("", "a/2", "a/2.avi ", "zzz"):
        assert entries.find(other) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["fps"]), "columns fps are missing or of another type"),
        (lambda t: t.set_column(5, "frames", pa.array(["many"] * 4)), "columns frames are missing or of another type"),
        (lambda t: t.set_column(2, "label", pa.array([None, *"abc"])), "values of label are missing"),
        (lambda t: t.set_column(5, "frames", pa.array([None, 1, 2, 3])), "values of frames are missing"),
        (lambda t: t.take([1, 0, 2, 3]), "its ids are repeated or not sorted"),
        (lambda t: t.take([0, 0, 2, 3]), "its ids are repeated or not sorted"),
    ],
)
def test_files_that_are_no_index(tmp_path: Path, change: object, message: str) -> None:
    path = written(tmp_path / "store", 4) / "index.parquet"
    pq.write_table(change(pq.read_table(path)), path)  # type: ignore[operator]
    with pytest.raises(StoreError, match=rf"expected the index of a store \({message}.*\); run prepare again"):
        Store.open(path.parent)


def test_opening_and_selecting_make_no_object_of_a_row(tmp_path: Path) -> None:
    root, other = written(tmp_path / "many", 10_000), written(tmp_path / "few", 1_000)

    def use(folder: Path) -> None:
        store = Store.open(folder).with_test_groups(["g1"])
        assert store.select("test")
        assert repr(store)

    few, many = (count_calls(lambda folder=folder: use(folder)) for folder in (other, root))  # type: ignore[misc]
    assert many < 2 * few  # calls per batch, of which both files have few


def test_finding_a_video_looks_at_few_rows(tmp_path: Path) -> None:
    entries = [Entries.read(written(tmp_path / str(count), count) / "index.parquet") for count in (1_000, 10_000)]
    ids = [e[len(e) // 3].record.id for e in entries]
    few, many = (count_calls(lambda e=e, i=i: e.find(i)) for e, i in zip(entries, ids, strict=True))  # type: ignore[misc]
    assert many < few + 40  # four more halvings


def test_test_groups_leave_the_other_columns(tmp_path: Path) -> None:
    entries = Entries.of(MIXED)
    expected = [
        replace(e, record=replace(e.record, split="test" if e.record.group == "g2" else "train")) for e in MIXED
    ]
    assert list(entries.with_test_groups(["g2"])) == by_id(expected)
    assert list(entries) == by_id(MIXED)
