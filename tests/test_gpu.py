"""Tests that need a GPU; skipped without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny import tiny_recipe
from stresnet.data.store import Store
from stresnet.inference.recognizer import Recognizer
from stresnet.training import Run, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_a_gpu_scores_like_the_cpu(run: Run, store: Store) -> None:
    video = store.video(store.select("test")[0].record.id)
    file = run.model_file("st-resnet")
    cpu, gpu = (Recognizer(file, device=device).score(video).fused for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu, cpu, rtol=1e-2, atol=1e-2)  # TF32 convolutions


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_all_stages_train_on_a_gpu(tmp_path: Path, store: Store, precision: str) -> None:
    done = train(store, tmp_path / "run", tiny_recipe(optimisation={"precision": precision}))
    assert [s.name for s in done.finished()] == ["appearance", "motion", "st-resnet"]
    assert all(np.isfinite(done.curves(s.name)["loss"]).all() for s in done.finished())
