"""The sentences about rows that are better than the chosen one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stresnet.evaluation.report import ReportRow
from stresnet.evaluation.scores import ScoreTable
from stresnet.evaluation.summary import better_rows


def table(name: str, right: int, protocol: str = "dense") -> ScoreTable:
    """Return the scores of 40 videos, the first of which are classified correctly."""
    labels = np.arange(40) % 2
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(40) < right, labels, 1 - labels)]
    return ScoreTable(name, protocol, ("run", "wave"), tuple(f"v{k}" for k in range(40)), labels, logits)


@pytest.mark.parametrize(("right", "count"), [(25, 0), (26, 1), (40, 1), (10, 0)])
def test_a_significantly_better_row_is_named(right: int, count: int) -> None:
    """With 20 right, five more alone have p = 0.0625, six more 0.031."""
    chosen = ReportRow(table("ST-ResNet", 20), parameters=9, chosen=True)
    rows = [ReportRow(table("motion", right), parameters=5), chosen]
    found = better_rows(rows)
    assert len(found) == count
    for text in found:
        assert text.startswith(
            f"motion is better than ST-ResNet on these videos: right where the other is wrong {right - 20} times, "
            "wrong where it is right 0 times (p = "
        )
        assert text.endswith("); use its model")


def test_late_fusion_and_other_protocols() -> None:
    chosen = ReportRow(table("ST-ResNet", 20), parameters=9, chosen=True)
    fused = ReportRow(table("late fusion", 30))
    (text,) = better_rows([fused, chosen])
    assert text.endswith("make one model of the two streams with `stresnet fuse`")
    assert better_rows([replace(fused, table=table("late fusion", 30, "center")), chosen]) == []
