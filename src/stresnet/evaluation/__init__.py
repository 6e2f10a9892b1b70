"""Evaluate a model, or every stage of a run, on the videos of a store: scores, late fusion and a report."""

from stresnet.evaluation.run import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
