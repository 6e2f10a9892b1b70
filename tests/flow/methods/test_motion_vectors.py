"""The flow of a codec's motion vectors: sign, size, time and place on known motion; key frames; dense fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.motion import MPEG, VECTOR_VIDEOS, X264, pan, steady, textured_square
from helpers.video_files import CLOCKWISE, encode, picture_types, with_matrix
from stresnet.errors import FlowSpecError
from stresnet.flow import FlowSpec, estimate_flow, flow_of, iter_flow
from stresnet.flow.methods.dense_field import dense_field
from stresnet.media import iter_frames, read_video
from stresnet.media.motion_vectors import MOTION_VECTOR

MV = FlowSpec("mv")
dense = partial(dense_field, cell_px=8, smoothing_cells=1.0)


def flow_in(path: Path, spec: FlowSpec = MV, short_side: int | None = None) -> NDArray[np.float32]:
    with iter_frames(path, short_side=short_side, motion_vectors=True) as reader:
        return np.stack(list(flow_of(reader, spec)))


def inner(flow: NDArray[np.float32], border: int = 24) -> NDArray[np.float32]:
    return flow[..., border:-border, border:-border]


@pytest.mark.parametrize("case", VECTOR_VIDEOS)
def test_known_translations_are_found(tmp_path: Path, case: str) -> None:
    name, codec, options, pattern, allowed_px = VECTOR_VIDEOS[case]
    path = encode(tmp_path / name, steady(3, -2), codec=codec, **options)
    assert pattern in picture_types(path), "the test needs these picture types"
    flow = flow_in(path)
    assert flow.shape == (13, 2, 96, 128)
    assert flow.dtype == np.float32
    off = np.hypot(*(inner(flow) - np.array([3, -2], np.float32)[:, None, None]).transpose(1, 0, 2, 3))
    assert np.median(off) < 0.05
    assert off.mean() < allowed_px


def test_known_translations_are_found_in_h263(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.3gp", steady(3, -2, height=144, width=176), codec="h263", **MPEG
    )  # one of the few sizes that H.263 allows
    assert np.abs(np.median(inner(flow_in(path)), axis=(2, 3)) - (3, -2)).max() < 0.05


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_flow_t_takes_frame_t_to_the_next(tmp_path: Path, b_frames: str) -> None:
    """Every step has another motion."""
    right = [0, 2, 7, 8, 14, 15, 20, 22, 23, 29, 30, 33]
    options = {**X264, "bf": b_frames, "refs": "1", "b-pyramid": "none"}
    path = encode(tmp_path / "a.mp4", pan([(x, 0) for x in right]), **options)
    found = np.median(inner(flow_in(path))[:, 0], axis=(1, 2))
    if b_frames == "0":
        np.testing.assert_allclose(found, np.diff(right), atol=0.1)
    else:  # vectors of P pictures span several steps, so that only the sum over them is exact
        anchors = [t for t, kind in enumerate(picture_types(path)) if kind != "B"]
        assert len(anchors) < len(right) - 2
        way = np.concatenate([[0], np.cumsum(found)])
        np.testing.assert_allclose(way[anchors], np.array(right)[anchors], atol=1.5)


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
def test_flow_is_located_in_the_earlier_frame(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    centres = [(28 + 8 * t, 48) for t in range(13)]
    flow = flow_in(encode(tmp_path / name, [textured_square(at) for at in centres], codec=codec, **options))
    off = [centre_of_motion(field)[0] - x for field, (x, _) in zip(flow[:9], centres, strict=False)]
    assert abs(np.median(off)) < 3  # in the later frame it would be 8


def test_vectors_scale_with_the_picture(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(4, -2, height=100, width=132), **X264, bf="0", refs="1")
    for short_side, size in ((50, (50, 66)), (200, (200, 264)), (None, (100, 132))):
        flow = flow_in(path, short_side=short_side)
        assert flow.shape[2:] == size
        scale = size[0] / 100
        np.testing.assert_allclose(np.median(inner(flow, 16), axis=(0, 2, 3)), (4 * scale, -2 * scale), atol=0.05)


@pytest.mark.parametrize("matrix", [*CLOCKWISE.values(), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0)])
def test_vectors_rotate_and_mirror_with_the_picture(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """The motion and the place of a moving square follow the display matrix."""
    a, b, c, d = matrix
    centres = [(28 + 14 * t, 32 + 4 * t) for t in range(7)]
    pictures = [textured_square(at, height=104, width=168) for at in centres]
    path = with_matrix(encode(tmp_path / "turned.mp4", pictures, **X264, bf="0", refs="1"), matrix)
    flow = flow_in(path)
    width, height = 168, 104
    assert flow.shape[2:] == ((width, height) if a == 0 else (height, width))
    moves = np.hypot(*flow[2]) > 8
    u, v = (np.median(component[moves]) for component in flow[2])  # smoothing at the edges makes it smaller
    assert (u, v) == pytest.approx((14 * a + 4 * c, 14 * b + 4 * d), abs=3.5)
    x, y = centres[2][0] - width / 2, centres[2][1] - height / 2
    middle = flow.shape[3] / 2, flow.shape[2] / 2
    wanted = middle[0] + a * x + c * y, middle[1] + b * x + d * y
    assert centre_of_motion(flow[2]) == pytest.approx(wanted, abs=5)


def test_a_key_frame_repeats_the_field_before(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", steady(3, -2), codec="mpeg4", **MPEG, bf="0", g="5")
    assert picture_types(path) == "IPPPPIPPPPIPPP"
    flow = flow_in(path)
    np.testing.assert_array_equal(flow[4], flow[3])  # picture 5 is a key frame
    assert flow[4] is not flow[3]
    assert np.median(inner(flow)[4, 0]) == pytest.approx(3, abs=0.05)


def test_a_video_of_key_frames_has_zero_flow(tmp_path: Path) -> None:
    flow = flow_in(encode(tmp_path / "a.avi", steady(3, -2, 4), codec="mpeg4", g="1"))
    assert flow.shape == (3, 2, 96, 128)
    assert not flow.any()


def test_one_frame_has_no_flow(tmp_path: Path) -> None:
    with iter_frames(encode(tmp_path / "a.mp4", steady(3, -2, 1)), motion_vectors=True) as reader:
        assert list(flow_of(reader, MV)) == []


def block(x: float, y: float, width: float, height: float, u: float, v: float) -> NDArray[np.void]:
    return np.array([(x, y, width, height, u, v, 1)], MOTION_VECTOR)


def test_one_block_fills_the_picture() -> None:
    field = dense(block(16, 16, 16, 16, 1.5, -2.5), 36, 52)
    assert field.shape == (2, 36, 52)
    np.testing.assert_allclose(field[0], 1.5, atol=1e-6)
    np.testing.assert_allclose(field[1], -2.5, atol=1e-6)


def test_later_blocks_cover_earlier_ones() -> None:
    everywhere, right_half = block(64, 32, 128, 64, 0, 0), block(96, 32, 64, 64, 4, 0)
    u = dense(np.concatenate([everywhere, right_half]), 64, 128)[0]
    # A smoothed step, symmetric about the border between columns 63 and 64.
    np.testing.assert_allclose(u + u[:, ::-1], 4, atol=1e-5)
    np.testing.assert_allclose(u[:, [0, 127]], [[0, 4]] * 64, atol=1e-3)
    assert u[0, 63] < 2 < u[0, 64]
    assert not dense(np.concatenate([right_half, everywhere]), 64, 128).any()


def test_blocks_outside_the_picture_are_ignored() -> None:
    assert not dense(block(-40, 500, 16, 16, 9, 9), 64, 64).any()
    both = np.concatenate([block(-40, 500, 16, 16, 9, 9), block(8, 8, 16, 16, 1, 0)])
    np.testing.assert_allclose(dense(both, 64, 64)[0], 1, atol=1e-6)


def test_holes_take_the_mean_of_their_neighbours() -> None:
    left, right = block(16, 32, 32, 64, 0, 0), block(112, 32, 32, 64, 8, 0)
    u = dense(np.concatenate([left, right]), 64, 128)[0]
    assert (np.diff(u[32]) >= -1e-5).all()
    np.testing.assert_allclose(u + u[:, ::-1], 8, atol=1e-4)


def test_flow_of_equals_iter_flow_for_picture_methods(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2, 4))
    for spec in (FlowSpec(), FlowSpec("farneback")):
        with iter_frames(path, motion_vectors=spec.from_codec) as reader:
            found = np.stack(list(flow_of(reader, spec)))
        np.testing.assert_array_equal(found, estimate_flow(read_video(path).frames, spec))


def test_a_segment_of_frames_gives_the_same_flow(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2), **X264)
    whole = flow_in(path)
    with iter_frames(path, motion_vectors=True) as reader:
        part = list(flow_of(list(reader)[4:9], MV))
    np.testing.assert_array_equal(np.stack(part), whole[4:8])


def test_the_median_is_subtracted(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2), **X264)
    flow = flow_in(path, FlowSpec("mv", subtract_median=True))
    np.testing.assert_allclose(np.median(flow, axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(flow_in(path) - np.median(flow_in(path), axis=(2, 3), keepdims=True), flow, atol=1e-6)


@pytest.mark.parametrize("use", [lambda frames: estimate_flow(frames, MV), lambda frames: list(iter_flow(frames, MV))])
def test_pictures_alone_raise(use: Callable[[NDArray[np.uint8]], object]) -> None:
    with pytest.raises(FlowSpecError, match="video file's motion vectors") as error:
        use(np.zeros((2, 64, 64, 3), np.uint8))
    assert "\n" not in str(error.value)


def test_frames_read_without_vectors_raise(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", steady(3, -2, 3))
    with iter_frames(path) as reader, pytest.raises(FlowSpecError, match="motion_vectors=True"):
        list(flow_of(reader, MV))
    with iter_frames(path, short_side=16, motion_vectors=True) as reader, pytest.raises(FlowSpecError, match="32 px"):
        list(flow_of(reader, MV))


def test_vectors_agree_with_dis_on_real_videos(shared: Path) -> None:
    """In Xvid with and without B pictures, direction and size agree where there is motion."""
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
