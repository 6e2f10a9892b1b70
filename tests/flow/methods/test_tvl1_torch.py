"""TV-L1 flow in PyTorch: accuracy on known motions, parity with OpenCV, invariance, each part against a plain version.

N pairs, H height, W width; flow (N, 2, H, W) in pixels per frame.
"""

from __future__ import annotations

import shutil
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from helpers.known_motions import FOLLOWING, MOTIONS, PREVIOUS, TRUTH, H, Numbers, W, places
from stresnet.errors import FlowSpecError
from stresnet.flow.methods import METHODS, tvl1_torch, tvl1_torch_compiled, tvl1_torch_scale
from stresnet.flow.methods.tvl1_torch import TVL1Parameters, tvl1

QUICK = TVL1Parameters(inner_iterations=6)  # for tests that only compare results


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def opencv(previous: Tensor, following: Tensor) -> NDArray[np.float32]:
    """Return the flow (N, 2, H, W) of OpenCV's DualTVL1 with its defaults."""
    both = zip(previous.numpy(), following.numpy(), strict=True)
    made: Any = cv2.optflow  # type: ignore[attr-defined]  # not in OpenCV's stubs
    return np.stack([made.DualTVL1OpticalFlow_create().calc(*frames, None) for frames in both]).transpose(0, 3, 1, 2)


def distance(one: Any, other: Any, border: int = 0) -> Numbers:
    """Return the mean endpoint distance of flows (N, 2, H, W), per pair."""
    inside = slice(border, -border or None)
    off = np.hypot(*np.moveaxis(np.asarray(one) - np.asarray(other), 1, 0))
    return np.asarray(off[:, inside, inside].mean((1, 2)))


def pair(index: int) -> tuple[Tensor, Tensor]:
    return PREVIOUS[index : index + 1], FOLLOWING[index : index + 1]


def random_flow(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- accuracy


@pytest.fixture(scope="module")
def ours() -> Tensor:
    return tvl1(PREVIOUS, FOLLOWING)


@pytest.fixture(scope="module")
def opencv_flow() -> NDArray[np.float32]:
    return opencv(PREVIOUS, FOLLOWING)


@pytest.mark.parametrize("name", MOTIONS)
def test_known_motions_are_found(ours: Tensor, name: str) -> None:
    index, (_, allowed_px, border) = list(MOTIONS).index(name), MOTIONS[name]
    assert distance(ours[index : index + 1], TRUTH[index : index + 1], border)[0] < allowed_px


def test_the_endpoint_error_is_no_larger_than_that_of_opencv(ours: Tensor, opencv_flow: NDArray[np.float32]) -> None:
    for border in (0, 8):
        assert distance(ours, TRUTH, border).mean() < 1.02 * distance(opencv_flow, TRUTH, border).mean()


def test_opencvs_parameters_give_opencvs_flow() -> None:
    """Except at the border. OpenCV interpolates cubically instead of linearly, and stops at other iterations."""
    kept = [0, 1, 3, 4, 5]  # the other two reach other local minima
    params = TVL1Parameters.from_preset(METHODS["tvl1"].presets["default"])
    assert params == TVL1Parameters(scales=5, warps=5, epsilon=0.01, outer_iterations=10)
    flow = tvl1(PREVIOUS[kept], FOLLOWING[kept], params)
    assert distance(flow, opencv(PREVIOUS[kept], FOLLOWING[kept]), 8).max() < 0.06  # px


def test_still_and_flat_pictures_have_no_flow() -> None:
    assert tvl1(PREVIOUS, PREVIOUS, QUICK).abs().max() < 1e-4  # px: rounding of the sampling positions
    flat = torch.full((1, H, W), 17, dtype=torch.uint8)
    assert not tvl1(flat, flat, QUICK).any()
    assert tvl1(flat, PREVIOUS[:1], QUICK).isfinite().all()  # a gradient in one picture only
    assert tvl1(PREVIOUS[:1], flat, QUICK).isfinite().all()


def test_transposed_pictures_have_transposed_flow() -> None:
    turned = tvl1(PREVIOUS.transpose(1, 2), FOLLOWING.transpose(1, 2)).transpose(2, 3).flip(1)
    assert distance(turned, tvl1(PREVIOUS, FOLLOWING)).max() < 1e-3  # px; only the order of sums differs


# ---------------------------------------------------------------- invariance


def test_a_pairs_flow_does_not_depend_on_the_batch(ours: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    many = torch.cat([PREVIOUS, FOLLOWING, PREVIOUS.flip(2)]), torch.cat([FOLLOWING, PREVIOUS, FOLLOWING.flip(2)])
    together = tvl1(*many)  # 21 pairs: some torch operations change their algorithm above 16 planes
    one_by_one = torch.cat([tvl1(many[0][k : k + 1], many[1][k : k + 1]) for k in range(len(together))])
    assert torch.equal(one_by_one, together)
    assert torch.equal(ours, together[: len(ours)])
    monkeypatch.setitem(tvl1_torch._TOGETHER_PX, "cpu", 2 * H * W)
    monkeypatch.setitem(tvl1_torch._AT_ONCE_PX, "cpu", 3 * H * W)
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)
    order = [4, 2, 6, 0, 1, 5, 3]
    assert torch.equal(tvl1(PREVIOUS[order], FOLLOWING[order]), ours[order])


def test_flow_does_not_depend_on_threads_whose_number_is_restored(ours: Tensor) -> None:
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)
        assert torch.get_num_threads() == threads


