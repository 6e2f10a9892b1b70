"""The description of a network: the choices that distinguish one member of the ST-ResNet family from another."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Stream = Literal["appearance", "motion"]
STREAMS: tuple[Stream, ...] = ("appearance", "motion")

Depth = Literal[26, 50, 101, 152]
Layer = Literal[2, 3, 4, 5]
LAYERS: tuple[Layer, ...] = (2, 3, 4, 5)
"""conv2_x … conv5_x, the groups of residual units; `layer1` … `layer4` in the names of weights."""
UNITS_PER_LAYER: dict[Depth, tuple[int, int, int, int]] = {
    26: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Bottleneck units in conv2_x … conv5_x (He et al. 2016; 26 is the smallest depth that has second units)."""

TemporalInit = Literal["identity", "average", "difference"]

Whole = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True)]


class Description(BaseModel):
    """Base of all descriptions: immutable, comparable, and strict about unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return self.model_dump(mode="json")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed and checked."""
        return type(self)(**(dict(self) | changes))

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return the description that `to_dict` wrote.

        Raises:
            ValueError: if a field is unknown, missing, of another type or out of range. The message is one line that
                names the first such field.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"not a valid {cls.__name__}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Return the first problem of a validation error in one line: the field, what is wrong, and what was found."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    problem = first["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "List")
    if first["type"] == "extra_forbidden":
        problem = "no such field"
    elif first["type"] not in ("missing", "value_error"):
        problem += f" (found {repr(first['input'])[:80]})"
    return f"{field}: {problem}" if field else problem


class Architecture(Description):
    """A network apart from its number of classes; every stage of a recipe contains one."""

    depth: Depth = Field(default=50, description="Layers of each stream's ResNet: 26, 50, 101 or 152.")
    motion_depth: Depth | None = Field(
        default=None, description="Layers of the motion stream if they differ (released ST-MulNet: 50 and 152)."
    )
    width: Number = Field(
        default=1.0, gt=0, le=16, description="Factor on every channel count. 1.0 is the paper's; 0.25 suits a laptop."
    )
    stem_channels: Whole | None = Field(
        default=None,
        le=4096,
        description="Channels after conv1 if they differ from 64 × width: published thin ResNets keep 64.",
    )
    layout: Literal["torchvision", "caffe"] = Field(
        default="torchvision",
        description="Where strides and paddings lie; pretrained weights fit one layout only. `torchvision` strides in "
        "the 3×3; `caffe` is that of the released weights: stride in the first 1×1, conv1 with a bias, ceil-mode pool.",
    )
    streams: tuple[Stream, ...] = Field(
        default=STREAMS, min_length=1, description="Streams switched on. A single stream is a 2D ResNet over frames."
    )
    link: Literal["add", "multiply"] | None = Field(
        default="add",
        description="How one stream enters the other's second units: `add` (ST-ResNet), `multiply` (ST-MulNet).",
    )
    link_direction: Literal["motion_to_appearance", "appearance_to_motion", "both"] = Field(
        default="motion_to_appearance",
        description="The paper's is `motion_to_appearance`; the released code has the others.",
    )
    link_form: Literal["published", "residual"] = Field(
        default="published",
        description="What the linked branch reads, with x its stream's sum, y the other's, f the ReLU and s the scale: "
        "`published` x + s·f(y) or x·s·f(y); `residual` f(x) + s·f(y) or f(x)·(1 + s·f(y)), which is f(x), as without "
        "a link, while s is 0.",
    )
    link_scale: Number | None = Field(
        default=None,
        description="Initial value of a learned per-channel factor on the link (released code: 0.1). 0 with "
        "`link_form: residual` starts a network exactly at its two streams.",
    )
    temporal: Literal["inflate", "inject"] | None = Field(
        default="inflate",
        description="How second units span three time steps: `inflate` makes their two 1×1 convolutions 1×1×3 "
        "(ST-ResNet); `inject` adds a 1×1×3 convolution after the ReLU of their 3×3 (ST-MulNet).",
    )
    temporal_init: TemporalInit = Field(
        default="identity",
        description="Initial taps of injected convolutions: `identity` (0, 1, 0), `average` (⅓, ⅓, ⅓) or `difference` "
        "(−1, 3, −1).",
    )
    inflate_init: TemporalInit = Field(
        default="average",
        description="The same for inflated convolutions, whose taps multiply the image filter. The paper's is "
        "`average`; with `identity` a network starts as if it did not convolve over time.",
    )
    temporal_layers: tuple[Layer, ...] = Field(
        default=LAYERS, description="The layers, of conv2_x … conv5_x, whose second units span time."
    )
    motion_temporal_layers: tuple[Layer, ...] | None = Field(
        default=None, description="The same for the motion stream if it differs."
    )
    temporal_pool: tuple[Whole, Whole] | None = Field(
        default=None,
        description="Size and stride, in time steps, of the max pool before the head: (5, 2) is the released code's "
        "ST-ResNet*, (5, 1) its ST-MulNet.",
    )
    flow_stack: Whole = Field(
        default=10,
        le=1024,
        description="L, the flow fields stacked at each time step; the motion stream reads 2L channels.",
    )
    dropout: Number = Field(
        default=0.0, ge=0, lt=1, description="Probability of dropping each feature before the classifier."
    )
    motion_dropout: Number | None = Field(
        default=None, ge=0, lt=1, description="The same for the motion stream if it differs."
    )

    @field_validator("streams")
    @classmethod
    def _order_streams(cls, streams: tuple[Stream, ...]) -> tuple[Stream, ...]:
        if len(set(streams)) < len(streams):
            raise ValueError(f"streams must name each stream once, not {list(streams)}")
        return tuple(s for s in STREAMS if s in streams)

    @field_validator("temporal_layers", "motion_temporal_layers")
    @classmethod
    def _order_layers(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and list(layers) != sorted(set(layers)):
            raise ValueError(f"layers must be listed once each and in order, not {list(layers)}")
        return layers

    @model_validator(mode="after")
    def _check_link(self) -> Self:
        if len(self.streams) == 1 and self.link is not None:
            raise ValueError(f"a link needs both streams, but only {self.streams[0]} is on: set link to null")
        return self

    @property
    def base_channels(self) -> int:
        """The inner channels of conv2_x's units: 64 × width."""
        return max(1, round(64 * self.width))

    @property
    def conv1_channels(self) -> int:
        """The channels after conv1."""
        return self.base_channels if self.stem_channels is None else self.stem_channels

    def depth_of(self, stream: Stream) -> Depth:
        """Return the depth of a stream's ResNet."""
        return self.motion_depth if stream == "motion" and self.motion_depth is not None else self.depth

    def dropout_of(self, stream: Stream) -> float:
        """Return the probability of dropping a feature before a stream's classifier."""
        return self.motion_dropout if stream == "motion" and self.motion_dropout is not None else self.dropout

    def temporal_layers_of(self, stream: Stream) -> tuple[int, ...]:
        """Return the layers of a stream whose second units span time; empty if none do."""
        if self.temporal is None:
            return ()
        if stream == "motion" and self.motion_temporal_layers is not None:
            return self.motion_temporal_layers
        return self.temporal_layers

    def links_into(self, stream: Stream) -> bool:
        """Return whether the other stream enters the second units of `stream`."""
        target = {"appearance": "motion_to_appearance", "motion": "appearance_to_motion"}[stream]
        return self.link is not None and self.link_direction in (target, "both")

    def with_classes(self, num_classes: int) -> STResNetConfig:
        """Return this architecture with a number of classes: the config of a network."""
        return STResNetConfig(num_classes=num_classes, **dict(self))


class STResNetConfig(Architecture):
    """The description of one ST-ResNet; equal descriptions give networks with interchangeable weights."""

    num_classes: Whole = Field(le=2**31 - 1, description="K, the number of actions.")
