"""Measures of score tables: accuracies with confidence intervals, the confusion matrix, and a paired test.

All accuracies are fractions, 0..1. Ties between logits go to the class with the lower index.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from stresnet.errors import ScoreError
from stresnet.evaluation.scores import UNKNOWN, Floats, Ints, ScoreTable, rows_of

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


def predictions(table: ScoreTable) -> Ints:
    """Return the index of the class with the highest logit for every video, labelled or not, (N,) int64."""
    return np.asarray(table.logits.argmax(axis=1), dtype=np.int64)


def top_k_accuracy(table: ScoreTable, k: int) -> Interval:
    """Return the share of labelled videos whose true class is among the ``min(k, K)`` highest logits, ``k`` >= 1.

    Raises:
        ScoreError: no video has a label.
    """
    assert k >= 1
    labels, logits = _labelled(table)
    true_logit = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > true_logit) | ((logits == true_logit) & before)).sum(axis=1)
    hits = rank < k
    resampled = _resampled_cells(labels, hits, len(table.classes))
    return _interval(float(hits.mean()), resampled[:, :, 1].sum(axis=1) / len(labels))


def mean_class_accuracy(table: ScoreTable) -> Interval:
    """Return the mean of the per-class accuracies.

    Classes without labelled videos are ignored, as are classes absent from a bootstrap resample.

    Raises:
        ScoreError: no video has a label.
    """
    labels, logits = _labelled(table)
    hits = logits.argmax(axis=1) == labels
    cells = _resampled_cells(labels, hits, len(table.classes))
    videos = cells.sum(axis=2)
    shares = cells[:, :, 1] / np.maximum(videos, 1)
    value = float(np.nanmean(per_class_accuracy(table)))
    return _interval(value, shares.sum(axis=1) / (videos > 0).sum(axis=1))


def per_class_accuracy(table: ScoreTable) -> npt.NDArray[np.float64]:
    """Return the share of each class's videos classified correctly, (K,) float64; NaN without labelled videos.

    Raises:
        ScoreError: no video has a label.
    """
    confusion = confusion_matrix(table)
    videos = confusion.sum(axis=1)
    return np.where(videos > 0, confusion.diagonal() / np.maximum(videos, 1), np.nan)


def confusion_matrix(table: ScoreTable) -> Ints:
    """Return the counts of labelled videos by true class (rows) and predicted class (columns), (K, K) int64.

    Raises:
        ScoreError: no video has a label.
    """
    labels, logits = _labelled(table)
    k = len(table.classes)
    cells = labels * k + logits.argmax(axis=1)
    return np.bincount(cells, minlength=k * k).reshape(k, k).astype(np.int64)


def mcnemar(a: ScoreTable, b: ScoreTable) -> McNemar:
    """Return the exact two-sided McNemar test of whether ``a`` and ``b`` are equally accurate on the same videos.

    Under that hypothesis, a video that only one of them classifies correctly belongs to either with probability ½, so
    p = min(1, 2·P(X ≤ min(only_a, only_b))) with X ~ Binomial(only_a + only_b, ½).

    Raises:
        ScoreError: the tables differ in classes, videos or labels, or no video has a label.
    """
    _labelled(a)
    rows = rows_of(a, b)
    known = a.labels != UNKNOWN
    a_right = (predictions(a) == a.labels)[known]
    b_right = (predictions(b)[rows] == a.labels)[known]
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    p_value = min(1.0, 2.0 * float(bdtr(float(min(only_a, only_b)), only_a + only_b, 0.5)))
    return McNemar(only_a, only_b, p_value)


def _labelled(table: ScoreTable) -> tuple[Ints, Floats]:
    """Return the labels and logits of the labelled videos."""
    known = table.labels != UNKNOWN
    if not known.any():
        raise ScoreError(f"scores {table.name!r}: no video has a label; measures need labelled videos")
    return table.labels[known], table.logits[known]


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
