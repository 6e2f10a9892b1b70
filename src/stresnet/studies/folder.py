"""The folder of a study: where each training and its scores are, and which of them are done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stresnet.data.sampling import Protocol
from stresnet.errors import RecipeError
from stresnet.evaluation.scores import ScoreTable, fuse
from stresnet.model.checkpoint import read_metadata
from stresnet.recipes import differing_fields
from stresnet.studies.plan import Block, Plan, Row, Training
from stresnet.training import Run


@dataclass
class StudyFolder:
    """The folder of a study, OUT.

    OUT/trainings/NAME/   a run folder per distinct training, see `Training.name`: the stage, links to the models that
                          it starts from, and its scores in a folder per protocol
    OUT/study.md, OUT/videos.parquet   the page, and the answer to every video

    Attributes:
        root: OUT.
        plan: what is trained.
        failed: reason by name of each training that failed in this process.
    """

    root: Path
    plan: Plan
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        """The page of results."""
        return self.root / "study.md"

    @property
    def table(self) -> Path:
        """The table of answers, see `Answers.to_arrow`."""
        return self.root / "videos.parquet"

    def run_of(self, training: Training) -> Run:
        """Return the run of a training."""
        return Run(self.root / "trainings" / training.name, training.recipe)

    def report_folder(self, training: Training, protocol: Protocol) -> Path:
        """Return where a training's scores and report under a protocol are."""
        return self.run_of(training).folder / f"scores-{protocol}"

    def is_trained(self, training: Training) -> bool:
        """Return whether a training is finished."""
        return self.run_of(training).model_file(training.stage.name).is_file()

    def is_scored(self, training: Training, protocol: Protocol) -> bool:
        """Return whether the model of a training is scored under a protocol."""
        return (self.report_folder(training, protocol) / "report.html").is_file()  # written last

    def is_done(self, training: Training, block: Block) -> bool:
        """Return whether a training is finished, and scored as the rows need it."""
        return self.is_trained(training) and all(self.is_scored(training, p) for p in block.protocols_of(training))

    def require_same_recipes(self) -> None:
        """Raise if a finished training had another recipe than it would have now.

        Identities leave out fields with their default value, and a later version may have other defaults.

        Raises:
            RecipeError: the message names the folder and the fields.
        """
        for training in {t.name: t for block in self.plan.blocks for t in block.trainings}.values():
            if self.is_trained(training):
                folder = self.run_of(training).folder
                if fields := differing_fields(Run.open(folder).recipe, training.recipe):
                    raise RecipeError(
                        f"{folder} was trained by a version with other defaults ({', '.join(fields[:3])} differ): "
                        "delete it to train it again"
                    )

    def minutes(self, training: Training) -> float:
        """Return the minutes that a stage was trained for."""
        model = self.run_of(training).model_file(training.stage.name)
        return float(read_metadata(model)["training"]["minutes"])

    def scores(self, row: Row, block: Block) -> ScoreTable:
        """Return the scores of a row whose trainings are all scored."""
        folders = [self.report_folder(training, row.protocol) for training in block.parts[row.name]]
        tables = [ScoreTable.read(next(folder.glob("scores-*.parquet"))) for folder in folders]
        return tables[0] if len(tables) == 1 else fuse(tables, name=row.title)

    def failed_rows(self) -> dict[str, str]:
        """Return the reason by name of each row that lacks a training which failed."""
        reasons: dict[str, str] = {}
        for block in self.plan.blocks if self.failed else ():
            for training in block.trainings:
                if training.name in self.failed:
                    reason = f"{block.fold.name}, seed {block.seed}: {self.failed[training.name]}"
                    reasons |= {row: reasons.get(row, reason) for row in block.rows_with(training)}
        return reasons

    def summary(self) -> dict[str, Any]:
        """Return what the study trains, as JSON types.

        ``stages``     one object per distinct stage: ``stage``; ``rows``, the names of those that need it; ``trained``,
                       the number of (fold, seed) done, scores included
        ``folds``, ``seeds``, ``blocks``   numbers of folds, of seeds, and of pairs of them
        ``trainings``  number of stage trainings in all; ``trained``, of these done
        ``unshared``   number of stage trainings if no stage were shared between rows
        """
        first, blocks = self.plan.blocks[0], self.plan.blocks
        done = [[self.is_done(training, block) for training in block.trainings] for block in blocks]
        stages = [
            {"stage": t.stage.name, "rows": first.rows_with(t), "trained": sum(row[i] for row in done)}
            for i, t in enumerate(first.trainings)
        ]
        return {
            "stages": stages,
            "folds": len({block.fold.name for block in blocks}),
            "seeds": len({block.seed for block in blocks}),
            "blocks": len(blocks),
            "trainings": len(stages) * len(blocks),
            "trained": sum(map(sum, done)),
            "unshared": len(blocks) * sum(len(first.needed_by(row.name)) for row in self.plan.rows),
        }
