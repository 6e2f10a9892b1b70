"""ST-ResNet: two ResNets, residual links from motion to appearance, and convolutions over time.

Feichtenhofer, Pinz, Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016
(arXiv 1611.02155), after the authors' released code where the two differ.

Legend: B clips, T time steps, C channels, H, W, L flow fields per stack, K classes, f the ReLU,
x the sum that a residual unit leaves *before* its ReLU. Time is folded into the batch, (B·T,C,H,W), for every
spatial layer. Submodules carry torchvision's names, so that its weights fit without renaming.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresnet.model.config import STAGES, UNITS_PER_STAGE, Stream, STResNetConfig

EXPANSION = 4  # a bottleneck's output has four times its inner channels
BN_MOMENTUM = 0.05  # running moments take 5 % of the new value per step (released code)


class TemporalConv(nn.Module):
    """A 1×1×3 convolution over time, zero-padded by one step at each end of the clip.

    A 2D convolution with kernel (3, 1) over the plane (T, H·W): in channels-last memory that plane is a view of
    the folded (B·T,C,H,W), so nothing is copied.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 1))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """The convolved clip: (B·T,C,H,W) to (B·T,C',H,W), with T = `steps`."""
        frames, c, h, w = x.shape
        plane = x.permute(0, 2, 3, 1).reshape(frames // steps, steps, h * w, c).permute(0, 3, 1, 2)  # (B,C,T,HW)
        out = F.conv2d(plane, self.weight, self.bias, padding=(1, 0))
        return out.permute(0, 2, 3, 1).reshape(frames, h, w, -1).permute(0, 3, 1, 2)  # (B·T,C',H,W)


class Pointwise(nn.Conv2d):
    """A 1×1 convolution: the two ends of a bottleneck, where no time is spanned."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor, steps: int = 1) -> Tensor:
        """The convolved frames, (B·T,C',H/stride,W/stride), each on its own."""
        return super().forward(x)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=BN_MOMENTUM)


class Unit(nn.Module):
    """A residual unit: shortcut plus bottleneck, *before* the ReLU that follows the sum.

    A second unit spans three time steps: its 1×1 convolutions are inflated (ST-ResNet), or one of its own is injected
    after the 3×3 (ST-MulNet).
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
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, kernel_size=1, stride=stride, bias=False), batch_norm(out)
            )

    def forward(self, x: Tensor, steps: int, branch_input: Tensor | None = None) -> Tensor:
        """The sum x + F(branch_input), (B·T,C',H',W'); the branch reads `x` itself unless a link feeds it."""
        y = x if branch_input is None else branch_input
        y = F.relu(self.bn1(self.conv1(y, steps)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        if self.temporal is not None:
            y = self.temporal(y, steps)
        y = self.bn3(self.conv3(y, steps))
        return cast(Tensor, y + (x if self.downsample is None else self.downsample(x)))


class StreamNet(nn.Module):
    """One stream: a ResNet over single time steps, but for the temporal taps of its second units."""

    def __init__(self, config: STResNetConfig, stream: Stream, in_channels: int) -> None:
        super().__init__()
        base = config.base_channels
        caffe = config.layout == "caffe"
        self.conv1 = nn.Conv2d(in_channels, base, kernel_size=7, stride=2, padding=3, bias=caffe)
        self.bn1 = batch_norm(base)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True) if caffe else nn.MaxPool2d(3, 2, padding=1)
        channels = base
        temporal_stages = config.temporal_stages_of(stream)
        for stage, count in enumerate(UNITS_PER_STAGE[config.depth_of(stream)]):
            inner = base * 2**stage
            units = nn.ModuleList()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                temporal = config.temporal if index == 1 and stage + 2 in temporal_stages else None
                units.append(Unit(channels, inner, stride, config.layout, temporal))
                channels = inner * EXPANSION
            self.add_module(f"layer{stage + 1}", units)
        self.dropout = nn.Dropout(config.dropout_of(stream))
        self.fc = nn.Linear(channels, config.num_classes)

    def stages(self) -> Iterator[nn.ModuleList]:
        """The units of conv2, conv3, conv4 and conv5."""
        return (cast(nn.ModuleList, self.get_submodule(f"layer{n}")) for n in (1, 2, 3, 4))

    def stem(self, x: Tensor) -> Tensor:
        """conv1 and pool1 of folded frames: (B·T,C,H,W) to (B·T,64·width,H/4,W/4)."""
        return cast(Tensor, self.pool1(F.relu(self.bn1(self.conv1(x)), inplace=True)))

    def head(self, features: Tensor) -> Tensor:
        """The logits (…,K) of features (…,C,H,W), averaged over space.

        7×7 windows of stride 1, the classifier in each, then the mean over windows; as the classifier is linear
        the mean is taken first. Smaller maps are averaged whole.
        """
        *lead, c, h, w = features.shape
        windows = F.avg_pool2d(features.reshape(-1, c, h, w), (min(7, h), min(7, w)), stride=1)
        return cast(Tensor, self.fc(self.dropout(windows.mean((2, 3))))).reshape(*lead, -1)


class Link(nn.Module):
    """A residual link: what the branch of one stream reads when the other is let in."""

    def __init__(self, config: STResNetConfig, channels: int) -> None:
        super().__init__()
        self.multiply = config.link == "multiply"
        self.scale: nn.Parameter | None = None
        if config.link_scale is not None:
            self.scale = nn.Parameter(torch.full((channels, 1, 1), config.link_scale))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """x + f(other), or x ⊙ f(other): `x` is the sum before its ReLU, `other` comes rectified."""
        if self.scale is not None:
            other = other * self.scale
        return x * other if self.multiply else x + other


class StreamLogits(NamedTuple):
    """The logits of each stream, (B,T′,K) over T′ temporal outputs; None for a stream switched off."""

    appearance: Tensor | None
    motion: Tensor | None

    @property
    def fused(self) -> Tensor:
        """The mean over the streams and over the temporal outputs, (B,K)."""
        return torch.stack([logits.mean(1) for logits in self if logits is not None]).mean(0)


class STResNet(nn.Module):
    """A spatiotemporal residual network over clips of RGB frames and optical-flow stacks.

    Example:
        >>> net = STResNet(STResNetConfig(num_classes=101))
        >>> logits = net(torch.zeros(1, 3, 5, 224, 224), torch.zeros(1, 20, 5, 224, 224))
        >>> logits.fused.shape
        torch.Size([1, 101])
    """

    def __init__(self, config: STResNetConfig) -> None:
        super().__init__()
        self.config = config
        in_channels: dict[Stream, int] = {"appearance": 3, "motion": 2 * config.flow_stack}
        for stream in config.streams:
            self.add_module(stream, StreamNet(config, stream, in_channels[stream]))
        self.links = nn.ModuleDict(
            {
                stream: nn.ModuleList(Link(config, config.base_channels * 2**stage * EXPANSION) for stage in range(4))
                for stream in config.streams
                if config.links_into(stream)
            }
        )
        initialize(self)

    def forward(self, rgb: Tensor | None = None, flow: Tensor | None = None) -> StreamLogits:
        """The logits of both streams.

        Args:
            rgb: normalised frames, (B,3,T,H,W) float, each side at least 32 px. Not needed by a motion stream.
            flow: normalised flow stacks, (B,2L,T,H,W) float, u and v interleaved. Not needed by an appearance stream.

        Raises:
            ValueError: if an input that a stream needs is missing, of another shape, or too short in time.
        """
        nets = {stream: cast(StreamNet, self.get_submodule(stream)) for stream in self.config.streams}
        clips = self._check({"appearance": rgb, "motion": flow})
        B, _, T, _, _ = next(iter(clips.values())).shape

        x = {s: net.stem(clips[s].permute(0, 2, 1, 3, 4).flatten(0, 1)) for s, net in nets.items()}  # (B·T,C,H,W)
        for stage, stages in enumerate(zip(*(net.stages() for net in nets.values()), strict=True)):
            units = dict(zip(nets, stages, strict=True))
            sums = {s: units[s][0](x[s], T) for s in x}  # what the links carry
            x = {s: F.relu(sums[s]) for s in x}
            branch = {s: self._branch_input(s, stage, sums, x) for s in x}
            x = {s: F.relu(units[s][1](x[s], T, branch[s])) for s in x}
            for s in x:
                for unit in units[s][2:]:
                    x[s] = F.relu(unit(x[s], T))

        logits = {s: net.head(self._over_time(x[s], B)) for s, net in nets.items()}
        return StreamLogits(logits.get("appearance"), logits.get("motion"))

    def _branch_input(
        self, stream: Stream, stage: int, sums: dict[Stream, Tensor], x: dict[Stream, Tensor]
    ) -> Tensor | None:
        """What the link feeds the second unit's residual branch, or None where no link enters `stream`."""
        if stream not in self.links:
            return None
        other: Stream = "motion" if stream == "appearance" else "appearance"
        link = cast(nn.ModuleList, self.links[stream])[stage]
        return cast(Tensor, link(sums[stream], x[other]))

    def _over_time(self, features: Tensor, clips: int) -> Tensor:
        """Unfolded features (B,T′,C,H,W), max-pooled over time if the config says so."""
        features = features.reshape(clips, -1, *features.shape[1:])
        if self.config.temporal_pool is not None:
            # before the spatial average, as in the released code: the two do not commute
            size, stride = self.config.temporal_pool
            features = features.unfold(1, size, stride).amax(-1)  # the windows are (B,T′,C,H,W,size)
        return features

    def _check(self, inputs: dict[Stream, Tensor | None]) -> dict[Stream, Tensor]:
        channels: dict[Stream, int] = {"appearance": 3, "motion": 2 * self.config.flow_stack}
        given: dict[Stream, Tensor] = {}
        for stream in self.config.streams:
            x = inputs[stream]
            name = "rgb" if stream == "appearance" else "flow"
            if x is None:
                raise ValueError(f"the {stream} stream needs `{name}`, but none was given")
            if x.ndim != 5 or x.shape[1] != channels[stream]:
                raise ValueError(f"`{name}` must be (B,{channels[stream]},T,H,W), but is {tuple(x.shape)}")
            if min(x.shape[3:]) < 32:
                raise ValueError(f"`{name}` must be at least 32 px on each side, but is {tuple(x.shape[3:])}")
            pool = self.config.temporal_pool
            if pool is not None and x.shape[2] < pool[0]:
                raise ValueError(f"temporal pooling needs at least {pool[0]} time steps, but `{name}` has {x.shape[2]}")
            given[stream] = x
        if len({(x.shape[0], *x.shape[2:]) for x in given.values()}) > 1:
            raise ValueError(f"`rgb` and `flow` disagree: {[tuple(x.shape) for x in given.values()]}")
        return given

    @property
    def temporal_reach_steps(self) -> tuple[int, ...]:
        """Time steps that one output of conv2 … conv5 sees, in the stream that sees most: 5, 9, 13, 17 in ST-ResNet."""
        config = self.config
        added = {"inflate": 4, "inject": 2}.get(config.temporal or "", 0)  # two convolutions in a unit, or one
        reach = dict.fromkeys(config.streams, 1)
        widest = []
        for stage in STAGES:
            linked = {s: max(reach.values()) if config.links_into(s) else reach[s] for s in reach}
            reach = {s: linked[s] + (added if stage in config.temporal_stages_of(s) else 0) for s in reach}
            widest.append(max(reach.values()))
        return tuple(widest)


TEMPORAL_INIT = {"identity": (0.0, 1.0, 0.0), "average": (1 / 3, 1 / 3, 1 / 3), "difference": (-1.0, 3.0, -1.0)}
"""The taps that an injected convolution has for each channel on itself (released ST-MulNet)."""


def initialize(model: STResNet) -> None:
    """Give random weights: He-normal filters, taps of one third each, and a classifier from N(0, 0.01).

    Injected temporal convolutions are not random: each channel reads itself alone, by `TEMPORAL_INIT`.
    """
    for module in model.modules():
        if isinstance(module, TemporalConv) and module.bias is not None:
            taps = torch.tensor(TEMPORAL_INIT[model.config.temporal_init])[:, None]  # (3,1)
            module.weight.data.copy_(torch.eye(len(module.bias))[:, :, None, None] * taps)
            nn.init.zeros_(module.bias)
        elif isinstance(module, TemporalConv):
            out, inputs = module.weight.shape[:2]
            image = torch.empty(out, inputs, 1, 1)
            nn.init.kaiming_normal_(image, mode="fan_out", nonlinearity="relu")
            module.weight.data.copy_(average_taps(image))
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


def average_taps(image_weight: Tensor) -> Tensor:
    """A temporal filter (O,I,3,1) from an image filter (O,I,1,1): every tap a third, so a still clip sees no change."""
    return (image_weight / 3).expand(-1, -1, 3, -1).contiguous()
