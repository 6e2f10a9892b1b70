"""Runtimes: what computes the logits of clips. The kind of a model file decides which one does."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stresnet.data.clips import Clip
from stresnet.errors import StresnetError
from stresnet.model.metadata import ModelMetadata
from stresnet.weights import hub

if TYPE_CHECKING:
    import torch

    from stresnet.model.precision import PrecisionChoice

ClipScores = NDArray[np.float32]

EXPORTED = {".onnx": "stresnet.inference.onnx_runtime", ".xml": "stresnet.inference.openvino_runtime"}
"""The modules that read exported models, by the ending of the file."""

COMPILED_FROM_VIDEOS = 200
"""Number of videos from which networks are compiled in bf16."""


class ClipLogits(NamedTuple):
    """The logits of clips, (B,T′,K) float32 over T′ temporal outputs; None for a stream that is switched off."""

    appearance: ClipScores | None
    motion: ClipScores | None


class Runtime(Protocol):
    """Computes the logits of clips with one network, which it has loaded."""

    @property
    def metadata(self) -> ModelMetadata:
        """What the model file says about the network."""

    @property
    def device(self) -> str | torch.device:
        """Where it computes."""

    @property
    def numerics(self) -> str:
        """What the logits depend on in their last digits: precision, runtime, and whether the network is compiled."""

    def digest(self) -> str:
        """Return a text that is the same only for the same weights."""

    def __call__(self, clips: Clip) -> ClipLogits:
        """Return the logits of a batch of clips."""


def is_exported(model: object) -> bool:
    """Return whether a model is the file of an exported network, by its ending."""
    return isinstance(model, str | Path) and Path(model).suffix.lower() in EXPORTED


def open_runtime(
    model: str | Path | ModelMetadata,
    device: str | torch.device | None = None,
    precision: PrecisionChoice = "auto",
    *,
    compiled: bool = False,
) -> Runtime:
    """Return the runtime of a model file, the folder of a run or a loaded checkpoint; see `Recognizer`.

    Raises:
        CheckpointError: the file is not a model, or the folder has none.
        StresnetError: the device or precision is not available, or the library of the runtime is not installed.
    """
    if not is_exported(model):
        from stresnet.inference.torch_runtime import TorchRuntime

        file = model if isinstance(model, ModelMetadata) else hub.checkpoint_file(Path(model))
        return TorchRuntime(file, device, precision, compiled=compiled)
    assert isinstance(model, str | Path)
    if device not in (None, "cpu"):
        raise StresnetError(f"device {str(device)!r} cannot be used: an exported model runs on the CPU")
    runtime: Runtime = _module(Path(model)).open_file(Path(model), precision)
    return runtime


def read_model_metadata(model: str | Path) -> ModelMetadata:
    """Return the metadata of a model file of any kind.

    Raises:
        CheckpointError: the file is not a model.
    """
    if is_exported(model):
        metadata: ModelMetadata = _module(Path(model)).open_file(Path(model), "auto").metadata
        return metadata
    from stresnet.model import load_checkpoint

    return load_checkpoint(model)


def worth_compiling(model: object, videos: int, wanted: PrecisionChoice, device: str | torch.device | None) -> bool:
    """Return whether to compile unless told otherwise: for many videos in bf16. Exported models are compiled already.

    In float32 compiling gains less and costs the same. On two cores with AVX2, a ResNet-50 of half width scores a
    `dense25` view in 0.48 s instead of 0.57 s after 48 s of compiling for its size.
    """
    if videos < COMPILED_FROM_VIDEOS or is_exported(model):
        return False
    from stresnet.inference.engine import default_device
    from stresnet.model.precision import choose_precision

    return choose_precision(wanted, default_device(device)) == "bf16"


def _module(path: Path) -> Any:
    try:
        return import_module(EXPORTED[path.suffix.lower()])
    except ImportError as error:
        raise StresnetError(
            f"{path} needs {error.name or 'a runtime'}, which is not installed: pip install 'stresnet[runtime]'"
        ) from None
