"""The trainer of a stage: numeric precision that the machine can compute, and failures of its other processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.utils.data import get_worker_info

from helpers.tiny import tiny_recipe
from stresnet.data.store import Store
from stresnet.data.training_clips import TrainingClips
from stresnet.errors import StresnetError
from stresnet.recipes import Stage
from stresnet.training import train
from stresnet.training.trainer import emulates_bf16, make_trainer, plain_errors


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


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("DataLoader worker (pid 71) is killed by signal: Killed. ", "fewer --workers"),
        ("DataLoader worker (pid(s) 71) exited unexpectedly", "fewer --workers"),
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. "
            "It is possible that dataloader's workers are out of shared memory.",
            "--shm-size",
        ),
        ("unable to allocate shared memory(shm) for file </torch_1_1>: No space left on device (28)", "--shm-size"),
        ("unable to open shared memory object </torch_1_1> in read-write mode: Too many open files (24)", "ulimit -n"),
        ("unable to write to file </torch_17_1>: No space left on device (28)", "--shm-size"),
        ("Pin memory thread exited: Too many open files", "ulimit -n 4096"),
        ("[pair.cc:553] Connection closed by peer [127.0.0.1]:64748.", "another device ended"),
    ],
)
def test_failures_of_other_processes_are_one_line(said: str, advice: str) -> None:
    with pytest.raises(StresnetError) as error, plain_errors(cast(Any, None)):
        raise RuntimeError(said)
    assert advice in str(error.value)
    assert "--resume" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("sizes differ"), OSError(28, "No space left on device", "run/last.ckpt")]
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as found, plain_errors(cast(Any, None)):
        raise error
    assert found.value is error


def test_a_killed_loader_process_is_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = TrainingClips.__getitem__

    def dies(self: TrainingClips, index: int) -> Any:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return clips(self, index)

    monkeypatch.setattr(TrainingClips, "__getitem__", dies)
    with pytest.raises(StresnetError, match="a loader process was killed"):
        train(store, tmp_path / "run", tiny_recipe({"appearance": {}}), workers=1)
