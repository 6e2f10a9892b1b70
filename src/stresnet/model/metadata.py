"""Model metadata: everything in a model file but the weights, the same in checkpoints and exported models."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from stresnet.errors import CheckpointError
from stresnet.model.config import Description, STResNetConfig
from stresnet.model.preprocessing import Preprocessing

FORMAT = 2
KEY = "stresnet"
"""The name under which every kind of model file holds the metadata, as one JSON text."""


class ModelMetadata(Description):
    """What is needed to use a network, to reproduce its training and to judge its accuracy."""

    config: STResNetConfig = Field(description="The architecture and the number of classes.")
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
        if len(self.classes) != self.config.num_classes:
            raise ValueError(f"expected {self.config.num_classes} class names, one per logit, not {len(self.classes)}")
        return self

    def metadata(self) -> dict[str, Any]:
        """Return the metadata and the number of its format, as plain JSON values."""
        return {"format": FORMAT} | self.to_dict()


def read_text(text: str | None, path: str | Path) -> dict[str, Any]:
    """Return the metadata in the text that a model file holds under `KEY`, as plain JSON values.

    Raises:
        CheckpointError: there is no such text, or it is damaged or of another format.
    """
    if text is None:
        raise CheckpointError(
            f"{path} holds weights without the metadata of an ST-ResNet: give a file that `stresnet train` or "
            "`stresnet export` wrote"
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
