"""Evaluate a model, or every stage of a run: score the videos, and write scores and a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stresnet.data.copies import unchecked_note, videos_among
from stresnet.data.sampling import Protocol
from stresnet.data.store import Entries, Store, StoreSpec
from stresnet.errors import CheckpointError, RecipeError, ScoreError, StoreError
from stresnet.evaluation.metrics import mean_class_accuracy, top_k_accuracy
from stresnet.evaluation.report import Report, ReportRow, write_report
from stresnet.evaluation.report.collect import collect_curves, collect_examples, collect_facts
from stresnet.evaluation.rows import Candidate, score_rows
from stresnet.evaluation.scores import Scores
from stresnet.evaluation.scoring import SplitScorer
from stresnet.evaluation.summary import better_rows, summarize
from stresnet.inference.protocols import default_protocol, stride_note
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.runtime import read_model_metadata, worth_compiling
from stresnet.model import Checkpoint, load_checkpoint, save_checkpoint
from stresnet.model.metadata import ModelMetadata
from stresnet.model.precision import PrecisionChoice
from stresnet.progress import Progress
from stresnet.training import Run


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        rows: one per stage and protocol, and the late fusion of the single streams. The row that the report is about
            has ``chosen`` set. The scores of a row are read from its file in the folder of the report when used.
        report: the page, ``report.html``; scores and ``report.json`` are in the same folder.
        failed: (id, reason) of videos that could not be scored.
        notes: what to know about the scores, such as that a protocol left the strides of training; one sentence each.
    """

    rows: tuple[ReportRow, ...]
    report: Path
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> ReportRow:
        """The row that the report is about: the last stage under the first protocol."""
        return next(row for row in self.rows if row.chosen)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types, see `stresnet.evaluation.summary.summarize` for the rows."""
        return {
            "rows": summarize(self.rows),
            "report": str(self.report),
            "failed": dict(self.failed),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"Evaluation({len(self.rows)} rows, {len(self.failed)} failed, report={str(self.report)!r})"


def evaluate(
    model: str | Path | Run | Recognizer,
    store: str | Path | Store,
    out: str | Path | None = None,
    *,
    protocols: Sequence[Protocol] | None = None,
    split: str = "test",
    title: str | None = None,
    intro: str = "",
    examples: int = 6,
    device: str | None = None,
    precision: PrecisionChoice = "auto",
    compiled: bool | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the videos of a split; write scores, report.json and report.html to a folder.

    An interrupted evaluation resumes when called again. The scores of a run are also recorded in its model files.

    Args:
        model: a model file, a loaded recognizer, or a run or its folder: then all of its trained stages.
        store: prepared videos. Groups that the model held out of training become its test split. It may have only some
            of the model's classes; the model then chooses among all of its own.
        out: folder to write to; by default ``report`` in the run's folder, or ``report-NAME`` beside the model file,
            with the split appended unless it is ``test``.
        protocols: test protocols; the report is about the first. By default the one that the model's recipe names, or
            `dense25`.
        split: the split to score.
        title: heading of the report; by default the names of store and split.
        intro: text below the heading; an empty line starts a new paragraph.
        examples: number of videos shown in the report.
        device: where to run; by default CUDA if available, else the CPU. This and the next two do not apply to a
            loaded recognizer.
        precision: `fp32`, `bf16`, or `auto`: bf16 where the device computes in it natively.
        compiled: whether to compile networks, see `Recognizer`; by default for many videos in bf16.
        progress: called after every video.

    Raises:
        StoreError: if the split has no videos, or the store has classes that the model lacks.
        CheckpointError: if the model is an initial model that has not been trained.
        FlowSpecError: if the store's flow differs from that of the training store.
        ScoreError: if the scores or the report cannot be written.
    """
    store = store if isinstance(store, Store) else Store.open(store)
    run = _as_run(model)
    candidates = _candidates(model, run)
    folder = _default_folder(model, split) if out is None else Path(out)
    last = candidates[-1].metadata()
    store = store.with_test_groups(last.test_groups) if last.test_groups else store
    in_store = len(store.classes)
    if set(store.classes) < set(last.classes):
        store = replace(store, classes=last.classes)  # the model chooses among all of its own
    entries = _entries_to_score(store, split, last, candidates[-1].name)
    scorer = SplitScorer(store, entries, folder / ".parts", progress)
    ceiling = run.recipe.late_fusion_ceiling if run else None
    protocols = protocols or [default_protocol(last)]
    if compiled is None:
        compiled = worth_compiling(candidates[-1].model, len(entries), precision, device)
    open_model = partial(Recognizer, device=device, precision=precision, compiled=compiled)
    rows = score_rows(scorer, candidates, protocols, open_model, ceiling, folder)
    report = Report(
        title=title or f"{store.name}: {split}",
        intro=intro,
        rows=rows,
        examples=collect_examples(next(row.table for row in rows if row.chosen), store, examples),
        curves=collect_curves(run),
        chance=1 / len(store.classes),
        facts=collect_facts(store, entries, last, split),
    )
    page = write_report(folder, report)
    scorer.discard_parts()
    if run is not None:
        _record_scores(run, candidates, rows, store, split)
    notes = [*_stride_notes(candidates, protocols, entries), *better_rows(rows)]
    notes += _data_notes(in_store, last, entries, split)
    return Evaluation(tuple(rows), page, tuple(sorted(scorer.failed.items())), tuple(notes))


