"""Helpers for tests of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny import STAGES
from stresnet.data.store import Entries, Store
from stresnet.model import STResNet
from stresnet.training import Run, train
from stresnet.training.stage import StageTraining

Weights = dict[str, torch.Tensor]


class StoppedError(Exception):
    """Raised by a test to stop training."""


def starting_weights(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Weights:
    """Return the weights that the first stage to be trained starts from, without training it."""
    seen: list[Weights] = []

    def stop(model: STResNet, *_: object) -> StageTraining:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("stresnet.training.fit.StageTraining", stop)
        with pytest.raises(StoppedError):
            train(*arguments, workers=0, **options)
    return seen[0]


def assert_same_weights(a: Path, b: Path) -> None:
    x, y = load_file(a), load_file(b)
    assert x.keys() == y.keys()
    assert [k for k in x if not torch.equal(x[k], y[k])] == []


def assert_same_run(a: Run, b: Run) -> None:
    """Assert that the losses, accuracies and rates of every epoch and all final weights agree bit for bit."""
    for stage in STAGES:
        x, y = ({k: v for k, v in run.curves(stage).items() if k != "clips_per_sec"} for run in (a, b))
        assert x == y
        assert_same_weights(a.model_file(stage), b.model_file(stage))


def with_validation(store: Store) -> Store:
    """Return the store with its test videos as validation videos."""
    split = {"train": "train", "test": "val"}
    return replace(
        store,
        entries=Entries.of(replace(e, record=replace(e.record, split=split[e.record.split])) for e in store.entries),
    )


def forbid_training(activity: str, done: int, total: int, detail: str = "") -> None:
    """Fail the test: a `Progress` for runs that must not start training."""
    raise AssertionError(f"{activity}: {done}/{total}")