def test_concurrent_calls_restore_the_number_of_threads(ours: Tensor) -> None:
    torch.set_num_threads(2)
    others_inside = threading.Barrier(2, timeout=60)

    def call(delay_sec: float) -> bool:
        others_inside.wait()
        time.sleep(delay_sec)
        return torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(call, (0, 0.02)))
        assert set(pool.map(lambda _: torch.get_num_threads(), range(4))) == {2}
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 2


def test_flow_is_the_same_in_inference_mode(ours: Tensor) -> None:
    torch.set_num_threads(2)
    with torch.inference_mode():
        flow = tvl1(PREVIOUS.clone(), FOLLOWING.clone())  # inference tensors
        assert torch.equal(flow, ours)
    assert not flow.is_inference()


def test_flow_does_not_depend_on_the_default_dtype(ours: Tensor) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)
    finally:
        torch.set_default_dtype(torch.float32)


def test_float_levels_give_the_same_flow_and_inputs_are_not_modified(ours: Tensor) -> None:
    frames = PREVIOUS.float(), FOLLOWING.float()
    kept = frames[0].clone(), frames[1].clone()
    frames[0].requires_grad_()
    flow = tvl1(*frames)
    assert torch.equal(flow, ours)
    assert flow.dtype == torch.float32
    assert not flow.requires_grad
    assert all(torch.equal(now.detach(), before) for now, before in zip(frames, kept, strict=True))


def test_early_stopping_is_decided_per_pair() -> None:
    never, rarely, soon = (replace(QUICK, inner_iterations=20, epsilon=epsilon) for epsilon in (0.0, 1e-12, 0.05))
    together = tvl1(PREVIOUS, FOLLOWING, soon)
    alone = torch.cat([tvl1(PREVIOUS[k : k + 1], FOLLOWING[k : k + 1], soon) for k in range(len(PREVIOUS))])
    assert torch.equal(together, alone)
    unstopped = tvl1(PREVIOUS, FOLLOWING, never)
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING, rarely), unstopped)
    assert not torch.equal(together, unstopped)
    at_once = replace(soon, epsilon=100.0)
    assert torch.equal(tvl1(*pair(0), replace(at_once, outer_iterations=9)), tvl1(*pair(0), at_once))


def test_scales_below_16_px_are_skipped() -> None:
    frames = PREVIOUS[:1, :, :40], FOLLOWING[:1, :, :40]  # 64x40 ... 27x17: the sixth would be 22x14
    assert torch.equal(tvl1(*frames, replace(QUICK, scales=9)), tvl1(*frames, replace(QUICK, scales=5)))
    assert not torch.equal(tvl1(*frames, replace(QUICK, scales=5)), tvl1(*frames, replace(QUICK, scales=4)))


def test_flow_is_scaled_to_the_pixels_of_each_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Tensor] = []

    def unmoved(first: Tensor, second: Tensor, flow: Tensor, *_: Any) -> Tensor:
        started.append(flow)
        constant = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1) * 0.8**6
        return flow if flow.any() else constant.expand_as(flow)

    monkeypatch.setattr(tvl1_torch, "flow_of_scale", unmoved)
    torch.testing.assert_close(tvl1(*pair(0)), torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, H, W))
    sides = [(17, 26), (21, 32), (26, 40), (33, 50), (41, 62), (51, 77), (64, 96)]
    assert [tuple(flow.shape[2:]) for flow in started] == sides
    for k, flow in enumerate(reversed(started[1:])):
        torch.testing.assert_close(flow.mean((0, 2, 3)), torch.tensor([3.0, -2.0]) * 0.8**k)


