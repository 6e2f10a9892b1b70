"""Why a network chose a class: where in the frames and the flow, at which steps, and through which links."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stresnet.data.clips import Clip, cut_clips
from stresnet.data.prepared_video import PreparedVideo
from stresnet.flow import dequantize_flow
from stresnet.inference.prediction import ranked
from stresnet.inference.protocols import views
from stresnet.inference.torch_runtime import network_inputs
from stresnet.model import Checkpoint, StreamLogits, STResNet
from stresnet.model.config import LAYERS, Stream
from stresnet.model.layers import Link
from stresnet.model.network import StreamNet

Map = NDArray[np.float32]
_PLACES = 7
"""Places that a map has at least along each side, as after conv5_x in crops of 224 px."""


@dataclass(frozen=True, eq=False)
class LinkEffect:
    """What one link adds to the score of a class.

    Attributes:
        into: the stream that the link enters.
        layer: 2 … 5, the layer conv2_x … conv5_x whose second unit it enters.
        effect: the logit of the class minus that without the link.
        where: (T,h,w), gradient times what the link adds, summed over channels: to first order its share of the logit.
    """

    into: Stream
    layer: int
    effect: float
    where: Map


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a network gives a clip the score of a class.

    Attributes:
        label: the class.
        probability: its softmax probability for this clip, 0 to 1; not calibrated.
        top: the most likely classes for this clip with their probabilities, best first.
        logit: the logit of the class, fused.
        margin: the logit minus the best one of another class.
        unlinked_margin: the same without any link; None if the network has none.
        bias: what the classifiers add to the logit whatever they see.
        times_sec: (T,), the times of the steps.
        rgb: (T,H,W,3) uint8, the frames as the network sees them; None without an appearance stream.
        flow_px: (T,2,H,W) float32, the flow at each step, pixels per frame; None without a motion stream.
        steps: (T,) by stream: the evidence for the class at each step. All of it and `bias` add up to the logit.
        maps: (T,h,w) by stream: the evidence for the class at each place, to first order.
        links: the links, from conv2_x to conv5_x.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    logit: float
    margin: float
    unlinked_margin: float | None
    bias: float
    times_sec: NDArray[np.float64]
    rgb: NDArray[np.uint8] | None
    flow_px: Map | None
    steps: dict[Stream, NDArray[np.float32]]
    maps: dict[Stream, Map]
    links: tuple[LinkEffect, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all but pictures and maps as plain JSON values."""
        return {
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            "logit": self.logit,
            "margin": self.margin,
            "unlinked_margin": self.unlinked_margin,
            "times": self.times_sec.tolist(),
            "steps": {stream: values.tolist() for stream, values in self.steps.items()},
            "links": [{"into": link.into, "layer": link.layer, "effect": link.effect} for link in self.links],
        }

    def __repr__(self) -> str:
        return f"Explanation({self.label!r}, {self.probability:.1%}, {len(self.times_sec)} steps)"


def explain(
    checkpoint: Checkpoint, video: PreparedVideo, label: str | None = None, device: torch.device | None = None
) -> Explanation:
    """Explain the score of a class for the middle clip of a video, that of the protocol `center`.

    The evidence of a place is the gradient of the logit times the activation there (Grad-CAM without averaging the
    gradient over places, "HiResCAM"). That of steps is taken after conv5_x. As nothing but means, a temporal pool and a
    linear classifier follow, it adds up to the logit, up to the classifiers' biases. Maps are those of the last layer
    that has at least 7×7 places: conv5_x for crops of 224 px, conv4_x for 112 px.

    Args:
        checkpoint: the network. It is computed in float32.
        video: the prepared video.
        label: the class; by default the most likely one.
        device: where to run.

    Raises:
        ValueError: the network has no such class.
        StoreError: the prepared video is damaged.
    """
    if label is not None and label not in checkpoint.classes:
        raise ValueError(f"expected one of the model's {len(checkpoint.classes)} classes, found {label!r}")
    model, config = checkpoint.model.eval().to(device or "cpu"), checkpoint.model.config
    shown = views("center", checkpoint, video.meta)
    ((crop, size),) = shown.crops
    clip = cut_clips(video, shown.clips, crop, size, flow_stack=config.flow_stack, streams=config.streams)
    inputs = network_inputs(checkpoint.preprocessing, clip, device or torch.device("cpu"))
    with ExitStack() as stack:
        outputs, joined = _kept_outputs(model, stack), _kept_joins(model, stack)
        logits = model(*inputs).fused[0]
        chosen = int(logits.argmax()) if label is None else checkpoint.classes.index(label)
        evidence = _evidence(logits[chosen], outputs | joined)
    fused = cast(Map, logits.detach().cpu().numpy())
    best = ranked(checkpoint.classes, fused, 5)
    probability = dict(ranked(checkpoint.classes, fused, len(fused)))[checkpoint.classes[chosen]]
    where = {key: evidence[key] for key in joined}
    effects = {key: float(fused[chosen] - _without(model, [key], inputs)[chosen]) for key in where}
    steps = {stream: evidence[stream, LAYERS[-1], "output"].sum((1, 2)) for stream in config.streams}
    return Explanation(
        label=checkpoint.classes[chosen],
        probability=probability,
        top=best,
        logit=float(fused[chosen]),
        margin=_margin(fused, chosen),
        unlinked_margin=_margin(_without(model, list(where), inputs), chosen) if where else None,
        bias=float(fused[chosen]) - sum(float(one.sum()) for one in steps.values()),
        times_sec=video.times_sec[shown.clips[0]],
        rgb=clip["rgb"][0] if "rgb" in clip else None,
        flow_px=_flow_px(video, clip) if "flow" in clip else None,
        steps=steps,
        maps={stream: _finest_late(evidence, stream) for stream in config.streams},
        links=tuple(LinkEffect(key[0], key[1], effects[key], where[key]) for key in where),
    )


