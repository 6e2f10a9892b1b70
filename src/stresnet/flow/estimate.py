"""Optical flow between consecutive frames.

T frames, H height, W width. Flow is in pixels per frame, u to the right, v down; flow[t] takes frame t to t+1:
what is at (x, y) in frame t is at (x + u, y + v) in frame t+1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError
from stresnet.flow.methods.motion_vectors import fields_from_vectors
from stresnet.flow.methods.raft import raft
from stresnet.flow.spec import MIN_SIDE_PX, FlowSpec
from stresnet.media.video import Frame

_PX_WORTH_COMPILING = 64 * 340 * 256  # TV-L1: after as long as compiling takes; on a CPU with the same bits as before
_cv2: Any = cv2  # OpenCV's type stubs know neither DIS nor TV-L1
_Picture = NDArray[np.uint8]
_Pair = Callable[[_Picture, _Picture], NDArray[np.float32]]


def estimate_flow(frames: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """Returns the flow between consecutive frames, (T-1, 2, H, W) float32, pixels per frame, u right, v down.

    The frames are taken at the size they come in; bringing them to `spec.short_side` is the caller's part.
    The result depends on neither the number of OpenCV threads nor on what was computed before.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T at least 2, H and W at least 32.
        spec: which flow.

    Raises:
        FlowSpecError: frames of another type, rank or size, or fewer than two; a method that does not work on
            pictures (``mv``), or that cannot be run here.
    """
    if not isinstance(frames, np.ndarray):
        raise FlowSpecError(f"flow needs an array of frames (T,H,W,3) uint8, found {type(frames).__name__}")
    if frames.ndim != 4 or len(frames) < 2:
        raise FlowSpecError(f"flow needs frames (T,H,W,3) uint8 with T at least 2, found {_describe(frames)}")
    flow = np.empty((len(frames) - 1, 2, *frames.shape[1:3]), np.float32)
    for index, field in enumerate(iter_flow(frames, spec)):
        flow[index] = field
    return flow


def flow_of(frames: Iterable[Frame], spec: FlowSpec) -> Iterator[NDArray[np.float32]]:
    """Yields the flow from each frame of a video to the next, (2, H, W) float32, by any method; one fewer than frames.

    Holds a few frames at a time. Sizes and meaning as in `estimate_flow`; a single frame yields nothing.

    Args:
        frames: of ``iter_frames(path, short_side=spec.short_side, motion_vectors=spec.from_codec)``; a part of them
            will do, if it is without gaps.
        spec: which flow.

    Raises:
        FlowSpecError: frames of another type or size, frames read without the motion vectors that the method needs,
            or a method that cannot be run here.
    """
    if not spec.from_codec:
        return iter_flow((frame.rgb for frame in frames), spec)
    return _subtracting_median(fields_from_vectors(_checked(frames)), spec)


def iter_flow(frames: Iterable[NDArray[np.uint8]], spec: FlowSpec) -> Iterator[NDArray[np.float32]]:
    """Yields the flow from each frame to the next, (2, H, W) float32; one field fewer than frames.

    Holds two frames at a time, or as many as the method takes at once. Sizes and meaning as in `estimate_flow`;
    a single frame yields nothing.

    Raises:
        FlowSpecError: a frame of another type or size; a method that does not work on pictures (``mv``), or that
            cannot be run here.
    """
    return _subtracting_median(_estimates(map(_Check(), frames), spec), spec)


def require_method(spec: FlowSpec) -> None:
    """Returns if the method can be run here: better asked before hours of work than after.

    Raises:
        FlowSpecError: a library or a file of weights is missing; the message says which.
    """
    if not spec.from_codec:
        _backend(spec)


@dataclass(frozen=True)
class _Backend:
    """How flow is computed from pictures."""

    compute: Callable[[Sequence[_Picture]], NDArray[np.float32]]
    """From n + 1 consecutive pictures to their n fields (n, 2, H, W)."""
    pairs: int
    """The largest n; the memory it takes is the limit."""
    gray: bool
    """Whether the pictures are (H, W) gray rather than (H, W, 3) RGB."""


def _backend(spec: FlowSpec) -> _Backend:
    if spec.from_codec:
        raise FlowSpecError(
            f"flow {spec.method} comes from the video file's own motion vectors, found pictures; "
            "use flow_of(iter_frames(path, motion_vectors=True), spec)"
        )
    if spec.method == "raft":
        return _Backend(raft(spec.preset, spec.parameters), pairs=8, gray=False)
    if (spec.method, spec.preset) == ("tvl1", "fast"):
        return _tvl1_in_torch(spec)
    makers = {"dis": _dis, "tvl1": _tvl1, "farneback": _farneback}
    pair = makers[spec.method](spec)

    def compute(pictures: Sequence[_Picture]) -> NDArray[np.float32]:
        return np.ascontiguousarray(pair(*pictures).transpose(2, 0, 1))[None]

    return _Backend(compute, pairs=1, gray=True)


_of_thread = threading.local()  # OpenCV's objects hold buffers, so no two threads may share one


def _reused_backend(spec: FlowSpec) -> _Backend:
    """Returns this thread's last backend if it is of the same flow: a new one costs DIS 1 ms, and RAFT its weights."""
    if getattr(_of_thread, "spec", None) != spec:
        _of_thread.backend = _backend(spec)
        _of_thread.spec = spec
    backend: _Backend = _of_thread.backend
    return backend


