"""Collect what a report shows besides scores: example videos, learning curves and facts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stresnet.data.store import Entries, Store
from stresnet.evaluation.report.content import Example, LearningCurve
from stresnet.evaluation.scores import Scores, ScoreTable
from stresnet.flow import dequantize_flow
from stresnet.inference.prediction import ranked
from stresnet.model.metadata import ModelMetadata
from stresnet.training import Run

EXAMPLE_FRAMES = 48


def collect_examples(scores: Scores, store: Store, count: int) -> list[Example]:
    """Return videos of some scores, as many of them misclassified as not if there are enough; wrong ones come first.

    Of both kinds they are the first ones, of each class in turn.
    """
    predicted = scores.outcomes.predicted
    rows = range(len(scores.labels))
    wrong = _classes_in_turn(scores, [i for i in rows if predicted[i] != scores.labels[i]])
    right = _classes_in_turn(scores, [i for i in rows if predicted[i] == scores.labels[i]])
    few = min(len(wrong), max(count // 2, count - len(right)))
    chosen = [*wrong[:few], *right[: count - few]]
    if not chosen:
        return []
    table = scores.take(chosen)
    return [_example(table, i, store) for i in range(len(table.video_ids))]


def _classes_in_turn(scores: Scores, rows: Sequence[int]) -> list[int]:
    """Return some rows in an order that takes one of each class in turn."""
    by_class: dict[int, list[int]] = {}
    for i in rows:
        by_class.setdefault(int(scores.labels[i]), []).append(i)
    rounds = range(max(map(len, by_class.values()), default=0))
    return [of_class[n] for n in rounds for of_class in by_class.values() if n < len(of_class)]


def _example(table: ScoreTable, row: int, store: Store) -> Example:
    video = store.video(table.video_ids[row])
    frames = np.arange(min(video.meta.frames - 1, EXAMPLE_FRAMES))

    def top3(field: str) -> list[tuple[str, float]]:
        logits = getattr(table, field)
        return [] if logits is None else list(ranked(table.classes, logits[row], 3))

    return Example(
        video_id=table.video_ids[row],
        label=table.classes[table.labels[row]],
        frames=video.rgb(frames),
        flow=dequantize_flow(video.flow(frames), video.meta.spec.flow.bound_px),
        fps=video.meta.fps,
        appearance_top3=top3("appearance"),
        motion_top3=top3("motion"),
        fused_top3=top3("logits"),
    )


def collect_curves(run: Run | None) -> Mapping[str, LearningCurve]:
    """Return the learning curves of a run's trained stages by title."""
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


def collect_facts(store: Store, entries: Entries, metadata: ModelMetadata, split: str) -> dict[str, str]:
    """Return the facts that identify an evaluation: data, flow, recipe, software and machine."""
    flow = store.spec.flow
    facts = {
        "Videos": f"{len(entries)} scored (split {split}), {metadata.training.get('videos', '?')} used for training",
        "Classes": f"{len(store.classes)}, {len(entries.distinct('label'))} of them with videos",
        "Flow": f"{flow.method} ({flow.preset}) at {flow.short_side} px short side, ±{flow.bound_px:g} px/frame",
        "Recipe": str(metadata.recipe.get("name", "unknown")),
        "Software": f"stresnet {metadata.version}, torch {torch.__version__}",
        "Machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }
    if metadata.test_groups:
        facts["Test groups"] = ", ".join(metadata.test_groups)
    return facts
