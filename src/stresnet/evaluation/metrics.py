"""Measures of a table of scores: accuracies with intervals, confusion, and the paired test of two tables.

All accuracies are fractions, 0..1. Where logits tie, the class that comes first counts as the higher one.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    The bounds are the 2.5th and 97.5th percentile of 2,000 bootstrap resamples of the videos, with a fixed
    seed: they tell what other test videos might have given, not what training again might.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """How many videos only a or only b gets right, and how likely a split as uneven is by chance."""

    only_a: int
    only_b: int
    p_value: float


def predictions(table: ScoreTable) -> Ints:
    """(N,) int64 index of the class with the highest logit, for labelled and unlabelled videos alike."""
    return np.asarray(table.logits.argmax(axis=1), dtype=np.int64)


def top_k_accuracy(table: ScoreTable, k: int) -> Interval:
    """Share of labelled videos whose true class is among the ``min(k, K)`` highest logits.

    Raises:
        ScoreError: no video has a label, or ``k`` is below 1.
    """
    if k < 1:
        raise ScoreError(f"top-k accuracy needs k of at least 1, found {k}")
    labels, logits = _labelled(table)
    true_logit = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > true_logit) | ((logits == true_logit) & before)).sum(axis=1)
    hits = rank < k
    resampled = _resampled_cells(labels, hits, len(table.classes))
    return _interval(float(hits.mean()), resampled[:, :, 1].sum(axis=1) / len(labels))


def mean_class_accuracy(table: ScoreTable) -> Interval:
    """Mean over classes of the share of their videos that are recognised.

    Classes without labelled videos do not count; in a resample, those that are absent from it do not.

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
    """(K,) float64 share of each class's videos that are recognised; NaN for a class without labelled videos.

    Raises:
        ScoreError: no video has a label.
    """
    confusion = confusion_matrix(table)
    videos = confusion.sum(axis=1)
    return np.where(videos > 0, confusion.diagonal() / np.maximum(videos, 1), np.nan)


def confusion_matrix(table: ScoreTable) -> Ints:
    """(K, K) int64 counts of labelled videos, rows by true class, columns by recognised class.

    Raises:
        ScoreError: no video has a label.
    """
    labels, logits = _labelled(table)
    k = len(table.classes)
    cells = labels * k + logits.argmax(axis=1)
    return np.bincount(cells, minlength=k * k).reshape(k, k).astype(np.int64)


def mcnemar(a: ScoreTable, b: ScoreTable) -> McNemar:
    """The exact two-sided McNemar test of whether ``a`` and ``b`` are right equally often on the same videos.

    Under that hypothesis a video that just one of them gets right falls to either with probability ½, so
    p = min(1, 2·P(X ≤ min(only_a, only_b))) with X binomial; 1 where they are right on the same videos.

    Raises:
        ScoreError: the tables differ in their classes, their videos or a label, or no video has a label.
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
    """The labels and logits of the videos whose class is known."""
    known = table.labels != UNKNOWN
    if not known.any():
        raise ScoreError(f"scores {table.name!r}: no video has a label, so nothing can be measured")
    return table.labels[known], table.logits[known]


def _resampled_cells(labels: Ints, hits: npt.NDArray[np.bool_], classes: int) -> Ints:
    """(2000, K, 2) int64: per bootstrap resample, videos per true class that were missed and hit.

    Drawing N videos with replacement only decides how many fall into each of the 2K cells (class, hit),
    and those numbers are multinomial: the same distribution, without a matrix of 2000·N draws.
    """
    observed = np.bincount(labels * 2 + hits, minlength=2 * classes)
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(len(labels), observed / len(labels), size=RESAMPLES)
    return drawn.reshape(RESAMPLES, classes, 2).astype(np.int64)


def _interval(value: float, resampled: npt.NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
