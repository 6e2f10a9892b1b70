"""ST-ResNet: spatiotemporal residual networks for video action recognition.

Names are loaded on first use, so that ``import stresnet`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stresnet.flow import FlowSpec as FlowSpec
    from stresnet.flow import estimate_flow as estimate_flow
    from stresnet.inference.recognizer import Prediction as Prediction
    from stresnet.inference.recognizer import Recognizer as Recognizer
    from stresnet.media import read_video as read_video
    from stresnet.model import STResNet as STResNet
    from stresnet.model import STResNetConfig as STResNetConfig
    from stresnet.model import load_model as load_model

__version__ = "0.1.0"

_HOME = {
    "FlowSpec": "stresnet.flow",
    "estimate_flow": "stresnet.flow",
    "read_video": "stresnet.media",
    "STResNet": "stresnet.model",
    "STResNetConfig": "stresnet.model",
    "load_model": "stresnet.model",
    "Prediction": "stresnet.inference.recognizer",
    "Recognizer": "stresnet.inference.recognizer",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'stresnet' has no attribute {name!r}")
