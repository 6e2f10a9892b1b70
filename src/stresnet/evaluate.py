"""Evaluation: every stage of a run, or one model, on the videos of a store; scores, late fusion and a report."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from stresnet.atomic import replacing
from stresnet.data.store import ClipStore, StoreEntry, StoreSpec
from stresnet.errors import RecipeError, StoreError
from stresnet.flow import FlowSpec, dequantize_flow
from stresnet.model import Checkpoint, load_checkpoint, save_checkpoint
from stresnet.recipes import Stage
from stresnet.recognize import Protocol, Recognizer, ranked
from stresnet.report import Example, LearningCurve, Report, ReportRow, write_report
from stresnet.scores import ScoreTable, fuse, mean_class_accuracy, top_k_accuracy
from stresnet.train import Run

OnProgress = Callable[[str, int, int], None]
"""Told what is being scored, how many of its videos are done, and how many there are."""

PART_VIDEOS = 64  # scores are kept on disk in parts of so many videos, so that a killed run loses few


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
    store: ClipStore,
    out: str | Path,
    *,
    protocols: Sequence[Protocol] = ("dense25",),
    split: str = "test",
    title: str | None = None,
    intro: str = "",
    examples: int = 6,
    device: str | None = None,
    on_progress: OnProgress | None = None,
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
        on_progress: told of every video.

    Raises:
        StoreError: if the split has no videos, or its classes are not the model's.
        FlowSpecError: if the store was prepared otherwise than the training store.
    """
    out = Path(out)
    run = Run.open(model) if Path(model).is_dir() else None
    subjects = _subjects(Path(model), run)
    first = load_checkpoint(subjects[-1].file)
    if first.test_groups:
        store = store.with_test_groups(first.test_groups)
    entries = _check(store, split, first)
    failed: dict[str, str] = {}
    tables: dict[tuple[Protocol, Path], ScoreTable] = {}
    for protocol in protocols:
        for subject in subjects:
            recognizer = Recognizer(subject.file, device=device)
            name = subject.title if protocol == protocols[0] else f"{subject.title} ({protocol})"
            tables[protocol, subject.file] = _score(
                recognizer, store, entries, protocol, name, out, failed, on_progress
            )
    rows: list[ReportRow] = []
    for protocol in protocols:
        rows_here: list[ReportRow] = []
        for subject in subjects:
            checkpoint = load_checkpoint(subject.file)
            # All rows tell of the same videos: those that none of the models failed on.
            table = _without(tables[protocol, subject.file], failed)
            rows_here.append(_row(table, checkpoint, subject))
            if run is not None:
                _note_score(subject.file, checkpoint, table, store, split)
        rows += _with_late_fusion(rows_here, subjects, run, protocol, protocols[0])
    chosen = max(i for i, row in enumerate(rows) if row.table.protocol == protocols[0])
    rows[chosen] = replace(rows[chosen], chosen=True)
    if run is not None:
        with replacing(run.folder / "model.safetensors") as temporary:
            shutil.copyfile(subjects[-1].file, temporary)
    for row in rows:
        row.table.write(out / f"scores-{_slug(row.table.name)}.parquet")
    report = Report(
        title=title or f"{store.name}: {split}",
        intro=intro,
        rows=rows,
        examples=_examples(rows[chosen].table, store, examples),
        curves=_curves(run),
        chance=1 / len(store.classes),
        facts=_facts(store, entries, first, split),
    )
    page = write_report(out, report)
    shutil.rmtree(out / "parts", ignore_errors=True)
    return Evaluation(tuple(rows), page, tuple(sorted(failed.items())))


def _subjects(model: Path, run: Run | None) -> list[Subject]:
    if run is None:
        return [Subject(model, load_checkpoint(model).stage or model.stem)]
    stages = run.finished()
    if not stages:
        raise RecipeError(f"no stage of {run.folder} is trained yet: run `stresnet train … --resume`")
    return [Subject(run.model_file(s.name), s.title or s.name, s) for s in stages]


