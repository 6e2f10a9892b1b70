"""Test protocols: the clips, crops and mirrors of a video that a network scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np

from stresnet.data.clips import ClipSampling
from stresnet.data.prepared_video import PreparedVideoMetadata
from stresnet.data.sampling import (
    Crop,
    Indices,
    Protocol,
    corner_and_center_crops,
    middle_centers,
    spread_centers,
    spread_clips,
    valid_centers,
    whole_frame,
)
from stresnet.errors import CheckpointError
from stresnet.model.config import STREAMS
from stresnet.model.metadata import ModelMetadata
from stresnet.model.preprocessing import Preprocessing
from stresnet.model.profile import temporal_reach_steps
from stresnet.recipes import parse_recipe

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""The test protocols.

- `dense25`: 25 steps spread over the video; the whole frame and its mirror (released code).
- `crop10x25`: the same steps; four corner crops and the centre crop, and their mirrors (option of the released code).
- `dense`: clips of training's length and middle stride spread over the video, as many as make 25 steps; the whole
  frame and its mirror.
- `fast`: clips as in `dense`, as many as make 10 steps; the centre crop.
- `center`: one clip from the middle of the video, sampled as in training; the centre crop.
"""

DENSE_STEPS, FAST_STEPS = 25, 10
_RELEASED_CLIPS = ClipSampling(steps=5, tau=(5, 15))
"""How the released networks, which have no recipe, were trained."""
LONG_STEPS = 32
"""Steps that a long clip of a time line adds, beside those before and after that its outputs see."""


SizedCrop = tuple[Crop, tuple[int, int]]
"""A window of the stored frame, and the (height, width) in px that it is resized to."""


@dataclass(frozen=True)
class Views:
    """The views of a video under a protocol.

    Attributes:
        clips: frame indices of the steps of each clip, (B,T) int64, the same for all crops.
        crops: the crops of each stored frame.
        mirror: whether each crop is also scored mirrored.
    """

    clips: Indices
    crops: tuple[SizedCrop, ...]
    mirror: bool


def default_protocol(metadata: ModelMetadata) -> Protocol:
    """Return the protocol under which a network is tested unless told otherwise: its recipe's, or `dense25`."""
    return parse_recipe(metadata.recipe, "the checkpoint's recipe").protocol if metadata.recipe else "dense25"


