"""Optical flow: direction and size on known motion, determinism, the 8-bit codec, the mirror, the specification."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.motion import moving, texture
from stresnet.errors import FlowSpecError
from stresnet.flow import (
    FlowSpec,
    clipped_share,
    dequantize_flow,
    estimate_flow,
    flow_to_rgb,
    iter_flow,
    mirror_flow,
    quantize_flow,
)
from stresnet.flow.methods import METHODS
from stresnet.flow.methods.tvl1_torch import TVL1Parameters, tvl1

ALL_SPECS = [FlowSpec(method.name, preset) for method in METHODS.values() for preset in method.presets]
PICTURE_SPECS = [spec for spec in ALL_SPECS if spec.method in ("dis", "tvl1", "farneback")]  # the others: own files

COARSE = [FlowSpec(preset="ultrafast"), FlowSpec(preset="fast")]  # presets that stop at a quarter of the size


def name(spec: FlowSpec) -> str:
    return f"{spec.method}-{spec.preset}"


def inner(flow: NDArray[np.float32], border: int = 16) -> NDArray[np.float32]:
    return flow[..., border:-border, border:-border]


# ---------------------------------------------------------------- estimation


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
@pytest.mark.parametrize("motion", [(3, -2), (-4, 1), (0, 3)])
def test_known_translations_are_found(spec: FlowSpec, motion: tuple[int, int]) -> None:
    flow = estimate_flow(moving(*motion), spec)
    assert flow.shape == (1, 2, 96, 128)
    assert flow.dtype == np.float32
    off = np.hypot(*(inner(flow)[0] - np.array(motion, np.float32)[:, None, None]))
    assert off.mean() < (0.25 if spec in COARSE else 0.05)  # px


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
def test_flow_t_takes_frame_t_to_the_next(spec: FlowSpec) -> None:
    one, two = moving(2, 0), moving(0, -3)
    frames = np.stack([one[0], one[1], one[1]])
    flow = estimate_flow(frames, spec)
    tolerance = 0.3 if spec in COARSE else 0.05
    assert inner(flow)[0, 0].mean() == pytest.approx(2, abs=tolerance)
    assert np.abs(inner(flow)[1]).max() < 1e-3  # a repeated frame
    assert inner(estimate_flow(two, spec))[0, 1].mean() == pytest.approx(-3, abs=tolerance)


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
def test_the_same_bits_whatever_the_threads_and_the_history(spec: FlowSpec) -> None:
    size = (40, 48) if spec.method == "tvl1" else (240, 320)
    big = texture(size[0] + 16, size[1] + 16, blur_px=1.0)
    frames = np.stack([big[8:-8, 8:-8], big[5:-11, 10:-6], big[8:-8, 2:-14], big[8:-8, 8:-8][::-1]])
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = np.concatenate([estimate_flow(frames[t : t + 2], spec) for t in range(3)])
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            np.testing.assert_array_equal(estimate_flow(frames, spec), alone)
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
def test_methods_use_the_parameters_that_the_digest_covers(spec: FlowSpec) -> None:
    """Ours against OpenCV, or our TV-L1 in PyTorch, called directly, with its own presets and defaults."""
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in moving(3, -2))
    if spec.method == "dis":
        preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{spec.preset.upper()}")
        theirs = cv2.DISOpticalFlow_create(preset).calc(first, second, None)
    elif spec.preset == "fast":
        pair = (torch.from_numpy(frame)[None] for frame in (first, second))
        theirs = tvl1(*pair, TVL1Parameters())[0].permute(1, 2, 0).numpy()
    elif spec.method == "tvl1":
        theirs = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    else:
        theirs = cv2.calcOpticalFlowFarneback(
            first, second, None, 0.5, 5, 13, 10, 5, 1.1, cv2.OPTFLOW_FARNEBACK_GAUSSIAN
        )
    np.testing.assert_array_equal(estimate_flow(moving(3, -2), spec)[0], theirs.transpose(2, 0, 1))


def test_dis_is_near_tvl1_on_real_frames(shared: Path) -> None:
    files = sorted((shared / "flow_sample").glob("img_*.jpg"))
    frames = np.stack([cv2.resize(cv2.imread(str(file))[..., ::-1], (160, 120)) for file in files[:2]])
    dis, tvl1 = (estimate_flow(frames, FlowSpec(method))[0] for method in ("dis", "tvl1"))
    moves = np.hypot(*tvl1) > 0.5
    assert moves.mean() > 0.02
    for axis in range(2):
        assert np.corrcoef(dis[axis][moves], tvl1[axis][moves])[0, 1] > 0.7
    slope = (dis * tvl1)[:, moves].sum() / (tvl1**2)[:, moves].sum()
    assert 0.7 < slope < 1.3


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
def test_flow_explains_the_change_between_real_frames(shared: Path, spec: FlowSpec) -> None:
    files = sorted((shared / "flow_sample").glob("img_*.jpg"))
    pair = np.stack([cv2.resize(cv2.imread(str(file))[..., ::-1], (160, 120)) for file in files[:2]])
    u, v = estimate_flow(pair, spec)[0]
    x, y = np.meshgrid(np.arange(160, dtype=np.float32), np.arange(120, dtype=np.float32))
    brought_back = cv2.remap(pair[1], x + u, y + v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    before = np.abs(pair[1].astype(float) - pair[0]).mean()
    after = np.abs(brought_back.astype(float) - pair[0]).mean()
    assert after < (0.7 if spec in COARSE else 0.6) * before


def test_iter_flow_streams() -> None:
    taken = 0

    def source() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        for frame in moving(1, 1, count=5):
            taken += 1
            yield frame

    fields_ = iter_flow(source(), FlowSpec())
    assert next(fields_).shape == (2, 96, 128)
    assert taken == 2
    assert len(list(fields_)) == 3
    assert list(iter_flow(moving(1, 1)[:1], FlowSpec())) == []


def test_tvl1_in_torch_takes_pairs_by_the_dozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded in number, in order, compiled once that is worth it: none of which shows in the flow."""
    calls = []

    def recorded(
        previous: torch.Tensor, following: torch.Tensor, params: TVL1Parameters, *, compiled: bool
    ) -> torch.Tensor:
        calls.append((len(previous), compiled))
        return tvl1(previous, following, params)

    monkeypatch.setattr("stresnet.flow.methods.tvl1_torch.tvl1", recorded)
    monkeypatch.setattr("stresnet.flow.methods.tvl1._COMPILE_AFTER_PX", 20 * 40 * 48)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = FlowSpec("tvl1", "fast", bound_px=19)  # no other test's, so that nothing was counted yet
    frames = moving(1, 0, 40, 48, count=41)
    flow = estimate_flow(frames, spec)
    assert calls == [(16, False), (16, False), (8, True)]
    np.testing.assert_array_equal(flow[37], estimate_flow(frames[37:39], spec)[0])
    assert np.abs(np.median(inner(flow), axis=(2, 3)) - (1, 0)).max() < 0.1


