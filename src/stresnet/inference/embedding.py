"""Features of videos: what the classifier of each stream reads, averaged over a video."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from torch import nn

from stresnet.inference.prediction import Scores
from stresnet.model import Checkpoint


@dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """The features of a video, averaged over space, steps and views.

    Attributes:
        appearance: (D,) float32, D = 2048 for a ResNet-50 of full width; None if the stream is switched off.
        motion: (D,) float32; None if the stream is switched off.
    """

    appearance: Scores | None
    motion: Scores | None

    @property
    def fused(self) -> Scores:
        """The features of both streams one after the other, appearance first."""
        return np.concatenate([stream for stream in (self.appearance, self.motion) if stream is not None])

    def __repr__(self) -> str:
        streams = {"appearance": self.appearance, "motion": self.motion}
        return f"Embedding({', '.join(f'{n}: {len(s)}' for n, s in streams.items() if s is not None)})"


def headless(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose network returns the features that the classifiers read, in place of logits.

    Its weights are those of the network itself, not copies.
    """
    model = copy.deepcopy(checkpoint.model, {id(parameter): parameter for parameter in checkpoint.model.parameters()})
    for stream in (model.appearance, model.motion):
        if stream is not None:
            stream.fc = nn.Identity()  # type: ignore[assignment]
    return checkpoint.replace(model=model)
