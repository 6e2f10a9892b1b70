"""Training: the stages of a recipe, one after another, on a prepared store."""

from stresnet.training.fit import train
from stresnet.training.run import Run

__all__ = ["Run", "train"]
