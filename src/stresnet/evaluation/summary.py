"""The measures of an evaluation's rows as plain values, for `--json` and `Evaluation.to_dict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stresnet.evaluation.metrics import Interval, mcnemar, mean_class_accuracy, top_k_accuracy
from stresnet.evaluation.report import ReportRow
from stresnet.recipes import LATE_FUSION

SIGNIFICANT = 0.05


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


def better_rows(rows: Sequence[ReportRow]) -> list[str]:
    """Return a sentence for each row that is better than the chosen one under the same protocol, with p < 0.05.

    Raises:
        ScoreError: no video has a label.
    """
    chosen = next(row for row in rows if row.chosen).table
    found = []
    for row in rows:
        if row.chosen or row.table.protocol != chosen.protocol:
            continue
        test = mcnemar(row.table, chosen)
        if test.only_a > test.only_b and test.p_value < SIGNIFICANT:
            is_fused = row.table.name.startswith(LATE_FUSION)
            use = "make one model of the two streams with `stresnet fuse`" if is_fused else "use its model"
            found.append(
                f"{row.table.name} is better than {chosen.name} on these videos: right where the other is wrong "
                f"{test.only_a} times, wrong where it is right {test.only_b} times (p = {test.p_value:.2g}); {use}"
            )
    return found


def _values(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]
