"""What goes into a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stresnet.errors import ScoreError
from stresnet.evaluation.scores import ScoreTable

TopClasses = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class ReportRow:
    """One evaluated model (or fusion) of the report's table.

    Attributes:
        table: its scores; all rows of a report score the same videos.
        note: what it is, in a few words.
        ceiling: the best top-1 accuracy its inputs allow, 0..1, where that is known.
        minutes: what training it took, in minutes.
        parameters: how many numbers were trained.
        chosen: the row that the report is about; the others are tested against it.
    """

    table: ScoreTable
    note: str = ""
    ceiling: float | None = None
    minutes: float | None = None
    parameters: int | None = None
    chosen: bool = False


@dataclass(frozen=True, eq=False)
class Example:
    """One test video as the report shows it. Frames and flow are embedded: a few dozen small frames are enough.

    Attributes:
        video_id: its id in the scores.
        label: its true class; empty where it is unknown.
        frames: (n, H, W, 3) uint8 RGB.
        flow: (n, 2, H, W) float32 pixels per frame, u right, v down.
        fps: frames per second of both.
        appearance_top3: the most likely classes with their probabilities, 0..1, best first; empty to leave it out.
        motion_top3: the same of the motion stream.
        fused_top3: the same of both.
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
        frames, flow = self.frames.shape, self.flow.shape
        if len(frames) != 4 or frames[0] == 0 or flow != (frames[0], 2, *frames[1:3]):
            raise ScoreError(
                f"example {self.video_id!r}: frames must be (n, H, W, 3) and flow (n, 2, H, W), n at least 1, "
                f"found {frames} and {flow}"
            )


@dataclass(frozen=True)
class LearningCurve:
    """How one stage of training went: one value per entry of ``epoch``, which rises.

    Attributes:
        epoch: where the values were taken.
        loss: training loss.
        accuracy: top-1 accuracy on the training batches, 0..1.
        val_accuracy: the same on held-out videos; NaN where it was not measured.
    """

    epoch: Sequence[float]
    loss: Sequence[float]
    accuracy: Sequence[float]
    val_accuracy: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for field in ("loss", "accuracy", "val_accuracy"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.epoch):
                raise ScoreError(f"learning curve: {len(self.epoch)} epochs, but {len(values)} values of {field}")


@dataclass(frozen=True)
class Report:
    """Everything a report tells.

    Attributes:
        title: the heading.
        intro: plain text; an empty line starts a new paragraph.
        rows: at least one; if none is chosen, the first is.
        examples: videos to look at; may be empty.
        curves: learning curves by the name of the stage; may be empty.
        chance: the top-1 accuracy of guessing, 0..1.
        facts: what else is worth telling, as name and value; may be empty.
    """

    title: str
    intro: str
    rows: Sequence[ReportRow]
    examples: Sequence[Example]
    curves: Mapping[str, LearningCurve]
    chance: float
    facts: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ScoreError("a report needs at least one row of scores, found none")
        chosen = [row.table.name for row in self.rows if row.chosen]
        if len(chosen) > 1:
            raise ScoreError(f"a report is about one chosen row, found {len(chosen)}: {', '.join(map(repr, chosen))}")

    @property
    def chosen(self) -> ReportRow:
        """The row that the report is about."""
        return next((row for row in self.rows if row.chosen), self.rows[0])