def test_frames_need_not_be_contiguous() -> None:
    frames = moving(2, 1)
    view = np.ascontiguousarray(frames[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_array_equal(estimate_flow(view, FlowSpec()), estimate_flow(frames, FlowSpec()))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((1, 64, 64, 3), np.uint8), "T at least 2"),
        ([np.zeros((64, 64, 3), np.uint8)] * 3, "an array of frames (T,H,W,3) uint8, found list"),
        (np.zeros((64, 64, 3), np.uint8), "(T,H,W,3)"),
        (np.zeros((2, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((2, 64, 64, 1), np.uint8), "(64, 64, 1)"),
        (np.zeros((2, 3, 64, 64), np.uint8), "(3, 64, 64)"),
        (np.zeros((2, 31, 340, 3), np.uint8), "at least 32 px"),  # OpenCV's DIS crashes on these
    ],
)
def test_frames_that_are_none_are_refused(frames: Any, words: str) -> None:
    with pytest.raises(FlowSpecError) as error:
        estimate_flow(frames, FlowSpec())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_frames_of_two_sizes_are_refused() -> None:
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)]
    with pytest.raises(FlowSpecError, match="frame 1 is 80x64, the first 64x64"):
        list(iter_flow(frames, FlowSpec()))


@pytest.mark.parametrize("method", ["dis", "tvl1", "farneback"])
def test_flow_of_the_mirrored_video_is_the_mirrored_flow(method: str) -> None:
    spec = FlowSpec(method)
    frames = moving(3, -2)
    other = estimate_flow(frames[:, :, ::-1], spec)
    off = np.abs(inner(other) - inner(mirror_flow(estimate_flow(frames, spec))))
    assert off.mean() < 0.02  # px; without the sign 6, without the flip it would not even be a mirror


