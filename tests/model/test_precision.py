"""The choice of a precision."""

from __future__ import annotations

import pytest
import torch

from stresnet.model import precision
from stresnet.model.precision import choose_precision, has_native_bf16


@pytest.mark.parametrize(
    ("onednn", "avx512_bf16", "native"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_a_cpu_of_the_pc_kind_needs_the_instructions(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, avx512_bf16: bool, native: bool
) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    assert has_native_bf16(torch.device("cpu")) is native
    assert choose_precision("auto", torch.device("cpu")) == ("bf16" if native else "fp32")


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_needs_to_be_ampere_or_later(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_native_bf16(torch.device("cuda")) is native


def test_a_stated_precision_is_taken() -> None:
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"
    assert choose_precision("fp32", torch.device("cpu")) == "fp32"
