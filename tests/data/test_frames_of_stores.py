"""Which frames of its files a store has, and that prediction reads the same."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import Command
from helpers.video_files import encode
from helpers.video_kinds import textured
from helpers.videos_in_memory import encoded, in_memory
from stresnet.data.encode_video import encode_video, frames_around, video_around
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.sampling import Indices, spread_centers, stack_around
from stresnet.data.segment import Segment
from stresnet.data.store import Store
from stresnet.errors import StoreError, StresnetError
from stresnet.flow import FlowSpec
from stresnet.media import FrameSpec, Limits, read_video

FLOW = FlowSpec(preset="ultrafast", short_side=48)
AT_20 = StoreSpec(FLOW, frames=FrameSpec(fps=20))
STACK = 4


def write_class(folder: Path, **videos: dict[str, object]) -> Path:
    """Write videos of a class for training, each by options of `encode`."""
    (folder / "videos" / "wave").mkdir(parents=True)
    for name, options in videos.items():
        values = {"pictures": textured(60), **options}
        encode(folder / "videos" / "wave" / f"{name}.mkv", **values)  # type: ignore[arg-type]
    return folder / "videos"


def assert_same(found: PreparedVideo, whole: PreparedVideo, centers: Indices) -> None:
    np.testing.assert_array_equal(found.rgb(centers), whole.rgb(centers))
    fields = stack_around(centers, STACK).ravel()
    np.testing.assert_array_equal(found.flow(fields), whole.flow(fields))
    np.testing.assert_array_equal(found.times_sec, whole.times_sec)
    assert found.meta.fps == whole.meta.fps


def centers_of(frames: int) -> Indices:
    return spread_centers(frames, STACK, 5)


def test_a_spec_without_choices_is_written_as_before(tmp_path: Path) -> None:
    plain = StoreSpec(FLOW)
    assert set(plain.to_dict()) == {"flow", "flow_digest", "jpeg_quality", "flow_stored"}
    meta = encoded("x", encode(tmp_path / "a.mkv", textured(12)), plain).meta
    assert set(json.loads(meta.to_json())) & {"conversions", "frames"} == {"frames"}  # the number of frames
    assert PreparedVideoMetadata.from_json(meta.to_json()) == meta
    for frames in (FrameSpec(fps=12.5), FrameSpec(1, deinterlace=False), FrameSpec(tone_map=False)):
        spec = StoreSpec(FLOW, frames=frames)
        assert StoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    for wrong in ({"rate": 1}, {"fps": "25"}, {"fps": True}, {"stream": 0.5}, {"fps": -1}):
        with pytest.raises(StresnetError, match="expected frames"):
            StoreSpec.from_dict(plain.to_dict() | {"frames": wrong})


def test_models_and_stores_must_read_alike(tmp_path: Path) -> None:
    StoreSpec(FLOW, frames=FrameSpec(stream=1)).require_same(StoreSpec(FLOW), "both")  # a property of files
    for frames, message in (
        (FrameSpec(fps=15), "both: expected fps 20, found 15; prepare with one of them"),
        (FrameSpec(), "expected fps 20, found None"),
        (FrameSpec(fps=20, deinterlace=False), "expected deinterlace True, found False"),
        (FrameSpec(fps=20, tone_map=False), "expected tone_map True, found False"),
    ):
        with pytest.raises(StoreError, match=message):
            AT_20.require_same(StoreSpec(FLOW, frames=frames), "both")
    with pytest.raises(StoreError, match="expected another flow method to resample"):
        StoreSpec(FlowSpec("mv"), frames=FrameSpec(fps=20))
    with pytest.raises(StoreError, match="JPEGs have no streams, clock or interlacing"):
        prepare(tmp_path, tmp_path / "store", AT_20, from_jpegs=True)


def test_prediction_reads_the_bits_of_the_prepared_video(tmp_path: Path) -> None:
    for name, fps in (("a.mkv", 50), ("a.avi", 25)):
        path = encode(tmp_path / name, textured(60), fps=fps, bf="0")
        whole = encoded("x", path, AT_20)
        assert (whole.meta.frames, whole.meta.fps) == (60 * 20 // fps, 20)
        np.testing.assert_array_equal(whole.times_sec, np.arange(whole.meta.frames) / 20)
        source = encoded("x", path, StoreSpec(FLOW))
        distances = np.abs(source.times_sec[:, None] - whole.times_sec)
        np.testing.assert_array_equal(whole.rgb([0, 7]), source.rgb(distances.argmin(0)[[0, 7]]))
        centers = centers_of(whole.meta.frames)
        assert_same(video_around("x", path, AT_20, centers_of, STACK), whole, centers)
        assert_same(frames_around("x", read_video(path, short_side=48), AT_20, centers_of, STACK), whole, centers)
        segment = Segment(0.2, 1.1)
        part = in_memory(partial(encode_video, "x", path, AT_20, segment=segment))
        np.testing.assert_array_equal(part.rgb([0, 17]), whole.rgb([4, 21]))
        assert part.meta.frames == 18
        found = video_around("x", path, AT_20, centers_of, STACK, segment=segment)
        assert_same(found, part, centers_of(18))


def test_a_store_of_several_rates(tmp_path: Path, command: Command) -> None:
    source = write_class(tmp_path, phone={"fps": 60}, camera={"fps": 25}, webcam={"fps": 15})
    options = ["--short-side", 48, "--preset", "ultrafast", "--workers", 1, "--fps", 20]
    code, out, err = command("prepare", source, tmp_path / "store", *options, "--json")
    summary = json.loads(out)
    assert (code, summary["done"]) == (0, 3)
    assert summary["converted"] == {"frames repeated, from 15 fps": ["wave/webcam.mkv"]}
    assert "1 video(s): frames repeated, from 15 fps, such as wave/webcam.mkv" in " ".join(err.split())
    store = Store.open(tmp_path / "store")
    assert store.spec == AT_20
    assert {entry.record.id: (entry.frames, entry.fps) for entry in store.select()} == {
        "wave/camera.mkv": (48, 20.0),
        "wave/phone.mkv": (20, 20.0),
        "wave/webcam.mkv": (79, 20.0),
    }
    assert [entry.conversions for entry in store.entries] == ["", "", "frames repeated, from 15 fps"]
    assert prepare(source, tmp_path / "store", AT_20, workers=1).kept == 3
    with pytest.raises(StoreError, match="expected fps 20, found None"):
        prepare(source, tmp_path / "store", StoreSpec(FLOW), workers=1)


def test_videos_of_another_stream_are_prepared_again(tmp_path: Path, command: Command) -> None:
    source = write_class(tmp_path, a={})
    options = ["--short-side", 48, "--preset", "ultrafast", "--workers", 1]
    assert command("prepare", source, tmp_path / "store", *options)[0] == 0
    code, _, err = command("prepare", source, tmp_path / "other", *options, "--stream", 1)
    assert code == 1
    assert "expected video stream 1, found 1 video stream" in " ".join(err.split())
    code, out, _ = command("prepare", source, tmp_path / "store", *options, "--stream", 0)
    assert (code, out.startswith("1 videos prepared, 0 kept")) == (0, True)


def test_a_video_beyond_a_limit_is_recorded(tmp_path: Path) -> None:
    source = write_class(tmp_path, long={}, short={"pictures": textured(12)})
    summary = prepare(source, tmp_path / "store", FLOW, workers=1, limits=Limits(frames=30))
    assert summary.done == 1
    assert summary.failed == (("wave/long.mkv", "more than 30 frames; split the video"),)
