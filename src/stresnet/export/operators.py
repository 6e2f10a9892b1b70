"""The operators of `stresnet.export.graph` in ONNX, for clips of any number of steps and pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxscript
import torch

op: Any = onnxscript.opset18

WINDOW = 7
"""Side of the windows that a head averages over, see `StreamNet.head`."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the translation of each operator, for `torch.onnx.export`."""
    ops: Any = torch.ops.stresnet
    return {
        ops.temporal_conv.default: _temporal_conv,
        ops.temporal_pool.default: _temporal_pool,
        ops.spatial_mean.default: _spatial_mean,
        ops.caffe_pool.default: _caffe_pool,
        ops.split_clips.default: _unfolded,
    }


def _temporal_conv(x: Any, weight: Any, bias: Any, clips: Any) -> Any:
    """`TemporalConv.forward` with channels first: a 2D convolution over the plane (T,H·W)."""
    flat = op.Reshape(x, op.Constant(value_ints=[0, 0, -1]))  # (B·T,C,HW)
    plane = op.Transpose(_unfolded(flat, clips), perm=[0, 2, 1, 3])  # (B,C,T,HW)
    out = op.Transpose(op.Conv(plane, weight, bias, pads=[1, 0, 1, 0]), perm=[0, 2, 1, 3])  # (B,T,C',HW)
    channels = op.Shape(out, start=2, end=3)
    return op.Reshape(out, op.Concat(op.Constant(value_ints=[-1]), channels, op.Shape(x, start=2), axis=0))


def _temporal_pool(x: Any, clips: Any, size: int, stride: int) -> Any:
    """Equation (4): the maximum over `size` steps, as a max pool over the plane (T,C·H·W)."""
    flat = op.Reshape(x, op.Constant(value_ints=[0, 1, -1]))
    plane = op.Transpose(_unfolded(flat, clips), perm=[0, 2, 1, 3])  # (B,1,T,CHW)
    pooled, _ = op.MaxPool(plane, kernel_shape=[size, 1], strides=[stride, 1])
    return op.Reshape(pooled, op.Concat(op.Constant(value_ints=[-1]), op.Shape(x, start=1), axis=0))


def _spatial_mean(x: Any) -> Any:
    """The mean over windows, as a weighted mean over rows and columns: (B·T′,C,H,W) to (B·T′,C)."""
    rows = op.ReduceSum(op.Mul(x, _shares(x, 3)), op.Constant(value_ints=[3]), keepdims=0)
    return op.ReduceSum(op.Mul(rows, _shares(x, 2)), op.Constant(value_ints=[2]), keepdims=0)


def _caffe_pool(x: Any) -> Any:
    """The first pool of the `caffe` layout: a partial window at the far side counts."""
    pooled, _ = op.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    return pooled


def _shares(x: Any, axis: int) -> Any:
    """Return the weight of each position in the mean over all windows of `WINDOW`, or fewer, positions."""
    one = op.Constant(value_float=1.0)
    side = op.Cast(op.Squeeze(op.Shape(x, start=axis, end=axis + 1)), to=1)
    before = op.Range(one, op.Add(side, one), one)
    windows = op.Max(op.Sub(side, op.Constant(value_float=WINDOW - 1.0)), one)
    after = op.Sub(op.Add(side, one), before)
    within = op.Min(before, after, op.Constant(value_float=float(WINDOW)), windows)
    return op.Div(within, op.ReduceSum(within, keepdims=1))


def _unfolded(x: Any, clips: Any) -> Any:
    """Return (B·T,…) as (B,T,…)."""
    batch = op.Reshape(clips, op.Constant(value_ints=[1]))
    return op.Reshape(x, op.Concat(batch, op.Constant(value_ints=[-1]), op.Shape(x, start=1), axis=0))
