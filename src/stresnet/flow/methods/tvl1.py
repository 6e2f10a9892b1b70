"""TV-L1 optical flow (Zach, Pock and Bischof 2007) in PyTorch: many pairs of frames at once, on any device.

The method and its parameters are those of OpenCV's DualTVL1OpticalFlow; the arrangement is not (see `tvl1_scale`).
Which pairs are given together, how many threads compute them and whether the inner iteration is compiled do not show
in the flow: each pair comes out as it would alone.

N pairs of frames, H height, W width. Flow in pixels per frame, u to the right, v down.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from stresnet.errors import FlowSpecError
from stresnet.flow.methods.memory import halved
from stresnet.flow.methods.tvl1_parameters import TVL1 as TVL1
from stresnet.flow.methods.tvl1_scale import Step, flow_of_scale, inner_step
from stresnet.flow.spec import MIN_SIDE_PX

_SMALLEST_SCALE_PX = 16  # scales with a shorter side are left out, as in OpenCV
_PX = 340 * 256  # one pair at the size of the paper
# Pairs that go through the scales together, in pixels. On a CPU enough to hide Python's share; on a GPU enough to fill
# it: about 1 GB.
_AT_ONCE_PX = {"cpu": 16 * _PX, "cuda": 64 * _PX}
# Pairs whose iterations run together, in pixels: some 20 floats a pixel are read or written each time, and should stay
# in a core's share of the cache. Small scales of several pairs together pay the call's overhead once.
_TOGETHER_PX = {"cpu": 3 * _PX // 2, "cuda": 64 * _PX}


def tvl1(
    previous: Tensor,
    following: Tensor,
    params: TVL1 | None = None,
    initial: Tensor | None = None,
    *,
    compiled: bool = False,
) -> Tensor:
    """Returns the flow from each previous frame to its following one, (N, 2, H, W) float32 on their device.

    What is at (x, y) in the previous frame is at (x + u, y + v) in the following one. On a CPU the pairs are shared
    among ``torch.get_num_threads()`` threads, each of which computes alone (a single pair on a single one): faster than
    sharing each operation, and by far where other programs are at work too. Where a GPU's memory does not suffice, half
    as many pairs are taken at once, with a warning.

    Args:
        previous: (N, H, W) gray levels 0 to 255, uint8 or float32; N at least 1, H and W at least 32.
        following: the same shape, type and device.
        params: the defaults of `TVL1` if left out.
        initial: (N, 2, H, W) float32, pixels per frame: where to start at the coarsest scale. No motion if left out.
        compiled: whether ``torch.compile`` makes two kernels of an inner iteration's thirty: more than twice as fast
            on a CPU, after some 15 seconds of compiling (once per process; 5 where torch's cache has it). On a CPU
            the flow is the same to the bit. Where compiling fails, a warning says so and it goes on without.

    Raises:
        FlowSpecError: tensors of other shapes, types or values than the above, or too little memory for one pair.
    """
    params = params or TVL1()
    _check_frames(previous, following)
    _check_initial(initial, previous)
    step = inner_step(previous.device, compiled)
    with torch.inference_mode(False), torch.no_grad():  # the threads started here would not be in that mode
        return _in_turns(previous.detach(), following.detach(), params, initial, step)


def _in_turns(previous: Tensor, following: Tensor, params: TVL1, initial: Tensor | None, step: Step) -> Tensor:
    """Returns the flow of all pairs, of as many at a time as memory and threads are good for."""
    height, width = previous.shape[1:]
    flow = torch.empty(len(previous), 2, height, width, dtype=torch.float32, device=previous.device)
    workers = torch.get_num_threads() if previous.device.type == "cpu" else 1

    def compute(pairs: slice) -> None:
        start = None if initial is None else initial[pairs]
        flow[pairs] = _flow_of_pairs(previous[pairs], following[pairs], params, start, step)

    at_once = max(1, _AT_ONCE_PX[_kind(previous)] // (height * width))
    done = 0
    while done < len(previous):
        end = min(len(previous), done + at_once * workers)
        share = math.ceil((end - done) / workers)
        try:
            _each_in_a_thread(compute, [slice(at, min(end, at + share)) for at in range(done, end, share)])
        except torch.cuda.OutOfMemoryError as error:
            at_once = halved(share, "TV-L1", f"{width}x{height}", error)
        else:
            done = end
    return flow


def _each_in_a_thread(compute: Callable[[slice], None], parts: list[slice]) -> None:
    """Computes the parts at the same time, each on one of torch's threads."""
    with _one_thread_each:
        if len(parts) == 1:
            compute(parts[0])
        else:
            with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(compute, parts))  # raises what they raise


class _OneThreadEach:
    """While anyone is in here, torch's operations take one thread; afterwards as many as before the first came."""

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
            torch.set_num_threads(self._threads)  # of this thread, and of those to come


_one_thread_each = _OneThreadEach()  # torch keeps one number for all threads to come


