"""Clips in memory and on disk, and the index of a store."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simplejpeg

from helpers.videos_in_memory import encoded
from stresnet.data import encode_video as encode_video_module
from stresnet.data import prepared_video, prepared_video_writer
from stresnet.data.catalog import VideoRecord
from stresnet.data.encode_video import encode_video, temporary_video
from stresnet.data.prepared_video import ROWS_PER_BATCH, PreparedVideoMetadata
from stresnet.data.prepared_video_writer import write_prepared_video
from stresnet.data.store import PreparedVideo, Store, StoreEntry, StoreSpec, video_path
from stresnet.errors import FlowSpecError, StoreError, VideoError
from stresnet.flow.codec import dequantize_flow
from stresnet.flow.estimate import estimate_flow
from stresnet.flow.spec import FlowSpec
from stresnet.media.video import Frame, read_video, write_video

JPEG_START = b"\xff\xd8\xff\xe0"
SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))


def moving_square(frames: int = 14) -> np.ndarray:
    video = np.zeros((frames, 48, 64, 3), np.uint8)
    video += np.random.default_rng(0).integers(0, 8, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1) * 8
    for t in range(frames):
        video[t, 10:30, 5 + 2 * t : 25 + 2 * t] = (200, 120, 40)
    return video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a square.mp4"
    write_video(path, moving_square(), fps=20)
    return path


@pytest.fixture(scope="module")
def clip(video: Path) -> PreparedVideo:
    return encoded("wave/a square.mp4", video, SPEC)


def write(video: Path, path: Path, spec: StoreSpec = SPEC) -> Path:
    write_prepared_video(path, partial(encode_video, "wave/a square.mp4", video, spec))
    return path


@pytest.fixture
def clip_path_(video: Path, tmp_path: Path) -> Path:
    return write(video, tmp_path / "deep" / "a.arrow")


def test_clip_holds_the_frames_and_the_flow(clip: PreparedVideo, video: Path) -> None:
    source = read_video(video, short_side=32)
    meta = clip.meta
    assert (meta.id, meta.frames, meta.height, meta.width, meta.fps) == ("wave/a square.mp4", 14, 32, 43, 20.0)
    assert (meta.source_bytes, meta.truncated) == (video.stat().st_size, False)
    assert 0 <= meta.clipped_share < 0.1
    np.testing.assert_array_equal(clip.times_sec, source.times_sec)
    rgb = clip.rgb(range(14))
    assert rgb.shape == (14, 32, 43, 3)
    assert np.abs(rgb.astype(int) - source.frames).mean() < 2  # JPEG 95
    flow = dequantize_flow(clip.flow(range(13)), SPEC.flow.bound_px)
    expected = estimate_flow(source.frames, SPEC.flow)
    assert flow.shape == expected.shape
    # Half a level by rounding and about as much by JPEG; u and v apart tells them from one another.
    assert np.abs(flow - expected).mean(axis=(0, 2, 3)).max() < 40 / 255
    assert expected[:, 0].mean() > 4 * abs(expected[:, 1].mean())


def test_memory_and_disk_give_the_same_bytes(clip: PreparedVideo, clip_path_: Path, video: Path) -> None:
    mapped = PreparedVideo.open(clip_path_)
    temporary = temporary_video("wave/a square.mp4", video, SPEC)
    assert mapped.meta == clip.meta == temporary.meta
    for other in (mapped, temporary):
        other.verify()
        np.testing.assert_array_equal(other.times_sec, clip.times_sec)
        np.testing.assert_array_equal(other.rgb(range(14)), clip.rgb(range(14)))
        np.testing.assert_array_equal(other.flow(range(13)), clip.flow(range(13)))
    write(video, clip_path_.with_name("b.arrow"))
    assert clip_path_.with_name("b.arrow").read_bytes() == clip_path_.read_bytes()
    assert sorted(p.name for p in clip_path_.parent.iterdir()) == ["a.arrow", "b.arrow"]


def test_any_order_and_each_picture_decoded_once(clip: PreparedVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = clip.rgb(range(14)), clip.flow(range(13))
    decoded = []
    decode = simplejpeg.decode_jpeg

    def counting(*args: Any, **kwargs: Any) -> Any:
        decoded.append(1)
        return decode(*args, **kwargs)

    monkeypatch.setattr(prepared_video.simplejpeg, "decode_jpeg", counting)
    wanted = [7, 2, 7, 12, 2, 2]
    np.testing.assert_array_equal(clip.rgb(wanted), everything[0][wanted])
    assert len(decoded) == 3
    np.testing.assert_array_equal(clip.flow(np.array(wanted)), everything[1][wanted])
    assert len(decoded) == 6
    assert clip.rgb([]).shape == (0, 32, 43, 3)
    assert clip.flow([]).shape == (0, 2, 32, 43)


def test_indices_out_of_range(clip: PreparedVideo) -> None:
    for read, index in ((clip.rgb, 14), (clip.rgb, -1), (clip.flow, 13), (clip.flow, -1)):
        with pytest.raises(IndexError, match=str(index)):
            read([0, index])


FRAMES = 3 * ROWS_PER_BATCH + 5


def test_neither_frames_nor_pictures_are_gathered(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    alive = 0
    most = 0
    waiting = []
    put = prepared_video_writer.PreparedVideoWriter._write

    def counting(writer: prepared_video_writer.PreparedVideoWriter, meta: PreparedVideoMetadata | None = None) -> None:
        waiting.append(len(writer._rows))
        put(writer, meta)

    monkeypatch.setattr(prepared_video_writer.PreparedVideoWriter, "_write", counting)

    class Reader:
        info = SimpleNamespace(fps=25.0)
        truncated = True

        def __enter__(self) -> Reader:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __init__(self) -> None:
            self.frames = self.read()

        def __next__(self) -> Frame:
            return next(self.frames)

        def read(self) -> Iterator[Frame]:
            nonlocal alive, most
            for t in range(FRAMES):
                rgb = np.full((32, 40, 3), t, np.uint8)
                weakref.finalize(rgb, gone)
                alive += 1
                most = max(most, alive)
                yield Frame(rgb, t / 25)

    def gone() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr(encode_video_module, "iter_frames", lambda *_, **__: Reader())
    found = encoded("x", video, SPEC)
    assert found.meta.frames == FRAMES
    assert found.meta.truncated
    assert most <= 3
    # Nor are the pictures: they leave batch by batch, and are found again where they should be.
    assert max(waiting) == ROWS_PER_BATCH
    levels = found.rgb([FRAMES - 1, 0, ROWS_PER_BATCH, ROWS_PER_BATCH - 1])[:, 0, 0, 0].astype(int)
    assert np.abs(levels - [FRAMES - 1, 0, ROWS_PER_BATCH, ROWS_PER_BATCH - 1]).max() <= 1
    np.testing.assert_array_equal(found.times_sec, np.arange(FRAMES) / 25)
    found.verify()


def test_too_short(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_video(path, moving_square(10), fps=20)
    with pytest.raises(VideoError, match="10 frames decoded; at least 11 needed"):
        encoded("short", path, SPEC)
    with pytest.raises(VideoError, match=r"none\.mp4: "):
        encoded("none", tmp_path / "none.mp4", SPEC)
    write_video(path, moving_square(11), fps=20)
    assert encoded("short", path, SPEC).meta.frames == 11


def test_checksum_catches_a_flipped_byte(clip: PreparedVideo, clip_path_: Path) -> None:
    good = clip_path_.read_bytes()
    rgb, flow = (good.index(JPEG_START, start) for start in (0, len(good) * 3 // 4))
    times = good.index(clip.times_sec[1:].tobytes())
    fps = good.rindex(b'"fps": 20.0') + len(b'"fps": ')
    # The offsets of the pictures stand before the first one: a wild one must not take the process along.
    for position in (rgb + 300, flow + 200, times, fps, *range(rgb - 64, rgb, 3)):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        clip_path_.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            PreparedVideo.open(clip_path_).verify()


@pytest.mark.parametrize("kept", [0, 7, 5000])
def test_a_cut_file_is_no_clip(clip_path_: Path, kept: int) -> None:
    clip_path_.write_bytes(clip_path_.read_bytes()[:kept])
    with pytest.raises(StoreError, match="damaged"):
        PreparedVideo.open(clip_path_)


def test_a_damaged_picture_is_named(clip_path_: Path) -> None:
    good = bytearray(clip_path_.read_bytes())
    start = good.index(JPEG_START)
    good[start : start + 64] = bytes(64)
    clip_path_.write_bytes(good)
    with pytest.raises(StoreError, match=r"a square\.mp4: this prepared video is damaged"):
        PreparedVideo.open(clip_path_).rgb([0])


def test_a_full_disk_leaves_nothing(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.arrow"
    target.write_text("what was there")
    monkeypatch.setattr(prepared_video_writer.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(video, target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.arrow"]
    assert target.read_text() == "what was there"


def test_a_temporary_clip_never_has_a_name(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = []
    finish = prepared_video_writer.PreparedVideoWriter.finish

    def looking(
        writer: prepared_video_writer.PreparedVideoWriter, meta: PreparedVideoMetadata
    ) -> PreparedVideoMetadata:
        names.extend(tmp_path.iterdir())
        return finish(writer, meta)

    monkeypatch.setattr(prepared_video_writer.PreparedVideoWriter, "finish", looking)
    found = temporary_video("x", video, SPEC)
    found.verify()
    assert [*names, *tmp_path.iterdir()] == []  # so nothing that ends the process can leave it behind


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_a_full_temporary_disk_is_named(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device") if at == "write" else AssertionError

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            super().close()
            if at == "close":
                raise OSError(28, "No space left on device")

    def opened() -> io.BytesIO:
        if at == "open":
            raise OSError(28, "No space left on device")
        return Full()

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", opened)
    if at == "close":
        monkeypatch.setattr(prepared_video_writer.PreparedVideoWriter, "_write", lambda *_: None)
    with pytest.raises(StoreError) as error:
        temporary_video("x", video, SPEC)
    assert str(error.value) == (
        f"{tmp_path}: cannot hold the decoded video (No space left on device); make room there, or name another "
        "folder in the environment variable TMPDIR"
    )


def test_a_video_that_cannot_be_read_on_is_no_full_disk(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def __enter__(self) -> Gone:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __next__(self) -> Frame:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(encode_video_module, "iter_frames", lambda *_, **__: Gone())
    with pytest.raises(VideoError, match=r"a square\.mp4: cannot be read \(Input/output error\)"):
        write(video, tmp_path / "a.arrow")
    assert list(tmp_path.iterdir()) == []


def test_a_spec_of_other_flow_parameters_is_refused() -> None:
    data = SPEC.to_dict()
    assert StoreSpec.from_dict(json.loads(json.dumps(data))) == SPEC
    with pytest.raises(FlowSpecError, match="prepare again"):
        StoreSpec.from_dict(data | {"flow_digest": "0" * 12})
    with pytest.raises(StoreError, match="jpeg_quality 95, found 90"):
        SPEC.require_same(StoreSpec(SPEC.flow, 90), "here")
    with pytest.raises(StoreError, match="found 0"):
        StoreSpec(SPEC.flow, 0)


@pytest.fixture
def store(video: Path, tmp_path: Path) -> Store:
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
        write(video, video_path(root, name))
        entries.append(
            StoreEntry(record, 14, 32, 43, 20.0, video_path(root, name).stat().st_size, truncated=label == "wave")
        )
    made = Store(root, SPEC, ("jump", "wave"), "three", tuple(entries))
    made.save()
    return made


def test_store_round_trip(store: Store) -> None:
    opened = Store.open(store.root)
    assert opened == store
    assert [e.record.id for e in opened.select()] == ["jump/Grüße, du & [ich].avi", "wave/a square.mp4"]
    assert [e.record.id for e in opened.select("train")] == ["jump/Grüße, du & [ich].avi"]
    assert opened.select("val") == ()
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
    with pytest.raises(StoreError, match="expected test groups among: g1, g2; found g3"):
        store.with_test_groups(["g1", "g3"])


def test_what_is_no_store(store: Store, tmp_path: Path) -> None:
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
