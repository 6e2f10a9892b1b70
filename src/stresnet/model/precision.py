"""The number formats that networks compute in, and which of them a device has instructions for."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
"""float32, or bfloat16 (the range of float32 with 8 bits of precision)."""

PrecisionChoice = Literal["auto", "fp32", "bf16"]
"""A precision, or `auto`: bf16 where it is native."""


def has_native_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively: about twice as fast as float32.

    These are CPUs with AVX512-BF16, AMX or Arm's BF16, and NVIDIA GPUs from Ampere on. All others emulate it, several
    times slower than float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    mkldnn: Any = torch.backends.mkldnn
    if device.type != "cpu" or not mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # oneDNN accepts bfloat16 on any CPU with AVX512. PyTorch before 2.6 cannot tell whether it is emulated.
    is_native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    return platform.machine().lower() not in ("x86_64", "amd64") or bool(is_native())


def choose_precision(wanted: PrecisionChoice, device: torch.device) -> Precision:
    """Return the precision to compute in; `auto` is bf16 where it is native."""
    if wanted == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    return wanted
