"""RAFT (Teed and Deng 2020) through torchvision, for those who have it and its weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stresnet.errors import FlowSpecError

if TYPE_CHECKING:
    import torch

WEIGHTS_VARIABLE = "STRESNET_RAFT_WEIGHTS"
"""Names the weight file, where it is not in torchvision's own cache."""

_STRIDE_PX = 8  # RAFT's encoders take images whose sides are multiples of this
_SMALLEST_PX = 128  # its correlation pyramid halves an eighth of the image three times


def raft(
    preset: str, parameters: Mapping[str, float | str]
) -> Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float32]]:
    """Returns the function from n + 1 RGB pictures (H, W, 3) to their n flow fields (n, 2, H, W).

    It computes on the GPU where there is one, and takes half as many pairs at once, with a warning, if its memory does
    not suffice.

    Args:
        preset: ``large`` or ``small``.
        parameters: ``weights``, their name in torchvision; ``flow_updates``, how often the flow is refined.

    Raises:
        FlowSpecError: torchvision or the weight file is not there, or the file holds other weights; or, when
            called, too little memory for one pair.
    """
    import torch

    from stresnet.flow.methods.memory import halved

    model = _model(preset, str(parameters["weights"]))
    device = next(model.parameters()).device
    updates = int(parameters["flow_updates"])

    @torch.inference_mode()
    def fields(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        height, width = pictures[0].shape[:2]
        down, right = (_padding(side) for side in (height, width))
        rgb_tchw = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float()
        rgb_tchw = torch.nn.functional.pad(rgb_tchw, (*right, *down), mode="replicate") / 127.5 - 1.0
        flow: torch.Tensor = model(rgb_tchw[:-1], rgb_tchw[1:], num_flow_updates=updates)[-1]
        inside = flow[..., down[0] : down[0] + height, right[0] : right[0] + width]
        return np.ascontiguousarray(inside.cpu().numpy(), np.float32)

    def compute(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        pairs = at_once = len(pictures) - 1
        done: list[NDArray[np.float32]] = []
        first = 0
        while first < pairs:
            try:
                done.append(fields(pictures[first : first + at_once + 1]))
            except torch.cuda.OutOfMemoryError as error:
                height, width = pictures[0].shape[:2]
                at_once = halved(min(at_once, pairs - first), "RAFT", f"{width}x{height}", error)
            else:
                first += at_once
        return np.concatenate(done)

    return compute


def _model(preset: str, name: str) -> torch.nn.Module:
    """Returns torchvision's model with these weights, on the GPU where there is one."""
    import torch

    try:
        optical_flow = import_module("torchvision.models.optical_flow")
    except ImportError as error:
        raise FlowSpecError(
            f"flow raft/{preset} needs torchvision, which cannot be imported ({error}); install the torchvision "
            "that belongs to your torch, or choose another flow method"
        ) from error
    weights = getattr(optical_flow, f"Raft_{preset.capitalize()}_Weights")[name]
    file = _weight_file(weights, Path(torch.hub.get_dir()) / "checkpoints")
    model: torch.nn.Module = getattr(optical_flow, f"raft_{preset}")(weights=None)
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _padding(side: int) -> tuple[int, int]:
    """Returns how many pixels to add before and after."""
    missing = max(_SMALLEST_PX - side, -side % _STRIDE_PX)
    return missing // 2, missing - missing // 2


def _weight_file(weights: Any, cache: Path) -> Path:
    """Returns the file of these weights; torchvision ends its name in the first digits of its SHA-256."""
    name = weights.url.rsplit("/", 1)[-1]
    given = os.environ.get(WEIGHTS_VARIABLE, "")
    file = Path(given) if given else cache / name
    if not file.is_file():
        raise FlowSpecError(
            f"flow raft needs torchvision's weights {name}, found no file {file}; put it there, or name it in the "
            f"environment variable {WEIGHTS_VARIABLE}"
        )
    digits = name.rsplit("-", 1)[-1].removesuffix(".pth")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if not found.startswith(digits):
        raise FlowSpecError(
            f"{file}: expected torchvision's weights {name}, SHA-256 {digits}…, found {found[: len(digits)]}…; "
            "get that file: the flow specification stands for its weights"
        )
    return file
