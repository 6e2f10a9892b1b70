"""RAFT (Teed and Deng 2020), by torchvision, where it and its weights are installed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresnet.errors import FlowSpecError
from stresnet.flow.methods.method import Flow, FlowMethod, Parameters, Picture, PictureEstimator

if TYPE_CHECKING:
    import torch

WEIGHTS_VARIABLE = "STRESNET_RAFT_WEIGHTS"
"""Environment variable that names the weight file, if it is not in torchvision's cache."""

_MAX_PAIRS = 8
_STRIDE_PX = 8  # RAFT's encoders take images whose sides are multiples of this
_SMALLEST_PX = 128  # its correlation pyramid halves an eighth of the image three times


def _load(preset: str, parameters: Parameters) -> PictureEstimator:
    """Load the model onto the GPU if there is one.

    The estimator takes half as many pairs at once, with a warning, where GPU memory runs out. It raises
    `FlowSpecError` if a single pair does not fit.
    """
    import numpy as np
    import torch

    from stresnet.flow.methods.memory import halve_pairs

    model = _model(preset, str(parameters["weights"]))
    device = next(model.parameters()).device
    updates = int(parameters["flow_updates"])

    @torch.inference_mode()
    def fields(pictures: Sequence[Picture]) -> Flow:
        height, width = pictures[0].shape[:2]
        down, right = (_padding(side) for side in (height, width))
        rgb_tchw = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float()
        rgb_tchw = torch.nn.functional.pad(rgb_tchw, (*right, *down), mode="replicate") / 127.5 - 1.0
        flow: torch.Tensor = model(rgb_tchw[:-1], rgb_tchw[1:], num_flow_updates=updates)[-1]
        inside = flow[..., down[0] : down[0] + height, right[0] : right[0] + width]
        return np.ascontiguousarray(inside.cpu().numpy(), np.float32)

    def compute(pictures: Sequence[Picture]) -> Flow:
        pairs = at_once = len(pictures) - 1
        done: list[Flow] = []
        first = 0
        while first < pairs:
            try:
                done.append(fields(pictures[first : first + at_once + 1]))
            except torch.cuda.OutOfMemoryError as error:
                height, width = pictures[0].shape[:2]
                at_once = halve_pairs(min(at_once, pairs - first), "RAFT", f"{width}x{height}", error)
            else:
                first += at_once
        return np.concatenate(done)

    return PictureEstimator(compute, max_pairs=_MAX_PAIRS, gray=False)


def _model(preset: str, weights: str) -> torch.nn.Module:
    """Return torchvision's model with these weights, on the GPU if there is one."""
    import torch

    optical_flow = _torchvision(preset)
    model: torch.nn.Module = getattr(optical_flow, f"raft_{preset}")(weights=None)
    model.load_state_dict(
        torch.load(_weight_file(optical_flow, preset, weights), map_location="cpu", weights_only=True)
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _torchvision(preset: str) -> Any:
    try:
        return import_module("torchvision.models.optical_flow")
    except ImportError as error:
        raise FlowSpecError(
            f"flow raft/{preset} needs torchvision, which cannot be imported ({error}); install the torchvision "
            "that matches your torch, or choose another flow method"
        ) from error


def _padding(side: int) -> tuple[int, int]:
    """Return how many pixels to add before and after a side."""
    missing = max(_SMALLEST_PX - side, -side % _STRIDE_PX)
    return missing // 2, missing - missing // 2


def _weight_file(optical_flow: Any, preset: str, weights: str) -> Path:
    """Return the verified weight file. torchvision's name for it ends in the first digits of its SHA-256."""
    import torch

    url: str = getattr(optical_flow, f"Raft_{preset.capitalize()}_Weights")[weights].url
    name = url.rsplit("/", 1)[-1]
    given = os.environ.get(WEIGHTS_VARIABLE, "")
    file = Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        raise FlowSpecError(
            f"flow raft/{preset} needs torchvision's weights {name}, found no file {file}; put the file there, or set "
            f"the environment variable {WEIGHTS_VARIABLE} to its path"
        )
    expected = name.rsplit("-", 1)[-1].removesuffix(".pth")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if not found.startswith(expected):
        raise FlowSpecError(
            f"{file}: expected torchvision's weights {name}, SHA-256 {expected}…, found {found[: len(expected)]}…; "
            "get that file: the flow specification includes the weights"
        )
    return file


def _require_available(preset: str, parameters: Parameters) -> None:
    _weight_file(_torchvision(preset), preset, str(parameters["weights"]))


METHOD = FlowMethod(
    name="raft",
    summary="a neural network, needs torchvision",
    # torchvision's weights and number of updates.
    presets={
        "large": {"weights": "C_T_SKHT_V2", "flow_updates": 12},
        "small": {"weights": "C_T_V2", "flow_updates": 12},
    },
    default_preset="large",
    from_pictures=_load,
    require_available=_require_available,
)
