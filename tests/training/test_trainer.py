"""The trainer of a stage: numeric precision that the machine can compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from helpers.tiny import tiny_recipe
from stresnet.recipes import Stage
from stresnet.training.trainer import emulates_bf16, make_trainer


def stage(precision: str) -> Stage:
    return tiny_recipe({"appearance": {"optimisation": {"precision": precision}}}).stages[0]


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_emulated_bfloat16_is_replaced_by_float32(
    supported: bool, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("stresnet.training.trainer.has_native_bf16", lambda device: supported)
    assert emulates_bf16(stage("bf16-mixed")) is not supported
    assert not emulates_bf16(stage("32-true"))
    assert make_trainer(tmp_path, stage("bf16-mixed"), 1, 1, None).precision == expected
