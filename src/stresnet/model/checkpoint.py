"""Checkpoints: a network and its metadata in one `.safetensors` file, and weights passed from stage to stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ConfigDict, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError
from stresnet.model.config import STResNetConfig
from stresnet.model.initialization import inflate, without_drawing
from stresnet.model.metadata import KEY, ModelMetadata, read_text
from stresnet.model.mismatch import mismatch
from stresnet.model.network import STResNet

Weights = Mapping[str, Tensor]


class Checkpoint(ModelMetadata):
    """A network with its metadata."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    # The network knows its config. The default is never used, see `_take_config`.
    config: STResNetConfig = Field(default=cast(STResNetConfig, None), description="That of the network.")
    model: STResNet = Field(exclude=True, repr=False, description="The network, in evaluation mode.")

    @model_validator(mode="before")
    @classmethod
    def _take_config(cls, values: dict[str, Any]) -> dict[str, Any]:
        model = values.get("model")
        return values | {"config": model.config} if isinstance(model, STResNet) else values


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write one `.safetensors` file, whole or not at all.

    Raises:
        CheckpointError: if it cannot be written, such as on a full disk.
    """
    path = Path(path)
    tensors = {k: v.detach().contiguous().cpu() for k, v in checkpoint.model.state_dict().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={KEY: json.dumps(checkpoint.metadata())})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be written ({first_line(error)})") from None


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint without reading its weights.

    Raises:
        CheckpointError: if the file is missing, truncated, or not a checkpoint of this library.
    """
    if Path(path).is_dir():
        raise CheckpointError(f"{path} is a folder: give the .safetensors file in it")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist: give the .safetensors file that training wrote, or the folder of a run"
        ) from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a model, or is truncated ({first_line(error)}): give the .safetensors file that training "
            "wrote, or convert it with `stresnet convert`"
        ) from None
    return read_text(text, path)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Return the checkpoint in a file, its network in evaluation mode on the CPU.

    Raises:
        CheckpointError: if the file is not a checkpoint, or a weight is missing, unexpected or of another shape.
    """
    metadata = read_metadata(path)
    config = metadata.pop("config", None)
    del metadata["format"]
    try:
        with torch.device("meta"), without_drawing():  # takes no memory, however large a network is described
            model = STResNet(STResNetConfig.from_dict(config)).eval()
        checkpoint = Checkpoint.from_dict(metadata | {"model": model})
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the metadata of {path} cannot be read ({first_line(error)}): update stresnet, or copy the file again"
        ) from None
    weights = load_file(path)
    problems = compare(model.state_dict(), weights)
    if problems:
        found = mismatch(model.state_dict(), weights) or summary(problems)
        raise CheckpointError(f"the weights in {path} do not fit its metadata ({found}): copy the file again")
    for key, value in weights.items():
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {key} has NaN or infinite values: train the model again, or copy the file")
    model.to_empty(device="cpu").load_state_dict(weights)
    return checkpoint


def load_model(path: str | Path) -> STResNet:
    """Return the network in a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    return load_checkpoint(path).model


def transfer_weights(model: STResNet, sources: Sequence[Weights], *, new_classifier: bool = False) -> None:
    """Fill a network with the weights of earlier stages; it may have gained temporal taps, links or a pool since.

    An inflated filter starts from the image filter, see `inflate`; an injected temporal convolution and a learned link
    scale that no source has keep their initial values. Every other weight must be present in the same
    shape, and nothing more in the streams of the network. If two sources hold a stream, the later one counts.

    Args:
        model: the network to fill.
        sources: state dicts.
        new_classifier: whether classifiers keep their random start, because the classes differ.

    Raises:
        CheckpointError: if the weights belong to another network; the message says how it differs, or names the
            weights that are missing, unexpected or of another shape.
    """
    found = {key: value for source in sources for key, value in source.items()}
    state = model.state_dict()
    taken: dict[str, Tensor] = {}
    for key, initial in state.items():
        value = found.get(key)
        if value is not None and initial.ndim == 4 and initial.shape[2:] == (3, 1) and value.shape[2:] == (1, 1):
            value = inflate(value, model.config.inflate_init)
        if value is None and (key.startswith("links.") or ".temporal." in key):
            value = initial
        if ".fc." in key and new_classifier:
            value = initial
        if value is not None:
            taken[key] = value
    streams = tuple(f"{stream}." for stream in model.config.streams)
    extra = {k: v for k, v in found.items() if k.startswith(streams) and k not in state}
    problems = compare(state, taken | extra)
    if problems:
        raise CheckpointError(
            f"the weights belong to another network: {mismatch(state, taken | extra) or summary(problems)}"
        )
    model.load_state_dict(taken)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def compare(expected: Weights, found: Weights) -> list[str]:
    """Return a line for each weight in `found` that is missing, unexpected or of another shape than in `expected`."""
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is not expected" for key in found if key not in expected]
    problems += [
        f"{key} is {tuple(found[key].shape)}, not {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    return problems


def summary(problems: Sequence[str], most: int = 3) -> str:
    """Return the first problems in one line, and how many more there are."""
    more = f" and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
