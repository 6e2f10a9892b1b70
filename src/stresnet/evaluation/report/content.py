"""The content of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stresnet.evaluation.scores import Scores

TopClasses = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class ReportRow:
    """A row of the report's table: an evaluated model, or a fusion.

    Attributes:
        table: its scores; all rows of a report score the same videos.
        note: a short description.
        ceiling: the best top-1 accuracy its inputs allow, 0..1, if known.
        minutes: training time in minutes.
        parameters: number of trained parameters.
        chosen: whether the report is about this row; the others are tested against it.
    """

    table: Scores
    note: str = ""
    ceiling: float | None = None
    minutes: float | None = None
    parameters: int | None = None
    chosen: bool = False


@dataclass(frozen=True, eq=False)
class Example:
    """A test video shown in the report. Frames and flow are embedded in the page, so a few dozen small ones suffice.

    Attributes:
        video_id: its id in the scores.
        label: its true class; empty if unknown.
        frames: (n, H, W, 3) uint8 RGB.
        flow: (n, 2, H, W) float32 pixels per frame, u right, v down.
        fps: frames per second of both.
        appearance_top3: the most likely classes of the appearance stream with their probabilities, 0..1, best first;
            empty to omit it.
        motion_top3: the same for the motion stream.
        fused_top3: the same for the fused scores.
    """

    video_id: str
    label: str
    frames: npt.NDArray[np.uint8]
    flow: npt.NDArray[np.float32]
    fps: float
    appearance_top3: TopClasses
    motion_top3: TopClasses
    fused_top3: TopClasses

    def __post_init__(self) -> None:
        n, height, width, _ = self.frames.shape
        assert n
        assert self.flow.shape == (n, 2, height, width)


@dataclass(frozen=True)
class LearningCurve:
    """The learning curves of a training stage: one value per epoch in every list.

    Attributes:
        epoch: the epochs, increasing.
        loss: training loss.
        accuracy: top-1 accuracy on the training batches, 0..1.
        val_accuracy: the same on the validation videos; NaN where it was not measured.
    """

    epoch: Sequence[float]
    loss: Sequence[float]
    accuracy: Sequence[float]
    val_accuracy: Sequence[float] | None = None

    def __post_init__(self) -> None:
        lists = [self.loss, self.accuracy, *([] if self.val_accuracy is None else [self.val_accuracy])]
        assert all(len(values) == len(self.epoch) for values in lists)


@dataclass(frozen=True)
class Report:
    """All content of a report.

    Attributes:
        title: the heading.
        intro: plain text; an empty line starts a new paragraph.
        rows: at least one; at most one is marked as chosen, else the first one counts.
        examples: videos to show; may be empty.
        curves: learning curves by title of the stage; may be empty.
        chance: top-1 accuracy of guessing, 0..1.
        facts: further facts by name; may be empty.
    """

    title: str
    intro: str
    rows: Sequence[ReportRow]
    examples: Sequence[Example]
    curves: Mapping[str, LearningCurve]
    chance: float
    facts: Mapping[str, str]

    def __post_init__(self) -> None:
        assert self.rows
        assert sum(row.chosen for row in self.rows) <= 1

    @property
    def chosen(self) -> ReportRow:
        """The row that the report is about."""
        return next((row for row in self.rows if row.chosen), self.rows[0])
