"""Evaluation of every stage of a run, or of one model: scores, late fusion, and a report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stresnet.atomic import replacing
from stresnet.data.store import Store, StoreEntry, StoreSpec
from stresnet.errors import CheckpointError, RecipeError, StoreError
from stresnet.evaluation import report_content
from stresnet.evaluation.metrics import mean_class_accuracy, top_k_accuracy
from stresnet.evaluation.report import Report, ReportRow, write_report
from stresnet.evaluation.scores import ScoreTable, fuse
from stresnet.evaluation.scoring import OnProgress, Scoring
from stresnet.inference.recognizer import Protocol, Recognizer
from stresnet.model import Checkpoint, load_checkpoint, save_checkpoint
from stresnet.model.checkpoint import video_hash
from stresnet.recipes import Stage
from stresnet.recipes.schema import LATE_FUSION
from stresnet.training import Run


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave.

    Attributes:
        rows: one for each stage and protocol, and the late fusion of the single streams.
        report: the page.
        failed: (id, reason) of test videos that could not be scored.
    """

    rows: tuple[ReportRow, ...]
    report: Path
    failed: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Subject:
    """A model to be evaluated, and what a report says of it."""

    file: Path
    title: str
    stage: Stage | None = None


def evaluate(
    model: str | Path,
    store: Store,
    out: str | Path,
    *,
    protocols: Sequence[Protocol] = ("dense25",),
    split: str = "test",
    title: str | None = None,
    intro: str = "",
    examples: int = 6,
    device: str | None = None,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Score the videos of a split and write scores, report.json and report.html to a folder.

    A run's models get the scores written into their files; so do none that lie elsewhere.

    Args:
        model: a checkpoint file, or the folder of a run: then all of its finished stages.
        store: prepared videos. Groups that the model held out of training become its test split.
        out: the folder; an evaluation cut off there goes on where it was.
        protocols: ways of looking at a video; the first is the report's.
        split: the videos scored.
        title: of the report.
        intro: of the report.
        examples: videos shown in the report.
        device: where to run.
        progress: told of every video.

    Raises:
        StoreError: if the split has no videos, or its classes are not the model's.
        CheckpointError: if the model is only a start from images.
        FlowSpecError: if the store was prepared otherwise than the training store.
    """
    out = Path(out)
    run = Run.open(model) if Path(model).is_dir() else None
    subjects = _subjects(Path(model), run)
    last = load_checkpoint(subjects[-1].file)
    if last.test_groups:
        store = store.with_test_groups(last.test_groups)
    entries = _check(store, split, last, subjects[-1].file)
    scoring = Scoring(store, entries, out / ".parts", progress)
    rows = _rows(scoring, subjects, run, protocols, device)
    for row in rows:
        row.table.write(out / f"scores-{_slug(row.table.name)}.parquet")
    chosen = next(row for row in rows if row.chosen)
    report = Report(
        title=title or f"{store.name}: {split}",
        intro=intro,
        rows=rows,
        examples=report_content.examples(chosen.table, store, examples),
        curves=report_content.curves(run),
        chance=1 / len(store.classes),
        facts=report_content.facts(store, entries, last, split),
    )
    page = write_report(out, report)
    scoring.discard_parts()
    if run is not None:
        _note_scores(run, subjects, rows, store, split)
    return Evaluation(tuple(rows), page, tuple(sorted(scoring.failed.items())))


def _subjects(model: Path, run: Run | None) -> list[Subject]:
    if run is None:
        return [Subject(model, load_checkpoint(model).stage or model.stem)]
    stages = run.finished()
    if not stages:
        raise RecipeError(f"no stage of {run.folder} is trained yet: run `stresnet train … --resume`")
    return [Subject(run.model_file(s.name), s.title or s.name, s) for s in stages]


def _check(store: Store, split: str, checkpoint: Checkpoint, model: Path) -> tuple[StoreEntry, ...]:
    if not checkpoint.store_spec:
        raise CheckpointError(f"{model} is a start from images: train it first, with stresnet train --init FILE")
    if sorted(store.classes) != sorted(checkpoint.classes):
        unnamed = checkpoint.classes[0] == "class 1"
        raise StoreError(
            f"the classes of {store.root} ({len(store.classes)}) and {model} ({len(checkpoint.classes)}) differ"
            f"{_only('store', store.classes, checkpoint.classes)}{_only('model', checkpoint.classes, store.classes)}: "
            + ("convert it again with --classes" if unnamed else "give a store of the model's classes")
        )
    StoreSpec.from_dict(checkpoint.store_spec).require_same(store.spec, f"the model and {store.root}")
    entries = store.select(split)
    seen = [e.record.id for e in entries if video_hash(e.record.id) in set(checkpoint.trained_on)]
    if seen and split != "train":
        raise StoreError(
            f"{len(seen)} of the {len(entries)} videos of split {split!r} were trained on, first {seen[0]}: "
            "prepare the store with the split that the model was trained on"
        )
    if not entries:
        found = sorted({e.record.split for e in store.entries})
        raise StoreError(f"{store.root} has no usable videos of split {split!r}: its splits are {', '.join(found)}")
    return entries


def _only(which: str, own: Sequence[str], others: Sequence[str]) -> str:
    """The first classes that the others lack, if any."""
    lacking = [name for name in own if name not in others]
    more = [f"{len(lacking) - 3} more"] if len(lacking) > 3 else []
    return f", only the {which} has {', '.join([*lacking[:3], *more])}" if lacking else ""


def _rows(
    scoring: Scoring, subjects: Sequence[Subject], run: Run | None, protocols: Sequence[Protocol], device: str | None
) -> list[ReportRow]:
    """The rows of the report, protocol by protocol; the last stage under the first protocol is the chosen one."""
    scored: dict[tuple[Protocol, Path], ReportRow] = {}
    for protocol in protocols:
        for subject in subjects:
            recognizer = Recognizer(subject.file, device=device)
            name = subject.title if protocol == protocols[0] else f"{subject.title} ({protocol})"
            table = scoring.table(recognizer, protocol, name)
            scored[protocol, subject.file] = _row(table, recognizer.checkpoint, subject)
    rows: list[ReportRow] = []
    for protocol in protocols:
        own = [scored[protocol, s.file] for s in subjects]
        own = [replace(row, table=scoring.without_failed(row.table)) for row in own]
        if protocol == protocols[0]:
            own[-1] = replace(own[-1], chosen=True)
        rows += _with_late_fusion(own, subjects, run, protocol, protocols[0])
    return rows


def _row(table: ScoreTable, checkpoint: Checkpoint, subject: Subject) -> ReportRow:
    return ReportRow(
        table=table,
        note=subject.stage.note if subject.stage else "",
        ceiling=subject.stage.ceiling if subject.stage else None,
        minutes=checkpoint.training.get("minutes"),
        parameters=sum(p.numel() for p in checkpoint.model.parameters()),
    )


def _with_late_fusion(
    rows: list[ReportRow], subjects: Sequence[Subject], run: Run | None, protocol: str, first: str
) -> list[ReportRow]:
    """The rows, with the two-stream baseline after the single streams: their scores averaged."""
    single = {
        s.stage.streams[0]: row
        for row, s in zip(rows, subjects, strict=True)
        if s.stage is not None and len(s.stage.streams) == 1
    }
    if set(single) != {"appearance", "motion"} or run is None:
        return rows
    pair = list(single.values())
    name = LATE_FUSION if protocol == first else f"{LATE_FUSION} ({protocol})"
    fused = ReportRow(
        table=fuse([r.table for r in pair], name=name),
        note="the scores of the two averaged",
        ceiling=run.recipe.late_fusion_ceiling,
        minutes=sum(r.minutes or 0 for r in pair),
        parameters=sum(r.parameters or 0 for r in pair),
    )
    after = max(i for i, row in enumerate(rows) if any(row is single_row for single_row in pair)) + 1
    return [*rows[:after], fused, *rows[after:]]


def _note_scores(run: Run, subjects: Sequence[Subject], rows: Sequence[ReportRow], store: Store, split: str) -> None:
    """Write into the models of a run what they scored and on what."""
    for subject in subjects:
        checkpoint = load_checkpoint(subject.file)
        for row in rows:
            if row.table.name in (subject.title, f"{subject.title} ({row.table.protocol})"):
                checkpoint = _with_score(checkpoint, row.table, store, split)
        save_checkpoint(subject.file, checkpoint)
    with replacing(run.folder / "model.safetensors") as temporary:
        shutil.copyfile(subjects[-1].file, temporary)


def _with_score(checkpoint: Checkpoint, table: ScoreTable, store: Store, split: str) -> Checkpoint:
    top1, mean_class = top_k_accuracy(table, 1), mean_class_accuracy(table)
    score = {
        "store": store.name,
        "split": split,
        "protocol": table.protocol,
        "videos": len(table.video_ids),
        "top1": [top1.value, top1.low, top1.high],
        "mean_class": [mean_class.value, mean_class.low, mean_class.high],
    }
    where = ("store", "split", "protocol")
    others = [s for s in checkpoint.scores if [s[k] for k in where] != [score[k] for k in where]]
    return replace(checkpoint, scores=(*others, score))


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "*-" else "-" for c in name.lower()).replace("*", "-star").strip("-")
