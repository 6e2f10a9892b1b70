"""Evaluation: every stage of a run, or one model, on the videos of a store; scores, late fusion and a report."""

from stresnet.evaluate.run import Evaluation, evaluate
from stresnet.evaluate.scoring import OnProgress

__all__ = ["Evaluation", "OnProgress", "evaluate"]
