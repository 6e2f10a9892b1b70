"""What the runtimes of exported models have in common: metadata in the file, the names of inputs and outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stresnet.data.clips import Clip
from stresnet.errors import CheckpointError
from stresnet.inference.runtime import ClipLogits
from stresnet.model.config import STREAMS, Stream
from stresnet.model.metadata import ModelMetadata, read_text

INPUTS: dict[Stream, tuple[str, ...]] = {"appearance": ("rgb",), "motion": ("flow", "flow_scale")}
"""The inputs of each stream, with the names, shapes and types of `Clip`. The logits of a stream have its name."""


class ExportedMetadata(ModelMetadata):
    """The metadata of an exported model."""

    precision: Literal["fp32", "int8"] = Field(default="fp32", description="What most weights of the file are.")


def parse(text: str | None, path: Path) -> ExportedMetadata:
    """Return the metadata in the text of an exported file.

    Raises:
        CheckpointError: it is missing, damaged or of another version.
    """
    values = read_text(text, path)
    del values["format"]
    try:
        return ExportedMetadata.from_dict(values)
    except ValueError as error:
        raise CheckpointError(
            f"the metadata of {path} cannot be read ({error}): update stresnet, or export the model again"
        ) from None


def inputs_of(metadata: ModelMetadata) -> list[str]:
    """Return the names of a network's inputs."""
    return [name for stream in metadata.config.streams for name in INPUTS[stream]]


def as_inputs(metadata: ModelMetadata, clips: Clip) -> dict[str, NDArray[Any]]:
    """Return the inputs of a network by name."""
    values: dict[str, Any] = dict(clips)
    return {name: values[name] for name in inputs_of(metadata)}


def as_logits(metadata: ModelMetadata, outputs: Sequence[Any]) -> ClipLogits:
    """Return the outputs of a network as logits."""
    by_stream = dict(zip(metadata.config.streams, outputs, strict=True))
    return ClipLogits(*(None if s not in by_stream else np.asarray(by_stream[s], np.float32) for s in STREAMS))


def digest_of(*files: Path) -> str:
    """Return a digest of files."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def require_file(path: Path) -> None:
    """Raise unless a file exists.

    Raises:
        CheckpointError: it does not.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give the file that `stresnet export` wrote")


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error that a file is no model."""
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(f"{path} is not a model, or is damaged ({reason}): export it again")
