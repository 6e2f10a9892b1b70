"""The index of a store, and stores that are damaged or unfinished."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stresnet.data.catalog import VideoRecord
from stresnet.data.encode_video import encode_video
from stresnet.data.prepared_video_writer import write_prepared_video
from stresnet.data.store import Entries, Store, StoreEntry, StoreSpec, video_path
from stresnet.errors import StoreError
from stresnet.flow.spec import FlowSpec
from stresnet.media import write_video

SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    video = tmp_path / "video.mp4"
    write_video(video, np.zeros((14, 48, 64, 3), np.uint8), fps=20)
    root = tmp_path / "store"
    root.mkdir()
    entries = []
    for name, label, split, group in (
        ("jump/Grüße, du & [ich].avi", "jump", "train", "g1"),
        ("wave/a square.mp4", "wave", "test", "g2"),
        ("wave/b.avi", "wave", "train", "g2"),
    ):
        record = VideoRecord(name, f"/videos/{name}", label, split, group)
        if name.endswith("b.avi"):
            entries.append(StoreEntry(record, reason="no frame decodes"))
            continue
        write_prepared_video(video_path(root, name), partial(encode_video, name, video, SPEC))
        entries.append(
            StoreEntry(record, 14, 32, 43, 20.0, video_path(root, name).stat().st_size, truncated=label == "wave")
        )
    made = Store(root, SPEC, ("jump", "wave"), "three", Entries.of(entries))
    made.save()
    return made


def test_store_round_trip(store: Store) -> None:
    opened = Store.open(store.root)
    assert opened == store
    assert [e.record.id for e in opened.select()] == ["jump/Grüße, du & [ich].avi", "wave/a square.mp4"]
    assert [e.record.id for e in opened.select("train")] == ["jump/Grüße, du & [ich].avi"]
    assert not opened.select("val")
    assert opened.video("jump/Grüße, du & [ich].avi").meta.frames == 14
    with pytest.raises(StoreError, match="could not be prepared \\(no frame decodes\\)"):
        opened.video("wave/b.avi")
    with pytest.raises(StoreError, match="has no video nobody"):
        opened.video("nobody")
    video_path(store.root, "wave/a square.mp4").unlink()
    with pytest.raises(StoreError, match="expected a prepared video, found no file"):
        opened.video("wave/a square.mp4")


def test_test_groups(store: Store) -> None:
    changed = store.with_test_groups(["g1"])
    assert [e.record.split for e in changed.entries] == ["test", "train", "train"]
    assert [e.record.split for e in store.entries] == ["train", "test", "train"]
    with pytest.raises(StoreError, match="has no group 'g3': its groups are g1, g2"):
        store.with_test_groups(["g1", "g3"])


def test_folders_that_are_not_stores(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"found no store\.json"):
        Store.open(tmp_path)
    with pytest.raises(StoreError, match=r"found no store\.json"):
        Store.open(store.root / "store.json")
    header = json.loads((store.root / "store.json").read_text(encoding="utf-8"))
    (store.root / "store.json").write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(StoreError, match="expected a store of format 3, found format 99; prepare its videos again"):
        Store.open(store.root)
    (store.root / "store.json").write_text(json.dumps(header | {"classes": ["jump"]}))
    with pytest.raises(StoreError, match=r"classes that store\.json lacks, \['wave'\]"):
        Store.open(store.root)
    (store.root / "store.json").write_text("{")
    with pytest.raises(StoreError, match="expected the description of a prepared store"):
        Store.open(store.root)


def test_unfinished_or_damaged_index(store: Store, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store.root, copy)
    (copy / "index.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreError, match="expected the index of a store"):
        Store.open(copy)
    (copy / "index.parquet").unlink()
    with pytest.raises(StoreError, match="preparing was not finished"):
        Store.open(copy)


# Validation


def many_videos(folder: Path, videos: list[tuple[str, str]]) -> Store:
    """Return a store of training videos of these labels and groups, and one video that could not be prepared."""
    entries = [
        StoreEntry(VideoRecord(f"v{k:03d}", f"v{k:03d}.mp4", label, "train", group), reason="" if k else "unreadable")
        for k, (label, group) in enumerate([(videos[0][0], ""), *videos])
    ]
    return Store(folder, SPEC, tuple(sorted({label for label, _ in videos})), "many", Entries.of(entries))


def test_validation_sets_a_part_of_each_class_aside(tmp_path: Path) -> None:
    store = many_videos(tmp_path, [("jump", "")] * 40 + [("wave", "")] * 20)
    changed = store.with_validation(0.2)
    aside = changed.select("val")
    assert sorted(aside.column("label").to_pylist()) == ["jump"] * 8 + ["wave"] * 4
    assert len(changed.select("train")) == 48
    assert changed == store.with_validation(0.2)
    assert [e.record.split for e in changed.entries if e.reason] == ["train"]
    assert len(store.with_validation(0.4).select("val")) == 24
    assert not store.select("val")


def test_validation_keeps_groups_whole(tmp_path: Path) -> None:
    store = many_videos(tmp_path, [(label, f"g{k % 10}") for k in range(60) for label in ("jump", "wave")])
    changed = store.with_validation(0.25)
    aside, left = changed.select("val").distinct("group"), changed.select("train").distinct("group")
    assert aside
    assert left
    assert not aside & left


def test_validation_that_cannot_be_set_aside(tmp_path: Path) -> None:
    store = many_videos(tmp_path, [("jump", "one")] * 4)
    for fraction in (0.0, 1.0, -1.0, 0.001):
        with pytest.raises(StoreError, match=r"expected a validation fraction from 0\.05 to 0\.95, not "):
            store.with_validation(fraction)
    with pytest.raises(StoreError, match=r"too few groups of training videos to set 0\.2 of them aside"):
        store.with_validation(0.2)
    twice = many_videos(tmp_path, [("jump", "")] * 10).with_validation(0.1)
    with pytest.raises(StoreError, match="has validation videos already"):
        twice.with_validation(0.1)
