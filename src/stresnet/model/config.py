"""What a network is: the few choices that tell one member of the ST-ResNet family from another."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Stream = Literal["appearance", "motion"]
STREAMS: tuple[Stream, ...] = ("appearance", "motion")

Depth = Literal[26, 50, 101, 152]

STAGES = (2, 3, 4, 5)
"""conv2 … conv5, the stages of residual units."""

UNITS_PER_STAGE = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottleneck units in conv2 … conv5, by depth (He et al. 2016; 26 is the smallest that keeps a second unit)."""


_CHOICES: dict[str, tuple[Any, ...]] = {
    "depth": tuple(UNITS_PER_STAGE),
    "motion_depth": (*UNITS_PER_STAGE, None),
    "layout": ("torchvision", "caffe"),
    "link": ("add", "multiply", None),
    "link_direction": ("motion_to_appearance", "appearance_to_motion", "both"),
    "temporal": ("inflate", "inject", None),
    "temporal_init": ("identity", "average", "difference"),
}


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise a ValueError unless a field is an int of at least `least`; neither 5.0 nor True is one."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def require_number(name: str, value: Any, above: float = -math.inf) -> None:
    """Raise a ValueError unless a field is a finite number above `above`; True is none."""
    if type(value) not in (int, float) or not math.isfinite(value) or not value > above:
        limit = "" if above == -math.inf else f" above {above:g}"
        raise ValueError(f"{name} must be a finite number{limit}, not {value!r}")


