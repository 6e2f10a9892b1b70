"""Clips: frames and flow stacks cut from prepared videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stresnet.data.sampling import Crop, CropRule, Indices, stack_around
from stresnet.model.config import STREAMS, Description, Stream, Whole


class Pictures(Protocol):
    """Where clips are cut from: a `PreparedVideo`, or the newest frames of a stream."""

    def rgb(self, indices: Indices, /) -> NDArray[np.uint8]:
        """Return frames, (n,H,W,3) uint8."""
        ...

    def flow(self, indices: Indices, /) -> NDArray[np.uint8]:
        """Return flow as quantised levels, (n,2,H,W) uint8."""
        ...


class Clip(TypedDict, total=False):
    """One clip, or a batch of them with a leading dimension B, as a network's preprocessing reads it.

    Attributes:
        rgb: frames, (T,H,W,3) uint8; absent unless the appearance stream is used.
        flow: stacks of flow levels, (T,2L,H,W) uint8; absent unless the motion stream is used.
        flow_scale: factors of u and v due to resizing and mirroring, (2,) float32.
    """

    rgb: NDArray[np.uint8]
    flow: NDArray[np.uint8]
    flow_scale: NDArray[np.float32]


def cut(
    video: Pictures,
    centers: Indices,
    crop: Crop,
    size: tuple[int, int],
    *,
    flow_stack: int,
    streams: Sequence[Stream] = STREAMS,
) -> Clip:
    """Return one clip of a video.

    Each stored picture is decoded and resized once, even if several stacks share it.

    Args:
        video: the video.
        centers: (T,) int64, the frame of each step.
        crop: the crop, the same for all frames and both streams.
        size: height and width in px that the crop is resized to; `flow_scale` scales the flow accordingly.
        flow_stack: L, the flow fields of a step.
        streams: the streams to cut for.
    """
    u_sign = -1.0 if crop.mirror else 1.0
    scale = np.array([u_sign * size[1] / crop.width, size[0] / crop.height], np.float32)
    clip = Clip(flow_scale=scale)
    if "appearance" in streams:
        clip["rgb"] = np.stack([_crop(frame, crop, size) for frame in video.rgb(centers)])
    if "motion" in streams:
        wanted, where = np.unique(stack_around(centers, flow_stack), return_inverse=True)
        planes = np.stack([_crop(plane, crop, size) for field in video.flow(wanted) for plane in field])
        # Whole planes are copied, (T,L,2,H,W): interleaving pixels here would take longer than decoding them.
        stacks = planes.reshape(-1, 2, *size)[where.reshape(len(centers), flow_stack)]
        clip["flow"] = stacks.reshape(len(centers), 2 * flow_stack, *size)
    return clip


def cut_clips(
    video: Pictures,
    clips: Indices,
    crop: Crop,
    size: tuple[int, int],
    *,
    flow_stack: int,
    streams: Sequence[Stream] = STREAMS,
) -> Clip:
    """Return clips of a video as a batch; steps that they share are cut once.

    Args:
        clips: (B,T) int64, the frames of each clip's steps.
        video, crop, size, flow_stack, streams: see `cut`.
    """
    steps, where = np.unique(clips, return_inverse=True)
    shared = cut(video, steps, crop, size, flow_stack=flow_stack, streams=streams)
    batch = Clip(flow_scale=np.tile(shared["flow_scale"], (len(clips), 1)))
    if "rgb" in shared:
        batch["rgb"] = shared["rgb"][where.reshape(clips.shape)]
    if "flow" in shared:
        batch["flow"] = shared["flow"][where.reshape(clips.shape)]
    return batch


def mirrored(clips: Clip) -> Clip:
    """Return the mirror of clips: columns flipped and u negated."""
    mirror = Clip(flow_scale=clips["flow_scale"] * np.array([-1, 1], np.float32))
    if "rgb" in clips:
        mirror["rgb"] = np.ascontiguousarray(clips["rgb"][..., ::-1, :])
    if "flow" in clips:
        mirror["flow"] = np.ascontiguousarray(clips["flow"][..., ::-1])
    return mirror


def _crop(picture: NDArray[np.uint8], crop: Crop, size: tuple[int, int]) -> NDArray[np.uint8]:
    window = picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    if window.shape[:2] != size:
        resized = cv2.resize(np.ascontiguousarray(window), size[::-1], interpolation=cv2.INTER_LINEAR)
        window = resized.astype(np.uint8, copy=False)
    return window[:, ::-1] if crop.mirror else window


class ClipSampling(Description):
    """How training cuts a clip from a prepared video."""

    steps: Whole = Field(default=1, description="T, the time steps of a clip.")
    tau: tuple[Whole, Whole] = Field(
        default=(1, 1), description="Least and greatest distance between steps, in frames; drawn for each clip."
    )
    crop: CropRule = Field(
        default="border",
        description="How crops are drawn: `border` jitters size and shape near the borders (appearance and ST-ResNet "
        "stages of the released code); `corners` takes four sizes at the corners or the centre (its motion stage).",
    )
    crop_jitter: float = Field(
        default=0.25, ge=0, lt=1, description="How far the sides of `border` crops vary, as a share of crop_px."
    )
    color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How far contrast, brightness and colour of frames vary, 0 to 1 (released code: 0).",
    )
    crop_px: int = Field(default=224, strict=True, ge=32, description="Side of the square that crops are resized to.")
    mirror: bool = Field(
        default=True, description="Whether a mirrored video shows the same action. If not, clips are never mirrored."
    )

    @model_validator(mode="after")
    def _check_tau(self) -> Self:
        if self.tau[0] > self.tau[1]:
            raise ValueError(f"tau must be [least, greatest], not {list(self.tau)}")
        return self
