"""The specification of optical flow. Data sets and models may be combined only if their specifications agree."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stresnet.errors import FlowSpecError
from stresnet.flow.methods import METHODS, MIN_SIDE_PX

_ADDED_LATER: dict[str, Any] = {"subtract_median": False}  # fields, with defaults, that the first version lacked


@dataclass(frozen=True)
class FlowSpec:
    """How optical flow is computed and stored.

    Attributes:
        method: a name in `stresnet.flow.methods.METHODS`: ``dis`` (fast, close to TV-L1), ``tvl1`` (the paper's),
            ``farneback``, ``mv`` (the video codec's motion vectors: coarse, at the speed of decoding) or ``raft``
            (needs torchvision).
        preset: ``ultrafast``, ``fast`` or ``medium`` for ``dis``; ``default`` (OpenCV's, about 1 frame/s on a CPU) or
            ``fast`` (PyTorch's, about 30; not the same flow) for ``tvl1``; ``large`` or ``small`` for
            ``raft``; ``default`` for the others. An empty name becomes ``medium``, ``large`` or ``default``.
        short_side: pixels of the shorter side of the frames that the flow is computed on *and* stored at (256 in the
            released code); flow is never resized. Resize frames before computing their flow:
            ``iter_frames(path, short_side=spec.short_side)``.
        bound_px: components beyond ± this many pixels per frame are clipped when stored (20 in the released code).
        subtract_median: whether to subtract each field's median of u and of v, against camera motion. An option of
            the released code, off there, and applied to bytes there; here to pixels, before clipping.

    Raises:
        FlowSpecError: a value is not allowed.
    """

    method: str = "dis"
    preset: str = ""
    short_side: int = 256
    bound_px: float = 20.0
    subtract_median: bool = False

    def __post_init__(self) -> None:
        if self.method not in list(METHODS):  # a list, because values from a file may be unhashable
            raise FlowSpecError(f"unknown flow method {self.method!r}: expected one of {', '.join(METHODS)}")
        if self.preset == "":
            object.__setattr__(self, "preset", METHODS[self.method].default_preset)
        presets = list(METHODS[self.method].presets)
        if self.preset not in presets:
            raise FlowSpecError(
                f"unknown flow preset {self.preset!r} of {self.method}: expected one of {', '.join(presets)}"
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
    def name(self) -> str:
        """The method and its preset, such as ``tvl1/fast``."""
        return f"{self.method}/{self.preset}"

    @property
    def parameters(self) -> Mapping[str, float | str]:
        """The parameters of this method and preset."""
        return METHODS[self.method].presets[self.preset]

    @property
    def from_codec(self) -> bool:
        """Whether the flow comes from a video file's motion vectors instead of from pictures.

        Frames must then be read with them: ``iter_frames(path, motion_vectors=spec.from_codec)``.
        """
        return METHODS[self.method].from_vectors is not None

    def digest(self) -> str:
        """Return 12 hex digits that depend on all fields and on all parameters of the preset."""
        content = {**self.to_dict(), "parameters": dict(self.parameters)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, those added later only where they differ from their default.

        Older specifications therefore keep their digests.
        """
        values = asdict(self).items()
        return {name: value for name, value in values if name not in _ADDED_LATER or value != _ADDED_LATER[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FlowSpec:
        """Return the specification that `to_dict` described; missing fields take their defaults.

        Raises:
            FlowSpecError: a key is unknown, or a value is not allowed.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise FlowSpecError(
                f"unknown keys in a flow specification: {', '.join(map(repr, unknown))}; known are {', '.join(known)}"
            )
        return cls(**values)

    def require_same(self, other: FlowSpec, what: str) -> None:
        """Raise unless two specifications agree.

        Args:
            other: the specification to compare with.
            what: what the two belong to, for the message, such as "the model and the store".

        Raises:
            FlowSpecError: they differ; the message prints both.
        """
        if self.digest() != other.digest():
            raise FlowSpecError(f"flow differs between {what}: {self} and {other}; use the same flow for both")

    def __str__(self) -> str:
        median = " median subtracted" if self.subtract_median else ""
        size = f"short_side={self.short_side} px bound={self.bound_px:g} px"
        return f"{self.name} {size}{median} ({self.digest()})"