@torch.no_grad()
def _flow_of_pairs(previous: Tensor, following: Tensor, params: TVL1, initial: Tensor | None, step: Step) -> Tensor:
    """Returns the flow (n, 2, H, W) of pairs (n, H, W), from the coarsest scale to the finest."""
    scales = _scales(torch.stack([previous, following]).float(), params)
    if initial is None:
        flow = scales[-1].new_zeros(len(previous), 2, *scales[-1].shape[2:])
    else:
        shrunk = F.interpolate(initial, size=scales[-1].shape[2:], mode="area")
        flow = shrunk * params.scale_step ** (len(scales) - 1)
    for first, second in reversed(scales):
        if flow.shape[2:] != first.shape[1:]:
            ratios = [small / large for small, large in zip(flow.shape[2:], first.shape[1:], strict=True)]
            flow = _resized(flow, list(first.shape[1:]), ratios) * (1 / params.scale_step)
        together = max(1, _TOGETHER_PX[_kind(previous)] // first[0].numel())
        if params.epsilon > 0:
            together = 1  # each pair ends by itself
        parts = [slice(at, at + together) for at in range(0, len(flow), together)]
        flow = torch.cat([flow_of_scale(first[part], second[part], flow[part], params, step) for part in parts])
    return flow


def _scales(frames: Tensor, params: TVL1) -> list[Tensor]:
    """Returns the pairs (2, n, H, W) at each scale, finest first."""
    scales = [frames]
    while len(scales) < params.scales:
        sides = [round(side * params.scale_step) for side in scales[-1].shape[2:]]
        if min(sides) < _SMALLEST_SCALE_PX:
            break
        scales.append(_resized(scales[-1], sides, [1 / params.scale_step] * 2))
    return scales


def _resized(planes: Tensor, sides: list[int], steps_px: list[float]) -> Tensor:
    """Returns (..., H, W) at the sides (height, width), by linear interpolation as OpenCV's.

    (``F.interpolate`` chooses among ways that round differently, by how many planes there are.)

    Args:
        planes: any number, float32.
        sides: of the result.
        steps_px: down and right, source pixels from one target pixel to the next.
    """
    for dim, side, step_px in zip((-2, -1), sides, steps_px, strict=True):
        last = planes.shape[dim] - 1
        at = ((torch.arange(side, dtype=torch.float32, device=planes.device) + 0.5) * step_px - 0.5).clamp(0, last)
        before = at.long()
        share = (at - before)[:, None] if dim == -2 else at - before
        low, high = (planes.index_select(dim, index) for index in (before, (before + 1).clamp(max=last)))
        planes = low + (high - low) * share
    return planes


def _kind(frames: Tensor) -> str:
    return "cpu" if frames.device.type == "cpu" else "cuda"


def _check_frames(previous: Tensor, following: Tensor) -> None:
    for frames in (previous, following):
        if not isinstance(frames, Tensor):
            raise FlowSpecError(f"TV-L1 flow needs tensors, found {type(frames).__name__}; see torch.from_numpy")
        if frames.ndim != 3 or len(frames) < 1 or min(frames.shape[1:]) < MIN_SIDE_PX:
            raise FlowSpecError(
                f"TV-L1 flow needs frames (N,H,W) with N at least 1 and sides of at least {MIN_SIDE_PX} px, "
                f"found {_describe(frames)}"
            )
        if frames.dtype not in (torch.uint8, torch.float32):
            raise FlowSpecError(f"TV-L1 flow needs gray levels as uint8 or float32, found {_describe(frames)}")
    found = [(frames.shape, frames.dtype, frames.device) for frames in (previous, following)]
    if found[0] != found[1]:
        raise FlowSpecError(
            "TV-L1 flow needs previous and following frames of one shape, type and device, "
            f"found {_describe(previous)} and {_describe(following)}"
        )
    if previous.dtype == torch.float32:
        for name, frames in (("previous", previous), ("following", following)):
            low, high = (float(value) for value in frames.detach().aminmax())
            if not (low >= 0 and high <= 255):  # NaN neither
                raise FlowSpecError(f"TV-L1 flow needs levels 0 to 255, found {low:g} to {high:g} in {name}")
            if high <= 1 and bool((frames != frames.round()).any()):
                raise FlowSpecError(
                    f"TV-L1 flow needs levels 0 to 255, found fractions up to {high:g} in {name}; multiply by 255"
                )


def _check_initial(initial: Tensor | None, previous: Tensor) -> None:
    if initial is None:
        return
    shape = (len(previous), 2, *previous.shape[1:])
    if initial.shape != shape or initial.dtype != torch.float32 or initial.device != previous.device:
        raise FlowSpecError(
            f"TV-L1's initial flow must be {shape} float32 on {previous.device}, found {_describe(initial)}"
        )
    if not bool(initial.isfinite().all()):
        raise FlowSpecError("TV-L1's initial flow must be finite, found NaN or infinity")


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"
