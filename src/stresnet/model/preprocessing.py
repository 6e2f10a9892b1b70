"""From stored bytes to what a network reads: the one place where pixels and flow levels are normalised."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from stresnet.model.config import require_number, require_whole

FLOW_ZERO = 128.0
"""The level subtracted from flow bytes (released code)."""


@dataclass(frozen=True)
class Preprocessing:
    """How bytes become network input; kept in every checkpoint.

    Attributes:
        rgb_mean: subtracted from R, G, B levels, 0–255.
        rgb_std: divides R, G, B after that. The defaults are torchvision's ImageNet values times 255.
        flow_std: divides flow levels less 128. The default, the mean of `rgb_std`, gives conv1 filters made
            from image filters inputs of the size they were trained on, as 1 does in the released code.
        crop_px: side of the square that training crops; testing sees whole frames, each side clamped to
            crop_px … 2·crop_px (224 … 448 in the released code).
        mirror: whether an action keeps its name when seen in a mirror. If not, neither training nor testing flips.
    """

    rgb_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    rgb_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    flow_std: float = 57.63
    crop_px: int = 224
    mirror: bool = True

    def __post_init__(self) -> None:
        """Refuse what would make no input, or one of infinities.

        Raises:
            ValueError: naming the field, what is allowed and what was found.
        """
        for name in ("rgb_mean", "rgb_std"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) != 3:
                raise ValueError(f"{name} must be three numbers, of R, G and B, not {values!r}")
            for value in values:
                require_number(f"each of {name}", value, above=0 if name == "rgb_std" else -math.inf)
        require_number("flow_std", self.flow_std, above=0)
        require_whole("crop_px", self.crop_px)
        if type(self.mirror) is not bool:
            raise ValueError(f"mirror must be True or False, not {self.mirror!r}")

    @classmethod
    def of_layout(cls, layout: str, *, crop_px: int, mirror: bool) -> Preprocessing:
        """What image weights of a layout were trained on: `caffe` takes a mean off the levels and scales nothing."""
        if layout == "caffe":
            return cls(rgb_std=(1.0, 1.0, 1.0), flow_std=1.0, crop_px=crop_px, mirror=mirror)
        return cls(crop_px=crop_px, mirror=mirror)

    def with_levels_of(self, rgb: Preprocessing, flow: Preprocessing) -> Preprocessing:
        """These crops and mirrors, with the means and scales that one network's RGB and another's flow came by."""
        return replace(self, rgb_mean=rgb.rgb_mean, rgb_std=rgb.rgb_std, flow_std=flow.flow_std)

    def normalize(
        self, rgb: Tensor | None, flow: Tensor | None, flow_scale: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Network inputs (B,3,T,H,W) and (B,2L,T,H,W), float32; None stays None.

        Args:
            rgb: (B,T,H,W,3) uint8.
            flow: (B,T,2L,H,W) uint8 levels, u and v interleaved.
            flow_scale: (B,2) float32, factors on u and v: what resizing and mirroring did to lengths and signs.
                As the zero level is taken off first, −1 negates u exactly (the released code's 255 − u is off by
                one level).
        """
        if rgb is not None:
            mean = torch.tensor(self.rgb_mean, device=rgb.device)
            std = torch.tensor(self.rgb_std, device=rgb.device)
            rgb = ((rgb.float() - mean) / std).permute(0, 4, 1, 2, 3)
        if flow is not None:
            factors = (flow_scale / self.flow_std).repeat(1, flow.shape[2] // 2)[:, None, :, None, None]
            flow = ((flow.float() - FLOW_ZERO) * factors).transpose(1, 2)
        return rgb, flow

    def to_dict(self) -> dict[str, Any]:
        """The values as kept in a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """The preprocessing that `to_dict` described.

        Raises:
            ValueError: if a field is unknown, of another type or out of range.
        """
        if not isinstance(values, dict):
            raise ValueError(f"not a description of preprocessing: expected fields by name, found {values!r:.40}")
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"not a description of preprocessing: unknown fields {unknown}")
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**tuples)


def mirrored(rgb: Tensor | None, flow: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The network inputs of the same clip seen in a mirror: columns flipped, u negated exactly; None stays None."""
    if rgb is not None:
        rgb = rgb.flip(-1)
    if flow is not None:
        flow = flow.flip(-1)
        flow[:, 0::2] *= -1
    return rgb, flow
