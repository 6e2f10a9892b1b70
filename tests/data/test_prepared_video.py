"""Prepared videos in memory and on disk: writing, reading, damage and full disks."""

from __future__ import annotations

import io
import json
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
from stresnet.data.encode_video import encode_video, temporary_video
from stresnet.data.prepared_video import ROWS_PER_BATCH, PreparedVideoMetadata
from stresnet.data.prepared_video_writer import write_prepared_video
from stresnet.data.store import PreparedVideo, StoreSpec
from stresnet.errors import FlowSpecError, StoreError, VideoError
from stresnet.flow.codec import dequantize_flow
from stresnet.flow.estimate import estimate_flow
from stresnet.flow.spec import FlowSpec
from stresnet.media import Frame, read_video, write_video

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
def prepared(video: Path) -> PreparedVideo:
    return encoded("wave/a square.mp4", video, SPEC)


def write(video: Path, path: Path, spec: StoreSpec = SPEC) -> Path:
    write_prepared_video(path, partial(encode_video, "wave/a square.mp4", video, spec))
    return path


@pytest.fixture
def prepared_path(video: Path, tmp_path: Path) -> Path:
    return write(video, tmp_path / "deep" / "a.arrow")


def test_frames_and_flow_are_those_of_the_video(prepared: PreparedVideo, video: Path) -> None:
    source = read_video(video, short_side=32)
    meta = prepared.meta
    assert (meta.id, meta.frames, meta.height, meta.width, meta.fps) == ("wave/a square.mp4", 14, 32, 43, 20.0)
    assert (meta.source_bytes, meta.truncated) == (video.stat().st_size, False)
    assert 0 <= meta.clipped_share < 0.1
    np.testing.assert_array_equal(prepared.times_sec, source.times_sec)
    rgb = prepared.rgb(range(14))
    assert rgb.shape == (14, 32, 43, 3)
    assert np.abs(rgb.astype(int) - source.frames).mean() < 2  # JPEG 95
    flow = dequantize_flow(prepared.flow(range(13)), SPEC.flow.bound_px)
    expected = estimate_flow(source.frames, SPEC.flow)
    assert flow.shape == expected.shape
    # Half a level from rounding and about as much from JPEG. Means of u and v differ, so they are not interchanged.
    assert np.abs(flow - expected).mean(axis=(0, 2, 3)).max() < 40 / 255
    assert expected[:, 0].mean() > 4 * abs(expected[:, 1].mean())


def test_memory_and_disk_give_the_same_pictures(prepared: PreparedVideo, prepared_path: Path, video: Path) -> None:
    mapped = PreparedVideo.open(prepared_path)
    temporary = temporary_video("wave/a square.mp4", video, SPEC)
    assert mapped.meta == prepared.meta == temporary.meta
    for other in (mapped, temporary):
        other.verify()
        np.testing.assert_array_equal(other.times_sec, prepared.times_sec)
        np.testing.assert_array_equal(other.rgb(range(14)), prepared.rgb(range(14)))
        np.testing.assert_array_equal(other.flow(range(13)), prepared.flow(range(13)))
    write(video, prepared_path.with_name("b.arrow"))
    assert prepared_path.with_name("b.arrow").read_bytes() == prepared_path.read_bytes()
    assert sorted(p.name for p in prepared_path.parent.iterdir()) == ["a.arrow", "b.arrow"]


