"""Small networks to export, and the comparison of what is exported with PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.networks import calibrated, network
from helpers.tiny import SPEC, tiny_recipe
from stresnet.data.clips import Clip, mirrored
from stresnet.inference.runtime import Runtime, open_runtime
from stresnet.model import Checkpoint, Preprocessing

CLASSES = ("run", "jump", 'Ö, \n"<&x"', "wave", "])>")


def exportable(**config: object) -> Checkpoint:
    """Return a network with random weights and the recipe that fits it."""
    streams = config.get("streams", ("appearance", "motion"))
    model = calibrated(network(**config)) if len(streams) == 2 else network(**config).eval()  # type: ignore[arg-type]
    recipe = tiny_recipe({"st-resnet": {"starts_from": []}})
    return Checkpoint(
        model=model,
        classes=CLASSES,
        preprocessing=Preprocessing(rgb_mean=(10.0, 120.0, 90.0), flow_std=40.0, crop_px=40),
        store_spec=SPEC.to_dict(),
        stage="st-resnet",
        recipe=recipe.to_dict(),
    )


def require_same_at_any_size(file: Path, checkpoint: Checkpoint) -> None:
    """Compare the logits of an exported file with those of PyTorch, on clips of several sizes and their mirrors."""
    ours, theirs = open_runtime(file, precision="fp32"), open_runtime(checkpoint, "cpu", "fp32")
    for size in ((2, 6, 64, 96), (1, 9, 33, 224), (3, 5, 57, 40), (1, 7, 32, 240)):
        clips = _noise(checkpoint, *size)
        _require_same(ours, theirs, clips)
        _require_same(ours, theirs, mirrored(clips))


def _noise(checkpoint: Checkpoint, batch: int, steps: int, height: int, width: int) -> Clip:
    rng, flows = np.random.default_rng(height), 2 * checkpoint.config.flow_stack
    return Clip(
        rgb=rng.integers(0, 256, (batch, steps, height, width, 3), np.uint8),
        flow=rng.integers(0, 256, (batch, steps, flows, height, width), np.uint8),
        flow_scale=np.array([[-1.2, 0.9]] * batch, np.float32),
    )


def _require_same(found: Runtime, expected: Runtime, clips: Clip) -> None:
    for ours, theirs in zip(found(clips), expected(clips), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
