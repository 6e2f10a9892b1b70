"""TV-L1 flow in PyTorch: known motions, OpenCV's flow, the iteration written out plainly, and what must not matter.

N pairs, H height, W width; flow (N, 2, H, W) in pixels per frame. OpenCV's is its DualTVL1 with its own defaults.
"""

from __future__ import annotations

import shutil
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresnet.errors import FlowSpecError
from stresnet.flow.methods import METHODS, tvl1_torch, tvl1_torch_scale
from stresnet.flow.methods.tvl1_torch import TVL1Parameters, tvl1

H, W = 64, 96
Numbers = NDArray[np.float64]
Places = tuple[Numbers, Numbers]

QUICK = TVL1Parameters(inner_iterations=6)  # where only sameness is asked for


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------- pictures in closed form


def picture(seed: int) -> Callable[[Places], Numbers]:
    """A sum of 80 waves of 4 to 80 px, longer ones stronger: levels at any place (x, y)."""
    rng = np.random.default_rng(seed)
    length, angle, phase = np.exp(rng.uniform(np.log(4), np.log(80), 80)), *rng.uniform(0, 2 * np.pi, (2, 80))
    strength = length**0.7 / np.sqrt((length**1.4).sum() / 2)
    kx, ky = 2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle)

    def levels(at: Places) -> Numbers:
        waves = np.cos(at[0][..., None] * kx + at[1][..., None] * ky + phase)
        return np.asarray((127.5 + 45 * (waves * strength).sum(-1)).clip(0, 255))

    return levels


def places(height: int = H, width: int = W) -> Places:
    y, x = np.mgrid[:height, :width].astype(float)
    return x, y


def affine(turn_deg: float, zoom: float, shift: tuple[float, float], seed: int = 1) -> tuple[Numbers, Numbers, Numbers]:
    """Two frames and their flow: the picture turned and zoomed about the middle, then shifted."""
    x, y = places()
    middle = np.array([(W - 1) / 2, (H - 1) / 2])
    angle = np.deg2rad(turn_deg)
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    from_middle = np.stack([x, y], -1) - middle
    flow = from_middle @ (matrix - np.eye(2)).T + shift
    before = (from_middle - shift) @ np.linalg.inv(matrix).T + middle
    levels = picture(seed)
    return levels((x, y)), levels((before[..., 0], before[..., 1])), flow.transpose(2, 0, 1)


def square(shift: tuple[float, float]) -> tuple[Numbers, Numbers, Numbers]:
    """A square that moves over a background at rest, and covers and uncovers it."""
    x, y = places()
    moved = x - shift[0], y - shift[1]
    back, front = picture(2), picture(3)
    inside, after = ((at[0] >= 20) & (at[0] < 52) & (at[1] >= 16) & (at[1] < 48) for at in ((x, y), moved))
    first, second = np.where(inside, front((x, y)), back((x, y))), np.where(after, front(moved), back((x, y)))
    return first, second, np.where(inside, np.array(shift)[:, None, None], 0.0)


# name: frames and flow, mean endpoint error allowed (px), border left out (px) where the motion leaves the frame
MOTIONS = {
    "a third of a pixel": (affine(0, 1, (0.33, -0.4)), 0.05, 4),
    "some pixels": (affine(0, 1, (-3.4, 2.2)), 0.06, 6),
    "ten pixels": (affine(0, 1, (9.6, -1.8)), 0.1, 12),
    "rotation": (affine(3, 1, (0.0, 0.0)), 0.07, 4),
    "zoom in": (affine(0, 1.04, (0.0, 0.0)), 0.07, 4),
    "zoom out": (affine(0, 0.96, (0.5, 0.0)), 0.07, 4),
    "moving square": (square((3.5, -1.5)), 0.25, 0),
}


def levels_of(*frames: Numbers) -> Tensor:
    return torch.from_numpy(np.rint(np.stack(frames)).astype(np.uint8))


PREVIOUS, FOLLOWING = (levels_of(*(motion[0][k] for motion in MOTIONS.values())) for k in range(2))
TRUTH = np.stack([motion[0][2] for motion in MOTIONS.values()])


