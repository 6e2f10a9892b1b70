"""The measures of an evaluation's rows as plain values, for `--json` and `Evaluation.to_dict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stresnet.evaluation.metrics import Interval, mcnemar, mean_class_accuracy, top_k_accuracy
from stresnet.evaluation.report import ReportRow


def summarize(rows: Sequence[ReportRow]) -> list[dict[str, Any]]:
    """Return one object per row as JSON types; one of the rows must be chosen.

    ``name``, ``protocol``
    ``numerics``               what the network computed in, such as ``fp32``
    ``videos``                 number of videos
    ``top1``, ``mean_class``   [value, low, high], accuracy with its 95 % confidence interval, 0..1
    ``p_value``                McNemar's test against the chosen row; null for that one
    ``ceiling``                best top-1 accuracy that the inputs allow, 0..1, or null
    ``minutes``                training time, or null

    Raises:
        ScoreError: no video has a label.
    """
    chosen = next(row for row in rows if row.chosen)
    return [
        {
            "name": row.table.name,
            "protocol": row.table.protocol,
            "numerics": row.table.numerics,
            "videos": len(row.table.labels),
            "top1": _values(top_k_accuracy(row.table, 1)),
            "mean_class": _values(mean_class_accuracy(row.table)),
            "p_value": None if row is chosen else mcnemar(row.table, chosen.table).p_value,
            "ceiling": row.ceiling,
            "minutes": row.minutes,
        }
        for row in rows
    ]


def _values(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]
