"""Which optical flow, to the last parameter: two data sets may be mixed only if these agree."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from stresnet.errors import FlowSpecError

Method = Literal["dis", "tvl1", "farneback", "mv", "raft"]

# Written out rather than left to OpenCV's defaults, so that another OpenCV cannot change the flow unnoticed.
PARAMETERS: dict[tuple[str, str], dict[str, float | str]] = {
    # Kroeger et al. 2016, OpenCV's presets. Finest scale k means: computed at 1/2^k of the size, then upsampled.
    ("dis", "ultrafast"): {
        "finest_scale": 2,
        "patch_size": 8,
        "patch_stride": 4,
        "gradient_descent_iterations": 12,
        "variational_refinement_iterations": 0,
    },
    ("dis", "fast"): {
        "finest_scale": 2,
        "patch_size": 8,
        "patch_stride": 4,
        "gradient_descent_iterations": 16,
        "variational_refinement_iterations": 5,
    },
    ("dis", "medium"): {
        "finest_scale": 1,
        "patch_size": 8,
        "patch_stride": 3,
        "gradient_descent_iterations": 25,
        "variational_refinement_iterations": 5,
    },
    # Zach et al. 2007, the family the paper's flow comes from, with OpenCV's defaults.
    ("tvl1", "default"): {
        "tau": 0.25,
        "lambda": 0.15,
        "theta": 0.3,
        "scales": 5,
        "warps": 5,
        "epsilon": 0.01,
        "inner_iterations": 30,
        "outer_iterations": 10,
        "scale_step": 0.8,
        "gamma": 0.0,
        "median_filter": 5,
    },
    # The same method in PyTorch (`flow.tvl1`), a schedule of this project: more scales, fewer warps and iterations.
    ("tvl1", "fast"): {
        "tau": 0.25,
        "lambda": 0.15,
        "theta": 0.3,
        "scales": 16,
        "warps": 2,
        "epsilon": 0.0,
        "inner_iterations": 30,
        "outer_iterations": 1,
        "scale_step": 0.8,
        "median_filter": 5,
    },
    # Farnebäck 2003, with the values of OpenCV's own example and a Gaussian window.
    ("farneback", "default"): {
        "pyramid_scale": 0.5,
        "levels": 5,
        "window": 13,
        "iterations": 10,
        "poly_n": 5,
        "poly_sigma": 1.1,
        "gaussian_window": 1,
    },
    # The codec's motion vectors: painted on a grid, which is smoothed by half a macroblock.
    ("mv", "default"): {"cell_px": 8, "smoothing_cells": 1.0},
    # Teed and Deng 2020, with torchvision's weights and its number of updates.
    ("raft", "large"): {"weights": "C_T_SKHT_V2", "flow_updates": 12},
    ("raft", "small"): {"weights": "C_T_V2", "flow_updates": 12},
}
"""The parameters of each (method, preset)."""

_LATER: dict[str, Any] = {"subtract_median": False}  # fields that stores of earlier versions do not have
_FIRST_CHOICE = {"dis": "medium", "raft": "large"}

MIN_SIDE_PX = 32
"""The smallest frame side any method is asked to work on: below it OpenCV's DIS writes NaN or crashes."""


@dataclass(frozen=True)
class FlowSpec:
    """How optical flow is computed and stored.

    Attributes:
        method: ``dis`` (fast, near TV-L1), ``tvl1`` (the paper's), ``farneback``, ``mv`` (the video codec's own motion
            vectors: coarse, at the speed of decoding) or ``raft`` (needs torchvision).
        preset: for ``dis`` one of ``ultrafast``, ``fast``, ``medium``; for ``tvl1`` ``default`` (OpenCV's, about
            1 frame/s on a CPU) or ``fast`` (PyTorch's, about 10, more on a GPU: not the same flow); for ``raft``
            ``large`` or ``small``; the others have ``default`` only. Left empty, it becomes ``medium``, ``large`` or
            ``default``.
        short_side: pixels of the shorter side of the frames the flow is computed on *and* stored at (256 in the
            released code); a flow is never resized. Bringing frames to that size is the caller's part:
            ``iter_frames(path, short_side=spec.short_side)``.
        bound_px: components beyond ± this many pixels per frame are clipped when stored (20 in the released code).
        subtract_median: whether each field's median of u and of v is subtracted, against camera motion. An option of
            the released code, off there (and done on bytes there; here in pixels, before anything is clipped).

    Raises:
        FlowSpecError: on any value outside the above.
    """

    method: Method = "dis"
    preset: str = ""
    short_side: int = 256
    bound_px: float = 20.0
    subtract_median: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise FlowSpecError(f"flow method must be one of {', '.join(get_args(Method))}, found {self.method!r}")
        if self.preset == "":
            object.__setattr__(self, "preset", _FIRST_CHOICE.get(self.method, "default"))
        presets = [preset for method, preset in PARAMETERS if method == self.method]
        if self.preset not in presets:
            raise FlowSpecError(
                f"flow preset of {self.method} must be one of {', '.join(presets)}, found {self.preset!r}"
            )
        if type(self.short_side) is not int or self.short_side < MIN_SIDE_PX:
            raise FlowSpecError(
                f"flow short_side must be a whole number of pixels, at least {MIN_SIDE_PX}, found {self.short_side!r}"
            )
        if type(self.bound_px) not in (int, float) or not 0 < self.bound_px < math.inf:
            raise FlowSpecError(f"flow bound_px must be a number of pixels above 0, found {self.bound_px!r}")
        object.__setattr__(self, "bound_px", float(self.bound_px))
        if type(self.subtract_median) is not bool:
            raise FlowSpecError(f"flow subtract_median must be true or false, found {self.subtract_median!r}")

    @property
    def parameters(self) -> Mapping[str, float | str]:
        """The parameters that this method and preset stand for."""
        return PARAMETERS[self.method, self.preset]

    @property
    def from_codec(self) -> bool:
        """Whether the flow comes from a video file's motion vectors, rather than from pictures.

        Frames must then be read with them: ``iter_frames(path, motion_vectors=spec.from_codec)``.
        """
        return self.method == "mv"

    def digest(self) -> str:
        """Returns 12 hex digits that change with any field and with any parameter used."""
        story = {**self.to_dict(), "parameters": dict(self.parameters)}
        return hashlib.sha256(json.dumps(story, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain JSON types; later additions only where they are not at their default.

        So a specification that could be stated before reads the same, and has the same digest, as it had then.
        """
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FlowSpec:
        """Returns the spec that `to_dict` described; a field left out takes its default.

        Raises:
            FlowSpecError: an unknown key, or a value that is not allowed.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise FlowSpecError(
                f"unknown keys in a flow specification: {', '.join(map(repr, unknown))}; known are {', '.join(known)}"
            )
        return cls(**values)

    def require_same(self, other: FlowSpec, what: str) -> None:
        """Returns nothing if the two agree.

        Args:
            other: the specification to agree with.
            what: what the two belong to, for the message, such as "the model and the store".

        Raises:
            FlowSpecError: they differ; the message prints both.
        """
        if self.digest() != other.digest():
            raise FlowSpecError(f"flow differs between {what}: {self} against {other}; prepare with one of them")

    def __str__(self) -> str:
        median = " median subtracted" if self.subtract_median else ""
        size = f"short_side={self.short_side} px bound={self.bound_px:g} px"
        return f"{self.method}/{self.preset} {size}{median} ({self.digest()})"