# ---------------------------------------------------------------- parts against plain versions


def plain_step(
    u: Numbers, p: Numbers, data: Numbers, tau: float, lambda_: float, theta: float
) -> tuple[Numbers, Numbers]:
    """Take one iteration of one pair: u (2,H,W); p (2,2,H,W), of u and v, to the right and down; data (4,H,W)."""
    right, down, constant, inverse = data
    rho = constant + right * u[0] + down * u[1]
    moved = u - np.clip(rho * inverse, -theta * lambda_, theta * lambda_) * data[:2]
    for c in range(2):
        moved[c, :, 0] += theta * p[c, 0, :, 0]
        moved[c, :, 1:] += theta * (p[c, 0, :, 1:] - p[c, 0, :, :-1])
        moved[c, 0] += theta * p[c, 1, 0]
        moved[c, 1:] += theta * (p[c, 1, 1:] - p[c, 1, :-1])
    grad = np.zeros_like(p)
    grad[:, 0, :, :-1] = np.diff(moved, axis=2)
    grad[:, 1, :-1] = np.diff(moved, axis=1)
    norm = np.sqrt((grad**2).sum(1, keepdims=True))
    return moved, (p + tau / theta * grad) / (1 + tau / theta * norm)


def test_iterations_match_the_plain_version() -> None:
    n, height, width, tau, lambda_, theta = 3, 5, 7, 0.2, 0.1, 0.4
    flow, data = random_flow(0, n, 2, height, width), random_flow(1, 4, n, height, width)
    data[3].abs_()
    data[3, :, 2] = 0
    lines = tvl1_torch_scale._Lines(flow, TVL1Parameters(tau=tau, lambda_=lambda_, theta=theta))
    lines.set_data(data)
    for _ in range(4):
        lines.advance()
    for k in range(n):
        u, p = flow[k].double().numpy(), np.zeros((2, 2, height, width))
        for _ in range(4):
            u, p = plain_step(u, p, data[:, k].double().numpy(), tau, lambda_, theta)
        np.testing.assert_allclose(lines.flow[:, k], u, atol=1e-5, rtol=0)


def test_a_ramp_is_warped_by_the_flow() -> None:
    x, y = places()
    first = torch.from_numpy(x + 2 * y).float()[None]
    moving = torch.stack([first, *tvl1_torch_scale._gradient(first)], dim=1)
    flow = torch.zeros(2, 1, H, W)
    flow[0], flow[1] = 2.25, -1.5
    right, down, constant, inverse = tvl1_torch_scale._linearized(first, moving, flow)[:, 0, 8:-8, 8:-8]
    for found, expected in ((right, 1), (down, 2), (constant, 0), (inverse, 1 / 5)):
        np.testing.assert_allclose(found, expected, atol=2e-4)  # float32 at levels of about 200


def test_the_data_term_is_off_outside_the_frame_and_on_flat_areas() -> None:
    first = PREVIOUS[:1].float().clone()
    first[0, 20:30, 20:30] = 9
    moving = torch.stack([first, *tvl1_torch_scale._gradient(first)], dim=1)
    flow = torch.zeros(2, 1, H, W)
    assert (tvl1_torch_scale._linearized(first, moving, flow)[3, 0, 21:29, 21:29] == 0).all()
    flow[0] = 3.5
    inverse = tvl1_torch_scale._linearized(first, moving, flow)[3, 0]
    assert (inverse[:, -3:] == 0).all()
    assert (inverse[:, -4] == 0).all()  # 3.5 of 4 px
    assert (inverse[:, -5] > 0).all()


