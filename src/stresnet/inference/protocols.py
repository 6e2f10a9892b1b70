"""Test protocols: the time steps, crops and mirrors of a video that a network scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stresnet.data.prepared_video import PreparedVideoMetadata
from stresnet.data.sampling import (
    Crop,
    Indices,
    corner_and_center_crops,
    middle_centers,
    spread_centers,
    whole_frame,
)
from stresnet.errors import CheckpointError
from stresnet.model import Checkpoint
from stresnet.recipes import parse_recipe

Protocol = Literal["dense25", "crop10x25", "center"]
PROTOCOLS: tuple[Protocol, ...] = ("dense25", "crop10x25", "center")
"""The test protocols.

- `dense25`: 25 steps spread over the video; the whole frame and its mirror (released code).
- `crop10x25`: the same steps; four corner crops and the centre crop, and their mirrors (option of the released code).
- `center`: one clip from the middle of the video, sampled as in training; the centre crop (fast).
"""

DENSE_STEPS = 25


@dataclass(frozen=True)
class Views:
    """The views of a video under a protocol.

    Attributes:
        centers: frame indices of the steps, (T,) int64, the same for all views.
        crops: windows of the stored frame, each with the (height, width) in px that it is resized to.
        mirror: whether each crop is also scored mirrored.
    """

    centers: Indices
    crops: tuple[tuple[Crop, tuple[int, int]], ...]
    mirror: bool


def require_protocol(protocol: str, checkpoint: Checkpoint) -> None:
    """Raise unless a network can be tested under a protocol. Call it before flow is computed.

    Raises:
        ValueError: there is no such protocol.
        CheckpointError: the protocol needs the clip length, which the checkpoint does not record.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if protocol == "center" and not checkpoint.recipe:
        raise CheckpointError("the checkpoint has no recipe, so the length of its clips is unknown: use dense25")


def centers(protocol: Protocol, checkpoint: Checkpoint, frames: int) -> Indices:
    """Return the frames of a video that a network scores under a protocol, (T,) int64, the same in all views.

    Raises:
        ValueError: there is no such protocol, or the video is too short for a stack of flow fields.
        CheckpointError: see `require_protocol`.
    """
    require_protocol(protocol, checkpoint)
    if protocol == "center":
        return _middle_clip(checkpoint, frames)
    return spread_centers(frames, checkpoint.model.config.flow_stack, DENSE_STEPS)


def views(protocol: Protocol, checkpoint: Checkpoint, video: PreparedVideoMetadata) -> Views:
    """Return the views of a prepared video that a network scores under a protocol.

    Raises:
        ValueError: there is no such protocol.
        CheckpointError: see `require_protocol`.
    """
    steps = centers(protocol, checkpoint, video.frames)
    crop_px, mirror = checkpoint.preprocessing.crop_px, checkpoint.preprocessing.mirror
    size = (crop_px, crop_px)
    corners_and_center = corner_and_center_crops(video.height, video.width, crop_px)
    if protocol == "center":
        return Views(steps, ((corners_and_center[-1], size),), mirror=False)
    if protocol == "crop10x25":
        return Views(steps, tuple((crop, size) for crop in corners_and_center), mirror)
    frame = whole_frame(video.height, video.width, crop_px)
    return Views(steps, ((frame, (max(frame.height, crop_px), max(frame.width, crop_px))),), mirror)


def _middle_clip(checkpoint: Checkpoint, frames: int) -> Indices:
    """Return the steps of a clip in the middle of a video, of training's length and mean stride."""
    stage = parse_recipe(checkpoint.recipe, "the checkpoint's recipe").stage(checkpoint.stage)
    return middle_centers(frames, checkpoint.model.config.flow_stack, stage.clips.steps, stage.clips.tau)
