"""The building blocks of the network: convolutions over space and time, residual units, and links.

Legend: B clips, T time steps, C channels, H, W. Time is folded into the batch, (B·T,C,H,W).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresnet.model.config import Architecture

EXPANSION = 4  # a bottleneck's output has four times its inner channels
BN_MOMENTUM = 0.05  # running moments take 5 % of the new value per iteration (released code)


class TemporalConv(nn.Module):
    """A 1×1×3 convolution over time, zero-padded by one step at each end of the clip.

    It is computed as a 2D convolution with kernel (3, 1) over the plane (T, H·W). In channels-last memory that plane
    is a view of the folded (B·T,C,H,W), so nothing is copied.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 1))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None

    def forward(self, x: Tensor, clips: int) -> Tensor:
        """Return the convolved clips, (B·T,C',H,W), of (B·T,C,H,W) with B = `clips`."""
        return convolve_time(x, self.weight, self.bias, clips, padding=1)


def convolve_time(x: Tensor, weight: Tensor, bias: Tensor | None, clips: int, padding: int) -> Tensor:
    """Return clips convolved over time, zero-padded by `padding` steps at each end.

    Args:
        x: (B·T,C,H,W) with B = `clips`.
        weight: (C',C,taps,1).
        bias: (C',), if any.
        clips, padding: see above.
    """
    frames, c, h, w = x.shape
    plane = x.permute(0, 2, 3, 1).reshape(clips, frames // clips, h * w, c).permute(0, 3, 1, 2)  # (B,C,T,HW)
    out = F.conv2d(plane, weight, bias, padding=(padding, 0))
    return out.permute(0, 2, 3, 1).reshape(clips * out.shape[2], h, w, -1).permute(0, 3, 1, 2)  # (B·T',C',H,W)


class Pointwise(nn.Conv2d):
    """A 1×1 convolution of single time steps, at either end of a bottleneck."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor, clips: int = 1) -> Tensor:
        """Return the convolved frames, (B·T,C',H/stride,W/stride)."""
        return super().forward(x)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalisation with the released code's momentum."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=BN_MOMENTUM)


class Unit(nn.Module):
    """A residual unit up to its sum, *before* the ReLU that follows it: shortcut plus bottleneck.

    A second unit spans three time steps: its 1×1 convolutions are inflated (ST-ResNet), or a temporal convolution is
    injected after the 3×3 (ST-MulNet).
    """

    def __init__(self, channels: int, inner: int, stride: int, layout: str, temporal: str | None) -> None:
        super().__init__()
        out = inner * EXPANSION
        first, second = (stride, 1) if layout == "caffe" else (1, stride)
        inflate = temporal == "inflate"
        self.conv1 = TemporalConv(channels, inner) if inflate else Pointwise(channels, inner, first)
        self.bn1 = batch_norm(inner)
        self.conv2 = nn.Conv2d(inner, inner, kernel_size=3, stride=second, padding=1, bias=False)
        self.bn2 = batch_norm(inner)
        self.temporal = TemporalConv(inner, inner, bias=True) if temporal == "inject" else None
        self.conv3 = TemporalConv(inner, out) if inflate else Pointwise(inner, out)
        self.bn3 = batch_norm(out)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False), batch_norm(out)
            )

    def forward(self, x: Tensor, clips: int, branch_input: Tensor | None = None) -> Tensor:
        """Return the sum x + F(branch_input), (B·T,C',H',W'); without a link the branch reads `x`."""
        y = x if branch_input is None else branch_input
        y = F.relu(self.bn1(self.conv1(y, clips)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        if self.temporal is not None:
            y = self.temporal(y, clips)
        y = self.bn3(self.conv3(y, clips))
        return cast(Tensor, y.add_(x if self.downsample is None else self.downsample(x)))


class TemporalPool(nn.Module):
    """The maximum over windows of time steps, without padding."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,T′,C,H,W) of (B,T,C,H,W).

        Raises:
            ValueError: T is less than `size`.
        """
        if x.shape[1] < self.size:
            raise ValueError(f"temporal pooling needs at least {self.size} time steps, but a clip has {x.shape[1]}")
        return x.unfold(1, self.size, self.stride).amax(-1)  # windows (B,T′,C,H,W,size)


class Link(nn.Module):
    """A link between the streams: the input of a second unit's residual branch when the other stream enters.

    Change its `forward` to change how the streams are joined.
    """

    def __init__(self, config: Architecture, channels: int) -> None:
        super().__init__()
        self.multiply = config.link == "multiply"
        self.residual = config.link_form == "residual"
        self.scale: nn.Parameter | None = None
        if config.link_scale is not None:
            self.scale = nn.Parameter(torch.full((channels, 1, 1), config.link_scale))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Return x + other, or x ⊙ other in ST-MulNet; in residual form f(x) + other, or f(x) ⊙ (1 + other).

        Args:
            x: (B·T,C,H,W), the sum that the receiving stream's first unit leaves, before its ReLU.
            other: (B·T,C,H,W), the sum of the entering stream, after its ReLU.
        """
        if self.scale is not None:
            other = other * self.scale
        if self.residual:
            x = F.relu(x)
            return torch.addcmul(x, x, other) if self.multiply else x + other
        return x * other if self.multiply else x + other