@pytest.mark.parametrize("step_px", [1 / 0.8, 2.0, 40 / 51])
def test_resizing_matches_opencv(step_px: float) -> None:
    planes = random_flow(7, 2, 3, 40, 61)
    sides = [round(side / step_px) for side in (40, 61)]
    found = tvl1_torch._resized(planes, sides, [step_px, step_px]).flatten(0, 1)
    for plane, source in zip(found, planes.flatten(0, 1).numpy(), strict=True):
        resized = cv2.resize(source, None, fx=1 / step_px, fy=1 / step_px, interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(plane, resized, atol=5e-5)  # positions are float32


@pytest.mark.parametrize("size", [3, 5])
def test_both_medians_match_opencv_exactly(size: int) -> None:
    planes = torch.cat([random_flow(5, 3, 17, 23), random_flow(6, 1, 17, 23).round()])
    expected = np.stack([cv2.medianBlur(plane, size) for plane in planes.numpy()])
    for found in (tvl1_torch_scale.median(planes, size), tvl1_torch_scale.median_by_selection(planes, size)):
        np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------- compiled


@pytest.fixture
def _fresh() -> Any:
    tvl1_torch_compiled._compiled.cache_clear()
    yield
    tvl1_torch_compiled._compiled.cache_clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in torch's code
@pytest.mark.usefixtures("_fresh")
def test_compiled_flow_is_identical(ours: Tensor) -> None:
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING, compiled=True), ours)
    frames = PREVIOUS[:2, :49, :61], FOLLOWING[:2, :49, :61]  # compiled once for all sizes
    assert torch.equal(tvl1(*frames, QUICK, compiled=True), tvl1(*frames, QUICK))
    torch.set_num_threads(2)
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING, compiled=True), ours)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
@pytest.mark.parametrize(("n", "height", "width"), [(1, 3, 3), (3, 5, 7), (2, 9, 16), (1, 40, 61), (2, 17, 33)])
@pytest.mark.parametrize("count", [1, 10, 23])
def test_compiled_iterations_are_identical(n: int, height: int, width: int, count: int) -> None:
    """Fewer and more rows than a band of the compiled code, fewer and more iterations than it takes in a pass."""
    flow, data = random_flow(0, n, 2, height, width), random_flow(1, 4, n, height, width)
    both = [tvl1_torch_scale._Lines(flow, TVL1Parameters()) for _ in range(2)]
    iterate = tvl1_torch_compiled.compiled_iterations()
    assert iterate is not None
    for lines in both:
        lines.set_data(data)
    both[0].advance_by(count, iterate)
    for _ in range(count):
        both[1].advance()
    assert torch.equal(both[0].flow, both[1].flow)
    assert not torch.equal(both[0].flow, flow.transpose(0, 1))


@pytest.mark.usefixtures("_fresh")
def test_a_failed_compilation_warns_once_and_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(source: str) -> None:
        assert "iterate" in source
        raise RuntimeError("g++ not found\nand more lines")

    monkeypatch.setattr("torch._inductor.codecache.CppCodeCache.load", no_compiler)
    with pytest.warns(RuntimeWarning, match=r"^TV-L1 flow is computed uncompiled, which is slower: g\+\+ not found$"):
        flow = tvl1(PREVIOUS, FOLLOWING, QUICK, compiled=True)
    assert torch.equal(flow, tvl1(PREVIOUS, FOLLOWING, QUICK))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tvl1(PREVIOUS, FOLLOWING, QUICK, compiled=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_flow(ours: Tensor) -> None:
    flow = tvl1(PREVIOUS.cuda(), FOLLOWING.cuda())
    assert flow.is_cuda
    assert distance(flow.cpu(), ours).max() < 0.01  # px; a GPU fuses additions


# ---------------------------------------------------------------- memory


def limit_memory(monkeypatch: pytest.MonkeyPatch, pairs: int) -> list[int]:
    """Limit how many pairs fit into memory; return a list that records the attempts."""
    tried: list[int] = []
    compute = tvl1_torch._flow_of_pairs

    def limited(previous: Tensor, *rest: Any) -> Tensor:
        tried.append(len(previous))
        if len(previous) > pairs:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return compute(previous, *rest)

    monkeypatch.setattr(tvl1_torch, "_flow_of_pairs", limited)
    return tried


def test_out_of_memory_halves_the_pairs(ours: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limit_memory(monkeypatch, 2)
    with pytest.warns(
        RuntimeWarning, match="not enough memory for .* pairs of 96x64 frames at once; continuing with"
    ) as warned:
        flow = tvl1(PREVIOUS, FOLLOWING)
    assert torch.equal(flow, ours)
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert len(warned) == 2


def test_out_of_memory_for_one_pair_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 0)
    with pytest.raises(
        FlowSpecError, match=r"^TV-L1 flow needs more GPU memory than is free for one pair of 96x64 frames"
    ):
        tvl1(PREVIOUS[:1], FOLLOWING[:1])