_Key = tuple[Stream, int, Literal["output", "link"]]
"""A stream, one of its layers, and whether what that leaves is meant, or what a link adds in it."""
_Kept = dict[_Key, tuple[Tensor, Tensor | float]]
"""Activations, and what of them is no evidence."""


def _flow_px(video: PreparedVideo, clip: Clip) -> Map:
    """Return the flow field in the middle of each stack, (T,2,H,W), in pixels of the crop per frame."""
    levels = clip["flow"][0]
    middle = levels.shape[1] // 4 * 2
    flow = dequantize_flow(levels[:, middle : middle + 2], video.meta.spec.flow.bound_px)
    return cast(Map, flow * clip["flow_scale"][0][:, None, None])


def _kept_outputs(model: STResNet, stack: ExitStack) -> _Kept:
    """Return what the next pass fills with the outputs of all layers."""
    kept: _Kept = {}

    def keep(key: _Key, unit: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[key] = (output, 0.0)  # the network applies its ReLU in place: this becomes f(x)

    for stream in model.config.streams:
        for layer in LAYERS:
            last = cast(StreamNet, getattr(model, stream)).layer(layer)[-1]
            stack.callback(last.register_forward_hook(partial(keep, (stream, layer, "output"))).remove)
    return kept


def _kept_joins(model: STResNet, stack: ExitStack) -> _Kept:
    """Return what the next pass fills with what links return, and what they would if nothing entered."""
    kept: _Kept = {}

    def keep(key: _Key, link: nn.Module, inputs: Any, output: Tensor) -> None:
        kept[key] = (output, _unlinked(cast(Link, link), inputs[0]))

    for key, link in _links(model):
        stack.callback(link.register_forward_hook(partial(keep, key)).remove)
    return kept


def _links(model: STResNet) -> Iterator[tuple[_Key, Link]]:
    for stream, links in model.links.items():
        for layer, link in zip(LAYERS, cast(nn.ModuleList, links), strict=True):
            yield (cast(Stream, stream), layer, "link"), cast(Link, link)


def _unlinked(link: Link, x: Tensor) -> Tensor:
    """Return what a link leaves of its stream if nothing enters: 0 is added, or 1 multiplied."""
    return F.relu(x) if link.residual else x


def _evidence(logit: Tensor, kept: _Kept) -> dict[_Key, Map]:
    """Return the evidence of each place, (T,h,w): the gradient times the activation, summed over channels."""
    gradients = torch.autograd.grad(logit, [activation for activation, _ in kept.values()])
    with torch.no_grad():
        return {
            key: (gradient * (activation - without)).sum(1).cpu().numpy()
            for (key, (activation, without)), gradient in zip(kept.items(), gradients, strict=True)
        }


def _finest_late(evidence: dict[_Key, Map], stream: Stream) -> Map:
    """Return the evidence after the last layer of a stream that has enough places, or after the first."""
    maps = [evidence[stream, layer, "output"] for layer in LAYERS]
    return next((one for one in reversed(maps) if min(one.shape[1:]) >= _PLACES), maps[0])


def _without(model: STResNet, keys: list[_Key], inputs: tuple[Tensor | None, Tensor | None]) -> NDArray[np.float32]:
    """Return the fused logits, (K,), with some links cut."""
    with torch.inference_mode(), _cut(model, keys):
        logits: StreamLogits = model(*inputs)
    return cast(NDArray[np.float32], logits.fused[0].cpu().numpy())


@contextmanager
def _cut(model: STResNet, keys: list[_Key]) -> Iterator[None]:
    def nothing_enters(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return _unlinked(cast(Link, module), inputs[0])

    with ExitStack() as stack:
        for key, link in _links(model):
            if key in keys:
                stack.callback(link.register_forward_hook(nothing_enters).remove)
        yield


def _margin(logits: NDArray[np.float32], chosen: int) -> float:
    return float(logits[chosen] - np.delete(logits, chosen).max())
