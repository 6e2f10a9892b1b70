"""RAFT by torchvision: inputs, outputs, batches, and errors for missing or wrong files.

torchvision is not installed in the test environment; a stand-in takes its place.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresnet.errors import FlowSpecError
from stresnet.flow import FlowSpec, estimate_flow, require_available
from stresnet.flow.methods.raft import WEIGHTS_VARIABLE


class StandIn(nn.Module):
    """Returns the mean of the first image as u and of the second as v, and records the calls."""

    calls: list[dict[str, Any]]

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.calls = []

    def forward(self, image1: Tensor, image2: Tensor, num_flow_updates: int) -> list[Tensor]:
        self.calls.append(
            {"image1": image1, "image2": image2, "updates": num_flow_updates, "grad": torch.is_grad_enabled()}
        )
        assert not self.training
        means = torch.stack([image1.mean(1), image2.mean(1)], dim=1)
        return [means * 0, means * self.scale]


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], StandIn]:
    """Install a stand-in for torchvision and its weights; return a function that returns the last model created."""
    file = tmp_path / "hub" / "checkpoints" / "unnamed"
    file.parent.mkdir(parents=True)
    torch.save({"scale": torch.tensor(10.0)}, file)
    name = f"raft_X-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    file.rename(file.with_name(name))
    made: list[StandIn] = []

    def make(*, weights: None) -> StandIn:
        made.append(StandIn())
        return made[-1]

    entry = SimpleNamespace(url=f"https://example.org/models/{name}")
    module: Any = ModuleType("torchvision.models.optical_flow")
    module.raft_large = module.raft_small = make
    module.Raft_Large_Weights, module.Raft_Small_Weights = {"C_T_SKHT_V2": entry}, {"C_T_V2": entry}
    for part in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    return lambda: made[-1]


def gray_frames(levels: list[int], height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


@pytest.mark.parametrize("preset", ["large", "small"])
@pytest.mark.parametrize(
    ("size", "padded"), [((128, 176), (128, 176)), ((130, 171), (136, 176)), ((32, 300), (128, 304))]
)
def test_inputs_and_outputs_at_any_size(
    standin: Callable[[], StandIn], preset: str, size: tuple[int, int], padded: tuple[int, int]
) -> None:
    frames = gray_frames([0, 51, 255], *size)
    flow = estimate_flow(frames, FlowSpec("raft", preset))
    assert flow.shape == (2, 2, *size)
    assert flow.dtype == np.float32
    assert flow.flags.c_contiguous
    (call,) = standin().calls
    assert call["image1"].shape == (2, 3, *padded)
    assert call["image1"].dtype == torch.float32
    assert call["updates"] == 12
    assert not call["grad"]
    # Levels 0 to 255 become -1 to 1, and the scale of 10 from the file was loaded.
    for step, (before, after) in enumerate([(-10, -6), (-6, 10)]):
        np.testing.assert_allclose(flow[step, 0], before, atol=1e-5)
        np.testing.assert_allclose(flow[step, 1], after, atol=1e-5)


def test_padding_is_removed(standin: Callable[[], StandIn]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 131, 173, 3), dtype=np.uint8)
    flow = estimate_flow(frames, FlowSpec("raft"))
    np.testing.assert_allclose(flow[0, 0], 10 * (frames[0].mean(axis=2) / 127.5 - 1), atol=1e-4)
    image = standin().calls[0]["image1"][0]
    assert torch.equal(image[:, 0], image[:, 1]), "borders are repeated"


def test_batches_keep_the_order(standin: Callable[[], StandIn]) -> None:
    levels = list(range(0, 200, 10))
    flow = estimate_flow(gray_frames(levels, 128, 128), FlowSpec("raft", "small"))
    assert [len(call["image1"]) for call in standin().calls] == [8, 8, 3]
    np.testing.assert_allclose(flow[:, 0, 0, 0], 10 * (np.array(levels[:-1]) / 127.5 - 1), atol=1e-4)
    np.testing.assert_allclose(flow[:, 1, 0, 0], 10 * (np.array(levels[1:]) / 127.5 - 1), atol=1e-4)


def test_out_of_memory_halves_the_pairs(standin: Callable[[], StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    levels = list(range(0, 200, 10))
    spec = FlowSpec("raft", "small", bound_px=17)  # used by no other test, so that the model is loaded anew
    expected = estimate_flow(gray_frames(levels, 128, 128), spec)
    forward, tried = StandIn.forward, []

    def limited(self: StandIn, image1: Tensor, image2: Tensor, num_flow_updates: int, most: int = 2) -> list[Tensor]:
        tried.append(len(image1))
        if len(image1) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, image1, image2, num_flow_updates)

    monkeypatch.setattr(StandIn, "forward", limited)
    with pytest.warns(RuntimeWarning, match="RAFT flow: not enough memory for . pairs of 128x128 frames at once"):
        flow = estimate_flow(gray_frames(levels, 128, 128), spec)
    np.testing.assert_array_equal(flow, expected)
    assert tried == [8, 4, 2, 2, 2, 2] * 2 + [3, 1, 1, 1]
    monkeypatch.setattr(StandIn, "forward", partialmethod(limited, most=0))
    with pytest.raises(FlowSpecError, match=r"^RAFT flow needs more GPU memory than is free for one pair of 128x128"):
        estimate_flow(gray_frames(levels[:2], 128, 128), spec)


def one_line(use: Callable[[], object]) -> str:
    with pytest.raises(FlowSpecError) as error:
        use()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_torchvision_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # makes the import fail
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    monkeypatch.delitem(sys.modules, "torchvision.models.optical_flow", raising=False)
    message = one_line(lambda: require_available(FlowSpec("raft")))
    assert "raft/large needs torchvision" in message
    assert "install the torchvision that matches" in message


def test_the_environment_variable_names_the_weights(
    standin: Callable[[], StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (tmp_path / "hub" / "checkpoints").iterdir()
    moved = file.rename(tmp_path / "my weights.pth")
    message = one_line(lambda: require_available(FlowSpec("raft")))
    assert str(file) in message
    assert WEIGHTS_VARIABLE in message
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(moved))
    require_available(FlowSpec("raft"))
    estimate_flow(gray_frames([0, 9], 128, 128), FlowSpec("raft", bound_px=18))  # used by no other test
    assert standin().scale == 10


def test_wrong_weights_raise(standin: Callable[[], StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "tuned.pth"
    torch.save({"scale": torch.tensor(3.0)}, other)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(other))
    message = one_line(lambda: require_available(FlowSpec("raft")))
    assert str(other) in message
    assert "SHA-256" in message
