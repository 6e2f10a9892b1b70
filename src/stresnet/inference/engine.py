"""Networks made ready to score: batch normalisation folded, channels last, in one precision, compiled on request."""

from __future__ import annotations

import os
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from stresnet.errors import StresnetError
from stresnet.model import StreamLogits, STResNet
from stresnet.model.folding import fold_batch_norm
from stresnet.model.incremental import IncrementalNet
from stresnet.model.precision import Precision


def default_device(device: str | torch.device | None) -> torch.device:
    """Return a device; by default CUDA if available, else the CPU.

    Raises:
        RuntimeError: torch knows no such device.
    """
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


class Engine:
    """Computes the logits of clips with a network.

    Attributes:
        device: where it computes.
        precision: what it computes in; the classifier is always float32.
        compiled: whether the network is compiled, for each size of clip when the first one of it arrives.
    """

    def __init__(self, model: STResNet, device: torch.device, precision: Precision, *, compiled: bool = False) -> None:
        """Make a network ready; the model itself is not changed.

        Raises:
            RuntimeError, AssertionError: the device is not available.
        """
        self.device, self.precision, self.compiled = device, precision, compiled
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        net = fold_batch_norm(model).to(device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for stream in (net.appearance, net.motion):
            if stream is not None:
                stream.dropout = _Float32()
                stream.fc.float()
        self._eager: Any = net
        self._net = _compile(net, device) if compiled else self._eager
        self._process = os.getpid()

    @torch.inference_mode()
    def __call__(self, rgb: Tensor | None, flow: Tensor | None) -> StreamLogits:
        """Return the logits of normalised clips, float32; see `STResNet.forward` for the shapes.

        Raises:
            StresnetError: this process was forked from the one in which the network was compiled.
        """
        if self.compiled and os.getpid() != self._process:  # it would wait for threads that are not in this process
            raise StresnetError(
                "a compiled network cannot be used in a forked process: load the model there, or spawn it"
            )
        inputs = [None if x is None else x.to(self.device, self._dtype) for x in (rgb, flow)]
        if self._net is self._eager:
            return cast(StreamLogits, self._eager(*inputs))
        try:
            return cast(StreamLogits, self._net(*inputs))
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, or its absence, may raise anything
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(f"the network runs uncompiled, which is slower: {reason}", RuntimeWarning, stacklevel=2)
            self._net, self.compiled = self._eager, False
            return cast(StreamLogits, self._eager(*inputs))

    def incremental(self, *, immediate: bool) -> IncrementalNet:
        """Return the same network over a new stream, never compiled; see `IncrementalNet`."""
        return IncrementalNet(self._eager, immediate=immediate)


class _Float32(nn.Module):
    """Takes the place of dropout, which does nothing when scoring: converts the features of the classifier."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def _compile(net: STResNet, device: torch.device) -> Any:
    # Freezing makes weights constants, which lets the compiler fuse what follows a convolution into it.
    # From the second size on torch.compile would take sizes for variables, which fails: Invalid ranges.
    return torch.compile(net, dynamic=False, options={"freezing": device.type == "cpu"})
