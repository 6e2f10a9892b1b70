"""ST-ResNet: two ResNets, residual links from motion to appearance, and convolutions over time.

Feichtenhofer, Pinz, Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016
(arXiv 1611.02155), following the authors' released code where the two differ. With f the ReLU, F the bottleneck of
convolutions in a residual unit, and xₗ the sum that unit l leaves *before* its ReLU, in the order of the paper:

    (1)  xₗ₊₁  = f(xₗ) + F(f(xₗ); Wₗ)                   a residual unit
    (2)  x̂ᵃₗ₊₁ = f(xᵃₗ) + F(xᵃₗ + f(xᵐₗ); Wᵃₗ)          a unit with a link: motion enters the residual branch only
    (3)  Ŵₗ(t) = Wₗ / 3,  t = −1, 0, 1                  a temporal filter grown out of an image filter
    (4)  x(t′)  = max over 5 steps of f(x(t))           temporal pooling ("ST-ResNet*")

Legend: B clips, T time steps, T′ temporal outputs, C channels, H, W, L flow fields per stack, K classes; ᵃ appearance,
ᵐ motion. Time is folded into the batch, (B·T,C,H,W), for every spatial layer. Submodules carry torchvision's names, so
that its weights fit without renaming.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresnet.model import forks as forks
from stresnet.model.config import LAYERS, UNITS_PER_LAYER, Stream, STResNetConfig
from stresnet.model.initialization import initialize
from stresnet.model.layers import EXPANSION, Link, TemporalPool, Unit, batch_norm

MIN_SIDE_PX = 32


class StreamLogits(NamedTuple):
    """The logits of each stream, (B,T′,K) over T′ temporal outputs; None for a stream that is switched off."""

    appearance: Tensor | None
    motion: Tensor | None

    @property
    def fused(self) -> Tensor:
        """The mean over the streams and over the temporal outputs, (B,K)."""
        return torch.stack([logits.mean(1) for logits in self if logits is not None]).mean(0)


class STResNet(nn.Module):
    """A spatiotemporal residual network over clips of RGB frames and optical-flow stacks.

    Examples:
        >>> net = STResNet(STResNetConfig(num_classes=101))
        >>> logits = net(torch.zeros(1, 3, 5, 224, 224), torch.zeros(1, 20, 5, 224, 224))
        >>> logits.fused.shape
        torch.Size([1, 101])
    """

    def __init__(self, config: STResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.appearance = StreamNet(config, "appearance", 3) if "appearance" in config.streams else None
        self.motion = StreamNet(config, "motion", 2 * config.flow_stack) if "motion" in config.streams else None
        self.links = nn.ModuleDict({stream: _links(config) for stream in config.streams if config.links_into(stream)})
        initialize(self, config)

    def forward(self, rgb: Tensor | None = None, flow: Tensor | None = None) -> StreamLogits:
        """Return the logits of both streams.

        Args:
            rgb: normalised frames, (B,3,T,H,W) float, each side at least 32 px. Not needed by a motion stream alone.
            flow: normalised flow stacks, (B,2L,T,H,W) float, u and v interleaved. Not needed by an appearance stream
                alone.

        Raises:
            ValueError: if an input that a stream needs is missing, of another shape, or too short in time.
        """
        self._check_inputs(rgb, flow)
        if self.appearance is None or self.motion is None:
            return StreamLogits(
                None if self.appearance is None else self.appearance(rgb),
                None if self.motion is None else self.motion(flow),
            )
        return self._two_streams(self.appearance, self.motion, cast(Tensor, rgb), cast(Tensor, flow))

    def _two_streams(self, appearance: StreamNet, motion: StreamNet, rgb: Tensor, flow: Tensor) -> StreamLogits:
        clips = rgb.shape[0]
        a = appearance.stem(fold(rgb))  # f(xᵃ), (B·T,C,H,W)
        m = motion.stem(fold(flow))  # f(xᵐ)
        for layer in LAYERS:
            a, m = self._layer(layer, appearance.layer(layer), motion.layer(layer), a, m, clips)
        return StreamLogits(appearance.head(a, clips), motion.head(m, clips))

    def _layer(
        self, layer: int, appearance: nn.ModuleList, motion: nn.ModuleList, a: Tensor, m: Tensor, clips: int
    ) -> tuple[Tensor, Tensor]:
        """Return both streams after one of conv2_x … conv5_x: first units, links, second units, remaining units."""
        xa, xm = appearance[0](a, clips), motion[0](m, clips)  # (1)
        a, m = F.relu(xa), F.relu(xm)
        into_a, into_m = self._link("appearance", layer, xa, m), self._link("motion", layer, xm, a)
        a = F.relu(appearance[1](a, clips, into_a), inplace=True)  # (2)
        m = F.relu(motion[1](m, clips, into_m), inplace=True)
        for unit in appearance[2:]:
            a = F.relu(unit(a, clips), inplace=True)  # (1)
        for unit in motion[2:]:
            m = F.relu(unit(m, clips), inplace=True)
        return a, m

    def _link(self, stream: Stream, layer: int, x: Tensor, other: Tensor) -> Tensor | None:
        """Return the input of the second unit's residual branch; None, its default, where no link enters `stream`."""
        if stream not in self.links:
            return None
        return cast(Tensor, cast(nn.ModuleList, self.links[stream])[layer - LAYERS[0]](x, other))

    def _check_inputs(self, rgb: Tensor | None, flow: Tensor | None) -> None:
        if self.appearance is not None:
            self._check_input("rgb", rgb, 3)
        if self.motion is not None:
            self._check_input("flow", flow, 2 * self.config.flow_stack)
        if rgb is None or flow is None or len(self.config.streams) == 1:
            return
        if (rgb.shape[0], *rgb.shape[2:]) != (flow.shape[0], *flow.shape[2:]):
            raise ValueError(f"`rgb` {tuple(rgb.shape)} and `flow` {tuple(flow.shape)} must agree in B, T, H and W")

    def _check_input(self, name: str, x: Tensor | None, channels: int) -> None:
        if x is None:
            raise ValueError(f"this network needs `{name}`, but none was given")
        if x.ndim != 5 or x.shape[1] != channels:
            raise ValueError(f"`{name}` must be (B,{channels},T,H,W), but is {tuple(x.shape)}")
        if min(x.shape[3:]) < MIN_SIDE_PX:
            raise ValueError(f"`{name}` must be at least {MIN_SIDE_PX} px on each side, but is {tuple(x.shape[3:])}")


