"""TV-L1 optical flow (Zach, Pock and Bischof 2007) in PyTorch: many pairs of frames at once, on any device.

The method and its parameters are those of OpenCV's DualTVL1OpticalFlow; the memory layout is not (see
`tvl1_torch_scale`). On a CPU, each pair's flow is the same to the bit whatever pairs it is batched with, however many
threads compute it, and whether the inner iterations are compiled.

N pairs of frames, H height, W width. Flow in pixels per frame, u to the right, v down.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from stresnet.flow.methods.memory import halve_pairs
from stresnet.flow.methods.method import MIN_SIDE_PX
from stresnet.flow.methods.tvl1_torch_compiled import Iterate, compiled_iterations
from stresnet.flow.methods.tvl1_torch_parameters import TVL1Parameters as TVL1Parameters
from stresnet.flow.methods.tvl1_torch_scale import flow_of_scale

_SMALLEST_SCALE_PX = 16  # scales with a shorter side are skipped, as in OpenCV
_PX = 340 * 256  # one pair at the size of the paper
# Pairs that go through the scales together, in pixels. On a CPU enough to hide Python's overhead; on a GPU enough to
# fill it: about 1 GB.
_AT_ONCE_PX = {"cpu": 16 * _PX, "cuda": 64 * _PX}
# Pairs whose iterations run together, in pixels. Each iteration reads or writes some 20 floats a pixel, which should
# stay in a core's share of the cache. Small scales of several pairs together pay the overhead of a call once.
_TOGETHER_PX = {"cpu": 3 * _PX // 2, "cuda": 64 * _PX}


def tvl1(
    previous: Tensor, following: Tensor, params: TVL1Parameters | None = None, *, compiled: bool = False
) -> Tensor:
    """Return the flow from each previous frame to its following one, (N, 2, H, W) float32 on their device.

    The content at (x, y) in the previous frame is at (x + u, y + v) in the following one. On a CPU the pairs are split
    among ``torch.get_num_threads()`` threads, each of which computes alone, a single pair on a single thread: faster
    than splitting each operation, by far so on a busy machine. Where GPU memory runs out, half as many pairs are taken
    at once, with a warning.

    Args:
        previous: (N, H, W) gray levels 0 to 255, uint8 or float32; N at least 1, H and W at least 32.
        following: the same shape, type and device.
        params: the parameters; those of `TVL1Parameters` by default.
        compiled: whether to take the inner iterations in compiled C++ on a CPU: several times as fast, after some
            seconds of compiling, once per machine. If that fails, a warning says so and the flow is computed
            uncompiled.

    Raises:
        FlowSpecError: too little memory for one pair.
    """
    params = params or TVL1Parameters()
    assert previous.ndim == 3
    assert min(previous.shape[1:]) >= MIN_SIDE_PX
    assert (previous.shape, previous.dtype, previous.device) == (following.shape, following.dtype, following.device)
    assert previous.device.type == "cpu" or not compiled
    iterate = compiled_iterations() if compiled else None
    with torch.inference_mode(False), torch.no_grad():  # threads started here would not inherit inference mode
        return _in_batches(previous.detach(), following.detach(), params, iterate)


def _in_batches(previous: Tensor, following: Tensor, params: TVL1Parameters, iterate: Iterate | None) -> Tensor:
    """Return the flow of all pairs, computed in batches that suit memory and threads."""
    height, width = previous.shape[1:]
    flow = torch.empty(len(previous), 2, height, width, dtype=torch.float32, device=previous.device)
    workers = torch.get_num_threads() if previous.device.type == "cpu" else 1

    def compute(pairs: slice) -> None:
        flow[pairs] = _flow_of_pairs(previous[pairs], following[pairs], params, iterate)

    at_once = max(1, _AT_ONCE_PX[previous.device.type] // (height * width))
    done = 0
    while done < len(previous):
        end = min(len(previous), done + at_once * workers)
        share = math.ceil((end - done) / workers)
        try:
            _each_in_a_thread(compute, [slice(at, min(end, at + share)) for at in range(done, end, share)])
        except torch.cuda.OutOfMemoryError as error:
            at_once = halve_pairs(share, "TV-L1", f"{width}x{height}", error)
        else:
            done = end
    return flow


def _each_in_a_thread(compute: Callable[[slice], None], parts: list[slice]) -> None:
    """Compute the parts at the same time, each on one of torch's threads."""
    with _one_thread_each:
        if len(parts) == 1:
            compute(parts[0])
        else:
            with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(compute, parts))  # list() raises their errors


class _OneThreadEach:
    """A context in which torch's operations use one thread each, for any number of threads that enter it.

    The last one to leave restores the number of threads that the first one found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._threads = 1

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._threads = torch.get_num_threads()
            self._inside += 1
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            torch.set_num_threads(self._threads)  # for this thread and for those started later


_one_thread_each = _OneThreadEach()  # shared, because torch keeps one number for all threads started later


@torch.no_grad()
def _flow_of_pairs(previous: Tensor, following: Tensor, params: TVL1Parameters, iterate: Iterate | None) -> Tensor:
    """Return the flow (n, 2, H, W) of pairs (n, H, W), from the coarsest scale to the finest."""
    scales = _scales(torch.stack([previous, following]).float(), params)
    flow = scales[-1].new_zeros(len(previous), 2, *scales[-1].shape[2:])
    for first, second in reversed(scales):
        if flow.shape[2:] != first.shape[1:]:
            ratios = [small / large for small, large in zip(flow.shape[2:], first.shape[1:], strict=True)]
            flow = _resized(flow, list(first.shape[1:]), ratios) * (1 / params.scale_step)
        together = max(1, _TOGETHER_PX[previous.device.type] // first[0].numel())
        if params.epsilon > 0:
            together = 1  # each pair stops independently of the others
        parts = [slice(at, at + together) for at in range(0, len(flow), together)]
        flow = torch.cat([flow_of_scale(first[part], second[part], flow[part], params, iterate) for part in parts])
    return flow


def _scales(frames: Tensor, params: TVL1Parameters) -> list[Tensor]:
    """Return the pairs (2, n, H, W) at each scale, finest first."""
    scales = [frames]
    while len(scales) < params.scales:
        sides = [round(side * params.scale_step) for side in scales[-1].shape[2:]]
        if min(sides) < _SMALLEST_SCALE_PX:
            break
        scales.append(_resized(scales[-1], sides, [1 / params.scale_step] * 2))
    return scales


def _resized(planes: Tensor, sides: list[int], steps_px: list[float]) -> Tensor:
    """Return planes (..., H, W) at other sides (height, width), by linear interpolation as in OpenCV.

    ``F.interpolate`` is no alternative: how it rounds depends on the number of planes.

    Args:
        planes: any number of planes, float32.
        sides: height and width of the result.
        steps_px: source pixels from one target pixel to the next, down and right.
    """
    for dim, side, step_px in zip((-2, -1), sides, steps_px, strict=True):
        last = planes.shape[dim] - 1
        at = ((torch.arange(side, dtype=torch.float32, device=planes.device) + 0.5) * step_px - 0.5).clamp(0, last)
        before = at.long()
        share = (at - before)[:, None] if dim == -2 else at - before
        low, high = (planes.index_select(dim, index) for index in (before, (before + 1).clamp(max=last)))
        planes = low + (high - low) * share
    return planes
