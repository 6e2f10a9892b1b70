"""Motion vectors of coded videos: codecs, references, spans, geometry."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from helpers.motion import MPEG, VECTOR_VIDEOS, steady
from helpers.video_files import encode, one_line, picture_types
from stresnet.errors import VideoError
from stresnet.media import iter_frames, read_video
from stresnet.media.motion_vectors import (
    _SUSPECT,
    CODECS_WITH_VECTORS,
    MOTION_VECTOR,
    _is_h264_reference,
    _Picture,
    _spans,
    _step_into,
    transform_vectors,
)


def test_every_listed_codec_is_covered(tmp_path: Path) -> None:
    found = set()
    for name, codec, options, _, _ in VECTOR_VIDEOS.values():
        with iter_frames(encode(tmp_path / name, steady(1, 0, 2), codec=codec, **options)) as reader:
            found.add(reader.info.codec)
    assert found | {"h263"} == CODECS_WITH_VECTORS


def test_four_quarter_turns_restore_the_vectors() -> None:
    vectors = np.zeros(1, MOTION_VECTOR)
    vectors[0] = (10, 20, 16, 8, 3, -2, 1)
    once = transform_vectors(vectors, (100, 60), (100, 60), 1, False)
    assert once.tolist() == [(60 - 20, 10, 8, 16, 2, 3, 1)]
    again = transform_vectors(once, (60, 100), (60, 100), 3, False)
    assert again.tolist() == vectors.tolist()
    assert transform_vectors(vectors, (100, 60), (50, 120), 0, True).tolist() == [(45, 40, 8, 16, -1.5, -4, 1)]


def test_pictures_and_times_do_not_depend_on_vectors(shared: Path) -> None:
    names = ["ucf101/BabyCrawling/v_BabyCrawling_g19_c01.avi", "odd/video_90.mov", "odd/corrupted.mp4"]
    for name in names:
        plain = list(iter_frames(shared / "clips" / name, short_side=64))
        with iter_frames(shared / "clips" / name, short_side=64, motion_vectors=True) as reader:
            frames = list(reader)
        assert len(frames) == len(plain)
        assert all(np.array_equal(one.rgb, two.rgb) for one, two in zip(frames, plain, strict=True))
        assert [frame.time_sec for frame in frames] == [frame.time_sec for frame in plain]
        assert all(frame.motion_vectors is None for frame in plain)
        assert all(frame.motion_vectors is not None for frame in frames)
        assert reader.truncated == (name == "odd/corrupted.mp4")


def test_vectors_of_mpeg4_b_pictures_are_ignored(tmp_path: Path) -> None:
    """FFmpeg exports zeros there, whatever moves. If this test fails, they may have become usable."""
    path = encode(tmp_path / "a.avi", steady(3, -2), codec="mpeg4", **MPEG, bf="2", g="250")
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.flags2 |= av.codec.context.Flags2.export_mvs
        for frame in container.decode(video=0):
            if frame.pict_type == PictureType.B:
                raw: Any = frame.side_data["MOTION_VECTORS"]
                assert not raw.to_ndarray()["motion_x"].any()
    with iter_frames(path, motion_vectors=True) as reader:
        vectors = [frame.motion_vectors for frame in reader]
    spans = [set() if v is None else set(v["span_frames"]) for v in vectors]
    assert picture_types(path) == "IBBPBBPBBPBBPP"
    assert spans == [set(), *[{3}] * 12, set()]  # the last picture of such a file has none either


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mp4", "libx265", "yuv420p"),
        ("a.mp4", "libsvtav1", "yuv420p"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "ffv1", "yuv420p"),
    ],
)
def test_codecs_without_vectors_raise(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg was built without {codec}")
    path = encode(tmp_path / name, steady(1, 0, 3), codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(VideoError) as error:
        iter_frames(path, motion_vectors=True)
    message = one_line(error, path)
    assert "exports no motion vectors" in message
    assert "h264" in message
    assert len(read_video(path).frames) == 3


def test_zeros_of_parts_without_a_vector_are_painted_first() -> None:
    """Half a macroblock of an H.264 B picture has a vector into the future only; the zero into the past is not one."""
    names = ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
    rows = [(-1, 8, 16, 4, 8, 0, 0, 4), (1, 8, 16, 4, 8, 12, -8, 4), (-1, 16, 16, 24, 8, 0, 0, 4)]
    blocks = np.array(rows, [(name, np.int32) for name in names])
    around = [_Picture(None, shown, decoded, False, True, None) for shown, decoded in ((0, 0), (2, 1))]
    between = _Picture(None, 1, 2, True, False, blocks)
    window = deque([around[0], between, around[1]])
    (past_step, past), (future_step, future) = _spans(between, window, suspect_zeros=True)
    assert (past_step, future_step) == (-1, 1)
    assert future[:, 4:].tolist() == [[3, -2, 1]]
    vectors = _step_into(2, window, suspect_zeros=True)
    assert vectors[["u", "v", "span_frames"]].tolist() == [(3, -2, 1)]
    vectors = _step_into(1, window, suspect_zeros=True)
    assert vectors[["x", "u", "span_frames"]].tolist() == [(4, 0, 1), (24, 0, 1)], "painted first, with its true span"
    assert past[:, 6].tolist() == [1 + _SUSPECT, 1]


def test_h264_reference_pictures_are_recognised() -> None:
    delimiter, parameters, slice_, unused_slice = b"\x09\xf0", b"\x67\x64\x00", b"\x41\x9a\x00", b"\x01\x9e\x00"
    avcc = b"\x01\x64\x00\x1f\xff"  # unit lengths take four bytes

    def with_lengths(*units: bytes) -> bytes:
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)

    def with_start_codes(*units: bytes) -> bytes:
        return b"".join(b"\0\0\0\1" + unit for unit in units)

    for pack, extradata in ((with_lengths, avcc), (with_start_codes, None), (with_start_codes, b"\0\0\0\1\x67")):
        assert _is_h264_reference(pack(delimiter, parameters, slice_), extradata)
        assert not _is_h264_reference(pack(delimiter, unused_slice), extradata)
        assert _is_h264_reference(pack(delimiter), extradata)  # without a slice, a reference is assumed
        assert _is_h264_reference(b"", extradata)
