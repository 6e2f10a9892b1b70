"""Run a study: train and score every distinct stage once, in folders that several processes may share."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from stresnet.atomic import replacing
from stresnet.errors import RecipeError, ScoreError, StresnetError
from stresnet.evaluation import evaluate
from stresnet.progress import Progress
from stresnet.studies.answers import collect_answers
from stresnet.studies.folder import StudyFolder
from stresnet.studies.page import render_page
from stresnet.studies.plan import Block, Plan, Training
from stresnet.studies.results import StudyResult, scored_rows, summarize
from stresnet.training import train

WAIT_SEC = 5.0
"""How long to wait for other processes when all trainings left are theirs, before looking again."""


def run_study(plan: Plan, out: Path, *, workers: int | None = None, progress: Progress | None = None) -> StudyResult:
    """Train and score every distinct training of a study that is not scored yet, and write the page and the table.

    They are written whenever all rows are scored on another fold with another seed. A training that fails is left out,
    with all that depends on it; the next call tries it again. Several processes may run the same study in the same
    folder: each training is done by one of them.

    Args:
        plan: the study.
        out: folder to write to.
        workers: loader processes, see `stresnet.training.train`.
        progress: called as training and scoring advance.

    Raises:
        RecipeError: if the folder is a file or a store, or was trained by a version with other defaults.
        StresnetError: if a file cannot be written, such as on a full disk.
    """
    if (out / "store.json").exists() or (out.exists() and not out.is_dir()):
        raise RecipeError(f"{out} is {'a prepared store' if out.is_dir() else 'a file'}: name another folder")
    folder = StudyFolder(out, plan)
    folder.require_same_recipes()
    total, pending = sum(len(block.trainings) for block in plan.blocks), list(enumerate(plan.blocks))
    while pending:
        for index, block in list(pending):
            settled = []
            for number, training in enumerate(block.trainings, index * len(block.trainings) + 1):
                shown = _Numbered(progress, f"{number}/{total} {_describe(training, block)}") if progress else None
                settled.append(_finish(folder, training, block, workers, shown))
            if all(settled):
                pending.remove((index, block))
                result = write_results(folder)
        if pending:  # what is left is being trained by other processes
            time.sleep(WAIT_SEC)
    return result


def write_results(folder: StudyFolder) -> StudyResult:
    """Write the page and the table of what a study has found so far, and return it.

    Raises:
        ScoreError: if scores cannot be read, or the results cannot be written.
    """
    rows, blocks = scored_rows(folder)
    answers = collect_answers(folder, rows, blocks) if blocks else None
    result = summarize(folder, answers, blocks)
    try:
        with replacing(folder.page) as temporary:
            temporary.write_text(render_page(folder.plan, result), "utf-8")
        if answers is not None:
            with replacing(folder.table) as temporary:
                pq.write_table(answers.to_arrow({row.name: row.reports for row in rows}), temporary)
    except OSError as error:
        raise ScoreError(f"cannot write results to {folder.root}: {error.strerror or error}") from error
    return result


def _describe(training: Training, block: Block) -> str:
    rows = block.rows_with(training)
    cell = f"{rows[0]}, " if len(rows) == 1 and rows[0] != training.stage.name else ""
    return f"{cell}{block.fold.name}, seed {block.seed}"


def _finish(
    folder: StudyFolder, training: Training, block: Block, workers: int | None, progress: Progress | None
) -> bool:
    """Train and score a training, and return whether that is settled: not while another process works on it."""
    if folder.is_done(training, block) or training.name in folder.failed:
        return True
    for source in training.sources:
        if source.name in folder.failed:
            folder.failed[training.name] = folder.failed[source.name]
            return True
        if not folder.is_trained(source):
            return False
    lock = folder.run_of(training).folder / ".study.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            _train_and_score(folder, training, block, workers, progress)
    except Timeout:
        return False
    except StresnetError as error:
        if isinstance(error.__cause__, OSError):  # such as a full disk, on which all others would fail too
            raise
        folder.failed[training.name] = str(error)
    return True


def _train_and_score(
    folder: StudyFolder, training: Training, block: Block, workers: int | None, progress: Progress | None
) -> None:
    run, stage, store = folder.run_of(training), training.stage.name, folder.plan.store
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
    for protocol in block.protocols_of(training):
        if not folder.is_scored(training, protocol):
            report = folder.report_folder(training, protocol)
            evaluate(run.model_file(stage), store, report, protocols=[protocol], examples=0, progress=progress)


def _link(source: Path, target: Path) -> None:
    """Make a file available under a second name: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        temporary.unlink()  # a link replaces nothing
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
