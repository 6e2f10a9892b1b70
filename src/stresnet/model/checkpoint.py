"""Checkpoints: a network and its metadata in one `.safetensors` file, and weights passed from stage to stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError
from stresnet.model.config import Description, STResNetConfig
from stresnet.model.initialization import inflate, without_drawing
from stresnet.model.mismatch import mismatch
from stresnet.model.network import STResNet
from stresnet.model.preprocessing import Preprocessing

FORMAT = 2
Weights = Mapping[str, Tensor]


class Checkpoint(Description):
    """A network with the metadata needed to use it, to reproduce its training and to judge its accuracy."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: STResNet = Field(exclude=True, repr=False, description="The network, in evaluation mode.")
    classes: tuple[str, ...] = Field(description="K action names, in the order of the logits.")
    preprocessing: Preprocessing = Field(description="How bytes become network input.")
    store_spec: dict[str, Any] = Field(
        description="How the training videos were prepared, flow included (`StoreSpec.to_dict`); empty for an "
        "initial model made from image weights."
    )
    stage: str = Field(default="", description="The stage of the recipe that trained it.")
    recipe: dict[str, Any] = Field(default={}, description="The recipe, as plain values.")
    training: dict[str, Any] = Field(default={}, description="Store, videos, iterations and minutes.")
    trained_on: tuple[str, ...] = Field(
        default=(),
        description="The content of each training video, see `stresnet.data.copies.identities`; none is a test video.",
    )
    test_groups: tuple[str, ...] = Field(default=(), description="Groups held out of training, if any.")
    scores: tuple[dict[str, Any], ...] = Field(default=(), description="Scores, one entry per evaluation.")
    version: str = Field(
        default_factory=lambda: version("stresnet"), description="Version of the library that wrote the file."
    )

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if len(self.classes) != self.model.config.num_classes:
            raise ValueError(
                f"expected {self.model.config.num_classes} class names, one per logit, not {len(self.classes)}"
            )
        return self

    def metadata(self) -> dict[str, Any]:
        """Return everything but the weights, as plain JSON values."""
        return {"format": FORMAT, "config": self.model.config.to_dict()} | self.to_dict()


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
            save_file(tensors, temporary, metadata={"stresnet": json.dumps(checkpoint.metadata())})
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
            text = (file.metadata() or {}).get("stresnet")
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist: give the .safetensors file that training wrote, or the folder of a run"
        ) from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a model, or is truncated ({first_line(error)}): give the .safetensors file that training "
            "wrote, or convert it with `stresnet convert`"
        ) from None
    if text is None:
        raise CheckpointError(
            f"{path} holds weights without the metadata of an ST-ResNet: give a file that `stresnet train` wrote"
        )
    try:
        metadata: dict[str, Any] = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the metadata of {path} is damaged ({error}): copy the file again") from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {metadata.get('format')}, this version of stresnet reads {FORMAT}: update stresnet, or "
            "train or convert the model again"
        )
    return metadata


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