def opencv(previous: Tensor, following: Tensor) -> NDArray[np.float32]:
    """The flow (N, 2, H, W) of OpenCV's DualTVL1 with its defaults."""
    both = zip(previous.numpy(), following.numpy(), strict=True)
    made: Any = cv2.optflow  # type: ignore[attr-defined]  # not in OpenCV's stubs
    return np.stack([made.DualTVL1OpticalFlow_create().calc(*frames, None) for frames in both]).transpose(0, 3, 1, 2)


def distance(one: Any, other: Any, border: int = 0) -> Numbers:
    """The mean endpoint distance of flows (N, 2, H, W), for each pair."""
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
def theirs() -> NDArray[np.float32]:
    return opencv(PREVIOUS, FOLLOWING)


@pytest.mark.parametrize("name", MOTIONS)
def test_known_motions_are_found(ours: Tensor, name: str) -> None:
    index, (_, allowed_px, border) = list(MOTIONS).index(name), MOTIONS[name]
    assert distance(ours[index : index + 1], TRUTH[index : index + 1], border)[0] < allowed_px


def test_the_endpoint_error_is_no_larger_than_opencvs(ours: Tensor, theirs: NDArray[np.float32]) -> None:
    for border in (0, 8):
        assert distance(ours, TRUTH, border).mean() < 1.02 * distance(theirs, TRUTH, border).mean()


def test_opencvs_parameters_give_opencvs_flow_where_both_know_it() -> None:
    """Apart from the border. What is left is OpenCV's cubic interpolation (here: linear) and when each stops."""
    kept = [0, 1, 3, 4, 5]  # the other two end in other local minima
    params = TVL1Parameters.from_preset(METHODS["tvl1"].presets["default"])
    assert params == TVL1Parameters(scales=5, warps=5, epsilon=0.01, outer_iterations=10)
    flow = tvl1(PREVIOUS[kept], FOLLOWING[kept], params)
    assert distance(flow, opencv(PREVIOUS[kept], FOLLOWING[kept]), 8).max() < 0.06  # px


def test_a_still_picture_does_not_move() -> None:
    assert tvl1(PREVIOUS, PREVIOUS, QUICK).abs().max() < 1e-4  # px: rounding of where to look
    flat = torch.full((1, H, W), 17, dtype=torch.uint8)
    assert not tvl1(flat, flat, QUICK).any()
    assert tvl1(flat, PREVIOUS[:1], QUICK).isfinite().all()  # no gradient in one, none of the other's levels
    assert tvl1(PREVIOUS[:1], flat, QUICK).isfinite().all()


def test_right_and_down_are_treated_alike() -> None:
    turned = tvl1(PREVIOUS.transpose(1, 2), FOLLOWING.transpose(1, 2)).transpose(2, 3).flip(1)
    assert distance(turned, tvl1(PREVIOUS, FOLLOWING)).max() < 1e-3  # px; only the order of sums differs


# ---------------------------------------------------------------- what must not matter


def test_each_pair_comes_out_as_alone(ours: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    many = torch.cat([PREVIOUS, FOLLOWING, PREVIOUS.flip(2)]), torch.cat([FOLLOWING, PREVIOUS, FOLLOWING.flip(2)])
    together = tvl1(*many)  # 21 pairs: torch's own operations go other ways for more planes than 16
    one_by_one = torch.cat([tvl1(many[0][k : k + 1], many[1][k : k + 1]) for k in range(len(together))])
    assert torch.equal(one_by_one, together)
    assert torch.equal(ours, together[: len(ours)])
    monkeypatch.setitem(tvl1_torch._TOGETHER_PX, "cpu", 2 * H * W)
    monkeypatch.setitem(tvl1_torch._AT_ONCE_PX, "cpu", 3 * H * W)
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)
    order = [4, 2, 6, 0, 1, 5, 3]
    assert torch.equal(tvl1(PREVIOUS[order], FOLLOWING[order]), ours[order])


def test_threads_do_not_matter_and_are_as_before(ours: Tensor) -> None:
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)
        assert torch.get_num_threads() == threads


def test_several_callers_leave_the_number_of_threads_as_it_was(ours: Tensor) -> None:
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


