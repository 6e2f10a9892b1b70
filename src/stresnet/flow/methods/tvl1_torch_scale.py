"""TV-L1 flow at one scale: warp, filter, iterate.

Zach, Pock and Bischof 2007 minimise, for a flow (u, v) near (u0, v0), with I1 the second frame warped by (u0, v0),

    sum over pixels of |grad u| + |grad v| + lambda |rho|,    rho = I1 + grad I1 . (u - u0, v - v0) - I0

by two alternating steps: a thresholding that moves (u, v) along grad I1 towards rho = 0, by at most
theta lambda |grad I1|, and Chambolle's step for the total variation, with a dual variable p (two components for each of
u and v):

    u <- u + threshold(rho) + theta div p        p <- (p + tau/theta grad u) / (1 + tau/theta |grad u|)

The cost is in that step, taken some hundred times per pair. All n pairs lie row after row in one line, (planes, n H R).
Neighbours are then shifts by 1 and by R of contiguous memory, for any number of pairs of any size. R is the width,
padded to whole vectors; one row of padding at each end keeps the shifts inside. Where a pixel has no right (lower)
neighbour, p's first (second) component is held at 0: the border condition of both grad and div, which also separates
the pairs and keeps the padding at 0.

No operation is fused with another, so that rounding does not depend on the arrangement.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stresnet.flow.methods.tvl1_torch_compiled import WIDTH_STEP, Iterate
from stresnet.flow.methods.tvl1_torch_parameters import TVL1Parameters

_FLAT = 1e-7  # squared gradients up to this count as zero
_TINY = 1e-20  # makes 0 rsqrt(0) 0; too small to change the result otherwise, since 1 is added
_CHECK_EVERY = 5  # iterations between checks for convergence, each a pass over the flow that a GPU has to wait for


def flow_of_scale(
    first: Tensor, second: Tensor, flow: Tensor, params: TVL1Parameters, iterate: Iterate | None
) -> Tensor:
    """Return the flow (n, 2, H, W) of pairs at one scale.

    Args:
        first: (n, H, W) float32, levels 0 to 255.
        second: (n, H, W) float32.
        flow: (n, 2, H, W) float32, pixels of this scale: the flow to start from.
        params: the parameters; with an epsilon above 0, n must be 1.
        iterate: the compiled iterations, on a CPU; without them, or with an epsilon above 0, PyTorch takes each one.
    """
    lines = _Lines(flow, params)
    moving = torch.stack([second, *_gradient(second)], dim=1)
    for _ in range(params.warps):
        lines.set_data(_linearized(first, moving, lines.flow))
        for _ in range(params.outer_iterations):
            lines.filter(params.median_filter)
            if _iterated(lines, params, iterate):
                break
    return lines.flow.transpose(0, 1).contiguous()


def _iterated(lines: _Lines, params: TVL1Parameters, iterate: Iterate | None) -> bool:
    """Take the inner iterations; return whether the flow converged."""
    if iterate is not None and params.epsilon == 0:
        lines.advance_by(params.inner_iterations, iterate)
        return False
    for index in range(1, params.inner_iterations + 1):
        lines.advance()
        if params.epsilon > 0 and index % _CHECK_EVERY == 0 and lines.change() <= params.epsilon**2:
            return True
    return False


class _Lines:
    """Flow and dual variable of n pairs in one line, in two buffers: `_step` reads one and writes the other."""

    def __init__(self, flow: Tensor, params: TVL1Parameters) -> None:
        n, _, height, width = flow.shape
        self._shape, self._row = (n, height, width), -(-width // WIDTH_STEP) * WIDTH_STEP
        row, rows = self._row, n * height
        right = flow.new_zeros(1, row)
        right[:, : width - 1] = params.tau / params.theta
        down = flow.new_full((rows, 1), params.tau / params.theta)
        down.view(n, height)[:, -1] = 0
        self._data = flow.new_zeros(4, (rows + 1) * row)
        constants = self._data, right, down, params.theta * params.lambda_, params.theta
        one, other = ([flow.new_zeros(2, (rows + 2) * row) for _ in range(3)] for _ in range(2))  # u, p right, p down
        self._u = one[0], other[0]
        # The arguments of `_step`, when one or the other state is the current one.
        self._read: list[Any] = [(*state, *constants) for state in (one, other)]
        self._written: list[Any] = [
            (u[:, row:], *(p[:, row:-row].view(2, -1, row) for p in both_p)) for u, *both_p in (other, one)
        ]
        self._now = 0
        self.flow.copy_(flow.transpose(0, 1))

    @property
    def flow(self) -> Tensor:
        """The current flow, a view (2, n, H, W)."""
        return self._pixels(self._u[self._now][:, self._row : -self._row])

    def set_data(self, data: Tensor) -> None:
        """Set the data term, (4, n, H, W) from `_linearized`."""
        self._pixels(self._data[:, : -self._row]).copy_(data)

    def filter(self, size: int) -> None:
        """Apply a median filter to the flow."""
        if size > 1:
            self.flow.copy_(median(self.flow.flatten(0, 1), size).view(2, *self._shape))

    def advance(self) -> None:
        """Take one inner iteration."""
        _step(*self._read[self._now], *self._written[self._now])
        self._now = 1 - self._now

    def advance_by(self, count: int, iterate: Iterate) -> None:
        """Take several inner iterations, compiled."""
        iterate(*(*self._read[self._now], count))

    def change(self) -> float:
        """Return the mean squared change of the flow in the last iteration, pixels². (The padding stays 0.)"""
        return float((self._u[0] - self._u[1]).square_().sum() / math.prod(self._shape))

    def _pixels(self, lines: Tensor) -> Tensor:
        """Return lines (planes, n H R) as a view (planes, n, H, W), without the padding of their rows."""
        n, height, width = self._shape
        return lines.view(-1, n, height, self._row)[..., :width]


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

    ``tvl1_iterations.cpp`` does the same, operation by operation. Here they are in place where possible, because
    allocating memory costs more than the arithmetic.

    Args:
        u: flow (2, R + n H R + R): u, v.
        p_right: dual variable's component to the right, of u and v, padded likewise.
        p_down: its component down.
        data: (4, n H R + R) from `_linearized`; zeros in the padding.
        right: (1, R): tau / theta, 0 where there is no neighbour to the right.
        down: (n H, 1): tau / theta, 0 where there is no neighbour below.
        reach: theta lambda.
        theta: theta.
        u_next: (2, n H R + R), written.
        p_right_next: (2, n H, R), written.
        p_down_next: (2, n H, R), written.
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
    # 1 / (1 + sqrt(squared)), as x rsqrt(x): on a CPU rsqrt is exact, sqrt rounds differently in PyTorch's kernels.
    shrink = (squared + _TINY).rsqrt_().mul_(squared).add_(1).reciprocal_()
    for p, step, p_next in ((p_right, to_right, p_right_next), (p_down, downward, p_down_next)):
        step += p[:, width:-width].view(2, -1, width)
        step *= shrink
        p_next.copy_(step)


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
