"""The clips that exported models are checked and calibrated on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.data.clips import Clip, cut_clips
from stresnet.data.sampling import Protocol
from stresnet.data.store import Entries, Store, StoreSpec
from stresnet.inference.protocols import views
from stresnet.model.metadata import ModelMetadata

GENERATED = 8
"""At most this many clips are generated."""


class LabelledClip(NamedTuple):
    """A batch of the clips of one crop of a video, and the index of its class; None for generated clips."""

    clips: Clip
    label: int | None


def held_out(metadata: ModelMetadata, store: Store, most: int) -> Iterator[LabelledClip]:
    """Yield what the network sees of up to `most` videos that it was not trained on, spread over the test split.

    Raises:
        FlowSpecError: the store was prepared differently from the one of training.
        StoreError: a prepared video is damaged.
    """
    store = store.with_test_groups(metadata.test_groups) if metadata.test_groups else store
    return _of_videos(metadata, store, store.select("test"), most)


def of_training(metadata: ModelMetadata, store: Store, most: int) -> Iterator[LabelledClip]:
    """Yield the same of up to `most` training videos; see `held_out`."""
    store = store.with_test_groups(metadata.test_groups) if metadata.test_groups else store
    return _of_videos(metadata, store, store.select("train"), most)


def _of_videos(metadata: ModelMetadata, store: Store, entries: Entries, most: int) -> Iterator[LabelledClip]:
    StoreSpec.from_dict(metadata.store_spec).require_same(store.spec, f"the model and {store.root}")
    protocol: Protocol = "center" if metadata.recipe else "dense25"
    config = metadata.config
    for index in np.unique(np.linspace(0, len(entries) - 1, min(most, len(entries))).round().astype(int)):
        record = entries[int(index)].record
        video = store.video(record.id)
        shown = views(protocol, metadata, video.meta)
        crop, size = shown.crops[0]
        clips = cut_clips(video, shown.clips, crop, size, flow_stack=config.flow_stack, streams=config.streams)
        yield LabelledClip(clips, metadata.classes.index(record.label) if record.label in metadata.classes else None)


def generated(metadata: ModelMetadata, most: int = GENERATED) -> Iterator[LabelledClip]:
    """Yield clips of smooth random textures that move, and of smooth random flow; always the same ones."""
    rng = np.random.default_rng(0)
    config, side = metadata.config, metadata.preprocessing.crop_px
    steps = max(5, (config.temporal_pool or (1, 1))[0])
    for _ in range(min(most, GENERATED)):
        texture = _resized(rng.integers(0, 256, (9, 9, 3), np.uint8), (side + 4 * steps, side))
        rgb = np.stack([texture[:, 4 * t : 4 * t + side] for t in range(steps)])[None]
        coarse = rng.integers(96, 160, (steps, 2 * config.flow_stack, 5, 5), np.uint8)
        flow = np.stack([np.stack([_resized(level, (side, side)) for level in step]) for step in coarse])[None]
        yield LabelledClip(Clip(rgb=rgb, flow=flow, flow_scale=np.ones((1, 2), np.float32)), None)


def _resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return cv2.resize(picture, size).astype(np.uint8, copy=False)
