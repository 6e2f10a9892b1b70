"""The network: its description, its architecture, its inputs and its weights."""

from stresnet.model.config import STREAMS, Stream, STResNetConfig
from stresnet.model.inputs import Preprocessing
from stresnet.model.stresnet import StreamLogits, STResNet
from stresnet.model.weights import Checkpoint, load_checkpoint, load_model, save_checkpoint

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
