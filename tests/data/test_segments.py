"""Segments of videos: each row of a list with start and end is a video of its own, with the bits of the whole one."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import stresnet.data.encode_video as encode_video_module
from helpers.jpeg_source import write_jpegs
from helpers.tiny import Command
from helpers.video_files import encode
from helpers.video_kinds import VIDEO_KINDS, encode_kind, textured
from helpers.videos_in_memory import encoded, in_memory
from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.datasets import read_catalog
from stresnet.data.encode_video import encode_video, video_around
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.sampling import Indices, spread_centers, stack_around
from stresnet.data.segment import WHOLE, Segment, merged, parse_segment, split_fragment
from stresnet.data.store import Store
from stresnet.errors import StoreError, VideoError
from stresnet.flow import FlowSpec

SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=48))
SPECS = {
    "flow": SPEC,
    "frames only": StoreSpec(SPEC.flow, flow_stored=False),
    "motion vectors": StoreSpec(FlowSpec("mv", short_side=48)),
}
BORDERS = [(0.0, 0.6), (0.6, 1.2), (0.4, 1.0), (1.6, 2.2), (1.9, math.inf), (0.0, math.inf)]
"""Of a video of 60 frames at 25 frames/s: neighbours, overlaps, a gap, the end and the whole."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 60 frames at 25 frames/s."""
    return encode_kind(tmp_path_factory.mktemp("video"), "h264 mp4")


def catalog_of(video: Path, borders: list[tuple[float, float]] = BORDERS) -> Catalog:
    """Return the catalog of segments of a video."""
    records = []
    for start_sec, end_sec in borders:
        name = video.name + Segment(start_sec, end_sec).fragment
        records.append(VideoRecord(name, str(video), "a", "train", "", start_sec, end_sec))
    return Catalog("segments", ("a",), tuple(sorted(records, key=lambda record: record.id)))


def assert_part(part: PreparedVideo, whole: PreparedVideo, segment: Segment) -> None:
    """Assert that a prepared segment has the frames and the flow of the whole video within its borders."""
    inside = np.flatnonzero([segment.contains(time) for time in whole.times_sec])
    assert part.meta.frames == len(inside) > 10
    np.testing.assert_array_equal(part.times_sec, whole.times_sec[inside] - whole.times_sec[inside[0]])
    np.testing.assert_array_equal(part.rgb(range(len(inside))), whole.rgb(inside))
    np.testing.assert_array_equal(part.flow(range(len(inside) - 1)), whole.flow(inside[:-1]))
    with pytest.raises(IndexError):
        part.flow([len(inside) - 1])
    part.verify()
    assert (part.meta.start_sec, part.meta.end_sec) == segment


@pytest.mark.parametrize("kind", SPECS)
def test_segments_have_the_bits_of_the_whole_video(video: Path, tmp_path: Path, kind: str) -> None:
    summary = prepare(catalog_of(video), tmp_path / "store", SPECS[kind], workers=1)
    assert (summary.done, summary.failed) == (len(BORDERS), ())
    store = Store.open(tmp_path / "store")
    whole = store.video(video.name)
    assert whole.meta.frames == 60
    for entry in store.entries:
        assert_part(store.video(entry.record.id), whole, entry.record.segment)
    assert {e.record.id: e.frames for e in store.entries} == {
        "a.mp4": 60,
        "a.mp4#t=0,0.6": 15,
        "a.mp4#t=0.4,1": 15,
        "a.mp4#t=0.6,1.2": 15,
        "a.mp4#t=1.6,2.2": 15,
        "a.mp4#t=1.9": 12,
    }
    assert len({entry.content for entry in store.entries} - {0}) == 1


@pytest.mark.parametrize("name", VIDEO_KINDS)
def test_predicting_a_segment_reads_the_bits_of_the_prepared_one(tmp_path: Path, name: str) -> None:
    path, segment = encode_kind(tmp_path, name), Segment(0.5, 1.7)
    prepared = in_memory(partial(encode_video, "x", path, SPEC, segment=segment))
    assert_part(prepared, encoded("x", path, SPEC), segment)

    def centers_of(frames: int) -> Indices:
        return spread_centers(frames, 4, 5)

    found = video_around("x", path, SPEC, centers_of, 4, segment=segment)
    centers = centers_of(prepared.meta.frames)
    np.testing.assert_array_equal(found.rgb(centers), prepared.rgb(centers))
    fields = stack_around(centers, 4).ravel()
    np.testing.assert_array_equal(found.flow(fields), prepared.flow(fields))
    np.testing.assert_array_equal(found.times_sec, prepared.times_sec)
    assert found.meta.frames == prepared.meta.frames


