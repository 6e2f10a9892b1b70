"""Optical flow between consecutive frames.

T frames, H height, W width. Flow is in pixels per frame, u to the right, v down; flow[t] takes frame t to t+1:
what is at (x, y) in frame t is at (x + u, y + v) in frame t+1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError
from stresnet.flow.spec import MIN_SIDE_PX, FlowSpec

_cv2: Any = cv2  # OpenCV's type stubs know neither DIS nor TV-L1
_Pair = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]


def estimate_flow(frames: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """Returns the flow between consecutive frames, (T-1, 2, H, W) float32, pixels per frame, u right, v down.

    The frames are taken at the size they come in; bringing them to `spec.short_side` is the caller's part.
    The result depends on neither the number of OpenCV threads nor on what was computed before.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T at least 2, H and W at least 32.
        spec: which flow.

    Raises:
        FlowSpecError: frames of another type, rank or size, or fewer than two.
    """
    if frames.ndim != 4 or len(frames) < 2:
        raise FlowSpecError(f"flow needs frames (T,H,W,3) uint8 with T at least 2, found {_describe(frames)}")
    flow = np.empty((len(frames) - 1, 2, *frames.shape[1:3]), np.float32)
    for index, field in enumerate(iter_flow(frames, spec)):
        flow[index] = field
    return flow


def iter_flow(frames: Iterable[NDArray[np.uint8]], spec: FlowSpec) -> Iterator[NDArray[np.float32]]:
    """Yields the flow from each frame to the next, (2, H, W) float32; one field fewer than frames.

    Holds two frames at a time. Sizes and meaning as in `estimate_flow`; a single frame yields nothing.

    Raises:
        FlowSpecError: a frame of another type or size.
    """
    estimate = _estimator(spec)
    shape: tuple[int, ...] | None = None
    previous: NDArray[np.uint8] | None = None
    for index, rgb in enumerate(frames):
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < MIN_SIDE_PX:
            raise FlowSpecError(
                f"flow needs frames (H,W,3) uint8 with sides of at least {MIN_SIDE_PX} px, "
                f"found {_describe(rgb)} at frame {index}"
            )
        shape = shape or rgb.shape
        if rgb.shape != shape:
            raise FlowSpecError(
                f"flow needs frames of one size: frame {index} is {rgb.shape[1]}x{rgb.shape[0]}, "
                f"the first {shape[1]}x{shape[0]}"
            )
        gray: NDArray[np.uint8] = _cv2.cvtColor(rgb, _cv2.COLOR_RGB2GRAY)
        if previous is not None:
            yield np.ascontiguousarray(estimate(previous, gray).transpose(2, 0, 1))
        previous = gray


def _estimator(spec: FlowSpec) -> _Pair:
    """Returns the function from two gray images to their flow (H, W, 2)."""
    if spec.method == "dis":
        return _dis(spec)
    if spec.method == "tvl1":
        return _tvl1(spec)
    return _farneback(spec)


def _dis(spec: FlowSpec) -> _Pair:
    p = spec.parameters
    dis = _cv2.DISOpticalFlow_create(_cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(p["finest_scale"])
    dis.setPatchSize(p["patch_size"])
    dis.setPatchStride(p["patch_stride"])
    dis.setGradientDescentIterations(p["gradient_descent_iterations"])
    dis.setVariationalRefinementIterations(p["variational_refinement_iterations"])
    return lambda first, second: dis.calc(first, second, None)


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