# ---------------------------------------------------------------- camera motion


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
def test_the_median_of_each_field_is_subtracted(spec: FlowSpec) -> None:
    frames = moving(3, -2, count=3)
    plain = estimate_flow(frames, spec)
    found = estimate_flow(frames, replace(spec, subtract_median=True))
    assert found.dtype == np.float32
    wanted = plain - np.median(plain, axis=(2, 3), keepdims=True)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(np.median(found, axis=(2, 3)), 0, atol=1e-6)


def test_what_moves_before_a_moving_camera_keeps_its_own_motion() -> None:
    """The camera's part is more than the bound: what is subtracted from is not clipped yet."""
    pan_px, own_px = (9, 4), (-4, 3)
    big, thing = texture(200, 260), texture(48, 48, seed=1)
    frames = []
    for t in range(2):
        x, y = 40 - pan_px[0] * t, 40 - pan_px[1] * t
        frame = big[y : y + 128, x : x + 160].copy()
        x, y = 60 + (pan_px[0] + own_px[0]) * t, 40 + (pan_px[1] + own_px[1]) * t
        frame[y : y + 48, x : x + 48] = thing
        frames.append(frame)
    spec = FlowSpec(bound_px=5, subtract_median=True)
    flow = estimate_flow(np.stack(frames), spec)[0]
    levels = dequantize_flow(quantize_flow(flow, spec.bound_px), spec.bound_px)
    assert np.median(levels, axis=(1, 2)) == pytest.approx([0, 0], abs=0.03)  # rest is a level and a half of it
    assert np.median(levels[:, 56:72, 76:92], axis=(1, 2)) == pytest.approx(own_px, abs=0.1)


# ---------------------------------------------------------------- codec and mirror


@pytest.mark.parametrize("bound_px", [20.0, 7.5, 1.0])
def test_bytes_are_off_by_half_a_level_at_most(bound_px: float) -> None:
    flow = np.random.default_rng(0).uniform(-bound_px, bound_px, (3, 2, 50, 60)).astype(np.float32)
    levels = quantize_flow(flow, bound_px)
    assert levels.dtype == np.uint8
    assert levels.shape == flow.shape
    back = dequantize_flow(levels, bound_px)
    assert back.dtype == np.float32
    assert np.abs(back - flow).max() <= bound_px / 255 * (1 + 1e-5)
    assert np.abs(back - flow).max() > 0.9 * bound_px / 255


def test_all_levels_survive_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantize_flow(dequantize_flow(levels, 20.0), 20.0), levels)


def test_levels_of_known_flows() -> None:
    flow = np.array([-20, 20, 0, -0.0, -1000, 1000, 0.1, -0.1, -np.inf], np.float32)
    before = flow.copy()
    assert quantize_flow(flow, 20.0).tolist() == [0, 255, 128, 128, 0, 255, 128, 127, 0]
    np.testing.assert_array_equal(flow, before)  # the argument is left alone
    np.testing.assert_allclose(dequantize_flow(np.array([0, 255, 128], np.uint8), 20.0), [-20, 20, 20 / 255], atol=1e-5)


