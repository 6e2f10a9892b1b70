"""Clips: frames and flow stacks cut from prepared videos, and data sets of them for training and validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from stresnet.data.sampling import (
    Crop,
    CropRule,
    Indices,
    border_crop,
    corner_and_center_crops,
    corner_crop,
    middle_centers,
    sample_centers,
    stack_around,
)
from stresnet.model.config import STREAMS, Architecture, Description, Stream, Whole

if TYPE_CHECKING:  # prediction needs no store, nor what Parquet files need
    from stresnet.data.store import Entries, Store, StoreEntry


class Pictures(Protocol):
    """Where clips are cut from: a `PreparedVideo`, or the newest frames of a stream."""

    def rgb(self, indices: Indices, /) -> NDArray[np.uint8]:
        """Return frames, (n,H,W,3) uint8."""
        ...

    def flow(self, indices: Indices, /) -> NDArray[np.uint8]:
        """Return flow as quantised levels, (n,2,H,W) uint8."""
        ...


class Sample(TypedDict, total=False):
    """One clip, or a batch of them with a leading dimension B, ready for `Preprocessing`.

    Attributes:
        rgb: frames, (T,H,W,3) uint8; absent unless the appearance stream is used.
        flow: stacks of flow levels, (T,2L,H,W) uint8; absent unless the motion stream is used.
        flow_scale: factors of u and v due to resizing and mirroring, (2,) float32.
        label: class index, 0-based.
    """

    rgb: Tensor
    flow: Tensor
    flow_scale: Tensor
    label: Tensor


def cut(
    video: Pictures,
    centers: Indices,
    crop: Crop,
    size: tuple[int, int],
    *,
    flow_stack: int,
    streams: Sequence[Stream] = STREAMS,
) -> Sample:
    """Return one clip of a video, without its label.

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
    sample = Sample(flow_scale=torch.tensor([u_sign * size[1] / crop.width, size[0] / crop.height]))
    if "appearance" in streams:
        sample["rgb"] = torch.from_numpy(np.stack([_crop(frame, crop, size) for frame in video.rgb(centers)]))
    if "motion" in streams:
        wanted, where = np.unique(stack_around(centers, flow_stack), return_inverse=True)
        planes = np.stack([_crop(plane, crop, size) for field in video.flow(wanted) for plane in field])
        # Whole planes are copied, (T,L,2,H,W): interleaving pixels here would take longer than decoding them.
        stacks = planes.reshape(-1, 2, *size)[where.reshape(len(centers), flow_stack)]
        sample["flow"] = torch.from_numpy(stacks.reshape(len(centers), 2 * flow_stack, *size))
    return sample


def cut_clips(
    video: Pictures,
    clips: Indices,
    crop: Crop,
    size: tuple[int, int],
    *,
    flow_stack: int,
    streams: Sequence[Stream] = STREAMS,
) -> Sample:
    """Return clips of a video as a batch; steps that they share are cut once.

    Args:
        clips: (B,T) int64, the frames of each clip's steps.
        video, crop, size, flow_stack, streams: see `cut`.
    """
    steps, where = np.unique(clips, return_inverse=True)
    shared = cut(video, steps, crop, size, flow_stack=flow_stack, streams=streams)
    batch = Sample(flow_scale=shared["flow_scale"].expand(len(clips), 2))
    if "rgb" in shared:
        batch["rgb"] = shared["rgb"][where.reshape(clips.shape)]
    if "flow" in shared:
        batch["flow"] = shared["flow"][where.reshape(clips.shape)]
    return batch


def _crop(picture: NDArray[np.uint8], crop: Crop, size: tuple[int, int]) -> NDArray[np.uint8]:
    window = picture[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    if window.shape[:2] != size:
        resized = cv2.resize(np.ascontiguousarray(window), size[::-1], interpolation=cv2.INTER_LINEAR)
        window = resized.astype(np.uint8, copy=False)
    return window[:, ::-1] if crop.mirror else window


def recolor(frames: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Return the frames of a clip with random contrast, brightness and saturation, (T,H,W,3) uint8.

    All frames change alike: contrast and brightness by up to ±strength, and colours fade to gray by up to twice that.

    Args:
        frames: (T,H,W,3) uint8 RGB.
        strength: 0 to 1.
        rng: the random generator.
    """
    contrast, brightness = 1 + rng.uniform(-strength, strength, 2)
    fade = rng.uniform(0, min(1.0, 2 * strength))
    levels = frames.float()
    gray = levels @ torch.tensor([[0.299], [0.587], [0.114]])  # (T,H,W,1)
    levels.lerp_(gray.expand_as(levels).contiguous(), fade)  # a view that repeats its columns takes longer
    mean = gray.mean()
    levels.sub_(mean).mul_(contrast).add_(mean * brightness)
    return levels.clamp_(0, 255).round_().to(torch.uint8)


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


class _StoreClips(Dataset[Sample]):
    """Labelled clips of a store's videos; subclasses choose where each is cut."""

    def __init__(self, store: Store, entries: Entries, sampling: ClipSampling, network: Architecture) -> None:
        self.store = store
        self.entries = entries
        self.sampling = sampling
        self.network = network
        self.class_index = {name: k for k, name in enumerate(store.classes)}

    def __len__(self) -> int:
        return len(self.entries)

    def _sample(self, entry: StoreEntry, centers: Indices, crop: Crop) -> Sample:
        side = self.sampling.crop_px
        video = self.store.video(entry.record.id)
        sample = cut(
            video, centers, crop, (side, side), flow_stack=self.network.flow_stack, streams=self.network.streams
        )
        sample["label"] = torch.tensor(self.class_index[entry.record.label])
        return sample


class TrainingClips(_StoreClips):
    """Random clips of a store's training videos.

    Item i is a clip of video i mod N, drawn with a generator seeded by (seed, i) alone. Neither the number of workers
    nor an interruption changes the clips.
    """

    def __init__(
        self, store: Store, entries: Entries, sampling: ClipSampling, network: Architecture, seed: int
    ) -> None:
        super().__init__(store, entries, sampling, network)
        self.seed = seed

    def __getitem__(self, index: int) -> Sample:
        s = self.sampling
        entry = self.entries[index % len(self.entries)]
        rng = np.random.default_rng([self.seed, index])
        centers = sample_centers(entry.frames, self.network.flow_stack, s.steps, s.tau, rng)
        if s.crop == "border":
            crop = border_crop(entry.height, entry.width, s.crop_px, s.crop_jitter, s.mirror, rng)
        else:
            crop = corner_crop(entry.height, entry.width, s.crop_px, s.mirror, rng)
        sample = self._sample(entry, centers, crop)
        if s.color_jitter and "rgb" in sample:
            sample["rgb"] = recolor(sample["rgb"], s.color_jitter, rng)
        return sample


class CenteredClips(_StoreClips):
    """The one clip of each video that the `center` protocol scores."""

    def __getitem__(self, index: int) -> Sample:
        entry, s = self.entries[index], self.sampling
        crop = corner_and_center_crops(entry.height, entry.width, s.crop_px)[-1]
        centers = middle_centers(entry.frames, self.network.flow_stack, s.steps, s.tau)
        return self._sample(entry, centers, crop)