def _estimates(frames: Iterable[_Picture], spec: FlowSpec) -> Iterator[NDArray[np.float32]]:
    backend = _reused_backend(spec)
    waiting: list[_Picture] = []
    for rgb in frames:
        waiting.append(_cv2.cvtColor(rgb, _cv2.COLOR_RGB2GRAY) if backend.gray else rgb)
        if len(waiting) > backend.pairs:
            yield from backend.compute(waiting)
            del waiting[:-1]
    if len(waiting) > 1:
        yield from backend.compute(waiting)


def _subtracting_median(fields: Iterable[NDArray[np.float32]], spec: FlowSpec) -> Iterator[NDArray[np.float32]]:
    for field in fields:
        if spec.subtract_median:
            yield field - np.median(field.reshape(2, -1), axis=1)[:, None, None]
        else:
            yield field


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    check = _Check()
    for frame in frames:
        check(frame.rgb)
        yield frame


class _Check:
    """Lets frames pass that have the type and the size that flow needs, all the same."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._index = 0

    def __call__(self, rgb: _Picture) -> _Picture:
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < MIN_SIDE_PX:
            raise FlowSpecError(
                f"flow needs frames (H,W,3) uint8 with sides of at least {MIN_SIDE_PX} px, "
                f"found {_describe(rgb)} at frame {self._index}"
            )
        self._shape = self._shape or rgb.shape
        if rgb.shape != self._shape:
            raise FlowSpecError(
                f"flow needs frames of one size: frame {self._index} is {rgb.shape[1]}x{rgb.shape[0]}, "
                f"the first {self._shape[1]}x{self._shape[0]}"
            )
        self._index += 1
        return rgb


def _dis(spec: FlowSpec) -> _Pair:
    p = spec.parameters
    dis = _cv2.DISOpticalFlow_create(_cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def pair(first: _Picture, second: _Picture) -> NDArray[np.float32]:
        # Anew for each pair: for pictures below about 90 px OpenCV chooses other scales by itself, for good, and the
        # flow of a pair would depend on whether it is the first.
        dis.setFinestScale(p["finest_scale"])
        dis.setPatchSize(p["patch_size"])
        dis.setPatchStride(p["patch_stride"])
        dis.setGradientDescentIterations(p["gradient_descent_iterations"])
        dis.setVariationalRefinementIterations(p["variational_refinement_iterations"])
        flow: NDArray[np.float32] = dis.calc(first, second, None)
        return flow

    return pair


def _tvl1(spec: FlowSpec) -> _Pair:
    p = spec.parameters
    tvl1 = _cv2.optflow.DualTVL1OpticalFlow_create()
    tvl1.setTau(p["tau"])
    tvl1.setLambda(p["lambda"])
    tvl1.setTheta(p["theta"])
    tvl1.setScalesNumber(p["scales"])
    tvl1.setWarpingsNumber(p["warps"])
    tvl1.setEpsilon(p["epsilon"])
    tvl1.setInnerIterations(p["inner_iterations"])
    tvl1.setOuterIterations(p["outer_iterations"])
    tvl1.setScaleStep(p["scale_step"])
    tvl1.setGamma(p["gamma"])
    tvl1.setMedianFiltering(p["median_filter"])
    return lambda first, second: tvl1.calc(first, second, None)


def _tvl1_in_torch(spec: FlowSpec) -> _Backend:
    import torch  # takes a second
    from torch.utils.data import get_worker_info

    from stresnet.flow.methods.tvl1 import TVL1, tvl1

    # Loader processes leave the GPU to the training, and forked ones could not use it.
    on_gpu = torch.cuda.is_available() and get_worker_info() is None
    device = torch.device("cuda" if on_gpu else "cpu")
    params = TVL1.from_parameters(spec.parameters)
    done_px = 0

    def compute(pictures: Sequence[_Picture]) -> NDArray[np.float32]:
        nonlocal done_px
        gray = torch.from_numpy(np.stack(pictures)).to(device)
        compiled = device.type == "cpu" and done_px >= _PX_WORTH_COMPILING
        done_px += gray[1:].numel()
        return tvl1(gray[:-1], gray[1:], params, compiled=compiled).cpu().numpy()

    return _Backend(compute, pairs=64 if device.type == "cuda" else 16, gray=True)


def _farneback(spec: FlowSpec) -> _Pair:
    p = spec.parameters
    return lambda first, second: _cv2.calcOpticalFlowFarneback(
        first,
        second,
        None,
        pyr_scale=p["pyramid_scale"],
        levels=p["levels"],
        winsize=p["window"],
        iterations=p["iterations"],
        poly_n=p["poly_n"],
        poly_sigma=p["poly_sigma"],
        flags=_cv2.OPTFLOW_FARNEBACK_GAUSSIAN if p["gaussian_window"] else 0,
    )


def _describe(array: NDArray[np.uint8]) -> str:
    return f"{tuple(array.shape)} {array.dtype}"