def test_unknown_flow_has_no_level() -> None:
    flow = np.zeros((2, 4, 5), np.float32)
    flow[0, 1, 1] = np.nan
    with pytest.raises(FlowSpecError, match="found 1 NaN"):
        quantize_flow(flow, 20.0)


def test_mirror_negates_u_flips_x_and_undoes_itself_bit_for_bit() -> None:
    flow = np.random.default_rng(0).standard_normal((3, 2, 5, 7)).astype(np.float32)
    flow[0, :, 0, 0] = [0.0, -0.0]
    mirrored = mirror_flow(flow)
    np.testing.assert_array_equal(mirrored[:, 0], -flow[:, 0, :, ::-1])
    np.testing.assert_array_equal(mirrored[:, 1], flow[:, 1, :, ::-1])
    assert mirrored.dtype == flow.dtype
    assert mirror_flow(mirrored).tobytes() == flow.tobytes()
    np.testing.assert_array_equal(mirror_flow(flow[0]), mirrored[0])


def test_clipped_share_counts_vectors() -> None:
    flow = np.zeros((2, 2, 4, 5), np.float32)
    flow[0, 0, 0, 0] = 21  # u only
    flow[0, 1, 0, 1] = -21  # v only
    flow[1, :, 2, 2] = 21  # both: one vector
    flow[1, 0, 3, 3] = 20  # on the bound: kept
    assert clipped_share(flow, 20.0) == pytest.approx(3 / 40)
    assert clipped_share(flow[0], 20.0) == pytest.approx(2 / 20)


# ---------------------------------------------------------------- colour


def test_colours_tell_direction_and_speed() -> None:
    flow = np.zeros((2, 1, 6), np.float32)
    flow[:, 0, 1:] = np.array([(4, 0), (-4, 0), (2, 0), (40, 0), (0, 4)]).T
    still, right, left, half, fast, down = flow_to_rgb(flow, 4.0)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == fast.tolist() == [255, 0, 0]
    assert half.tolist() == pytest.approx([255, 128, 128], abs=1)
    assert left[0] == 0  # opposite to red
    assert left[2] == 255
    assert len({tuple(colour) for colour in (right, left, down)}) == 3
    assert flow_to_rgb(flow, 4.0).dtype == np.uint8


def test_colour_changes_steadily_around_the_wheel() -> None:
    angle = np.linspace(0, 2 * np.pi, 721)
    wheel = flow_to_rgb(np.stack([np.cos(angle), np.sin(angle)])[:, None].astype(np.float32), 1.0)[0].astype(int)
    assert np.abs(np.diff(wheel, axis=0)).max() <= 10  # no jump, the end meets the beginning


def test_colour_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="max_px"):
        flow_to_rgb(np.zeros((2, 3, 3), np.float32), 0)
    with pytest.raises(ValueError, match=r"\(2,H,W\)"):
        flow_to_rgb(np.zeros((3, 3, 2), np.float32), 1)


# ---------------------------------------------------------------- specification


def test_every_field_changes_the_digest() -> None:
    spec = FlowSpec()
    others = [
        replace(spec, preset="fast"),
        replace(spec, method="tvl1", preset=""),
        replace(spec, method="farneback", preset=""),
        replace(spec, short_side=128),
        replace(spec, bound_px=15.0),
        replace(spec, subtract_median=True),
    ]
    names = {"method", "preset", "short_side", "bound_px", "subtract_median"}
    assert {field.name for field in fields(spec)} == names
    digests = {spec.digest(), *(other.digest() for other in others)}
    assert len(digests) == 7
    assert all(len(digest) == 12 and set(digest) <= set("0123456789abcdef") for digest in digests)


