"""What a report tells besides scores: videos to look at, learning curves, facts."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stresnet.data.store import Store, StoreEntry
from stresnet.evaluation.report import Example, LearningCurve
from stresnet.evaluation.scores import ScoreTable
from stresnet.flow import dequantize_flow
from stresnet.inference.recognizer import ranked
from stresnet.model import Checkpoint
from stresnet.training import Run

EXAMPLE_FRAMES = 48


def examples(table: ScoreTable, store: Store, count: int) -> list[Example]:
    """A few test videos, one of each class in turn."""
    by_class: dict[int, list[int]] = {}
    for i, label in enumerate(table.labels):
        by_class.setdefault(int(label), []).append(i)
    turns = [
        videos[n] for n in range(max(map(len, by_class.values()))) for videos in by_class.values() if n < len(videos)
    ]
    shown = []
    for i in turns[:count]:
        clip = store.video(table.video_ids[i])
        frames = np.arange(min(clip.meta.frames - 1, EXAMPLE_FRAMES))
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


def curves(run: Run | None) -> Mapping[str, LearningCurve]:
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


def facts(store: Store, entries: Sequence[StoreEntry], checkpoint: Checkpoint, split: str) -> dict[str, str]:
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
