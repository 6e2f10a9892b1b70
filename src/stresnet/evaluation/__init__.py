"""Evaluation: every stage of a run, or one model, on the videos of a store; scores, late fusion and a report."""

from stresnet.evaluation.run import Evaluation, evaluate
from stresnet.evaluation.scoring import OnProgress

__all__ = ["Evaluation", "OnProgress", "evaluate"]
