"""The network: its description, its architecture, its inputs and its weights."""

from stresnet.model import forks as forks
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
