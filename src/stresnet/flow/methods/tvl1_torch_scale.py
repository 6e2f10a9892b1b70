"""TV-L1 flow at one scale: warp, filter, iterate.

Zach, Pock and Bischof 2007 minimise, for a flow (u, v) near (u0, v0), with I1 the second frame warped by (u0, v0),

    sum over pixels of |grad u| + |grad v| + lambda |rho|,    rho = I1 + grad I1 . (u - u0, v - v0) - I0

by two alternating steps: a thresholding that moves (u, v) along grad I1 towards rho = 0, by at most
theta lambda |grad I1|, and Chambolle's step for the total variation, with a dual variable p (two components for each of
u and v):

    u <- u + threshold(rho) + theta div p        p <- (p + tau/theta grad u) / (1 + tau/theta |grad u|)

The cost is in that step, taken some hundred times per pair, and there in memory traffic. All n pairs therefore lie row
after row in one line, (planes, n H W). Neighbours are then shifts by 1 and by W of contiguous memory, for any number of
pairs of any size; one row of padding at each end keeps the shifts inside. Where a pixel has no right (lower) neighbour,
p's first (second) component is held at 0: the border condition of both grad and div, which also separates the pairs.

No operation is fused with another, so that rounding does not depend on the arrangement.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from multiprocessing import parent_process
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stresnet.flow.methods.tvl1_torch_parameters import TVL1Parameters

Step = Callable[..., None]
"""`_step`, compiled or not."""

_FLAT = 1e-7  # squared gradients up to this count as zero
_TINY = 1e-20  # makes 0 rsqrt(0) 0; too small to change the result otherwise, since 1 is added
_CHECK_EVERY = 5  # iterations between checks for convergence, each a pass over the flow that a GPU has to wait for


def flow_of_scale(first: Tensor, second: Tensor, flow: Tensor, params: TVL1Parameters, step: Step) -> Tensor:
    """Return the flow (n, 2, H, W) of pairs at one scale.

    Args:
        first: (n, H, W) float32, levels 0 to 255.
        second: (n, H, W) float32.
        flow: (n, 2, H, W) float32, pixels of this scale: the flow to start from.
        params: the parameters; with an epsilon above 0, n must be 1.
        step: from `inner_step`.
    """
    lines = _Lines(flow, params)
    moving = torch.stack([second, *_gradient(second)], dim=1)
    for _ in range(params.warps):
        lines.set_data(_linearized(first, moving, lines.flow))
        for _ in range(params.outer_iterations):
            lines.filter(params.median_filter)
            if _iterate(lines, params, step):
                break
    return lines.flow.transpose(0, 1).contiguous()


def _iterate(lines: _Lines, params: TVL1Parameters, step: Step) -> bool:
    """Take the inner iterations; return whether the flow converged."""
    for index in range(1, params.inner_iterations + 1):
        lines.advance(step)
        if params.epsilon > 0 and index % _CHECK_EVERY == 0 and lines.change() <= params.epsilon**2:
            return True
    return False


class _Lines:
    """Flow and dual variable of n pairs in one line, in two buffers: each step reads one and writes the other."""

    def __init__(self, flow: Tensor, params: TVL1Parameters) -> None:
        n, _, height, width = flow.shape
        self._shape, self._width = (2, n, height, width), width
        pixels = n * height * width
        right = flow.new_full((1, width), params.tau / params.theta)
        right[:, -1] = 0
        down = flow.new_full((n * height, 1), params.tau / params.theta)
        down.view(n, height)[:, -1] = 0
        self._data = flow.new_zeros(4, pixels + width)
        constants = self._data, right, down, params.theta * params.lambda_, params.theta
        states = [[flow.new_zeros(2, pixels + 2 * width) for _ in range(3)] for _ in range(2)]  # u, p right, p down
        written = [[u[:, width:], *(p[:, width:-width].view(2, -1, width) for p in both_p)] for u, *both_p in states]
        self._calls = (*states[0], *constants, *written[1]), (*states[1], *constants, *written[0])
        self._u = [state[0] for state in states]
        self._now = 0
        self.flow.copy_(flow.transpose(0, 1))

    @property
    def flow(self) -> Tensor:
        """The current flow, a view (2, n, H, W)."""
        return self._u[self._now][:, self._width : -self._width].view(self._shape)

    def set_data(self, data: Tensor) -> None:
        """Set the data term, (4, n, H, W) from `_linearized`."""
        self._data[:, : -self._width] = data.flatten(1)

    def filter(self, size: int) -> None:
        """Apply a median filter to the flow."""
        if size > 1:
            self.flow.copy_(median(self.flow.flatten(0, 1), size).view(self._shape))

    def advance(self, step: Step) -> None:
        """Take one inner iteration."""
        step(*self._calls[self._now])
        self._now = 1 - self._now

    def change(self) -> float:
        """Return the mean squared change of the flow in the last iteration, pixels². (The padding stays 0.)"""
        return float((self._u[0] - self._u[1]).square_().sum() / (self._data.shape[1] - self._width))


def _step(
    u: Tensor,
    p_right: Tensor,
    p_down: Tensor,
    data: Tensor,
    right: Tensor,
    down: Tensor,
    reach: float,
    theta: float,
    u_next: Tensor,
    p_right_next: Tensor,
    p_down_next: Tensor,
) -> None:
    """Write the flow and the dual variable after one iteration.

    Operates in place where possible: uncompiled, allocating memory costs more than the arithmetic.

    Args:
        u: flow (2, W + n H W + W): u, v.
        p_right: dual variable's component to the right, of u and v, padded likewise.
        p_down: its component down.
        data: (4, n H W + W) from `_linearized`; zeros in the last row.
        right: (1, W): tau / theta, 0 where there is no neighbour to the right.
        down: (n H, 1): tau / theta, 0 where there is no neighbour below.
        reach: theta lambda.
        theta: theta.
        u_next: (2, n H W + W), written.
        p_right_next: (2, n H, W), written.
        p_down_next: (2, n H, W), written.
    """
    width = right.shape[1]
    pixels = data.shape[1] - width
    # Thresholding. It includes the row of padding below the last pair, which the gradient reads.
    now = u[:, width:]
    move = data[0] * now[0]
    move += data[2]
    move += data[1] * now[1]
    move *= data[3]
    move.clamp_(-reach, reach)
    divergence = p_right[:, width:] - p_right[:, width - 1 : -1]
    divergence += p_down[:, width:]
    divergence -= p_down[:, :-width]
    divergence *= theta
    u_next.copy_(now - move * data[:2])
    u_next += divergence
    # Total variation.
    here = u_next[:, :pixels].view(2, -1, width)
    to_right = (u_next[:, 1 : pixels + 1].view(2, -1, width) - here).mul_(right)
    downward = (u_next[:, width:].view(2, -1, width) - here).mul_(down)
    squared = to_right * to_right
    squared += downward * downward
    # 1 / (1 + sqrt(squared)), with rsqrt because torch.sqrt rounds differently when compiled.
    shrink = (squared + _TINY).rsqrt_().mul_(squared).add_(1).reciprocal_()
    for p, step, p_next in ((p_right, to_right, p_right_next), (p_down, downward, p_down_next)):
        step += p[:, width:-width].view(2, -1, width)
        step *= shrink
        p_next.copy_(step)


def inner_step(device: torch.device, compiled: bool) -> Step:
    """Return the function that takes an inner iteration on a device, compiled if requested and possible."""
    return _compiled_for(device.type) if compiled else _step


class _Compiled:
    """`_step`, compiled for all sizes at its first call; left uncompiled, with a warning, if compiling fails."""

    def __init__(self, device_type: str) -> None:
        # On a CPU, a C++ wrapper calls the kernels without holding the GIL, so that other threads can compute.
        self._options: dict[str, Any] = {"cpp_wrapper": device_type == "cpu"}
        self._step: Step | None = None
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> None:
        if self._step is None:
            with self._lock:
                self._step = self._step or self._compile(arguments)
        self._step(*arguments)

    def _compile(self, arguments: tuple[Any, ...]) -> Step:
        if parent_process() is not None:
            # The compiler creates a tqdm bar, whose lock spans processes: if this process is killed, it would leak.
            with suppress(ImportError):
                from tqdm import tqdm  # type: ignore[import-untyped]

                tqdm.set_lock(threading.RLock())
        try:
            step: Step = torch.compile(_step, dynamic=True, options=self._options)
            step(*arguments)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, or its absence, may raise anything
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"TV-L1 flow is computed uncompiled, which is slower: {reason}", RuntimeWarning, stacklevel=2)
            return _step
        return step


_compiled_for = lru_cache(_Compiled)  # one per device type, because compiling takes seconds


def _gradient(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the central differences (n, H, W) to the right and down, one-sided and halved at the border."""
    wide = F.pad(frames[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) * 0.5, (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) * 0.5


def _linearized(first: Tensor, moving: Tensor, flow: Tensor) -> Tensor:
    """Return the data term around a flow, (4, n, H, W).

    The planes are the warped gradient to the right and down, rho at zero flow, and 1 / |gradient|². The last is 0 where
    there is no gradient or where the flow leaves the frame, so that the data term has no effect there.

    Args:
        first: (n, H, W).
        moving: (n, 3, H, W): the second frame and its gradient, to be warped.
        flow: (2, n, H, W).
    """
    height, width = first.shape[1:]
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    places = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    warped, right, down = F.grid_sample(moving, places, padding_mode="border", align_corners=True).unbind(1)
    steepness = right * right + down * down
    known = (steepness > _FLAT) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    inverse = torch.where(known, 1 / steepness, 0.0)
    return torch.stack([right, down, warped - right * flow[0] - down * flow[1] - first, inverse])


def median(planes: Tensor, size: int) -> Tensor:
    """Return planes (P, H, W) float32 after a median filter of size 3 or 5 px; border pixels are repeated."""
    if planes.device.type != "cpu":
        return median_by_selection(planes, size)
    filtered = [cv2.medianBlur(plane, size) for plane in planes.numpy()]
    return torch.from_numpy(np.stack(filtered))


def median_by_selection(planes: Tensor, size: int) -> Tensor:
    """Return the same as `median`, computed by minima and maxima alone.

    Among half of the values plus two, neither the least nor the greatest can be the median of all values. Both are
    dropped and the next value is added, until one is left.
    """
    half = size // 2
    height, width = planes.shape[1:]
    wide = F.pad(planes[:, None], (half,) * 4, mode="replicate")[:, 0]
    values = [wide[:, y : y + height, x : x + width] for y in range(size) for x in range(size)]
    kept, waiting = values[: len(values) // 2 + 2], values[len(values) // 2 + 2 :]
    while True:
        kept = _without_extremes(kept)
        if not waiting:
            return kept[0]
        kept.append(waiting.pop())


def _without_extremes(values: list[Tensor]) -> list[Tensor]:
    """Return the values without the least and the greatest, elementwise, in any order."""
    least, *rest = values
    for index, value in enumerate(rest):
        least, rest[index] = torch.minimum(least, value), torch.maximum(least, value)
    greatest, *rest = rest
    for index, value in enumerate(rest):
        greatest, rest[index] = torch.maximum(greatest, value), torch.minimum(greatest, value)
    return rest