def require_protocol(protocol: str, metadata: ModelMetadata) -> None:
    """Raise unless a network can be tested under a protocol. Call it before flow is computed.

    Raises:
        ValueError: there is no such protocol.
        CheckpointError: the protocol needs the clip length, which the checkpoint does not record.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if not _is_published(protocol) and not metadata.recipe:
        raise CheckpointError("the checkpoint has no recipe, so the length of its clips is unknown: use dense25")


def centers(protocol: Protocol, metadata: ModelMetadata, frames: int) -> Indices:
    """Return the frames of a video that a network looks at under a protocol, (N,) int64, sorted and distinct.

    Raises:
        ValueError, CheckpointError: see `clips`.
    """
    return np.unique(clips(protocol, metadata, frames))


def clips(protocol: Protocol, metadata: ModelMetadata, frames: int) -> Indices:
    """Return the frames of the clips that a network scores under a protocol, (B,T) int64.

    Raises:
        ValueError: there is no such protocol, or the video is too short for a stack of flow fields.
        CheckpointError: see `require_protocol`.
    """
    require_protocol(protocol, metadata)
    flow_stack = metadata.config.flow_stack
    if _is_published(protocol):
        return spread_centers(frames, flow_stack, DENSE_STEPS)[None]
    trained = _trained_clips(metadata)
    if protocol == "center":
        return middle_centers(frames, flow_stack, trained.steps, trained.tau)[None]
    steps = FAST_STEPS if protocol == "fast" else DENSE_STEPS
    return spread_clips(frames, flow_stack, trained.steps, trained.tau, count=math.ceil(steps / trained.steps))


def views(protocol: Protocol, metadata: ModelMetadata, video: PreparedVideoMetadata) -> Views:
    """Return the views of a prepared video that a network scores under a protocol.

    Raises:
        ValueError, CheckpointError: see `clips`.
    """
    crops, mirror = views_of_frame(protocol, metadata.preprocessing, video.height, video.width)
    return Views(clips(protocol, metadata, video.frames), crops, mirror)


def views_of_frame(
    protocol: Protocol, preprocessing: Preprocessing, height: int, width: int
) -> tuple[tuple[SizedCrop, ...], bool]:
    """Return the crops of a stored frame of that size in px under a protocol, and whether each is mirrored too."""
    crop_px, mirror = preprocessing.crop_px, preprocessing.mirror
    size = (crop_px, crop_px)
    corners_and_center = corner_and_center_crops(height, width, crop_px)
    if protocol in ("fast", "center"):
        return ((corners_and_center[-1], size),), False
    if protocol == "crop10x25":
        return tuple((crop, size) for crop in corners_and_center), mirror
    frame = whole_frame(height, width, crop_px)
    return ((frame, (max(frame.height, crop_px), max(frame.width, crop_px))),), mirror


class Run(NamedTuple):
    """A clip of a time line, and the part of it that is scored.

    Attributes:
        clip: frame indices of its steps, (T,) int64.
        first, end: the steps whose outputs count; those around them are there to be seen.
    """

    clip: Indices
    first: int
    end: int


def runs(metadata: ModelMetadata, frames: int) -> list[Run]:
    """Return clips that score a whole video step by step, at the middle stride of training, each step once.

    If the network's own protocol is a published one, which tests it on longer clips than it was trained on, the scores
    are those of one clip of all steps; it is cut where no output sees further. Otherwise clips are as long as in
    training, one after the other.

    Raises:
        ValueError: the video is too short for a stack of flow fields.
    """
    config = metadata.config
    trained = _clips_of_training(metadata)
    valid, stride = valid_centers(frames, config.flow_stack), stride_frames(metadata)
    is_long = _is_published(default_protocol(metadata))
    steps = np.arange(valid.start, valid.stop, stride)
    length = DENSE_STEPS if is_long and config.temporal_pool else trained.steps
    if is_long and not config.temporal_pool:
        around = temporal_reach_steps(config)[-1] // 2
        starts = range(0, len(steps), LONG_STEPS)
        spans = [(max(0, s - around), s, min(s + LONG_STEPS, len(steps))) for s in starts]
        return [Run(steps[low : end + around], s - low, end - low) for low, s, end in spans]
    if len(steps) < length:
        return [Run(spread_centers(frames, config.flow_stack, length), 0, length)]
    spans = [(min(s, len(steps) - length), s, s + length) for s in range(0, len(steps), length)]
    return [Run(steps[low : low + length], s - low, length) for low, s, _ in spans]


def clip_frames(metadata: ModelMetadata) -> int:
    """Return how many frames a training clip of a network spans at its middle stride."""
    return _clips_of_training(metadata).steps * stride_frames(metadata)


def stride_frames(metadata: ModelMetadata) -> int:
    """Return the middle stride of a network's training clips."""
    return sum(_clips_of_training(metadata).tau) // 2


def _clips_of_training(metadata: ModelMetadata) -> ClipSampling:
    return _trained_clips(metadata) if metadata.recipe else _RELEASED_CLIPS


def stride_note(protocol: Protocol, metadata: ModelMetadata, frames: Sequence[int]) -> str:
    """Return a sentence that says for how many videos a protocol leaves the strides of training, and what to use.

    Empty if there are none, if the network does not convolve over time, or if its strides are unknown.

    Args:
        protocol: the protocol of the test.
        metadata: that of the network.
        frames: the number of frames of each video.
    """
    config = metadata.config
    if not metadata.recipe or not _is_published(protocol) or not any(map(config.temporal_layers_of, STREAMS)):
        return ""
    low, high = _trained_clips(metadata).tau
    strides = [(len(valid_centers(n, config.flow_stack)) - 1) / (DENSE_STEPS - 1) for n in frames]
    outside = sum(not low <= stride <= high for stride in strides)
    if not outside:
        return ""
    return (
        f"in {outside} of {len(strides)} videos the {DENSE_STEPS} steps of {protocol} are closer together or farther "
        f"apart than in training ({low} to {high} frames), which may cost accuracy; use --protocol dense"
    )


def _is_published(protocol: str) -> bool:
    """Return whether a protocol is one of the released code, whose steps do not depend on those of training."""
    return protocol in ("dense25", "crop10x25")


def _trained_clips(metadata: ModelMetadata) -> ClipSampling:
    return parse_recipe(metadata.recipe, "the checkpoint's recipe").stage(metadata.stage).clips
