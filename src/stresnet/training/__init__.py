"""Training: the stages of a recipe, one after another, on a prepared store."""

from stresnet.training.run import Run, train

__all__ = ["Run", "train"]
