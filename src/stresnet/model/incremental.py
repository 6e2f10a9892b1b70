"""An unbroken stream of time steps through a network, each layer of each step computed once.

The network is walked by its own `forward`, with the newest steps only. What spans time is replaced by modules that keep
what they still need of earlier steps: a temporal convolution keeps its last inputs, the shortcut beside it waits for
its result, a temporal pool collects the steps of its next window. Such a module may return fewer steps than it is
given, and the rest later; as their order never changes, nothing has to say which steps they are.
"""

from __future__ import annotations

import copy
from collections import deque

import torch
from torch import Tensor, nn

from stresnet.model.config import LAYERS
from stresnet.model.layers import TemporalConv, TemporalPool, Unit, convolve_time
from stresnet.model.network import StreamLogits, STResNet


class IncrementalNet:
    """Computes the logits of one unbroken clip, a few steps at a time.

    In *exact* mode they are those of the whole clip at once. An output is complete when all steps that it sees have
    come, `delay_steps` after its own. In *immediate* mode an output is complete with its own step: every temporal
    convolution takes the step after the newest for zero, as at the end of a clip, and this is never corrected later.
    The logits are those of the network without the future taps of its temporal convolutions.

    A temporal pool makes an output late by the steps of its window that follow the middle one, in both modes.

    Attributes:
        delay_steps: how many steps after its own an output is complete, the temporal pool apart.
    """

    def __init__(self, net: STResNet, *, immediate: bool = False) -> None:
        """Begin a stream.

        Args:
            net: the network, in evaluation mode; its weights are shared.
            immediate: whether the mode is immediate instead of exact.
        """
        self._net = copy.deepcopy(net, {id(p): p for p in net.parameters()})
        self._newest: tuple[Tensor | None, ...] = ()
        self.delay_steps = 0
        streams = [stream for stream in (self._net.appearance, self._net.motion) if stream is not None]
        for layer in LAYERS:
            second = [stream.layer(layer)[1] for stream in streams]
            delays = [_remember(unit, immediate) for unit in second]
            for stream, unit, delay in zip(streams, second, delays, strict=True):
                stream.layer(layer)[1] = _Later(unit, max(delays) - delay)  # links join the same steps
            self.delay_steps += max(delays)
        for stream in streams:
            if stream.temporal_pool is not None:
                stream.temporal_pool = _CollectingPool(stream.temporal_pool.size, stream.temporal_pool.stride)

    @torch.inference_mode()
    def push(self, rgb: Tensor | None, flow: Tensor | None) -> StreamLogits:
        """Return the outputs that the next steps complete, in order, (1,T′,K) of each stream; T′ may be 0.

        Args:
            rgb: (1,3,T,H,W), of the same size in every call; see `STResNet.forward`. Converted to the device and type
                of the weights, as is `flow`.
            flow: (1,2L,T,H,W).
        """
        weight = next(self._net.parameters())  # of a first convolution
        self._newest = tuple(None if x is None else x.to(weight.device, weight.dtype) for x in (rgb, flow))
        return self._net(*self._newest)  # type: ignore[no-any-return]

    @torch.inference_mode()
    def finish(self) -> StreamLogits:
        """Return the outputs that the end of the stream completes, as `push` does; call it last, after a `push`."""
        for module in self._net.modules():
            if isinstance(module, _RememberingConv | _Delay):
                module.ended = True
        return self._net(*(None if x is None else x[:, :, :0] for x in self._newest))  # type: ignore[no-any-return]


def _remember(unit: nn.Module, immediate: bool) -> int:
    """Let the temporal convolutions of a second unit remember, and return by how many steps it is late from now on."""
    assert isinstance(unit, Unit)
    assert unit.downsample is None  # a second unit's shortcut is its input
    convs = {name: child for name, child in unit.named_children() if isinstance(child, TemporalConv)}
    for name, conv in convs.items():
        setattr(unit, name, _RememberingConv(conv, with_future=not immediate))
    delay = 0 if immediate else len(convs)
    unit.downsample = _Delay(delay)
    return delay


class _RememberingConv(nn.Module):
    """A temporal convolution of a stream: one step late, or without its future tap.

    Attributes:
        ended: whether the stream is at its end, beyond which its steps are zero.
    """

    def __init__(self, conv: TemporalConv, *, with_future: bool) -> None:
        super().__init__()
        self.ended = False
        self._taps = 3 if with_future else 2
        self._weight, self._bias = (
            conv.weight[:, :, : self._taps].contiguous(memory_format=torch.channels_last),
            conv.bias,
        )
        self._past: Tensor | None = None

    def forward(self, x: Tensor, clips: int) -> Tensor:
        """Return the convolved steps that are complete, (T',C',H,W), of the next ones, (T,C,H,W)."""
        _, c, h, w = x.shape
        zero = x.new_zeros(1, h, w, c).permute(0, 3, 1, 2)  # channels last, or all that is joined to it would not be
        after = [zero] if self.ended and self._taps == 3 else []
        steps = torch.cat([zero if self._past is None else self._past, x, *after])
        self._past = steps[1 - self._taps :]
        if len(steps) < self._taps:
            return x.new_empty(0, len(self._weight), *x.shape[2:])
        return convolve_time(steps, self._weight, self._bias, clips, padding=0)


class _Delay(nn.Module):
    """Hands on a stream a number of steps later.

    Attributes:
        ended: whether the stream is at its end, so that no step is held back.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.ended = False
        self._steps = steps
        self._held: deque[Tensor] = deque()

    def forward(self, x: Tensor) -> Tensor:
        """Return the steps that are due, (T',C,H,W), of the next ones, (T,C,H,W)."""
        self._held.extend(x[t : t + 1] for t in range(len(x)))
        due = [self._held.popleft() for _ in range(len(self._held) - (0 if self.ended else self._steps))]
        return due[0] if len(due) == 1 else torch.cat(due) if due else x[:0]


class _Later(nn.Module):
    """A unit whose stream is handed on later, to be level with the other stream."""

    def __init__(self, unit: nn.Module, steps: int) -> None:
        super().__init__()
        self.unit, self.delay = unit, _Delay(steps)

    def forward(self, x: Tensor, clips: int, branch_input: Tensor | None = None) -> Tensor:
        """Return the sum of the unit, see `Unit.forward`, for the steps that are due."""
        return self.delay(self.unit(x, clips, branch_input))  # type: ignore[no-any-return]


class _CollectingPool(TemporalPool):
    """A temporal pool of a stream; a window is pooled when its last step has come."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__(size, stride)
        self._steps: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the windows that are complete, (1,T′,C,H,W), with the next steps, (1,T,C,H,W)."""
        steps = x if self._steps is None else torch.cat([self._steps, x], 1)
        complete = max(0, (steps.shape[1] - self.size) // self.stride + 1)
        self._steps = steps[:, complete * self.stride :]
        return super().forward(steps) if complete else steps[:, :0]
