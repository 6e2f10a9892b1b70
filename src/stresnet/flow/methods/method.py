"""The description of a flow method: its parameters, its input and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stresnet.media.video import Frame

Parameters: TypeAlias = Mapping[str, float | str]
Picture: TypeAlias = "NDArray[np.uint8]"
Flow: TypeAlias = "NDArray[np.float32]"

MIN_SIDE_PX = 32
"""The shortest frame side that flow is computed for. OpenCV's DIS writes NaN or crashes on smaller frames."""


@dataclass(frozen=True)
class PictureEstimator:
    """Computes flow from consecutive pictures; not to be shared between threads.

    Attributes:
        compute: from n + 1 consecutive pictures to their n flow fields, (n, 2, H, W) float32, pixels per frame.
        max_pairs: the largest n that `compute` takes at once.
        gray: whether pictures are (H, W) gray levels rather than (H, W, 3) RGB, uint8.
        threads: returns how many estimators of the same parameters should compute at once, each on a thread.
    """

    compute: Callable[[Sequence[Picture]], Flow]
    max_pairs: int = 1
    gray: bool = True
    threads: Callable[[], int] = lambda: 1


@dataclass(frozen=True)
class FlowMethod:
    """A way to compute optical flow. Exactly one of `from_pictures` and `from_vectors` is given.

    Attributes:
        name: the name in `FlowSpec` and on the command line.
        summary: a few words for help texts.
        presets: the parameters of each preset. They are part of the digest of a `FlowSpec`, and are therefore spelled
            out instead of left to a library's defaults.
        default_preset: the preset that an empty name stands for.
        on_the_fly: whether any data loader process can compute it from stored frames: without the video, without a GPU.
        from_pictures: loads the estimator of a preset, given its name and parameters.
        from_vectors: yields the fields of frames that were read with motion vectors, given the parameters.
        require_available: raises `FlowSpecError` if a library or a file that a preset needs is missing.
    """

    name: str
    summary: str
    presets: Mapping[str, Parameters]
    default_preset: str = "default"
    on_the_fly: bool = False
    from_pictures: Callable[[str, Parameters], PictureEstimator] | None = None
    from_vectors: Callable[[Iterable[Frame], Parameters], Iterator[Flow]] | None = None
    require_available: Callable[[str, Parameters], None] = lambda preset, parameters: None

    def __post_init__(self) -> None:
        assert (self.from_pictures is None) != (self.from_vectors is None)
        assert self.default_preset in self.presets


def pairwise(pair: Callable[[Picture, Picture], Flow]) -> PictureEstimator:
    """Return the estimator of an OpenCV method, which takes one pair of gray pictures to a field (H, W, 2).

    A pair on each thread is faster than OpenCV's own threads within a pair, which wait for each other at every step.
    """
    import cv2
    import numpy as np

    def compute(pictures: Sequence[Picture]) -> Flow:
        return np.ascontiguousarray(pair(*pictures).transpose(2, 0, 1))[None]

    return PictureEstimator(compute, threads=cv2.getNumThreads)
