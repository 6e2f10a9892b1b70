"""Video scores: the table every evaluation leaves behind, and the measures taken from it."""

from stresnet.scores.measures import (
    Interval,
    McNemar,
    confusion_matrix,
    mcnemar,
    mean_class_accuracy,
    per_class_accuracy,
    predictions,
    top_k_accuracy,
)
from stresnet.scores.table import ScoreTable, concatenate, fuse

__all__ = [
    "Interval",
    "McNemar",
    "ScoreTable",
    "concatenate",
    "confusion_matrix",
    "fuse",
    "mcnemar",
    "mean_class_accuracy",
    "per_class_accuracy",
    "predictions",
    "top_k_accuracy",
]
