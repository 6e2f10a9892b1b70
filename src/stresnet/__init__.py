"""ST-ResNet: spatiotemporal residual networks for video action recognition.

Everything but the error classes is loaded on first use, so that ``import stresnet`` is fast and does not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresnet.errors import (
    CheckpointError,
    DownloadError,
    FlowFileError,
    FlowSpecError,
    RecipeError,
    ScoreError,
    StoreError,
    StresnetError,
    UnreachableError,
    VideoError,
)
from stresnet.lazy import lazy

if TYPE_CHECKING:
    from stresnet.data.prepare import prepare
    from stresnet.evaluation import evaluate
    from stresnet.flow import FlowSpec, estimate_flow
    from stresnet.inference.prediction import Prediction
    from stresnet.inference.recognizer import Recognizer
    from stresnet.media import read_video
    from stresnet.model import STResNet, STResNetConfig
    from stresnet.recipes import load_recipe
    from stresnet.training import train

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "DownloadError",
    "FlowFileError",
    "FlowSpec",
    "FlowSpecError",
    "Prediction",
    "RecipeError",
    "Recognizer",
    "STResNet",
    "STResNetConfig",
    "ScoreError",
    "StoreError",
    "StresnetError",
    "UnreachableError",
    "VideoError",
    "__version__",
    "estimate_flow",
    "evaluate",
    "load_recipe",
    "prepare",
    "read_video",
    "train",
]

_MODULES = {
    "FlowSpec": "flow",
    "Prediction": "inference.prediction",
    "Recognizer": "inference.recognizer",
    "STResNet": "model",
    "STResNetConfig": "model",
    "estimate_flow": "flow",
    "evaluate": "evaluation",
    "load_recipe": "recipes",
    "prepare": "data.prepare",
    "read_video": "media",
    "train": "training",
}
"""The modules of the names that are loaded on first use."""

__getattr__ = lazy(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__") and name.endswith("__"))})