def test_an_opencv_parameter_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = FlowSpec().digest()
    presets = METHODS["dis"].presets
    monkeypatch.setitem(presets, "medium", {**presets["medium"], "patch_stride": 4})
    assert FlowSpec().digest() != before


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (FlowSpec(), "32861cae4871"),
        (FlowSpec(preset="ultrafast"), "403cae4ee018"),
        (FlowSpec(preset="fast"), "31484c12e3e3"),
        (FlowSpec("tvl1"), "0a65208f1d80"),
        (FlowSpec("farneback"), "a46f06d90e9f"),
        (FlowSpec(short_side=128, bound_px=10), "e435fafa8d60"),
        (FlowSpec("tvl1", "fast"), "20765da8da51"),
        (FlowSpec("mv"), "f10518aeff2e"),
        (FlowSpec("raft"), "5f644760fdd1"),
        (FlowSpec("raft", "small"), "87bb0250cf24"),
        (FlowSpec(subtract_median=True), "ccbb6cdb9987"),
    ],
)
def test_the_digest_is_the_one_stores_were_made_with(spec: FlowSpec, digest: str) -> None:
    """Prepared stores and checkpoints hold it: a change of this value orphans them all."""
    assert spec.digest() == digest
    assert FlowSpec(bound_px=20).digest() == FlowSpec(bound_px=20.0).digest()


def test_the_preset_follows_the_method() -> None:
    assert FlowSpec().preset == "medium"
    assert FlowSpec("tvl1").preset == "default"
    assert FlowSpec("farneback") == FlowSpec("farneback", "default")
    assert FlowSpec("mv").preset == "default"
    assert FlowSpec("raft").preset == "large"
    assert [spec.method for spec in ALL_SPECS if spec.from_codec] == ["mv"]


@pytest.mark.parametrize("spec", ALL_SPECS, ids=name)
def test_dict_round_trip(spec: FlowSpec) -> None:
    spec = replace(spec, short_side=112, bound_px=8.5)
    assert FlowSpec.from_dict(spec.to_dict()) == spec
    assert set(spec.to_dict()) == {"method", "preset", "short_side", "bound_px"}  # as earlier versions wrote it
    spec = replace(spec, subtract_median=True)
    assert FlowSpec.from_dict(spec.to_dict()) == spec
    assert spec.to_dict()["subtract_median"] is True
    assert "median subtracted" in str(spec)
    assert FlowSpec.from_dict({"method": spec.method, "preset": spec.preset}).short_side == 256


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"methid": "dis"}, "'methid'"),
        ({"method": "brox"}, "dis, tvl1, farneback, mv, raft"),
        ({"preset": "default"}, "ultrafast, fast, medium"),
        ({"method": "tvl1", "preset": "medium"}, "must be one of default"),
        ({"short_side": 31}, "at least 32"),
        ({"short_side": 256.0}, "whole number"),
        ({"short_side": True}, "whole number"),
        ({"bound_px": 0}, "above 0"),
        ({"bound_px": float("nan")}, "above 0"),
        ({"bound_px": "20"}, "above 0"),
        ({"subtract_median": 1}, "true or false"),
        ({"method": "raft", "preset": "medium"}, "must be one of large, small"),
    ],
)
def test_a_specification_that_is_none_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(FlowSpecError) as error:
        FlowSpec.from_dict(values)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_require_same_prints_both() -> None:
    FlowSpec().require_same(FlowSpec.from_dict(FlowSpec().to_dict()), "the model and the store")
    with pytest.raises(FlowSpecError) as error:
        FlowSpec().require_same(FlowSpec("tvl1", short_side=128), "the model and the store")
    message = str(error.value)
    assert "the model and the store" in message
    assert "dis/medium short_side=256" in message
    assert "tvl1/default short_side=128" in message
    assert "\n" not in message
