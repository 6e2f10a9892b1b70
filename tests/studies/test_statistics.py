"""Intervals, the paired test and Holm's correction, against values worked out by hand or in plain loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stresnet.evaluation.metrics import mcnemar
from stresnet.evaluation.scores import ScoreTable
from stresnet.studies.statistics import holm, mean_interval, sign_flip_test


def test_holm_by_hand() -> None:
    # Sorted: 0.01·4, 0.02·3, 0.03·2 = 0.06 (not below the one before), 0.9·1
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    # 0.5·3 is cut to 1, and so are all after it
    assert holm([0.6, 0.5, 0.7]) == [1.0, 1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_one_seed_without_groups_is_mcnemars_exact_test() -> None:
    right = np.array([[1] * 12 + [0] * 3 + [1] * 5, [0] * 12 + [1] * 3 + [1] * 5])

    def table(name: str, correct: np.ndarray) -> ScoreTable:
        logits = np.stack([correct, 1 - correct], axis=1).astype(np.float32)
        ids = tuple(map(str, range(len(correct))))
        return ScoreTable(name, "dense25", ("a", "b"), ids, np.zeros(len(correct), np.int64), logits)

    expected = mcnemar(table("x", right[0]), table("y", right[1])).p_value
    assert sign_flip_test(right[0] - right[1], np.arange(20)) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)


def test_seeds_and_groups_against_all_signs() -> None:
    differences, clusters = np.array([2, 0, -4, 2, 6, 0, 2, -2]), np.array([0, 0, 1, 1, 2, 3, 4, 5])
    sums = [2, -2, 6, 0, 2, -2]
    signed = [abs(sum(s * x for s, x in zip(signs, sums, strict=True))) for signs in product((1, -1), repeat=6)]
    expected = sum(value >= abs(sum(sums)) for value in signed) / len(signed)
    assert sign_flip_test(differences, clusters) == pytest.approx(expected, rel=1e-12)
    assert sign_flip_test(-differences, clusters) == pytest.approx(expected, rel=1e-12)


def test_a_group_that_always_agrees_counts_as_one() -> None:
    differences = np.ones(50, np.int64)
    assert sign_flip_test(differences, np.zeros(50, np.int64)) == 1.0
    assert sign_flip_test(differences, np.arange(50)) == pytest.approx(2 / 2**50)
    assert sign_flip_test(0 * differences, np.arange(50)) == 1.0


def test_the_interval_has_the_standard_error_of_a_mean() -> None:
    values = np.repeat([1.0, 0.0], [60, 40])
    interval = mean_interval(values, np.arange(100))
    assert interval.value == 0.6
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (0.6 * 0.4 / 100) ** 0.5, rel=0.05)


def test_the_interval_of_equal_videos_in_groups_is_that_of_the_groups() -> None:
    values = np.repeat([1.0, 0.0], [60, 40])
    by_tens = mean_interval(values, np.arange(100) // 10)
    assert by_tens.value == 0.6
    assert by_tens.to_dict() == mean_interval(values[::10], np.arange(10)).to_dict()
