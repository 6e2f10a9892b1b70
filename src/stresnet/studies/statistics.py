"""Statistics of a study: intervals and paired tests over videos whose seeds are averaged, by group.

Videos of one group show the same people or scene, so they are resampled and tested together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stresnet.evaluation.metrics import CONFIDENCE, RESAMPLES, SEED, Interval

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_RESAMPLES_AT_ONCE = 100


def mean_interval(values: Floats, clusters: Ints) -> Interval:
    """Return the mean over videos with its 95 % confidence interval, by bootstrap over clusters with a fixed seed.

    Args:
        values: (N,) one value per video, such as the share of seeds that classify it correctly.
        clusters: (N,) index of each video's cluster, 0-based, without gaps.
    """
    sizes = np.bincount(clusters)
    sums = np.bincount(clusters, weights=values)
    generator = np.random.default_rng(SEED)
    shares = np.full(len(sizes), 1 / len(sizes))
    means = []
    for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE):
        drawn = generator.multinomial(len(sizes), shares, size=_RESAMPLES_AT_ONCE)
        means.append((drawn @ sums) / (drawn @ sizes))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def sign_flip_test(differences: Ints, clusters: Ints) -> float:
    """Return the two-sided p-value of a paired test: both are equally good if p is large.

    If two models are equally good, the differences of a cluster have either sign with probability ½. The p-value is
    the probability that the sum with random signs is at least as far from zero as the observed one. It is exact. With
    a difference of −1, 0 or 1 per video and every video its own cluster, this is McNemar's exact test.

    Args:
        differences: (N,) int64, how many more seeds of one model than of the other classify each video correctly.
        clusters: (N,) index of each video's cluster.
    """
    sums = np.zeros(int(clusters.max()) + 1, np.int64)
    np.add.at(sums, clusters, differences)
    observed = abs(int(sums.sum()))
    steps = np.abs(sums[sums != 0])
    if not len(steps):
        return 1.0
    steps = steps // (unit := int(np.gcd.reduce(steps)))
    reach = int(steps.sum())
    probability = np.zeros(2 * reach + 1)  # of each sum from -reach to reach
    probability[reach] = 1.0
    for step in steps.tolist():
        half = probability / 2
        probability = np.zeros_like(half)
        probability[step:] += half[:-step]
        probability[:-step] += half[step:]
    far = np.abs(np.arange(-reach, reach + 1)) * unit >= observed
    return min(1.0, float(probability[far].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's step-down method, in the same order.

    The i-th smallest of m is multiplied by m − i + 1; none is below that of a smaller p-value, or above 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