def _as_run(model: str | Path | Run | Recognizer) -> Run | None:
    if isinstance(model, Run | Recognizer):
        return model if isinstance(model, Run) else None
    return Run.open(model) if Path(model).is_dir() else None


def _candidates(model: str | Path | Run | Recognizer, run: Run | None) -> list[Candidate]:
    if run is not None:
        stages = run.finished()
        if not stages:
            raise RecipeError(f"no stage of {run.folder} is trained yet; run `stresnet train … --resume`")
        return [Candidate(run.model_file(s.name), s.title or s.name, s) for s in stages]
    if isinstance(model, Recognizer):
        return [Candidate(model, model.metadata.stage or "model")]
    assert not isinstance(model, Run)
    return [Candidate(Path(model), read_model_metadata(model).stage or Path(model).stem)]


def _stride_notes(candidates: Sequence[Candidate], protocols: Sequence[Protocol], entries: Entries) -> tuple[str, ...]:
    frames = entries.column("frames").to_pylist()
    notes = []
    for candidate in candidates:
        metadata = candidate.metadata()  # one network in memory at a time
        notes += [(candidate.title, stride_note(protocol, metadata, frames)) for protocol in protocols]
    return tuple(f"{title}: {text}" for title, text in notes if text)


def _data_notes(classes_in_store: int, model: ModelMetadata, entries: Entries, split: str) -> Iterator[str]:
    """Yield what to know about the videos that were scored."""
    if classes_in_store < len(model.classes):
        classes = f"{classes_in_store} of the model's {len(model.classes)} classes"
        yield f"the store has {classes}; it chose among all of them"
    if split != "train" and (unchecked := unchecked_note(model.trained_on, entries)):
        yield unchecked


def _default_folder(model: str | Path | Run | Recognizer, split: str) -> Path:
    if isinstance(model, Recognizer):
        raise ScoreError("a loaded recognizer has no default folder for its report; give `out`")
    path = model.folder if isinstance(model, Run) else Path(model)
    base = path / "report" if path.is_dir() else path.parent / f"report-{path.stem}"
    return base if split == "test" else base.with_name(f"{base.name}-{split}")


def _entries_to_score(store: Store, split: str, metadata: ModelMetadata, model: str) -> Entries:
    """Return the videos of a split; raise unless the model can be evaluated on them."""
    if not metadata.store_spec:
        raise CheckpointError(f"{model} is an initial model; train it first with stresnet train --init FILE")
    _require_same_classes(store, metadata, model)
    StoreSpec.from_dict(metadata.store_spec).require_same(store.spec, f"the model and {store.root}")
    entries = store.select(split)
    if not entries:
        found = sorted(store.entries.distinct("split"))
        raise StoreError(f"{store.root} has no usable videos of split {split!r}; its splits are {', '.join(found)}")
    if split != "train" and (seen := videos_among(metadata.trained_on, entries)):
        raise StoreError(
            f"{len(seen)} of the {len(entries)} videos of split {split!r} were used for training, maybe by another "
            f"name, first {seen[0]}; leave copies out, and prepare the store with the split of the training"
        )
    return entries


def _require_same_classes(store: Store, metadata: ModelMetadata, model: str) -> None:
    if sorted(store.classes) == sorted(metadata.classes):
        return
    unnamed = metadata.classes[0] == "class 1"  # converted without class names
    raise StoreError(
        f"the classes of {store.root} ({len(store.classes)}) and {model} ({len(metadata.classes)}) differ"
        f"{_only('store', store.classes, metadata.classes)}{_only('model', metadata.classes, store.classes)}; "
        + ("convert the model again with --classes" if unnamed else "give a store with the model's classes")
    )


def _only(which: str, classes: Sequence[str], others: Sequence[str]) -> str:
    """Name the first classes that the others lack, or return an empty string."""
    missing = [name for name in classes if name not in others]
    more = [f"{len(missing) - 3} more"] if len(missing) > 3 else []
    return f", only the {which} has {', '.join([*missing[:3], *more])}" if missing else ""


def _record_scores(
    run: Run, candidates: Sequence[Candidate], rows: Sequence[ReportRow], store: Store, split: str
) -> None:
    """Record the scores in the model files of a run, with the store and the split."""
    for candidate in candidates:
        checkpoint = load_checkpoint(run.model_file(candidate.stage_name))
        for row in rows:
            if row.table.name in (candidate.title, f"{candidate.title} ({row.table.protocol})"):
                checkpoint = _with_score(checkpoint, row.table, store, split)
        save_checkpoint(run.model_file(candidate.stage_name), checkpoint)
    run.refresh_model()


def _with_score(checkpoint: Checkpoint, table: Scores, store: Store, split: str) -> Checkpoint:
    """Return the checkpoint with the scores of a table, in place of earlier ones on the same videos."""
    top1, mean_class = top_k_accuracy(table, 1), mean_class_accuracy(table)
    score = {
        "store": store.name,
        "split": split,
        "protocol": table.protocol,
        "videos": len(table.labels),
        "top1": [top1.value, top1.low, top1.high],
        "mean_class": [mean_class.value, mean_class.low, mean_class.high],
    }
    where = ("store", "split", "protocol")
    others = [s for s in checkpoint.scores if [s[k] for k in where] != [score[k] for k in where]]
    return checkpoint.replace(scores=(*others, score))