def _check(store: ClipStore, split: str, checkpoint: Checkpoint) -> tuple[StoreEntry, ...]:
    if store.classes != checkpoint.classes:
        raise StoreError(
            f"{store.root} has {len(store.classes)} classes ({', '.join(store.classes[:3])} …), but the model "
            f"{len(checkpoint.classes)} ({', '.join(checkpoint.classes[:3])} …): give a store of the model's classes"
        )
    spec = StoreSpec(FlowSpec.from_dict(checkpoint.flow_spec), checkpoint.jpeg_quality)
    spec.require_same(store.spec, f"the model and {store.root}")
    entries = store.select(split)
    if not entries:
        found = sorted({e.record.split for e in store.entries})
        raise StoreError(f"{store.root} has no usable videos of split {split!r}: its splits are {', '.join(found)}")
    return entries


def _score(
    recognizer: Recognizer,
    store: ClipStore,
    entries: Sequence[StoreEntry],
    protocol: Protocol,
    name: str,
    out: Path,
    failed: dict[str, str],
    on_progress: OnProgress | None,
) -> ScoreTable:
    """The scores of one model, video by video, kept on disk in parts until the report is written."""
    content = [(e.record.id, e.record.label, e.frames, e.bytes) for e in entries]
    story = f"{_digest(recognizer.checkpoint)} {protocol} {store.spec} {content}"
    key = hashlib.blake2b(story.encode(), digest_size=8).hexdigest()
    parts: list[ScoreTable] = []
    for start in range(0, len(entries), PART_VIDEOS):
        chunk = entries[start : start + PART_VIDEOS]
        file = out / "parts" / f"{key}-{start:07d}.parquet"
        if file.is_file():
            parts.append(ScoreTable.read(file))
        else:
            part = _score_part(recognizer, store, chunk, protocol, name, failed, on_progress, (start, len(entries)))
            if part is not None:
                parts.append(part)
                if len(part.video_ids) == len(chunk):  # else the one who goes on would not learn what failed
                    part.write(file)
        if on_progress:
            on_progress(name, min(start + PART_VIDEOS, len(entries)), len(entries))
    if not parts:
        raise StoreError(f"none of the {len(entries)} videos could be scored, first: {next(iter(failed.values()))}")
    return _concatenate(parts, name)


def _score_part(
    recognizer: Recognizer,
    store: ClipStore,
    entries: Sequence[StoreEntry],
    protocol: Protocol,
    name: str,
    failed: dict[str, str],
    on_progress: OnProgress | None,
    place: tuple[int, int],
) -> ScoreTable | None:
    scored = []
    for done, entry in enumerate(entries):
        if on_progress:
            on_progress(name, place[0] + done, place[1])
        try:
            clip = store.clip(entry.record.id)
            clip.verify()  # a damaged picture may well be decoded, to something else
            scored.append((entry, recognizer.score(clip, protocol)))
        except StoreError as error:  # a damaged clip: named at the end, the rest goes on
            failed[entry.record.id] = str(error)
    if not scored:
        return None
    streams = {
        s: np.stack([getattr(x, s) for _, x in scored]) if getattr(scored[0][1], s) is not None else None
        for s in ("appearance", "motion")
    }
    return ScoreTable(
        name=name,
        protocol=protocol,
        classes=store.classes,
        video_ids=tuple(e.record.id for e, _ in scored),
        labels=np.array([store.classes.index(e.record.label) for e, _ in scored], dtype=np.int64),
        logits=np.stack([x.fused for _, x in scored]),
        **streams,
    )


def _without(table: ScoreTable, failed: Mapping[str, str]) -> ScoreTable:
    keep = [i for i, video_id in enumerate(table.video_ids) if video_id not in failed]
    if len(keep) == len(table.video_ids):
        return table
    if not keep:
        raise StoreError(f"none of the videos could be scored by all models, first: {next(iter(failed.values()))}")
    return replace(
        table,
        video_ids=tuple(table.video_ids[i] for i in keep),
        labels=table.labels[keep],
        logits=table.logits[keep],
        appearance=None if table.appearance is None else table.appearance[keep],
        motion=None if table.motion is None else table.motion[keep],
    )