def test_a_file_is_decoded_once(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[str] = Counter()
    iter_frames = encode_video_module.iter_frames

    def counted(path: Path, **options: object) -> object:
        read["opened"] += 1
        reader = iter_frames(path, **options)  # type: ignore[arg-type]
        following = type(reader).__next__

        class Counted(type(reader)):  # type: ignore[misc]
            def __next__(self) -> object:
                read["frames"] += 1
                return following(self)

        reader.__class__ = Counted
        return reader

    monkeypatch.setattr(encode_video_module, "iter_frames", counted)
    monkeypatch.setattr("stresnet.data.prepare.map_in_processes", lambda f, items, *_: (f(item) for item in items))
    prepare(catalog_of(video, BORDERS[:4]), tmp_path / "store", SPEC)
    assert read["opened"] == 1
    assert read["frames"] == 56  # up to 2.2 s, and the frame that shows the end


def test_a_segment_that_is_not_usable_does_not_affect_the_others(video: Path, tmp_path: Path) -> None:
    borders = [(0.0, 0.6), (0.2, 0.3), (1.0, 2.0), (2.2, 9.0), (100.0, 110.0), (0.501, 0.502)]
    for done, kept in ((2, 0), (0, 2)):
        summary = prepare(catalog_of(video, borders), tmp_path / "store", SPEC, workers=1)
        assert (summary.done, summary.kept) == (done, kept)
        assert dict(summary.failed) == {
            "a.mp4#t=0.2,0.3": "3 frames from 0.2 s to 0.3 s; at least 11 needed",
            "a.mp4#t=0.501,0.502": "0 frames from 0.501 s to 0.502 s; at least 11 needed; if the file is cut already, "
            "list it without start and end",
            "a.mp4#t=2.2,9": "5 frames from 2.2 s to 9 s; at least 11 needed",
            "a.mp4#t=100,110": "0 frames from 100 s to 110 s; at least 11 needed; if the file is cut already, list it "
            "without start and end",
        }
    assert [p.name for p in (tmp_path / "store").rglob(".*")] == [".lock"]


def test_damage_ends_only_the_segments_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = encode_kind(tmp_path, "h264 mp4")
    following = encode_video_module.FrameReader.__next__

    def failing(self: encode_video_module.FrameReader) -> object:
        frame = following(self)
        if frame.time_sec > 1.5:
            raise VideoError(f"{video}: damaged")
        return frame

    monkeypatch.setattr(encode_video_module.FrameReader, "__next__", failing)
    monkeypatch.setattr("stresnet.data.prepare.map_in_processes", lambda f, items, *_: (f(item) for item in items))
    summary = prepare(catalog_of(video), tmp_path / "store", SPEC)
    assert summary.done == 3
    assert {reason for _, reason in summary.failed} == {"damaged"}
    assert {name for name, _ in summary.failed} == {"a.mp4", "a.mp4#t=1.6,2.2", "a.mp4#t=1.9"}
    assert [p.name for p in (tmp_path / "store").rglob(".*")] == [".lock"]


def test_only_missing_segments_are_prepared_again(video: Path, tmp_path: Path) -> None:
    prepare(catalog_of(video, BORDERS[:2]), tmp_path / "store", SPEC, workers=1)
    summary = prepare(catalog_of(video, BORDERS[:4]), tmp_path / "store", SPEC, workers=1)
    assert (summary.done, summary.kept, summary.no_longer_listed) == (2, 2, ())


def list_of(folder: Path, text: str, **options: object) -> Catalog:
    (folder / "list.csv").write_text(text, "utf-8")
    return read_catalog(folder / "list.csv", **options)  # type: ignore[arg-type]


def cut(catalog: Catalog) -> list[tuple[str, float, float]]:
    return [(r.id, r.start_sec, r.end_sec) for r in catalog.records]


@pytest.mark.parametrize("columns", ["start,end", "start_sec,end_sec", "time_start,time_end", "Start Time,End-Time"])
def test_columns_of_lists(tmp_path: Path, columns: str) -> None:
    (tmp_path / "v.mp4").touch()
    catalog = list_of(
        tmp_path, f"path,label,{columns}\nv.mp4,a,0,1.5\nv.mp4,b,1:02,01:01:01.25\nv.mp4,c,,\nv.mp4,d,7,\n"
    )
    assert cut(catalog) == [
        ("v.mp4", 0, math.inf),
        ("v.mp4#t=0,1.5", 0, 1.5),
        ("v.mp4#t=62,3661.25", 62, 3661.25),
        ("v.mp4#t=7", 7, math.inf),
    ]
    assert "3 of 4 videos are segments of 1 file(s), from start to end in seconds" in catalog.notes


def test_decimal_commas(tmp_path: Path) -> None:
    assert cut(list_of(tmp_path, "path;label;start;end\nv.mp4;a;0,5;1,25\n")) == [("v.mp4#t=0.5,1.25", 0.5, 1.25)]


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        ("1", "1", "expected a start before the end, found 1 and 1"),
        ("2", "1", "expected a start before the end, found 2 and 1"),
        ("-1", "1", "expected seconds, such as 12.5, or h:m:s, found '-1'"),
        ("nan", "1", "expected seconds, such as 12.5, or h:m:s, found 'nan'"),
        ("0", "inf", "expected seconds, such as 12.5, or h:m:s, found 'inf'"),
        ("0", "1e9", "expected seconds, such as 12.5, or h:m:s, found '1e9'"),
        ("0", "2020-01-01 10:00", "expected seconds, such as 12.5, or h:m:s, found '2020-01-01 10:00'"),
    ],
)
def test_times_that_are_none(tmp_path: Path, start: str, end: str, reason: str) -> None:
    catalog = list_of(tmp_path, f"path,label,start,end\nv.mp4,a,0,1\nv.mp4,a,{start},{end}\n")
    assert cut(catalog) == [("v.mp4#t=0,1", 0, 1)]
    assert [text for _, text in catalog.rejected] == [reason]


