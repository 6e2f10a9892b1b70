"""Data sets of clips for training and validation."""

from __future__ import annotations

from typing import TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stresnet.data.clips import Clip, ClipSampling, cut
from stresnet.data.sampling import (
    Crop,
    Indices,
    border_crop,
    corner_and_center_crops,
    corner_crop,
    middle_centers,
    sample_centers,
)
from stresnet.data.store import Entries, Store, StoreEntry
from stresnet.model.config import Architecture


class Sample(TypedDict, total=False):
    """A clip, or a batch of them with a leading dimension B, as tensors; see `stresnet.data.clips.Clip`.

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


def as_tensors(clip: Clip) -> Sample:
    """Return a clip, or a batch of them, as tensors that share its memory."""
    return cast(Sample, {name: torch.from_numpy(value) for name, value in clip.items()})


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
        clip = cut(video, centers, crop, (side, side), flow_stack=self.network.flow_stack, streams=self.network.streams)
        sample = as_tensors(clip)
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
