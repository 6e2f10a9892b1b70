"""The numbers of a report, computed once for both ``report.json`` and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from stresnet.evaluation.metrics import (
    Interval,
    confusion_matrix,
    mcnemar,
    mean_class_accuracy,
    per_class_accuracy,
    top_k_accuracy,
)
from stresnet.evaluation.report.content import Example, LearningCurve, Report, ReportRow
from stresnet.evaluation.scores import Scores

FORMAT = "stresnet report 1"


def measure(report: Report) -> dict[str, Any]:
    """Return the content of ``report.json`` as JSON types. Accuracies and probabilities are fractions, 0..1.

    ``format``     "stresnet report 1"
    ``title``, ``intro``, ``facts``  as given
    ``chance``     top-1 accuracy of guessing
    ``classes``    K names; all lists by class keep this order
    ``videos``     number of labelled videos: ``labelled`` in all, ``per_class`` as a list
    ``chosen``     index into ``rows``
    ``rows``       one object each:
        ``name``, ``protocol``, ``numerics``, ``note``, ``n`` (labelled videos)
        ``ceiling``, ``minutes``, ``parameters`` (or null)
        ``metrics``: ``top1``, ``top5`` (null up to 5 classes), ``mean_class``: {``value``, ``interval``: [low, high]}
        ``per_class``: K accuracies, null for a class without videos
        ``confusion``: K×K counts, rows by true class
        ``mcnemar``: against the chosen row, null for that one: {``only_this``, ``only_chosen``, ``p_value``}
    ``examples``   ``id``, ``label``, ``appearance``, ``motion``, ``fused``: lists of {``class``, ``probability``}
    ``curves``     by stage: ``epoch``, ``loss``, ``accuracy``, ``val_accuracy`` (or null); null for NaN values

    Raises:
        ScoreError: the rows do not score the same videos, or none of these has a label.
    """
    chosen = report.chosen
    videos = confusion_matrix(chosen.table).sum(axis=1)
    return {
        "format": FORMAT,
        "title": report.title,
        "intro": report.intro,
        "facts": dict(report.facts),
        "chance": float(report.chance),
        "classes": list(chosen.table.classes),
        "videos": {"labelled": int(videos.sum()), "per_class": videos.tolist()},
        "chosen": next(i for i, row in enumerate(report.rows) if row is chosen),
        "rows": [_row(row, chosen) for row in report.rows],
        "examples": [_example(example) for example in report.examples],
        "curves": {stage: _curve(curve) for stage, curve in report.curves.items()},
    }


def _row(row: ReportRow, chosen: ReportRow) -> dict[str, Any]:
    table = row.table
    return {
        "name": table.name,
        "protocol": table.protocol,
        "numerics": table.numerics,
        "note": row.note,
        "n": int((table.labels >= 0).sum()),
        "ceiling": _number(row.ceiling),
        "minutes": _number(row.minutes),
        "parameters": None if row.parameters is None else int(row.parameters),
        "metrics": {
            "top1": _interval(top_k_accuracy(table, 1)),
            "top5": _interval(top_k_accuracy(table, 5)) if len(table.classes) > 5 else None,
            "mean_class": _interval(mean_class_accuracy(table)),
        },
        "per_class": _numbers(per_class_accuracy(table)),
        "confusion": confusion_matrix(table).tolist(),
        "mcnemar": None if row is chosen else _against(table, chosen.table),
    }


def _against(table: Scores, chosen: Scores) -> dict[str, Any]:
    test = mcnemar(table, chosen)
    return {"only_this": test.only_a, "only_chosen": test.only_b, "p_value": test.p_value}


def _example(example: Example) -> dict[str, Any]:
    tops = {
        "appearance": example.appearance_top3,
        "motion": example.motion_top3,
        "fused": example.fused_top3,
    }
    return {
        "id": example.video_id,
        "label": example.label,
        **{
            stream: [{"class": name, "probability": _number(share)} for name, share in top]
            for stream, top in tops.items()
        },
    }


def _curve(curve: LearningCurve) -> dict[str, Any]:
    return {
        "epoch": _numbers(curve.epoch),
        "loss": _numbers(curve.loss),
        "accuracy": _numbers(curve.accuracy),
        "val_accuracy": None if curve.val_accuracy is None else _numbers(curve.val_accuracy),
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "interval": [interval.low, interval.high]}


def _number(value: float | None) -> float | None:
    """Return a finite number, or None for NaN and infinity, which JSON lacks."""
    return float(value) if value is not None and math.isfinite(value) else None


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in np.asarray(list(values), dtype=np.float64)]
