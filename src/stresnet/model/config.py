"""What a network is: the few choices that tell one member of the ST-ResNet family from another."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Stream = Literal["appearance", "motion"]
STREAMS: tuple[Stream, ...] = ("appearance", "motion")

UNITS_PER_STAGE = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottleneck units in conv2 … conv5, by depth (He et al. 2016; 26 is the smallest that keeps a second unit)."""


@dataclass(frozen=True)
class STResNetConfig:
    """The description of one ST-ResNet; two equal descriptions give networks with interchangeable weights.

    Attributes:
        num_classes: K, the number of actions.
        depth: layers of each stream's ResNet: 26, 50, 101 or 152.
        width: factor on every channel count; 1.0 is the paper's, 0.25 suits a laptop.
        layout: where the strides and paddings of ResNet lie; pretrained weights fit one layout only.
            `caffe` is the released weights' (stride in the first 1×1, biased conv1, ceil-mode pool),
            `torchvision` strides in the 3×3.
        streams: the streams switched on; one of them alone is an ordinary 2D ResNet over frames.
        link: how a stream enters the other's second units: `add` (ST-ResNet), `multiply` (ST-MulNet) or None.
        link_direction: `motion_to_appearance` is the paper's; the others are options of the released code.
        link_scale: initial value of a learned per-channel factor on the link (released code: 0.1), or None.
        temporal: whether the 1×1 convolutions of every second unit span three time steps.
        temporal_pool: whether features are max-pooled over 5 steps, stride 2, before the head ("ST-ResNet*").
        flow_stack: L, flow fields stacked at each time step; the motion stream reads 2L channels.
        dropout: probability of dropping a feature before the classifier.
    """

    num_classes: int
    depth: Literal[26, 50, 101, 152] = 50
    width: float = 1.0
    layout: Literal["torchvision", "caffe"] = "torchvision"
    streams: tuple[Stream, ...] = STREAMS
    link: Literal["add", "multiply"] | None = "add"
    link_direction: Literal["motion_to_appearance", "appearance_to_motion", "both"] = "motion_to_appearance"
    link_scale: float | None = None
    temporal: bool = True
    temporal_pool: bool = False
    flow_stack: int = 10
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no network could be built from.

        Raises:
            ValueError: if a field is out of range; the line names it and what is allowed.
        """
        if unknown := [s for s in self.streams if s not in STREAMS]:
            raise ValueError(f"streams must be among {STREAMS}, not {unknown[0]!r}")
        object.__setattr__(self, "streams", tuple(s for s in STREAMS if s in self.streams))
        if self.depth not in UNITS_PER_STAGE:
            raise ValueError(f"depth must be one of {sorted(UNITS_PER_STAGE)}, not {self.depth}")
        if self.layout not in ("torchvision", "caffe"):
            raise ValueError(f"layout must be 'torchvision' or 'caffe', not {self.layout!r}")
        if self.link not in ("add", "multiply", None):
            raise ValueError(f"link must be 'add', 'multiply' or None, not {self.link!r}")
        if self.link_direction not in ("motion_to_appearance", "appearance_to_motion", "both"):
            raise ValueError(f"unknown link direction {self.link_direction!r}")
        if not self.streams:
            raise ValueError(f"at least one of the streams {STREAMS} must be on")
        if self.num_classes < 1 or self.flow_stack < 1 or not self.width > 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "num_classes and flow_stack must be at least 1, width above 0, dropout in [0, 1); found "
                f"{self.num_classes}, {self.flow_stack}, {self.width}, {self.dropout}"
            )
        if len(self.streams) == 1 and self.link is not None:
            raise ValueError(f"a link needs both streams, but only {self.streams[0]} is on: set link to None")

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
            ValueError: if a field is unknown, missing or out of range.
        """
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown or "num_classes" not in values:
            raise ValueError(
                f"not the description of an ST-ResNet: unknown fields {unknown}"
                if unknown
                else "not the description of an ST-ResNet: num_classes is missing"
            )
        return cls(**{**values, "streams": tuple(values.get("streams", STREAMS))})
