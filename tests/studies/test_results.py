"""The results of made-up answers, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stresnet.studies.answers import Answers
from stresnet.studies.results import compare

# Four videos of class "a", two seeds; the second seed of fold 1 is not trained yet.
KNOWN = np.array([[1, 1], [1, 1], [1, 0], [1, 0]], bool)
REFERENCE = np.array([["a", "b"], ["b", "b"], ["b", ""], ["a", ""]], object)
ROW = np.array([["a", "a"], ["a", "b"], ["a", ""], ["b", ""]], object)


def answers(**rows: np.ndarray) -> Answers:
    return Answers(
        videos=np.array(list("vwxy"), object),
        folds=np.array(["fold0", "fold0", "fold1", "fold1"], object),
        groups=np.array(["g", "", "h", "h"], object),
        labels=np.array(["a"] * 4, object),
        seeds=(0, 1),
        known=KNOWN,
        predicted=rows,
        unscored=0,
    )


def test_seeds_are_averaged_per_video() -> None:
    made = answers(row=ROW, reference=REFERENCE)
    assert made.shares("row").tolist() == [1, 0.5, 1, 0]
    assert made.shares("reference").tolist() == [0.5, 0, 0, 1]
    # In halves, so that a video with one seed counts as much as one with two.
    assert made.surplus("row", "reference").tolist() == [1, 1, 2, -2]
    assert made.clusters.tolist() == [0, 1, 2, 2]


def test_the_comparison_with_the_reference() -> None:
    (comparison,) = compare(answers(row=ROW, reference=REFERENCE), "reference").values()
    assert comparison.difference.value == pytest.approx((0.5 + 0.5 + 1 - 1) / 4)
    assert (comparison.better, comparison.worse) == (3, 1)
    # The groups' sums are 1, 1 and 0: half of the signs reach a sum of 2.
    assert comparison.p_value == comparison.corrected == 0.5


def test_all_rows_but_the_reference_are_corrected_for() -> None:
    compared = compare(answers(row=ROW, reference=REFERENCE, other=ROW), "reference")
    assert {name: c.corrected for name, c in compared.items()} == {"row": 1.0, "other": 1.0}
    assert compare(answers(row=ROW), "reference") == {}


def test_the_table_leaves_out_what_is_not_known() -> None:
    table = answers(row=ROW).to_arrow({"row": "late fusion"}).to_pylist()
    assert [(r["video"], r["seed"], r["correct"]) for r in table] == [
        ("v", 0, True),
        ("v", 1, True),
        ("w", 0, True),
        ("w", 1, False),
        ("x", 0, True),
        ("y", 0, False),
    ]