def test_kinetics_files_that_are_cut_already(tmp_path: Path) -> None:
    for name in ("train/wave/abc_000010_000020.mp4", "train/wave/xyz.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nwave,abc,10,20,train\nwave,xyz,5,15,train\n"
    )
    catalog = read_catalog(tmp_path, split_lists={"train": tmp_path / "train.csv"})
    expected = [("train/wave/abc_000010_000020.mp4", 0, math.inf), ("train/wave/xyz.mp4#t=5,15", 5, 15)]
    assert cut(catalog) == expected
    annotations = {"abc": {"label": "wave", "segment": [10.0, 20.0]}, "xyz": {"label": "wave", "segment": [5.0, 15.0]}}
    entries = {name: {"annotations": value, "duration": 10.0, "subset": "train"} for name, value in annotations.items()}
    (tmp_path / "train.json").write_text(json.dumps(entries))
    assert cut(read_catalog(tmp_path, split_lists={"train": tmp_path / "train.json"})) == expected


def test_folders_of_frames_have_no_segments(tmp_path: Path) -> None:
    write_jpegs(tmp_path, "v_1")
    with pytest.raises(StoreError, match="segments are cut from video files, not from folders of frames"):
        list_of(tmp_path, "path,label,start,end\nv_1,a,0,1\n", jpegs=True)


def test_fragments(tmp_path: Path) -> None:
    for segment in (Segment(0, 1), Segment(1.5, 2.25), Segment(3), Segment(0, 0.000001)):
        assert split_fragment(f"a b.mp4{segment.fragment}") == ("a b.mp4", segment)
    assert WHOLE.fragment == ""
    assert split_fragment("a.mp4#t=1:02,1:03.5") == ("a.mp4", Segment(62, 63.5))
    assert split_fragment("a.mp4#t=,5") == ("a.mp4", Segment(0, 5))
    for text in ("a.mp4", "a.mp4#t=2,1", "a.mp4#t=x", "a.mp4#t=1.2.3", "#t=1,2"):
        assert split_fragment(text) == (text, WHOLE)
    existing = tmp_path / "a.mp4#t=1,2"
    existing.touch()
    assert split_fragment(existing) == (str(existing), WHOLE)


def test_merged() -> None:
    parts = [Segment(3, 4), Segment(0, 1), Segment(1, 2), Segment(0.5, 0.7), Segment(3.5, 5)]
    assert merged(parts) == [Segment(0, 1), Segment(1, 2), Segment(3, 5)]
    assert merged([WHOLE, *parts]) == [WHOLE]
    assert merged([]) == []


def test_neighbours_share_no_frame_and_lose_none() -> None:
    for rate in (24000 / 1001, 25, 30000 / 1001, 59.94, 120):
        times = np.arange(1000) / rate
        for border in times[1:-1]:
            for rounded in (border, round(border, 3), round(border, 6)):
                left, right = Segment(0, rounded), Segment(rounded)
                assert all(left.contains(t) != right.contains(t) for t in times)
    assert parse_segment("0.033367", "").contains(1001 / 30000)  # rounded up


def test_the_case_with_three_segments(shared: Path, tmp_path: Path, command: Command) -> None:
    text = shared / "cases" / "segments_csv" / "list.csv"
    if not text.is_file():
        pytest.skip(f"no list at {text}")
    for seed, name in enumerate(("v.mp4", "w.mp4")):
        encode(tmp_path / name, textured(60)[seed:])
    (tmp_path / "list.csv").write_bytes(text.read_bytes())
    options = ("--short-side", 48, "--preset", "ultrafast", "--workers", 1, "--json")
    code, out, err = command("prepare", tmp_path / "list.csv", tmp_path / "store", *options)
    assert (code, json.loads(out)["done"]) == (0, 3)
    assert "note: 3 of 3 videos are segments of 2 file(s), from start to end in seconds" in err
    frames = {e.record.id: (e.record.label, e.frames) for e in Store.open(tmp_path / "store").entries}
    assert frames == {"v.mp4#t=0,0.5": ("wave", 13), "v.mp4#t=1,1.5": ("wave", 13), "w.mp4#t=0,1": ("clap", 25)}