def test_inference_mode_is_no_hindrance(ours: Tensor) -> None:
    torch.set_num_threads(2)
    with torch.inference_mode():
        flow = tvl1(PREVIOUS.clone(), FOLLOWING.clone())  # tensors of that mode
        assert torch.equal(flow, ours)
    assert not flow.is_inference()


def test_the_default_type_does_not_matter(ours: Tensor) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(tvl1(PREVIOUS, FOLLOWING), ours)
    finally:
        torch.set_default_dtype(torch.float32)


def test_float_levels_are_as_good_as_bytes_and_nothing_is_written_to(ours: Tensor) -> None:
    frames = PREVIOUS.float(), FOLLOWING.float()
    kept = frames[0].clone(), frames[1].clone()
    frames[0].requires_grad_()
    flow = tvl1(*frames)
    assert torch.equal(flow, ours)
    assert flow.dtype == torch.float32
    assert not flow.requires_grad
    assert all(torch.equal(now.detach(), before) for now, before in zip(frames, kept, strict=True))


def test_early_stopping_looks_at_each_pair_by_itself() -> None:
    never, rarely, soon = (replace(QUICK, inner_iterations=20, epsilon=epsilon) for epsilon in (0.0, 1e-12, 0.05))
    together = tvl1(PREVIOUS, FOLLOWING, soon)
    alone = torch.cat([tvl1(PREVIOUS[k : k + 1], FOLLOWING[k : k + 1], soon) for k in range(len(PREVIOUS))])
    assert torch.equal(together, alone)
    unstopped = tvl1(PREVIOUS, FOLLOWING, never)
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING, rarely), unstopped)
    assert not torch.equal(together, unstopped)
    at_once = replace(soon, epsilon=100.0)
    assert torch.equal(tvl1(*pair(0), replace(at_once, outer_iterations=9)), tvl1(*pair(0), at_once))


def test_scales_too_small_are_left_out() -> None:
    frames = PREVIOUS[:1, :, :40], FOLLOWING[:1, :, :40]  # 64x40 ... 27x17: the sixth would be 22x14
    assert torch.equal(tvl1(*frames, replace(QUICK, scales=9)), tvl1(*frames, replace(QUICK, scales=5)))
    assert not torch.equal(tvl1(*frames, replace(QUICK, scales=5)), tvl1(*frames, replace(QUICK, scales=4)))


def test_from_scale_to_scale_flow_is_in_pixels_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
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


# ---------------------------------------------------------------- the parts, each written out plainly


def plain_step(
    u: Numbers, p: Numbers, data: Numbers, tau: float, lambda_: float, theta: float
) -> tuple[Numbers, Numbers]:
    """One iteration of one pair: u (2,H,W); p (2,2,H,W), of u and v, to the right and down; data (4,H,W)."""
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


def test_iterations_in_one_line_are_those_of_each_pair() -> None:
    n, height, width, tau, lambda_, theta = 3, 5, 7, 0.2, 0.1, 0.4
    flow, data = random_flow(0, n, 2, height, width), random_flow(1, 4, n, height, width)
    data[3].abs_()
    data[3, :, 2] = 0
    lines = tvl1_torch_scale._Lines(flow, TVL1Parameters(tau=tau, lambda_=lambda_, theta=theta))
    lines.set_data(data)
    for _ in range(4):
        lines.advance(tvl1_torch_scale._step)
    for k in range(n):
        u, p = flow[k].double().numpy(), np.zeros((2, 2, height, width))
        for _ in range(4):
            u, p = plain_step(u, p, data[:, k].double().numpy(), tau, lambda_, theta)
        np.testing.assert_allclose(lines.flow[:, k], u, atol=1e-5, rtol=0)


def test_a_warped_ramp_is_where_the_flow_says() -> None:
    x, y = places()
    first = torch.from_numpy(x + 2 * y).float()[None]
    moving = torch.stack([first, *tvl1_torch_scale._gradient(first)], dim=1)
    flow = torch.zeros(2, 1, H, W)
    flow[0], flow[1] = 2.25, -1.5
    right, down, constant, inverse = tvl1_torch_scale._linearized(first, moving, flow)[:, 0, 8:-8, 8:-8]
    for found, expected in ((right, 1), (down, 2), (constant, 0), (inverse, 1 / 5)):
        np.testing.assert_allclose(found, expected, atol=2e-4)  # rho: warped levels of about 200 in float32


