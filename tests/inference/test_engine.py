"""The engine: precisions agree, and a compiler that fails costs a warning, not the scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.networks import calibrated
from stresnet.inference.engine import Engine
from stresnet.inference.runtime import COMPILED_FROM_VIDEOS, worth_compiling
from stresnet.model import STResNet, STResNetConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net() -> STResNet:
    return calibrated(STResNet(STResNetConfig(num_classes=5, depth=26, width=0.125)))


def clips(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return (
        torch.randn(count, 3, 5, 32, 48, generator=generator),
        torch.randn(count, 20, 5, 32, 48, generator=generator),
    )


def test_bf16_gives_float32_logits_close_to_those_of_fp32(net: STResNet) -> None:
    exact = Engine(net, CPU, "fp32")(*clips(16)).fused
    coarse = Engine(net, CPU, "bf16")(*clips(16)).fused
    assert coarse.dtype == torch.float32
    error = (coarse - exact).abs().max() / exact.abs().max()
    assert 1e-5 < error < 0.05  # not equal, or it did not compute in bfloat16
    assert next(net.parameters()).dtype == torch.float32


def test_a_stream_that_is_off_has_no_logits() -> None:
    alone = STResNet(STResNetConfig(num_classes=5, depth=26, width=0.125, streams=("motion",), link=None))
    logits = Engine(alone.eval(), CPU, "fp32")(None, clips(2)[1])
    assert logits.appearance is None
    assert logits.motion is not None


def test_without_a_compiler_the_network_runs_uncompiled(net: STResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(net: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def compiled(*_: object) -> Any:
            raise RuntimeError("no C++ compiler\nand more")

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    engine = Engine(net, CPU, "fp32", compiled=True)
    with pytest.warns(RuntimeWarning, match=r"uncompiled, which is slower: no C\+\+ compiler$"):
        first = engine(*clips(2)).fused
    assert not engine.compiled
    assert torch.equal(first, engine(*clips(2)).fused)  # without a second warning
    assert torch.equal(first, Engine(net, CPU, "fp32")(*clips(2)).fused)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch
def test_compiled_logits_differ_by_rounding_only_at_any_size(net: STResNet) -> None:
    engine, eager = Engine(net, CPU, "fp32", compiled=True), Engine(net, CPU, "fp32")
    for height, width in ((32, 48), (40, 57)):
        clip = torch.randn(1, 3, 5, height, width), torch.randn(1, 20, 5, height, width)
        torch.testing.assert_close(engine(*clip).fused, eager(*clip).fused, rtol=1e-4, atol=1e-5)
    assert engine.compiled


def test_compiling_needs_many_videos_and_bf16() -> None:
    assert worth_compiling("run", COMPILED_FROM_VIDEOS, "bf16", "cpu")
    assert not worth_compiling("run", COMPILED_FROM_VIDEOS - 1, "bf16", "cpu")
    assert not worth_compiling("model.onnx", COMPILED_FROM_VIDEOS, "bf16", "cpu")
    assert not worth_compiling("run", 10**6, "fp32", "cpu")