@dataclass(frozen=True)
class STResNetConfig:
    """The description of one ST-ResNet; two equal descriptions give networks with interchangeable weights.

    Attributes:
        num_classes: K, the number of actions.
        depth: layers of each stream's ResNet: 26, 50, 101 or 152.
        motion_depth: the motion stream's, where it differs (released ST-MulNet: 50 and 152), or None.
        width: factor on every channel count; 1.0 is the paper's, 0.25 suits a laptop.
        layout: where the strides and paddings of ResNet lie; pretrained weights fit one layout only.
            `caffe` is the released weights' (stride in the first 1×1, biased conv1, ceil-mode pool),
            `torchvision` strides in the 3×3.
        streams: the streams switched on; one of them alone is an ordinary 2D ResNet over frames.
        link: how a stream enters the other's second units: `add` (ST-ResNet), `multiply` (ST-MulNet) or None.
        link_direction: `motion_to_appearance` is the paper's; the others are options of the released code.
        link_scale: initial value of a learned per-channel factor on the link (released code: 0.1), or None.
        temporal: how second units span three time steps: `inflate` makes their two 1×1 convolutions 1×1×3
            (ST-ResNet), `inject` adds a 1×1×3 one after the ReLU of their 3×3 (ST-MulNet); None: not at all.
        temporal_init: what injected convolutions start as: `identity` (0, 1, 0), `average` (⅓, ⅓, ⅓) or
            `difference` (−1, 3, −1). Inflated ones always start as the average of their image filter.
        temporal_stages: the stages, of conv2 … conv5, whose second units do so.
        motion_temporal_stages: the motion stream's, where they differ, or None.
        temporal_pool: (size, stride) in time steps of the max pool before the head: (5, 2) is the "ST-ResNet*" of
            the released code, (5, 1) its ST-MulNet; None: no pool.
        flow_stack: L, flow fields stacked at each time step; the motion stream reads 2L channels.
        dropout: probability of dropping a feature before the classifier.
        motion_dropout: the motion stream's, where it differs, or None.
    """

    num_classes: int
    depth: Depth = 50
    motion_depth: Depth | None = None
    width: float = 1.0
    layout: Literal["torchvision", "caffe"] = "torchvision"
    streams: tuple[Stream, ...] = STREAMS
    link: Literal["add", "multiply"] | None = "add"
    link_direction: Literal["motion_to_appearance", "appearance_to_motion", "both"] = "motion_to_appearance"
    link_scale: float | None = None
    temporal: Literal["inflate", "inject"] | None = "inflate"
    temporal_init: Literal["identity", "average", "difference"] = "identity"
    temporal_stages: tuple[int, ...] = STAGES
    motion_temporal_stages: tuple[int, ...] | None = None
    temporal_pool: tuple[int, int] | None = None
    flow_stack: int = 10
    dropout: float = 0.0
    motion_dropout: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no network could be built from.

        Raises:
            ValueError: if a field is out of range; the line names it and what is allowed.
        """
        self._check_types()
        if unknown := [s for s in self.streams if s not in STREAMS]:
            raise ValueError(f"streams must be among {STREAMS}, not {unknown[0]!r}")
        object.__setattr__(self, "streams", tuple(s for s in STREAMS if s in self.streams))
        if not self.streams:
            raise ValueError(f"at least one of the streams {STREAMS} must be on")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        for stream in STREAMS:
            self._check_stream(stream)
        pool = self.temporal_pool
        if pool is not None and len(pool) != 2:
            raise ValueError(f"temporal_pool must be (size, stride) in steps, each at least 1, or None, not {pool}")
        if len(self.streams) == 1 and self.link is not None:
            raise ValueError(f"a link needs both streams, but only {self.streams[0]} is on: set link to None")

    def _check_types(self) -> None:
        for name in ("num_classes", "depth", "flow_stack"):
            require_whole(name, getattr(self, name))
        if self.motion_depth is not None:
            require_whole("motion_depth", self.motion_depth)
        for name in ("streams", "temporal_stages", "motion_temporal_stages", "temporal_pool"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list) and (values is not None or name in ("streams", "temporal_stages")):
                raise ValueError(f"{name} must be a tuple, not {values!r}")
            for value in values if values and name != "streams" else ():
                require_whole(f"each of {name}", value)
        require_number("width", self.width, above=0)
        require_number("dropout", self.dropout)
        for name in ("motion_dropout", "link_scale"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name))

    def _check_stream(self, stream: Stream) -> None:
        dropout, stages = self.dropout_of(stream), self.temporal_stages_of(stream)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")
        if sorted(set(stages) & set(STAGES)) != list(stages):
            raise ValueError(f"temporal stages must be among {STAGES}, each once and in order, not {stages}")

    def depth_of(self, stream: Stream) -> Depth:
        """The layers of a stream's ResNet."""
        return self.motion_depth if stream == "motion" and self.motion_depth is not None else self.depth

    def dropout_of(self, stream: Stream) -> float:
        """The probability of dropping a feature before a stream's classifier."""
        return self.motion_dropout if stream == "motion" and self.motion_dropout is not None else self.dropout

    def temporal_stages_of(self, stream: Stream) -> tuple[int, ...]:
        """The stages of a stream whose second units span time; none where nothing does."""
        if self.temporal is None:
            return ()
        own = self.motion_temporal_stages
        return own if stream == "motion" and own is not None else self.temporal_stages

    @property
    def base_channels(self) -> int:
        """Channels after conv1: 64 × width."""
        return max(1, round(64 * self.width))

    def links_into(self, stream: Stream) -> bool:
        """Whether the other stream enters the second units of `stream`."""
        into = {"motion_to_appearance": ("appearance",), "appearance_to_motion": ("motion",), "both": STREAMS}
        return self.link is not None and stream in into[self.link_direction]

    def to_dict(self) -> dict[str, Any]:
        """The description as plain values, as kept in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> STResNetConfig:
        """The config that `to_dict` described.

        Raises:
            ValueError: if a field is unknown, missing, of another type or out of range.
        """
        if not isinstance(values, dict):
            raise ValueError(f"not the description of an ST-ResNet: expected fields by name, found {values!r:.40}")
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown or "num_classes" not in values:
            raise ValueError(
                f"not the description of an ST-ResNet: unknown fields {unknown}"
                if unknown
                else "not the description of an ST-ResNet: num_classes is missing"
            )
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**tuples)