def test_nothing_is_concluded_where_the_flow_leaves_the_frame_or_nothing_is_seen() -> None:
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
def test_resizing_is_opencvs(step_px: float) -> None:
    planes = random_flow(7, 2, 3, 40, 61)
    sides = [round(side / step_px) for side in (40, 61)]
    found = tvl1_torch._resized(planes, sides, [step_px, step_px]).flatten(0, 1)
    for plane, expected in zip(found, planes.flatten(0, 1).numpy(), strict=True):
        theirs = cv2.resize(expected, None, fx=1 / step_px, fy=1 / step_px, interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(plane, theirs, atol=5e-5)  # of levels; places in float32


@pytest.mark.parametrize("size", [3, 5])
def test_both_medians_are_opencvs_to_the_bit(size: int) -> None:
    planes = torch.cat([random_flow(5, 3, 17, 23), random_flow(6, 1, 17, 23).round()])
    expected = np.stack([cv2.medianBlur(plane, size) for plane in planes.numpy()])
    for found in (tvl1_torch_scale.median(planes, size), tvl1_torch_scale.median_by_selection(planes, size)):
        np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------- compiled


@pytest.fixture
def _fresh() -> Any:
    tvl1_torch_scale._compiled_for.cache_clear()
    yield
    tvl1_torch_scale._compiled_for.cache_clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in torch's own code
@pytest.mark.usefixtures("_fresh")
def test_compiled_it_is_the_same_to_the_bit(ours: Tensor) -> None:
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING, compiled=True), ours)
    frames = PREVIOUS[:2, :49, :61], FOLLOWING[:2, :49, :61]  # compiled once for all sizes
    assert torch.equal(tvl1(*frames, QUICK, compiled=True), tvl1(*frames, QUICK))
    torch.set_num_threads(2)
    assert torch.equal(tvl1(PREVIOUS, FOLLOWING, compiled=True), ours)


@pytest.mark.usefixtures("_fresh")
def test_where_compiling_fails_it_says_so_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **__: Any) -> Callable[..., None]:
        def called(*_: Any) -> None:
            raise RuntimeError("g++ not found\nand a page of what was tried")

        return called

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.warns(RuntimeWarning, match=r"^TV-L1 flow is computed uncompiled, which is slower: g\+\+ not found$"):
        flow = tvl1(PREVIOUS, FOLLOWING, QUICK, compiled=True)
    assert torch.equal(flow, tvl1(PREVIOUS, FOLLOWING, QUICK))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tvl1(PREVIOUS, FOLLOWING, QUICK, compiled=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_finds_the_same(ours: Tensor, compiled: bool) -> None:
    flow = tvl1(PREVIOUS.cuda(), FOLLOWING.cuda(), compiled=compiled)
    assert flow.is_cuda
    assert distance(flow.cpu(), ours).max() < 0.01  # px; sums are fused there


# ---------------------------------------------------------------- memory


def fake_memory(monkeypatch: pytest.MonkeyPatch, pairs: int) -> list[int]:
    """Lets at most so many pairs be computed at once; returns the list of what was tried."""
    tried: list[int] = []
    compute = tvl1_torch._flow_of_pairs

    def limited(previous: Tensor, *rest: Any) -> Tensor:
        tried.append(len(previous))
        if len(previous) > pairs:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return compute(previous, *rest)

    monkeypatch.setattr(tvl1_torch, "_flow_of_pairs", limited)
    return tried


def test_out_of_memory_it_takes_half_the_pairs(ours: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = fake_memory(monkeypatch, 2)
    with pytest.warns(
        RuntimeWarning, match="not enough memory for .* pairs of 96x64 frames at once; continuing with"
    ) as told:
        flow = tvl1(PREVIOUS, FOLLOWING)
    assert torch.equal(flow, ours)
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert len(told) == 2


def test_out_of_memory_for_one_pair_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_memory(monkeypatch, 0)
    with pytest.raises(
        FlowSpecError, match=r"^TV-L1 flow needs more GPU memory than is free for one pair of 96x64 frames"
    ):
        tvl1(PREVIOUS[:1], FOLLOWING[:1])
