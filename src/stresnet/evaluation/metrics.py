"""Measures of scores: accuracies with confidence intervals, the confusion matrix, and a paired test.

All accuracies are fractions, 0..1. Ties between logits go to the class with the lower index.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from stresnet.errors import ScoreError
from stresnet.evaluation.scores import UNKNOWN, Ints, Outcomes, Scores, rows_of

RESAMPLES = 2_000
SEED = 0
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A measure with its 95 % confidence interval, all fractions, 0..1.

    The bounds are the 2.5th and 97.5th percentiles of 2,000 bootstrap resamples of the videos, with a fixed seed.
    They reflect the choice of test videos, not the randomness of training.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the values as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test of tables a and b.

    Attributes:
        only_a: number of videos that only a classifies correctly.
        only_b: number of videos that only b classifies correctly.
        p_value: probability of a split at least as uneven if both are equally accurate.
    """

    only_a: int
    only_b: int
    p_value: float

    def to_dict(self) -> dict[str, float]:
        """Return the values as JSON types."""
        return asdict(self)


def predictions(scores: Scores) -> Ints:
    """Return the index of the class with the highest logit for every video, labelled or not, (N,) int64."""
    return scores.outcomes.predicted


def top_k_accuracy(scores: Scores, k: int) -> Interval:
    """Return the share of labelled videos whose true class is among the ``min(k, K)`` highest logits, ``k`` >= 1.

    Raises:
        ScoreError: no video has a label.
    """
    assert k >= 1
    labelled = _labelled(scores)
    hits = labelled.ranks < k
    resampled = _resampled_cells(labelled.labels, hits, len(scores.classes))
    return _interval(float(hits.mean()), resampled[:, :, 1].sum(axis=1) / len(hits))


def mean_class_accuracy(scores: Scores) -> Interval:
    """Return the mean of the per-class accuracies.

    Classes without labelled videos are ignored, as are classes absent from a bootstrap resample.

    Raises:
        ScoreError: no video has a label.
    """
    labelled = _labelled(scores)
    cells = _resampled_cells(labelled.labels, labelled.predicted == labelled.labels, len(scores.classes))
    videos = cells.sum(axis=2)
    shares = cells[:, :, 1] / np.maximum(videos, 1)
    value = float(np.nanmean(per_class_accuracy(scores)))
    return _interval(value, shares.sum(axis=1) / (videos > 0).sum(axis=1))


def per_class_accuracy(scores: Scores) -> npt.NDArray[np.float64]:
    """Return the share of each class's videos classified correctly, (K,) float64; NaN without labelled videos.

    Raises:
        ScoreError: no video has a label.
    """
    confusion = confusion_matrix(scores)
    videos = confusion.sum(axis=1)
    return np.where(videos > 0, confusion.diagonal() / np.maximum(videos, 1), np.nan)


def confusion_matrix(scores: Scores) -> Ints:
    """Return the counts of labelled videos by true class (rows) and predicted class (columns), (K, K) int64.

    Raises:
        ScoreError: no video has a label.
    """
    labelled = _labelled(scores)
    k = len(scores.classes)
    cells = labelled.labels * k + labelled.predicted
    return np.bincount(cells, minlength=k * k).reshape(k, k).astype(np.int64)


def mcnemar(a: Scores, b: Scores) -> McNemar:
    """Return the exact two-sided McNemar test of whether ``a`` and ``b`` are equally accurate on the same videos.

    Under that hypothesis, a video that only one of them classifies correctly belongs to either with probability ½, so
    p = min(1, 2·P(X ≤ min(only_a, only_b))) with X ~ Binomial(only_a + only_b, ½).

    Raises:
        ScoreError: the tables differ in classes, videos or labels, or no video has a label.
    """
    _labelled(a)
    rows = rows_of(a, b)
    labels = a.outcomes.labels
    known = labels != UNKNOWN
    a_right = (predictions(a) == labels)[known]
    b_right = (predictions(b)[rows] == labels)[known]
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    p_value = min(1.0, 2.0 * float(bdtr(float(min(only_a, only_b)), only_a + only_b, 0.5)))
    return McNemar(only_a, only_b, p_value)


def _labelled(scores: Scores) -> Outcomes:
    """Return the outcomes of the labelled videos."""
    outcomes = scores.outcomes
    known = outcomes.labels != UNKNOWN
    if not known.any():
        raise ScoreError(f"scores {scores.name!r}: no video has a label; measures need labelled videos")
    return Outcomes(outcomes.labels[known], outcomes.predicted[known], outcomes.ranks[known])


def _resampled_cells(labels: Ints, hits: npt.NDArray[np.bool_], classes: int) -> Ints:
    """Return the number of misses and hits per true class in every bootstrap resample, (2000, K, 2) int64.

    Drawing N videos with replacement determines only how many fall into each of the 2K cells (class, hit). These
    counts are multinomial, so they are drawn directly instead of 2000·N videos.
    """
    observed = np.bincount(labels * 2 + hits, minlength=2 * classes)
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(len(labels), observed / len(labels), size=RESAMPLES)
    return drawn.reshape(RESAMPLES, classes, 2).astype(np.int64)


def _interval(value: float, resampled: npt.NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
