"""Estimated flow: direction and size on known motion, determinism, batches, invalid frames."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers.motion import moving, texture
from stresnet.errors import FlowSpecError
from stresnet.flow import FlowSpec, dequantize_flow, estimate_flow, iter_flow, mirror_flow, quantize_flow
from stresnet.flow.methods import METHODS
from stresnet.flow.methods.tvl1_torch import TVL1Parameters, tvl1

PICTURE_SPECS = [  # the methods that are computed from pictures and need no other files
    FlowSpec(method, preset) for method in ("dis", "tvl1", "farneback") for preset in METHODS[method].presets
]
COARSE = [FlowSpec(preset="ultrafast"), FlowSpec(preset="fast")]  # presets that stop at a quarter of the size


def name(spec: FlowSpec) -> str:
    return f"{spec.method}-{spec.preset}"


def inner(flow: NDArray[np.float32], border: int = 16) -> NDArray[np.float32]:
    return flow[..., border:-border, border:-border]


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
def test_flow_does_not_depend_on_threads_or_on_earlier_pairs(spec: FlowSpec) -> None:
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
def test_methods_use_the_parameters_of_their_preset(spec: FlowSpec) -> None:
    """Compare with direct calls of OpenCV and of TV-L1 in PyTorch, with their presets and defaults."""
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in moving(3, -2))
    if spec.method == "dis":
        preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{spec.preset.upper()}")
        expected = cv2.DISOpticalFlow_create(preset).calc(first, second, None)
    elif spec.preset == "fast":
        pair = (torch.from_numpy(frame)[None] for frame in (first, second))
        expected = tvl1(*pair, TVL1Parameters())[0].permute(1, 2, 0).numpy()
    elif spec.method == "tvl1":
        expected = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)
    else:
        expected = cv2.calcOpticalFlowFarneback(
            first, second, None, 0.5, 5, 13, 10, 5, 1.1, cv2.OPTFLOW_FARNEBACK_GAUSSIAN
        )
    np.testing.assert_array_equal(estimate_flow(moving(3, -2), spec)[0], expected.transpose(2, 0, 1))


def test_dis_is_close_to_tvl1_on_real_frames(shared: Path) -> None:
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


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the test with each number of OpenCV threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(request.param)
    yield request.param
    cv2.setNumThreads(before)


def counted(frames: Iterable[NDArray[np.uint8]], taken: list[int]) -> Iterator[NDArray[np.uint8]]:
    for index, frame in enumerate(frames):
        taken.append(index)
        yield frame


def test_iter_flow_reads_a_few_frames_ahead(threads: int) -> None:
    taken: list[int] = []
    fields_ = iter_flow(counted(moving(1, 1, count=9), taken), FlowSpec())
    assert next(fields_).shape == (2, 96, 128)
    assert len(taken) == (2 if threads == 1 else 2 + threads + 1)
    assert len(list(fields_)) == 7
    assert list(iter_flow(moving(1, 1)[:1], FlowSpec())) == []


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
@pytest.mark.parametrize("size", [(33, 47), (48, 40)])
def test_pairs_on_several_threads_have_the_flow_of_one(spec: FlowSpec, size: tuple[int, int]) -> None:
    """Sizes at which OpenCV's DIS changes the settings of the object that computes them."""
    pictures = moving(2, -1, *size, count=6)
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = list(iter_flow(pictures, spec))
        cv2.setNumThreads(4)
        together, others = iter_flow(pictures, spec), iter_flow(pictures[::-1], spec)
        for field in alone:  # both at the same time, from the same thread
            np.testing.assert_array_equal(next(together), field)
            next(others)
    finally:
        cv2.setNumThreads(before)


def test_a_wrong_frame_raises_after_the_flow_of_those_before(threads: int) -> None:
    frames = [*moving(1, 1, count=5), np.zeros((64, 80, 3), np.uint8)]
    fields_ = iter_flow(frames, FlowSpec())
    assert len([next(fields_) for _ in range(4)]) == 4
    with pytest.raises(FlowSpecError, match="frame 5 is 80x64"):
        next(fields_)
    assert not flow_threads()


def test_a_flow_that_is_left_early_ends_its_threads(threads: int) -> None:
    taken: list[int] = []
    fields_ = iter_flow(counted(moving(1, 1, count=9), taken), FlowSpec())
    next(fields_)
    assert bool(flow_threads()) == (threads > 1)
    del fields_
    assert not flow_threads()
    assert len(taken) < 9


def flow_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("flow")]


def test_tvl1_in_torch_is_batched_and_compiled_after_some_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither batches nor compilation change the flow."""
    calls = []

    def recorded(
        previous: torch.Tensor, following: torch.Tensor, params: TVL1Parameters, *, compiled: bool
    ) -> torch.Tensor:
        calls.append((len(previous), compiled))
        return tvl1(previous, following, params)

    monkeypatch.setattr("stresnet.flow.methods.tvl1_torch.tvl1", recorded)
    monkeypatch.setattr("stresnet.flow.methods.tvl1._COMPILE_AFTER_PX", 20 * 40 * 48)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec = FlowSpec("tvl1", "fast", bound_px=19)  # used by no other test, so that no pairs were counted yet
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
def test_invalid_frames_raise(frames: Any, words: str) -> None:
    with pytest.raises(FlowSpecError) as error:
        estimate_flow(frames, FlowSpec())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_frames_of_two_sizes_raise() -> None:
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)]
    with pytest.raises(FlowSpecError, match="frame 1 is 80x64, the first 64x64"):
        list(iter_flow(frames, FlowSpec()))


@pytest.mark.parametrize("method", ["dis", "tvl1", "farneback"])
def test_flow_of_the_mirrored_video_is_the_mirrored_flow(method: str) -> None:
    spec = FlowSpec(method)
    frames = moving(3, -2)
    other = estimate_flow(frames[:, :, ::-1], spec)
    off = np.abs(inner(other) - inner(mirror_flow(estimate_flow(frames, spec))))
    assert off.mean() < 0.02  # px; without the sign it would be 6


@pytest.mark.parametrize("spec", PICTURE_SPECS, ids=name)
def test_the_median_of_each_field_is_subtracted(spec: FlowSpec) -> None:
    frames = moving(3, -2, count=3)
    plain = estimate_flow(frames, spec)
    found = estimate_flow(frames, replace(spec, subtract_median=True))
    assert found.dtype == np.float32
    wanted = plain - np.median(plain, axis=(2, 3), keepdims=True)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(np.median(found, axis=(2, 3)), 0, atol=1e-6)


def test_objects_keep_their_motion_when_the_median_is_subtracted() -> None:
    """The camera moves faster than the bound, because the median is subtracted before clipping."""
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
    assert np.median(levels, axis=(1, 2)) == pytest.approx([0, 0], abs=0.03)  # zero flow is half a level off
    assert np.median(levels[:, 56:72, 76:92], axis=(1, 2)) == pytest.approx(own_px, abs=0.1)
