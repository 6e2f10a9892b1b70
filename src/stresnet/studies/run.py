"""Run a study: train and score every distinct stage once, in folders that several processes may share."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from stresnet.atomic import replacing
from stresnet.errors import RecipeError, StresnetError
from stresnet.evaluation import evaluate
from stresnet.evaluation.scores import ScoreTable, fuse
from stresnet.model.checkpoint import read_metadata
from stresnet.progress import Progress
from stresnet.studies.plan import Block, Plan, Training
from stresnet.training import Run, train

WAIT_SEC = 5.0
"""How long to wait for other processes when all trainings left are theirs, before looking again."""


@dataclass
class StudyFolder:
    """The folder of a study, OUT.

    OUT/trainings/NAME/   a run folder per distinct training, see `Training.name`: the stage, links to the models that
                          it starts from, and its scores in a folder per protocol
    OUT/study.md, OUT/videos.parquet   the page, and the result of every video

    Attributes:
        root: OUT.
        plan: what is trained.
        failed: reason by name of each training that failed in this process.
    """

    root: Path
    plan: Plan
    failed: dict[str, str] = field(default_factory=dict)

    def run_of(self, training: Training) -> Run:
        """Return the run of a training."""
        return Run(self.root / "trainings" / training.name, training.recipe)

    def report_folder(self, training: Training) -> Path:
        """Return where a training's scores and report are."""
        return self.run_of(training).folder / f"scores-{self.plan.protocol}"

    def is_scored(self, training: Training) -> bool:
        """Return whether a stage is trained and scored."""
        return (self.report_folder(training) / "report.html").is_file()  # written last

    def minutes(self, training: Training) -> float:
        """Return the minutes that a stage was trained for."""
        model = self.run_of(training).model_file(training.stage.name)
        return float(read_metadata(model)["training"]["minutes"])

    def scores(self, row: str, block: Block) -> ScoreTable:
        """Return the scores of a row whose trainings are all scored."""
        files = [next(self.report_folder(t).glob("scores-*.parquet")) for t in block.parts[row]]
        tables = [ScoreTable.read(file) for file in files]
        return tables[0] if len(tables) == 1 else fuse(tables, name=row)

    def failed_rows(self) -> dict[str, str]:
        """Return the reason by name of each row that lacks a training which failed."""
        reasons: dict[str, str] = {}
        for block in self.plan.blocks if self.failed else ():
            for training in block.trainings:
                if training.name in self.failed:
                    reason = f"{block.fold.name}, seed {block.seed}: {self.failed[training.name]}"
                    reasons |= {row: reasons.get(row, reason) for row in block.rows_with(training)}
        return reasons


def run_trainings(
    folder: StudyFolder,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    after_block: Callable[[], None] = lambda: None,
) -> None:
    """Train and score every distinct training of a study that is not scored yet.

    A training that fails is recorded in ``folder.failed``; all that do not depend on it go on. Other processes may run
    the same study in the same folder: each training is done by one of them.

    Args:
        folder: the folder of the study.
        workers: loader processes, see `train`.
        progress: called as training and scoring advance.
        after_block: called whenever all trainings of a seed and fold are done.

    Raises:
        RecipeError: if the folder is a file or a store.
    """
    if (folder.root / "store.json").exists() or (folder.root.exists() and not folder.root.is_dir()):
        raise RecipeError(f"{folder.root} is not a folder for a study: name another one")
    total, pending = sum(len(block.trainings) for block in folder.plan.blocks), list(enumerate(folder.plan.blocks))
    while pending:
        for index, block in list(pending):
            settled = []
            for number, training in enumerate(block.trainings, index * len(block.trainings) + 1):
                shown = _Numbered(progress, f"{number}/{total}: {_describe(training, block)}") if progress else None
                settled.append(_finish(folder, training, workers, shown))
            if all(settled):
                pending.remove((index, block))
                after_block()
        if pending:  # what is left is being trained by other processes
            time.sleep(WAIT_SEC)


def _describe(training: Training, block: Block) -> str:
    rows = block.rows_with(training)
    cell = f"{rows[0]}, " if len(rows) == 1 and rows[0] != training.stage.name else ""
    return f"{cell}{block.fold.name}, seed {block.seed}"


def _finish(folder: StudyFolder, training: Training, workers: int | None, progress: Progress | None) -> bool:
    """Train and score a training, and return whether that is settled: not while another process works on it."""
    if folder.is_scored(training) or training.name in folder.failed:
        return True
    for source in training.sources:
        if source.name in folder.failed:
            folder.failed[training.name] = folder.failed[source.name]
            return True
        if not folder.is_scored(source):
            return False
    run = folder.run_of(training)
    run.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.folder / ".lock", timeout=0):
            _train_and_score(folder, training, run, workers, progress)
    except Timeout:
        return False
    except StresnetError as error:
        folder.failed[training.name] = str(error)
    return True


def _train_and_score(
    folder: StudyFolder, training: Training, run: Run, workers: int | None, progress: Progress | None
) -> None:
    stage, store = training.stage.name, folder.plan.store
    for source in training.needed[:-1]:
        _link(folder.run_of(source).model_file(source.stage.name), run.model_file(source.stage.name))
    train(
        store,
        run.folder,
        training.recipe,
        init=training.init,
        only=stage,
        resume=True,
        workers=workers,
        test_groups=training.fold.test_groups,
        progress=progress,
    )
    _link(run.model_file(stage), run.folder / "model.safetensors")
    protocols, report = [folder.plan.protocol], folder.report_folder(training)
    evaluate(run.model_file(stage), store, report, protocols=protocols, examples=0, progress=progress)


def _link(source: Path, target: Path) -> None:
    """Make a file available under a second name: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


@dataclass(frozen=True)
class _Numbered:
    """A `Progress` that says which of the trainings is worked on."""

    progress: Progress
    prefix: str

    def __call__(self, activity: str, done: int, total: int, detail: str = "") -> None:
        self.progress(f"{self.prefix}, {activity}", done, total, detail)
