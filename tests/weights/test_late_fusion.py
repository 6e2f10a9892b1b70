"""Late fusion as a model: the mean of two models, and pairs that cannot be fused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny import Command, one_line
from stresnet.data.store import Store
from stresnet.errors import CheckpointError
from stresnet.inference.recognizer import Recognizer
from stresnet.model import STResNet, load_checkpoint
from stresnet.training import Run
from stresnet.weights.late_fusion import fuse_streams


def test_the_fused_model_scores_the_mean(command: Command, run: Run, store: Store, tmp_path: Path) -> None:
    streams = [run.model_file("motion"), run.model_file("appearance")]
    out = tmp_path / "late.safetensors"
    code, _, err = command("fuse", *streams, "--out", out)
    assert (code, one_line(err)) == (0, f"model: {out}")
    video = store.select("test")[0].record.path
    fused = Recognizer(out).predict(video, protocol="dense25").scores
    motion, appearance = (Recognizer(file).predict(video, protocol="dense25").scores for file in streams)
    np.testing.assert_allclose(fused.appearance, appearance.appearance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fused.motion, motion.motion, rtol=1e-4, atol=1e-5)
    model = load_checkpoint(out)
    assert model.trained_on == load_checkpoint(streams[0]).trained_on
    assert model.model.config.link is None
    code, _, err = command("evaluate", out, store.root, "--out", tmp_path / "report", "--protocol", "center")
    assert code == 0, err


def test_pairs_that_cannot_be_fused(command: Command, run: Run, tmp_path: Path) -> None:
    appearance, motion, both = (load_checkpoint(run.model_file(name)) for name in ("appearance", "motion", "st-resnet"))
    with pytest.raises(CheckpointError, match="a model of the motion stream alone, found one of appearance and motion"):
        fuse_streams(appearance, both)
    with pytest.raises(CheckpointError, match="expected two models of the same classes: train both on one store"):
        fuse_streams(appearance.replace(classes=("a", "b", "c", "d")), motion)
    torch.manual_seed(0)
    wide = motion.replace(model=STResNet(motion.model.config.replace(width=0.125)))
    with pytest.raises(CheckpointError, match="the two models cannot be one network"):
        fuse_streams(appearance, wide)
    deep = motion.replace(model=STResNet(motion.model.config.replace(depth=50)))
    assert fuse_streams(appearance, deep).model.config.depth_of("motion") == 50
    code, _, err = command("fuse", run.model_file("motion"), "--out", tmp_path / "late.safetensors")
    assert (code, "models are fused in pairs" in one_line(err)) == (2, True)
