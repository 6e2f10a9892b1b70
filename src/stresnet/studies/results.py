"""The results of a study: the accuracy of each row, compared with the reference, and its training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stresnet.evaluation.metrics import Interval
from stresnet.studies.answers import Answers
from stresnet.studies.folder import StudyFolder
from stresnet.studies.plan import Block, Row, Training
from stresnet.studies.statistics import holm, mean_interval, sign_flip_test


@dataclass(frozen=True)
class Comparison:
    """A row against the reference, on the same videos with the same seeds.

    Attributes:
        difference: difference of their top-1 accuracies with its interval; positive if the row is better.
        better: number of videos that more seeds of the row than of the reference classify correctly.
        worse: the opposite.
        p_value: of the paired test, see `sign_flip_test`.
        corrected: the same, corrected for the number of rows that are tested (Holm).
    """

    difference: Interval
    better: int
    worse: int
    p_value: float
    corrected: float


@dataclass(frozen=True)
class RowResult:
    """The result of a row. Accuracies are fractions, 0..1.

    Attributes:
        name: name of the row.
        title: its name on the page.
        changes: what distinguishes it from the study's recipe.
        top1: accuracy over the videos, each with its seeds averaged.
        by_seed: accuracy with each seed.
        by_fold: accuracy on each fold.
        minutes: minutes of training of the stages that it reports, mean over folds and seeds.
        all_minutes: the same with all stages that these start from.
        comparison: against the reference; None for the reference itself, or if that failed.
    """

    name: str
    title: str
    changes: tuple[str, ...]
    top1: Interval
    by_seed: Mapping[str, float]
    by_fold: Mapping[str, float]
    minutes: float
    all_minutes: float
    comparison: Comparison | None


@dataclass(frozen=True)
class StudyResult:
    """What a study has found so far.

    Attributes:
        rows: the results of the rows; empty until all rows are scored on some fold with some seed.
        complete: number of (fold, seed) on which all rows are scored.
        blocks: number of (fold, seed) in all.
        videos: number of test videos.
        groups: number of groups of these videos; 0 if they have none.
        unscored: number of test videos left out because a model could not score them.
        failed: reason by title of each row left out because a training failed.
    """

    rows: tuple[RowResult, ...]
    complete: int
    blocks: int
    videos: int
    groups: int
    unscored: int
    failed: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return asdict(self)


def scored_rows(folder: StudyFolder) -> tuple[list[Row], list[Block]]:
    """Return the rows of which no training failed, and the blocks on which all of them are scored."""
    failed = folder.failed_rows()
    rows = [row for row in folder.plan.rows if row.name not in failed]
    blocks = [
        block
        for block in folder.plan.blocks
        if all(folder.is_scored(training, row.protocol) for row in rows for training in block.parts[row.name])
    ]
    return rows, blocks if rows else []


def summarize(folder: StudyFolder, answers: Answers | None, blocks: Sequence[Block]) -> StudyResult:
    """Return the results of a study.

    Args:
        folder: the folder of the study.
        answers: the answers of the rows on some blocks; None if there are none yet.
        blocks: these blocks.
    """
    titles = {row.name: row.title for row in folder.plan.rows}
    failed = {titles[name]: reason for name, reason in folder.failed_rows().items()}
    if answers is None:
        return StudyResult((), 0, len(folder.plan.blocks), 0, 0, 0, failed)
    comparisons = compare(answers, folder.plan.study.reference)
    rows = [
        RowResult(
            name=row.name,
            title=row.title,
            changes=row.changes,
            top1=mean_interval(answers.shares(row.name), answers.clusters),
            by_seed=_by_seed(answers, row.name),
            by_fold=_by_fold(answers, row.name),
            minutes=_minutes(folder, [block.parts[row.name] for block in blocks]),
            all_minutes=_minutes(folder, [block.needed_by(row.name) for block in blocks]),
            comparison=comparisons.get(row.name),
        )
        for row in folder.plan.rows
        if row.name in answers.predicted
    ]
    groups = len(set(answers.groups) - {""})
    return StudyResult(
        tuple(rows), len(blocks), len(folder.plan.blocks), len(answers.videos), groups, answers.unscored, failed
    )


def _by_seed(answers: Answers, row: str) -> dict[str, float]:
    right, known = answers.correct(row).sum(axis=0), answers.known.sum(axis=0)
    return {str(seed): float(r / n) for seed, r, n in zip(answers.seeds, right, known, strict=True)}


def _by_fold(answers: Answers, row: str) -> dict[str, float]:
    shares = answers.shares(row)
    return {fold: float(shares[answers.folds == fold].mean()) for fold in dict.fromkeys(answers.folds)}


def compare(answers: Answers, reference: str) -> dict[str, Comparison]:
    """Return the comparison of each row but the reference, by name."""
    if reference not in answers.predicted:
        return {}
    names = [name for name in answers.predicted if name != reference]
    surplus = [answers.surplus(name, reference) for name in names]
    p_values = [sign_flip_test(values, answers.clusters) for values in surplus]
    reference_shares = answers.shares(reference)
    return {
        name: Comparison(
            difference=mean_interval(answers.shares(name) - reference_shares, answers.clusters),
            better=int((values > 0).sum()),
            worse=int((values < 0).sum()),
            p_value=p_value,
            corrected=corrected,
        )
        for name, values, p_value, corrected in zip(names, surplus, p_values, holm(p_values), strict=True)
    }


def _minutes(folder: StudyFolder, trainings: Sequence[Sequence[Training]]) -> float:
    """Return the minutes of some trainings, mean over blocks."""
    return float(np.mean([sum(map(folder.minutes, block)) for block in trainings]))
