"""From stored bytes to network input: the one place where pixels and flow levels are normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field

from stresnet.model.config import Description, Number, Whole

if TYPE_CHECKING:  # exported models are described without PyTorch
    from torch import Tensor

FLOW_ZERO = 128.0
"""The level subtracted from flow bytes (released code)."""

Positive = Annotated[float, Field(strict=True, gt=0)]


class Preprocessing(Description):
    """How bytes become network input; kept in every checkpoint."""

    rgb_mean: tuple[Number, Number, Number] = Field(
        default=(123.675, 116.28, 103.53), description="Subtracted from R, G, B levels, 0–255. Default: torchvision's."
    )
    rgb_std: tuple[Positive, Positive, Positive] = Field(
        default=(58.395, 57.12, 57.375), description="Divides R, G, B after that. Default: torchvision's."
    )
    flow_std: Positive = Field(
        default=57.63,
        description="Divides flow levels minus 128. The default, the mean of the default `rgb_std`, gives conv1 "
        "filters made from image filters inputs of the magnitude they were trained on, as 1 does in the released code.",
    )
    crop_px: Whole = Field(
        default=224,
        le=8192,
        description="Side of the square that training crops. Testing sees whole frames, each side clamped to "
        "crop_px … 2·crop_px (224 … 448 in the released code).",
    )
    mirror: Annotated[bool, Field(strict=True)] = Field(
        default=True, description="Whether a mirrored video shows the same action. If not, clips are never mirrored."
    )

    @classmethod
    def of_layout(cls, layout: str, *, crop_px: int, mirror: bool) -> Self:
        """Return the preprocessing that image weights of a layout expect: `caffe` subtracts a mean and scales nothing.

        Args:
            layout: `torchvision` or `caffe`.
            crop_px: side of training crops.
            mirror: whether a mirrored video shows the same action.
        """
        if layout == "caffe":
            return cls(rgb_std=(1.0, 1.0, 1.0), flow_std=1.0, crop_px=crop_px, mirror=mirror)
        return cls(crop_px=crop_px, mirror=mirror)

    def with_levels_of(self, rgb: Preprocessing, flow: Preprocessing) -> Self:
        """Return a copy that normalises RGB as `rgb` does and flow as `flow` does."""
        return self.replace(rgb_mean=rgb.rgb_mean, rgb_std=rgb.rgb_std, flow_std=flow.flow_std)

    def normalize(
        self, rgb: Tensor | None, flow: Tensor | None, flow_scale: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return network inputs (B,3,T,H,W) and (B,2L,T,H,W), float32; None stays None.

        Args:
            rgb: (B,T,H,W,3) uint8.
            flow: (B,T,2L,H,W) uint8 levels, u and v interleaved.
            flow_scale: (B,2) float32, the factors that resizing and mirroring put on u and v. The zero level is
                subtracted first, so a factor of −1 negates u exactly (the released code's 255 − u is off by one level).
        """
        import torch

        if rgb is not None:
            mean = torch.tensor(self.rgb_mean, device=rgb.device)
            std = torch.tensor(self.rgb_std, device=rgb.device)
            rgb = rgb.float().sub_(mean).div_(std).permute(0, 4, 1, 2, 3)
        if flow is not None:
            factors = (flow_scale / self.flow_std).repeat(1, flow.shape[2] // 2)[:, None, None, None]
            levels = flow.movedim(2, -1).contiguous()  # channels last, as conv1 reads it: a quarter of the bytes now
            flow = levels.float().sub_(FLOW_ZERO).mul_(factors).permute(0, 4, 1, 2, 3)
        return rgb, flow
