"""The codec's motion vectors as flow: sign, size, time and place on known motion; codecs; what is missing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.video.frame import PictureType
from numpy.typing import NDArray

from helpers.video_files import CLOCKWISE, encode, with_matrix
from stresnet.errors import FlowSpecError, VideoError
from stresnet.flow import FlowSpec, estimate_flow, flow_of, iter_flow
from stresnet.flow.methods.dense_field import dense_field
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

MV = FlowSpec("mv")
Picture = NDArray[np.uint8]


def texture(height: int, width: int, seed: int = 0) -> Picture:
    noise = np.random.default_rng(seed).standard_normal((height, width, 3))
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def pan(shifts: list[tuple[int, int]], height: int = 96, width: int = 128) -> list[Picture]:
    """Pictures whose content has been moved by (right, down) pixels in all, cut from one large texture."""
    margin = max(max(abs(right), abs(down)) for right, down in shifts)
    big = texture(height + 2 * margin, width + 2 * margin)
    return [np.ascontiguousarray(big[margin - down :, margin - right :][:height, :width]) for right, down in shifts]


def steady(right: int, down: int, count: int = 14, **size: int) -> list[Picture]:
    return pan([(right * t, down * t) for t in range(count)], **size)


def flow_in(path: Path, spec: FlowSpec = MV, short_side: int | None = None) -> NDArray[np.float32]:
    with iter_frames(path, short_side=short_side, motion_vectors=True) as reader:
        return np.stack(list(flow_of(reader, spec)))


def inner(flow: NDArray[np.float32], border: int = 24) -> NDArray[np.float32]:
    return flow[..., border:-border, border:-border]


def kinds(path: Path) -> str:
    with av.open(str(path)) as container:
        return "".join(PictureType(frame.pict_type).name for frame in container.decode(video=0))


X264 = {"crf": "12", "sc_threshold": "0", "b-adapt": "0"}
MPEG = {"qmax": "3", "sc_threshold": "1000000000"}

CASES: dict[str, tuple[str, str, dict[str, str], str, float]] = {
    # name: file, encoder, options, what the kinds of pictures must contain, mean error allowed in px
    "h264": ("a.mp4", "libx264", {**X264, "bf": "0", "refs": "1"}, "IPP", 0.1),
    "h264 B": ("a.mp4", "libx264", {**X264, "bf": "3", "refs": "1", "b-pyramid": "none"}, "BBBP", 0.1),
    "h264 B pyramid": ("a.mkv", "libx264", {**X264, "bf": "3", "b-pyramid": "normal"}, "BBBP", 0.1),
    "h264 two B": ("a.ts", "libx264", {**X264, "bf": "2", "refs": "1"}, "BBP", 0.1),
    "h264 as it comes": ("a.mp4", "libx264", {}, "BP", 0.5),
    "mpeg4": ("a.avi", "mpeg4", {**MPEG, "bf": "0"}, "IPP", 0.2),
    "mpeg4 B": ("a.avi", "mpeg4", {**MPEG, "bf": "2"}, "BBP", 0.9),
    "mpeg2 B": ("a.mpg", "mpeg2video", {**MPEG, "bf": "2"}, "BBP", 0.3),
    "mpeg1 B": ("a.mkv", "mpeg1video", {**MPEG, "bf": "2"}, "BBP", 0.3),
    "flv": ("a.flv", "flv", MPEG, "IPP", 0.2),
    "msmpeg4": ("a.avi", "msmpeg4", MPEG, "IPP", 0.2),
    "msmpeg4v2": ("a.avi", "msmpeg4v2", MPEG, "IPP", 0.2),
    "wmv1": ("a.asf", "wmv1", MPEG, "IPP", 0.2),
    "wmv2": ("a.asf", "wmv2", MPEG, "IPP", 0.2),
}


# ---------------------------------------------------------------- sign, size, time, place


@pytest.mark.parametrize("case", CASES)
def test_known_translations_are_found(tmp_path: Path, case: str) -> None:
    name, codec, options, pattern, allowed_px = CASES[case]
    path = encode(tmp_path / name, steady(3, -2), codec=codec, **options)
    assert pattern in kinds(path), "the test needs such pictures"
    flow = flow_in(path)
    assert flow.shape == (13, 2, 96, 128)
    assert flow.dtype == np.float32
    off = np.hypot(*(inner(flow) - np.array([3, -2], np.float32)[:, None, None]).transpose(1, 0, 2, 3))
    assert np.median(off) < 0.05
    assert off.mean() < allowed_px


def test_h263_too(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.3gp", steady(3, -2, height=144, width=176), codec="h263", **MPEG)  # no other sizes
    assert np.abs(np.median(inner(flow_in(path)), axis=(2, 3)) - (3, -2)).max() < 0.05


def test_every_codec_of_the_list_is_tested(tmp_path: Path) -> None:
    found = set()
    for name, codec, options, _, _ in CASES.values():
        with iter_frames(encode(tmp_path / name, steady(1, 0, 2), codec=codec, **options)) as reader:
            found.add(reader.info.codec)
    assert found | {"h263"} == CODECS_WITH_VECTORS


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_flow_t_takes_frame_t_to_the_next(tmp_path: Path, b_frames: str) -> None:
    """Every step moves otherwise."""
    right = [0, 2, 7, 8, 14, 15, 20, 22, 23, 29, 30, 33]
    options = {**X264, "bf": b_frames, "refs": "1", "b-pyramid": "none"}
    path = encode(tmp_path / "a.mp4", pan([(x, 0) for x in right]), **options)
    found = np.median(inner(flow_in(path))[:, 0], axis=(1, 2))
    if b_frames == "0":
        np.testing.assert_allclose(found, np.diff(right), atol=0.1)
    else:  # a vector of a P picture spans several steps: the way to there is right, how it is shared out is not
        anchors = [t for t, kind in enumerate(kinds(path)) if kind != "B"]
        assert len(anchors) < len(right) - 2
        way = np.concatenate([[0], np.cumsum(found)])
        np.testing.assert_allclose(way[anchors], np.array(right)[anchors], atol=1.5)


def square(at: tuple[int, int], height: int = 96, width: int = 160) -> Picture:
    """A textured square of 32 px on a textured ground, its centre at (x, y)."""
    picture = texture(height, width, seed=1) // 4
    picture[at[1] - 16 : at[1] + 16, at[0] - 16 : at[0] + 16] = texture(32, 32, seed=2)
    return picture


def centre_of_motion(field: NDArray[np.float32]) -> tuple[float, float]:
    weight = np.hypot(*field) > 0.5 * np.hypot(*field).max()
    y, x = np.mgrid[0.5 : field.shape[1], 0.5 : field.shape[2]]
    return float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {**X264, "bf": "0", "refs": "1"}),
        ("a.mp4", "libx264", {**X264, "bf": "2", "refs": "1"}),
        ("a.avi", "mpeg4", {**MPEG, "bf": "0"}),
        ("a.avi", "mpeg4", {**MPEG, "bf": "2"}),
    ],
)
def test_flow_stands_where_things_are_in_the_earlier_frame(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    centres = [(28 + 8 * t, 48) for t in range(13)]
    flow = flow_in(encode(tmp_path / name, [square(at) for at in centres], codec=codec, **options))
    off = [centre_of_motion(field)[0] - x for field, (x, _) in zip(flow[:9], centres, strict=False)]
    assert abs(np.median(off)) < 3  # in the later frame it is at 8


# ---------------------------------------------------------------- geometry


def test_vectors_scale_with_the_picture(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(4, -2, height=100, width=132), **X264, bf="0", refs="1")
    for short_side, size in ((50, (50, 66)), (200, (200, 264)), (None, (100, 132))):
        flow = flow_in(path, short_side=short_side)
        assert flow.shape[2:] == size
        scale = size[0] / 100
        np.testing.assert_allclose(np.median(inner(flow, 16), axis=(0, 2, 3)), (4 * scale, -2 * scale), atol=0.05)


@pytest.mark.parametrize("matrix", [*CLOCKWISE.values(), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0)])
def test_vectors_turn_and_flip_with_the_picture(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """(u, v) and the place of a moving square, turned as the display matrix says."""
    a, b, c, d = matrix
    centres = [(28 + 14 * t, 32 + 4 * t) for t in range(7)]
    pictures = [square(at, height=104, width=168) for at in centres]
    path = with_matrix(encode(tmp_path / "turned.mp4", pictures, **X264, bf="0", refs="1"), matrix)
    flow = flow_in(path)
    width, height = 168, 104
    assert flow.shape[2:] == ((width, height) if a == 0 else (height, width))
    moves = np.hypot(*flow[2]) > 8
    u, v = (np.median(component[moves]) for component in flow[2])  # less than it should be: smoothed at the edges
    assert (u, v) == pytest.approx((14 * a + 4 * c, 14 * b + 4 * d), abs=3.5)
    x, y = centres[2][0] - width / 2, centres[2][1] - height / 2
    middle = flow.shape[3] / 2, flow.shape[2] / 2
    wanted = middle[0] + a * x + c * y, middle[1] + b * x + d * y
    assert centre_of_motion(flow[2]) == pytest.approx(wanted, abs=5)


def test_turning_four_times_changes_nothing() -> None:
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


# ---------------------------------------------------------------- what the codec does not tell


def test_b_pictures_of_mpeg4_are_not_believed(tmp_path: Path) -> None:
    """FFmpeg exports zeros there, whatever moves. If that ever changes, they may be used."""
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
    assert kinds(path) == "IBBPBBPBBPBBPP"
    assert spans == [set(), *[{3}] * 12, set()]  # nor does it export any for the last picture of such a file


def test_a_key_frame_gets_the_field_before(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", steady(3, -2), codec="mpeg4", **MPEG, bf="0", g="5")
    assert kinds(path) == "IPPPPIPPPPIPPP"
    flow = flow_in(path)
    np.testing.assert_array_equal(flow[4], flow[3])  # picture 5 is a key frame
    assert flow[4] is not flow[3]
    assert np.median(inner(flow)[4, 0]) == pytest.approx(3, abs=0.05)


def test_a_video_of_key_frames_stands_still(tmp_path: Path) -> None:
    flow = flow_in(encode(tmp_path / "a.avi", steady(3, -2, 4), codec="mpeg4", g="1"))
    assert flow.shape == (3, 2, 96, 128)
    assert not flow.any()


def test_one_frame_has_no_flow(tmp_path: Path) -> None:
    with iter_frames(encode(tmp_path / "a.mp4", steady(3, -2, 1)), motion_vectors=True) as reader:
        assert list(flow_of(reader, MV)) == []


dense = partial(dense_field, cell_px=8, smoothing_cells=1.0)


def block(x: float, y: float, width: float, height: float, u: float, v: float) -> NDArray[np.void]:
    return np.array([(x, y, width, height, u, v, 1)], MOTION_VECTOR)


def test_one_block_fills_the_picture() -> None:
    field = dense(block(16, 16, 16, 16, 1.5, -2.5), 36, 52)
    assert field.shape == (2, 36, 52)
    np.testing.assert_allclose(field[0], 1.5, atol=1e-6)
    np.testing.assert_allclose(field[1], -2.5, atol=1e-6)


def test_later_blocks_win_and_borders_are_where_they_should_be() -> None:
    everywhere, right_half = block(64, 32, 128, 64, 0, 0), block(96, 32, 64, 64, 4, 0)
    u = dense(np.concatenate([everywhere, right_half]), 64, 128)[0]
    # Half the step is reached on the border between columns 63 and 64, odd about it: a smoothed step.
    np.testing.assert_allclose(u + u[:, ::-1], 4, atol=1e-5)
    np.testing.assert_allclose(u[:, [0, 127]], [[0, 4]] * 64, atol=1e-3)
    assert u[0, 63] < 2 < u[0, 64]
    assert not dense(np.concatenate([right_half, everywhere]), 64, 128).any()


def test_blocks_that_left_the_picture_do_no_harm() -> None:
    assert not dense(block(-40, 500, 16, 16, 9, 9), 64, 64).any()
    both = np.concatenate([block(-40, 500, 16, 16, 9, 9), block(8, 8, 16, 16, 1, 0)])
    np.testing.assert_allclose(dense(both, 64, 64)[0], 1, atol=1e-6)


def test_holes_take_the_mean_of_what_is_around_them() -> None:
    left, right = block(16, 32, 32, 64, 0, 0), block(112, 32, 32, 64, 8, 0)
    u = dense(np.concatenate([left, right]), 64, 128)[0]
    assert (np.diff(u[32]) >= -1e-5).all()
    np.testing.assert_allclose(u + u[:, ::-1], 8, atol=1e-4)


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
def test_codecs_without_vectors_are_named(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"FFmpeg was built without {codec}")
    path = encode(tmp_path / name, steady(1, 0, 3), codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(VideoError) as error:
        iter_frames(path, motion_vectors=True)
    message = str(error.value)
    assert "exports no motion vectors" in message
    assert str(path) in message
    assert "h264" in message
    assert "\n" not in message
    assert len(read_video(path).frames) == 3


def test_zeros_of_parts_without_a_vector_lose() -> None:
    """Half a macroblock of an H.264 B picture whose vector points to the future alone: the past one is made up."""
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
    assert vectors[["x", "u", "span_frames"]].tolist() == [(4, 0, 1), (24, 0, 1)], "painted first, its span unharmed"
    assert past[:, 6].tolist() == [1 + _SUSPECT, 1]


def test_whether_a_picture_of_h264_is_a_reference() -> None:
    delimiter, parameters, slice_, unused_slice = b"\x09\xf0", b"\x67\x64\x00", b"\x41\x9a\x00", b"\x01\x9e\x00"
    avcc = b"\x01\x64\x00\x1f\xff"  # lengths of four bytes

    def with_lengths(*units: bytes) -> bytes:
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)

    def with_start_codes(*units: bytes) -> bytes:
        return b"".join(b"\0\0\0\1" + unit for unit in units)

    for pack, extradata in ((with_lengths, avcc), (with_start_codes, None), (with_start_codes, b"\0\0\0\1\x67")):
        assert _is_h264_reference(pack(delimiter, parameters, slice_), extradata)
        assert not _is_h264_reference(pack(delimiter, unused_slice), extradata)
        assert _is_h264_reference(pack(delimiter), extradata)  # no slice: nothing said against it
        assert _is_h264_reference(b"", extradata)


# ---------------------------------------------------------------- one door for all methods


def test_flow_of_is_iter_flow_for_pictures(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2, 4))
    for spec in (FlowSpec(), FlowSpec("farneback")):
        with iter_frames(path, motion_vectors=spec.from_codec) as reader:
            found = np.stack(list(flow_of(reader, spec)))
        np.testing.assert_array_equal(found, estimate_flow(read_video(path).frames, spec))


def test_a_part_of_the_frames_gives_that_part_of_the_flow(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2), **X264)
    whole = flow_in(path)
    with iter_frames(path, motion_vectors=True) as reader:
        part = list(flow_of(list(reader)[4:9], MV))
    np.testing.assert_array_equal(np.stack(part), whole[4:8])


def test_the_median_is_subtracted_from_vectors_too(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2), **X264)
    flow = flow_in(path, FlowSpec("mv", subtract_median=True))
    np.testing.assert_allclose(np.median(flow, axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(flow_in(path) - np.median(flow_in(path), axis=(2, 3), keepdims=True), flow, atol=1e-6)


@pytest.mark.parametrize("use", [lambda frames: estimate_flow(frames, MV), lambda frames: list(iter_flow(frames, MV))])
def test_pictures_alone_have_no_vectors(use: Callable[[Picture], object]) -> None:
    with pytest.raises(FlowSpecError, match="video file's own motion vectors") as error:
        use(np.zeros((2, 64, 64, 3), np.uint8))
    assert "\n" not in str(error.value)


def test_frames_read_without_vectors_are_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2, 3))
    with iter_frames(path) as reader, pytest.raises(FlowSpecError, match="motion_vectors=True"):
        list(flow_of(reader, MV))
    with iter_frames(path, short_side=16, motion_vectors=True) as reader, pytest.raises(FlowSpecError, match="32 px"):
        list(flow_of(reader, MV))


def test_vectors_agree_with_dis_on_real_clips(shared: Path) -> None:
    """Xvid with and without B pictures: the same direction and size where things move."""
    for name in ("WallPushups/v_WallPushups_g01_c04.avi", "Biking/v_Biking_g19_c01.avi"):
        with iter_frames(shared / "clips" / "ucf101" / name, short_side=240, motion_vectors=True) as reader:
            frames = list(reader)[18:36]
        flow, dis = (np.stack(list(flow_of(frames, spec))) for spec in (MV, FlowSpec()))
        moves = np.hypot(dis[:, 0], dis[:, 1]) > 1
        assert moves.mean() > 0.05
        for axis in range(2):
            assert np.corrcoef(flow[:, axis][moves], dis[:, axis][moves])[0, 1] > 0.6
        slope = (dis * flow).sum() / (dis**2).sum()
        assert 0.7 < slope < 1.2