def _concatenate(parts: Sequence[ScoreTable], name: str) -> ScoreTable:
    def joined(field: str) -> np.ndarray | None:
        arrays = [getattr(p, field) for p in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    labels, logits = joined("labels"), joined("logits")
    assert labels is not None
    assert logits is not None
    return ScoreTable(
        name=name,
        protocol=parts[0].protocol,
        classes=parts[0].classes,
        video_ids=tuple(i for p in parts for i in p.video_ids),
        labels=labels,
        logits=logits,
        appearance=joined("appearance"),
        motion=joined("motion"),
    )


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in checkpoint.model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(repr((checkpoint.preprocessing, checkpoint.recipe, checkpoint.stage)).encode())
    return digest.hexdigest()


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
    name = "late fusion" if protocol == first else f"late fusion ({protocol})"
    fused = ReportRow(
        table=fuse([r.table for r in pair], name=name),
        note="the scores of the two averaged",
        ceiling=run.recipe.late_fusion_ceiling,
        minutes=sum(r.minutes or 0 for r in pair),
        parameters=sum(r.parameters or 0 for r in pair),
    )
    after = max(i for i, row in enumerate(rows) if any(row is single_row for single_row in pair)) + 1
    return [*rows[:after], fused, *rows[after:]]


def _note_score(file: Path, checkpoint: Checkpoint, table: ScoreTable, store: ClipStore, split: str) -> None:
    """Write into a model's file what it scored and on what."""
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
    save_checkpoint(file, replace(checkpoint, scores=(*others, score)))


def _examples(table: ScoreTable, store: ClipStore, count: int) -> list[Example]:
    """A few test videos, one of each class in turn."""
    by_class: dict[int, list[int]] = {}
    for i, label in enumerate(table.labels):
        by_class.setdefault(int(label), []).append(i)
    turns = [
        videos[n] for n in range(max(map(len, by_class.values()))) for videos in by_class.values() if n < len(videos)
    ]
    shown = []
    for i in turns[:count]:
        clip = store.clip(table.video_ids[i])
        frames = np.arange(min(clip.meta.frames - 1, 48))
        tops = {
            s: list(ranked(table.classes, values[i], 3)[2]) if (values := getattr(table, s)) is not None else []
            for s in ("appearance", "motion", "logits")
        }
        shown.append(
            Example(
                video_id=table.video_ids[i],
                label=table.classes[table.labels[i]],
                frames=clip.rgb(frames),
                flow=dequantize_flow(clip.flow(frames), clip.meta.spec.flow.bound_px),
                fps=clip.meta.fps,
                appearance_top3=tops["appearance"],
                motion_top3=tops["motion"],
                fused_top3=tops["logits"],
            )
        )
    return shown


def _curves(run: Run | None) -> Mapping[str, LearningCurve]:
    curves = {}
    for stage in run.finished() if run else ():
        values = run.curves(stage.name) if run else {}
        if "loss" in values and "accuracy" in values:
            curves[stage.title or stage.name] = LearningCurve(
                epoch=values["epoch"],
                loss=values["loss"],
                accuracy=values["accuracy"],
                val_accuracy=values.get("val_accuracy"),
            )
    return curves


def _facts(store: ClipStore, entries: Sequence[StoreEntry], checkpoint: Checkpoint, split: str) -> dict[str, str]:
    flow = store.spec.flow
    facts = {
        "Videos": f"{len(entries)} scored (split {split}), {checkpoint.training.get('videos', '?')} trained on",
        "Classes": str(len(store.classes)),
        "Flow": f"{flow.method} ({flow.preset}) at short side {flow.short_side} px, clipped at ±{flow.bound_px:g} px",
        "Recipe": str(checkpoint.recipe.get("name", "unknown")),
        "Software": f"stresnet {checkpoint.version}, torch {torch.__version__}",
        "Machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
    if checkpoint.test_groups:
        facts["Held out"] = ", ".join(checkpoint.test_groups)
    return facts


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "*-" else "-" for c in name.lower()).replace("*", "-star").strip("-")
