"""The runtime of checkpoints: PyTorch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from stresnet.data.clips import Clip
from stresnet.errors import StresnetError
from stresnet.inference.engine import Engine, default_device
from stresnet.inference.runtime import ClipLogits
from stresnet.model import Checkpoint, load_checkpoint
from stresnet.model.checkpoint import first_line
from stresnet.model.metadata import ModelMetadata
from stresnet.model.precision import PrecisionChoice, choose_precision
from stresnet.model.preprocessing import Preprocessing


class TorchRuntime:
    """A `Runtime` in PyTorch.

    Attributes:
        metadata: the checkpoint.
        engine: the network.
    """

    def __init__(
        self,
        model: str | Path | ModelMetadata,
        device: str | torch.device | None = None,
        precision: PrecisionChoice = "auto",
        *,
        compiled: bool = False,
    ) -> None:
        """Make a network ready; see `Recognizer` for the arguments.

        Raises:
            CheckpointError: the file is not a checkpoint.
            StresnetError: the device is not available.
        """
        self.metadata = model if isinstance(model, Checkpoint) else load_checkpoint(cast(Path, model))
        try:
            place = default_device(device)
            self.engine = Engine(self.metadata.model, place, choose_precision(precision, place), compiled=compiled)
        except (RuntimeError, AssertionError) as error:  # an unknown name, or a torch without CUDA
            # for an unknown name torch lists all that it knows
            reason = "unknown device type" if "Expected one of" in str(error) else first_line(error)
            raise StresnetError(f"device {str(device)!r} cannot be used ({reason}): use cpu") from error

    @property
    def device(self) -> torch.device:
        """The device that the network runs on."""
        return self.engine.device

    @property
    def numerics(self) -> str:
        """The precision, and whether the network is compiled."""
        return f"{self.engine.precision} compiled" if self.engine.compiled else self.engine.precision

    def digest(self) -> str:
        """Return a digest of the weights."""
        digest = hashlib.blake2b(digest_size=16)
        for value in self.metadata.model.state_dict().values():
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def __call__(self, clips: Clip) -> ClipLogits:
        """Return the logits of a batch of clips."""
        logits = self.engine(*network_inputs(self.metadata.preprocessing, clips, self.device))
        return ClipLogits(*(None if stream is None else stream.cpu().numpy() for stream in logits))


def network_inputs(
    preprocessing: Preprocessing, clips: Clip, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return the frames and flow of a batch of clips as a network reads them."""
    batch = {name: torch.from_numpy(value).to(device) for name, value in clips.items()}
    return preprocessing.normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])
