"""The network as it is exported: from bytes to logits, batch norm folded, any number of clips, steps and pixels."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from stresnet.model import Checkpoint
from stresnet.model.folding import fold_batch_norm
from stresnet.model.layers import TemporalConv
from stresnet.model.network import StreamNet

_LIBRARY: Any = cast(Any, torch.library.Library)("stresnet", "FRAGMENT")
_LIBRARY.define("temporal_conv(Tensor x, Tensor weight, Tensor? bias, SymInt clips) -> Tensor")
_LIBRARY.define("temporal_pool(Tensor x, SymInt clips, int size, int stride) -> Tensor")
_LIBRARY.define("spatial_mean(Tensor x) -> Tensor")
_LIBRARY.define("caffe_pool(Tensor x) -> Tensor")
_LIBRARY.define("split_clips(Tensor x, SymInt clips) -> Tensor")


def _temporal_conv_shape(x: Tensor, weight: Tensor, bias: Tensor | None, clips: int) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]))


def _temporal_pool_shape(x: Tensor, clips: int, size: int, stride: int) -> Tensor:
    return x.new_empty((clips * ((x.shape[0] // clips - size) // stride + 1), *x.shape[1:]))


def _spatial_mean_shape(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:2])


def _caffe_pool_shape(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2))


def _split_clips_shape(x: Tensor, clips: int) -> Tensor:
    return x.new_empty((clips, x.shape[0] // clips, x.shape[1]))


_SHAPES: dict[str, Any] = {
    "temporal_conv": _temporal_conv_shape,
    "temporal_pool": _temporal_pool_shape,
    "spatial_mean": _spatial_mean_shape,
    "caffe_pool": _caffe_pool_shape,
    "split_clips": _split_clips_shape,
}
for _name, _shape in _SHAPES.items():
    torch.library.register_fake(f"stresnet::{_name}", _shape, lib=_LIBRARY)


class ExportedNetwork(nn.Module):
    """Computes the logits of clips from bytes, as `Preprocessing.normalize` and `STResNet` do.

    It is traced, never run: what changes the axes of time and what depends on the size of the input are operators
    without an implementation, which `stresnet.export.operators` translates for any size. The exporter itself would
    keep to the size that it traces, and takes minutes to reason about products of unknown sizes.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Copy a network and fold its batch normalisation; the checkpoint is not changed."""
        super().__init__()
        self.preprocessing = checkpoint.preprocessing
        self.net = fold_batch_norm(checkpoint.model).requires_grad_(False)
        for module in list(self.net.modules()):
            for name, child in module.named_children():
                if isinstance(child, TemporalConv):
                    setattr(module, name, _TemporalConv(child))
            if isinstance(module, StreamNet):
                module.head = partial(_head, module)  # type: ignore[method-assign]
                if module.pool1.ceil_mode:
                    module.pool1 = _CaffePool()  # type: ignore[assignment]

    def forward(self, rgb: Tensor | None, flow: Tensor | None, flow_scale: Tensor | None) -> tuple[Tensor, ...]:
        """Return the logits of each stream that is on, (B,T′,K) float32.

        Args:
            rgb: (B,T,H,W,3) uint8; None without the appearance stream.
            flow: (B,T,2L,H,W) uint8 levels; None without the motion stream.
            flow_scale: (B,2) float32, see `Preprocessing.normalize`; None without the motion stream.
        """
        rgb, flow = self.preprocessing.normalize(rgb, flow, cast(Tensor, flow_scale))
        net = self.net
        if net.appearance is not None and net.motion is not None:
            logits = net._two_streams(net.appearance, net.motion, cast(Tensor, rgb), cast(Tensor, flow))
            return cast(tuple[Tensor, ...], tuple(logits))
        return (cast(StreamNet, net.appearance or net.motion)(rgb if flow is None else flow),)


class _TemporalConv(nn.Module):
    def __init__(self, conv: TemporalConv) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor, clips: int) -> Tensor:
        return cast(Tensor, torch.ops.stresnet.temporal_conv(x, self.weight, self.bias, clips))


class _CaffePool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.stresnet.caffe_pool(x))


def _head(stream: StreamNet, x: Tensor, clips: int) -> Tensor:
    """Trace `StreamNet.head`."""
    pool = stream.temporal_pool
    if pool is not None:
        x = torch.ops.stresnet.temporal_pool(x, clips, pool.size, pool.stride)
    return cast(Tensor, torch.ops.stresnet.split_clips(stream.fc(torch.ops.stresnet.spatial_mean(x)), clips))