def test_pictures_in_any_order_are_decoded_once(prepared: PreparedVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = prepared.rgb(range(14)), prepared.flow(range(13))
    decoded = []
    decode = simplejpeg.decode_jpeg

    def counting(*args: Any, **kwargs: Any) -> Any:
        decoded.append(1)
        return decode(*args, **kwargs)

    monkeypatch.setattr(prepared_video.simplejpeg, "decode_jpeg", counting)
    wanted = [7, 2, 7, 12, 2, 2]
    np.testing.assert_array_equal(prepared.rgb(wanted), everything[0][wanted])
    assert len(decoded) == 3
    np.testing.assert_array_equal(prepared.flow(np.array(wanted)), everything[1][wanted])
    assert len(decoded) == 6
    assert prepared.rgb([]).shape == (0, 32, 43, 3)
    assert prepared.flow([]).shape == (0, 2, 32, 43)


def test_indices_out_of_range(prepared: PreparedVideo) -> None:
    for read, index in ((prepared.rgb, 14), (prepared.rgb, -1), (prepared.flow, 13), (prepared.flow, -1)):
        with pytest.raises(IndexError, match=str(index)):
            read([0, index])


FRAMES = 3 * ROWS_PER_BATCH + 5


def test_few_frames_and_one_batch_of_jpegs_are_held(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    alive = 0
    most = 0
    waiting = []
    put = prepared_video_writer.PreparedVideoWriter._write

    def counting(writer: prepared_video_writer.PreparedVideoWriter, meta: PreparedVideoMetadata | None = None) -> None:
        waiting.append(len(writer._rows))
        put(writer, meta)

    monkeypatch.setattr(prepared_video_writer.PreparedVideoWriter, "_write", counting)

    class Reader:
        info = SimpleNamespace(fps=25.0, header_frames=0)
        truncated = True
        conversions = ""

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
    # JPEGs are written batch by batch.
    assert max(waiting) == ROWS_PER_BATCH
    levels = found.rgb([FRAMES - 1, 0, ROWS_PER_BATCH, ROWS_PER_BATCH - 1])[:, 0, 0, 0].astype(int)
    assert np.abs(levels - [FRAMES - 1, 0, ROWS_PER_BATCH, ROWS_PER_BATCH - 1]).max() <= 1
    np.testing.assert_array_equal(found.times_sec, np.arange(FRAMES) / 25)
    found.verify()


def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_video(path, moving_square(10), fps=20)
    with pytest.raises(VideoError, match="10 frames decoded; at least 11 needed"):
        encoded("short", path, SPEC)
    with pytest.raises(VideoError, match=r"none\.mp4: "):
        encoded("none", tmp_path / "none.mp4", SPEC)
    write_video(path, moving_square(11), fps=20)
    assert encoded("short", path, SPEC).meta.frames == 11


def test_checksum_catches_a_flipped_byte(prepared: PreparedVideo, prepared_path: Path) -> None:
    good = prepared_path.read_bytes()
    rgb, flow = (good.index(JPEG_START, start) for start in (0, len(good) * 3 // 4))
    times = good.index(prepared.times_sec[1:].tobytes())
    fps = good.rindex(b'"fps": 20.0') + len(b'"fps": ')
    # The offsets of the pictures come before the first one; a wrong one must not crash the process.
    for position in (rgb + 300, flow + 200, times, fps, *range(rgb - 64, rgb, 3)):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        prepared_path.write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            PreparedVideo.open(prepared_path).verify()


@pytest.mark.parametrize("kept", [0, 7, 5000])
def test_a_truncated_file_is_damaged(prepared_path: Path, kept: int) -> None:
    prepared_path.write_bytes(prepared_path.read_bytes()[:kept])
    with pytest.raises(StoreError, match="damaged"):
        PreparedVideo.open(prepared_path)


def test_a_damaged_picture_is_named(prepared_path: Path) -> None:
    good = bytearray(prepared_path.read_bytes())
    start = good.index(JPEG_START)
    good[start : start + 64] = bytes(64)
    prepared_path.write_bytes(good)
    with pytest.raises(StoreError, match=r"a square\.mp4: this prepared video is damaged"):
        PreparedVideo.open(prepared_path).rgb([0])


def test_a_full_disk_leaves_the_previous_file(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "a.arrow"
    target.write_text("previous content")
    monkeypatch.setattr(prepared_video_writer.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(video, target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.arrow"]
    assert target.read_text() == "previous content"


def test_a_temporary_file_never_has_a_name(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = []
    finish = prepared_video_writer.PreparedVideoWriter.finish

    def recording_names(
        writer: prepared_video_writer.PreparedVideoWriter, meta: PreparedVideoMetadata
    ) -> PreparedVideoMetadata:
        names.extend(tmp_path.iterdir())
        return finish(writer, meta)

    monkeypatch.setattr(prepared_video_writer.PreparedVideoWriter, "finish", recording_names)
    found = temporary_video("x", video, SPEC)
    found.verify()
    assert [*names, *tmp_path.iterdir()] == []  # so it cannot outlive the process


@pytest.mark.parametrize("at", ["open", "write", "close"])
def test_a_full_temporary_folder(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
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


def test_a_read_error_is_not_mistaken_for_a_write_error(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("stresnet.media.decode.Converter.rgb", fail)
    with pytest.raises(VideoError, match=r"a square\.mp4: cannot be read \(Input/output error\)"):
        write(video, tmp_path / "a.arrow")
    assert list(tmp_path.iterdir()) == []


def test_a_spec_of_other_flow_parameters_is_rejected() -> None:
    data = SPEC.to_dict()
    assert StoreSpec.from_dict(json.loads(json.dumps(data))) == SPEC
    with pytest.raises(FlowSpecError, match="prepare again"):
        StoreSpec.from_dict(data | {"flow_digest": "0" * 12})
    with pytest.raises(StoreError, match="jpeg_quality 95, found 90"):
        SPEC.require_same(StoreSpec(SPEC.flow, 90), "here")
    with pytest.raises(StoreError, match="found 0"):
        StoreSpec(SPEC.flow, 0)
