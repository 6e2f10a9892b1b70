"""The network: its description, its architecture, its inputs and its weights.

Names are loaded on first use: what only reads descriptions does not load PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresnet.lazy import lazy

if TYPE_CHECKING:
    from stresnet.model.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
    from stresnet.model.config import STREAMS, Stream, STResNetConfig
    from stresnet.model.network import StreamLogits, STResNet
    from stresnet.model.preprocessing import Preprocessing

__all__ = [
    "STREAMS",
    "Checkpoint",
    "Preprocessing",
    "STResNet",
    "STResNetConfig",
    "Stream",
    "StreamLogits",
    "load_checkpoint",
    "load_model",
    "save_checkpoint",
]

_HOME = {
    "STREAMS": "config",
    "Checkpoint": "checkpoint",
    "Preprocessing": "preprocessing",
    "STResNet": "network",
    "STResNetConfig": "config",
    "Stream": "config",
    "StreamLogits": "network",
    "load_checkpoint": "checkpoint",
    "load_model": "checkpoint",
    "save_checkpoint": "checkpoint",
}
"""The modules of the names."""

__getattr__ = lazy(__name__, _HOME)