class StreamNet(nn.Module):
    """One stream: a ResNet over single time steps, except for the temporal taps of its second units."""

    def __init__(self, config: STResNetConfig, stream: Stream, in_channels: int) -> None:
        super().__init__()
        channels, caffe = config.conv1_channels, config.layout == "caffe"
        self.temporal_pool = TemporalPool(*config.temporal_pool) if config.temporal_pool else None
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=caffe)
        self.bn1 = batch_norm(channels)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True) if caffe else nn.MaxPool2d(3, 2, padding=1)
        for index, layer in enumerate(LAYERS):
            self.add_module(f"layer{index + 1}", _units(config, stream, layer, channels))
            channels = config.base_channels * 2**index * EXPANSION
        self.dropout = nn.Dropout(config.dropout_of(stream))
        self.fc = nn.Linear(channels, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B,T′,K) of a single stream, without links; `x` is (B,C,T,H,W)."""
        clips = x.shape[0]
        x = self.stem(fold(x))
        for layer in LAYERS:
            for unit in self.layer(layer):
                x = F.relu(unit(x, clips), inplace=True)  # (1)
        return self.head(x, clips)

    def stem(self, x: Tensor) -> Tensor:
        """Return conv1 and pool1 of folded frames: (B·T,C,H,W) to (B·T,C,H/4,W/4)."""
        return cast(Tensor, self.pool1(F.relu(self.bn1(self.conv1(x)), inplace=True)))

    def layer(self, layer: int) -> nn.ModuleList:
        """Return the units of conv2_x … conv5_x, by their number in the paper."""
        return cast(nn.ModuleList, self.get_submodule(f"layer{layer - 1}"))

    def head(self, x: Tensor, clips: int) -> Tensor:
        """Return the logits (B,T′,K) of the last units' output (B·T,C,H,W), averaged over space.

        The temporal pool comes before the spatial average, as in the released code: the two do not commute. The
        average is over 7×7 windows of stride 1 with the classifier in each; as the classifier is linear, the mean over
        windows is taken first. Smaller maps are averaged whole.
        """
        x = x.reshape(clips, x.shape[0] // clips, *x.shape[1:])  # (B,T,C,H,W)
        if self.temporal_pool is not None:
            x = self.temporal_pool(x)  # (4)
        _, outputs, c, h, w = x.shape
        windows = F.avg_pool2d(x.reshape(-1, c, h, w), (min(7, h), min(7, w)), stride=1)
        logits = cast(Tensor, self.fc(self.dropout(windows.mean((2, 3)))))
        return logits.reshape(clips, outputs, logits.shape[1])


def fold(clip: Tensor) -> Tensor:
    """Return a clip (B,C,T,H,W) with time folded into the batch: (B·T,C,H,W)."""
    return clip.permute(0, 2, 1, 3, 4).flatten(0, 1)


def _units(config: STResNetConfig, stream: Stream, layer: int, channels: int) -> nn.ModuleList:
    """Return the units of one of conv2_x … conv5_x; the second one spans time if the config says so."""
    index = layer - LAYERS[0]
    inner = config.base_channels * 2**index
    units = nn.ModuleList()
    for position in range(UNITS_PER_LAYER[config.depth_of(stream)][index]):
        stride = 2 if index > 0 and position == 0 else 1
        spans_time = position == 1 and layer in config.temporal_layers_of(stream)
        units.append(Unit(channels, inner, stride, config.layout, config.temporal if spans_time else None))
        channels = inner * EXPANSION
    return units


def _links(config: STResNetConfig) -> nn.ModuleList:
    return nn.ModuleList(Link(config, config.base_channels * 2**index * EXPANSION) for index in range(len(LAYERS)))
