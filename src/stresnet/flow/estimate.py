"""Compute the optical flow between consecutive frames.

T frames, H height, W width. Flow is in pixels per frame, u to the right, v down; flow[t] takes frame t to t+1: the
content at (x, y) in frame t is at (x + u, y + v) in frame t+1.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError
from stresnet.flow.methods import METHODS, MIN_SIDE_PX, PictureEstimator
from stresnet.flow.spec import FlowSpec
from stresnet.flow.threads import map_ahead
from stresnet.media.video import Frame


def estimate_flow(frames: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """Return the flow between consecutive frames, (T-1, 2, H, W) float32, pixels per frame, u right, v down.

    Frames are used at their size; resize them to `spec.short_side` first. The result does not depend on the number of
    OpenCV threads.

    Args:
        frames: (T, H, W, 3) uint8 RGB, T at least 2, H and W at least 32.
        spec: the method and its preset.

    Raises:
        FlowSpecError: frames have another type, rank or size, or are fewer than two; the method does not work on
            pictures (``mv``) or is not available.
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
    """Yield the flow from each frame of a video to the next, (2, H, W) float32, by any method.

    Yields one field fewer than frames and holds a few frames at a time. Sizes and units are as in `estimate_flow`.

    Args:
        frames: consecutive frames from
            ``iter_frames(path, short_side=spec.short_side, motion_vectors=spec.from_codec)``.
        spec: the method and its preset.

    Raises:
        FlowSpecError: frames have another type or size, or lack the motion vectors that the method needs; the method
            is not available.
    """
    from_vectors = METHODS[spec.method].from_vectors
    if from_vectors is None:
        return iter_flow((frame.rgb for frame in frames), spec)
    fields = from_vectors(_checked(frames), spec.parameters)
    return (_postprocessed(field, spec) for field in fields)


def iter_flow(frames: Iterable[NDArray[np.uint8]], spec: FlowSpec) -> Iterator[NDArray[np.float32]]:
    """Yield the flow from each picture to the next, (2, H, W) float32.

    Yields one field fewer than pictures. OpenCV's methods compute a pair on each of ``cv2.getNumThreads()`` threads and
    read as many pictures ahead, and one more; on one thread they hold two. The others hold as many as they batch. Sizes
    and units are as in `estimate_flow`.

    Raises:
        FlowSpecError: a frame has another type or size; the method does not work on pictures (``mv``) or is not
            available.
    """
    idle = _idle_estimators(spec)
    with _borrowed(idle, spec) as estimator:
        gray, max_pairs, threads = estimator.gray, estimator.max_pairs, estimator.threads()

    def compute(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        with _borrowed(idle, spec) as estimator:
            return _postprocessed(estimator.compute(pictures), spec)

    batches = _batches(map(_FrameCheck(), frames), gray, max_pairs)
    with closing(map_ahead(compute, batches, threads)) as computed:
        for fields in computed:
            yield from fields


def require_available(spec: FlowSpec) -> None:
    """Raise unless the method is available. Call it before long jobs.

    Raises:
        FlowSpecError: a library or a file of weights is missing; the message names it.
    """
    METHODS[spec.method].require_available(spec.preset, spec.parameters)


_of_thread = threading.local()


def _idle_estimators(spec: FlowSpec) -> list[PictureEstimator]:
    """Return the estimators that this thread's last flow has left, if its specification was the same.

    Loading takes DIS 1 ms, RAFT seconds.
    """
    if getattr(_of_thread, "spec", None) != spec:
        _of_thread.spec, _of_thread.idle = spec, []
    idle: list[PictureEstimator] = _of_thread.idle
    return idle


@contextmanager
def _borrowed(idle: list[PictureEstimator], spec: FlowSpec) -> Iterator[PictureEstimator]:
    """Take an idle estimator or load one, and leave it idle: each holds buffers, for one computation at a time."""
    try:
        estimator = idle.pop()
    except IndexError:  # rather than a test before, which another thread could outdate
        estimator = _loaded(spec)
    try:
        yield estimator
    finally:
        idle.append(estimator)


def _loaded(spec: FlowSpec) -> PictureEstimator:
    from_pictures = METHODS[spec.method].from_pictures
    if from_pictures is None:
        raise FlowSpecError(
            f"flow {spec.method} comes from the video file's motion vectors, found pictures; "
            "use flow_of(iter_frames(path, motion_vectors=True), spec)"
        )
    return from_pictures(spec.preset, spec.parameters)


def _batches(frames: Iterable[NDArray[np.uint8]], gray: bool, max_pairs: int) -> Iterator[list[NDArray[np.uint8]]]:
    """Yield the pictures of up to `max_pairs` consecutive pairs at a time; the last of each list begins the next."""
    batch: list[NDArray[np.uint8]] = []
    for rgb in frames:
        batch.append(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8) if gray else rgb)
        if len(batch) > max_pairs:
            yield batch
            batch = batch[-1:]
    if len(batch) > 1:
        yield batch


def _postprocessed(flow: NDArray[np.float32], spec: FlowSpec) -> NDArray[np.float32]:
    """Return flow (..., 2, H, W) with the median of each plane subtracted, if that is specified."""
    if not spec.subtract_median:
        return flow
    medians = np.median(flow.reshape(*flow.shape[:-2], -1), axis=-1)
    return np.asarray(flow - medians[..., None, None], np.float32)


def _checked(frames: Iterable[Frame]) -> Iterator[Frame]:
    check = _FrameCheck()
    for frame in frames:
        check(frame.rgb)
        yield frame


class _FrameCheck:
    """Return each frame unchanged; raise unless all frames have the type that flow needs, and one size."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] | None = None
        self._index = 0

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
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


def _describe(array: NDArray[np.uint8]) -> str:
    return f"{tuple(array.shape)} {array.dtype}"
