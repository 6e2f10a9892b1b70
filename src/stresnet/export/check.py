"""Compare an exported model with the network in PyTorch: logits, decisions and speed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stresnet.export.clips import LabelledClip
from stresnet.inference.prediction import Scores, VideoScores
from stresnet.inference.runtime import ClipLogits, Runtime
from stresnet.progress import Progress

ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """How a model compares with another on some clips.

    Attributes:
        numerics: what the model computes in, and where, such as ``openvino int8 fp32``.
        against: the same of the other model.
        clips: number of videos, or of generated clips.
        error: the largest difference of two logits, relative to the largest logit.
        agreement: share of clips for which both give the same class.
        accuracy: share of labelled clips that the model gives the right class; None if none has a label.
        accuracy_against: the same of the other model.
        speed: how many times as fast as the other model, each at its fastest of some rounds in turn.
    """

    numerics: str
    against: str
    clips: int
    error: float
    agreement: float
    accuracy: float | None
    accuracy_against: float | None
    speed: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return dict(vars(self))

    def __str__(self) -> str:
        words = [
            f"{self.numerics}: logits differ from {self.against} by at most {self.error:.1e} relative",
            f"top-1 agrees on {self.agreement:.1%} of {self.clips} clips",
            f"{self.speed:.2f} × its speed",
        ]
        if self.accuracy is not None and self.accuracy_against is not None:
            words.insert(2, f"top-1 {self.accuracy:.1%}, there {self.accuracy_against:.1%}")
        return "; ".join(words)


def compare(
    model: Runtime, other: Runtime, clips: Iterable[LabelledClip], progress: Progress | None = None
) -> Comparison:
    """Compare two models of one network; one video is in memory at a time."""
    differences, magnitudes, decisions, labels = [], [], [], []
    first: LabelledClip | None = None
    for done, one in enumerate(clips):
        first = first or one
        if progress:
            progress(f"checking {model.numerics}", done, 0)
        found, expected = model(one.clips), other(one.clips)
        for a, b in zip(found, expected, strict=True):
            if a is not None and b is not None:
                differences.append(float(np.abs(a - b).max()))
                magnitudes.append(float(np.abs(b).max()))
        decisions.append([int(_fused(logits).argmax()) for logits in (found, expected)])
        labels.append(-1 if one.label is None else one.label)
    assert first is not None
    chosen, known = np.array(decisions), np.array(labels)
    right = (chosen == known[:, None])[known >= 0].mean(0) if (known >= 0).any() else (None, None)
    return Comparison(
        numerics=model.numerics,
        against=other.numerics,
        clips=len(chosen),
        error=max(differences) / max(magnitudes),
        agreement=float((chosen[:, 0] == chosen[:, 1]).mean()),
        accuracy=None if right[0] is None else float(right[0]),
        accuracy_against=None if right[1] is None else float(right[1]),
        speed=speed_ratio(model, other, first),
    )


def speed_ratio(model: Runtime, other: Runtime, on: LabelledClip) -> float:
    """Return how many times as fast as another a model is: both in turn, each at its fastest round."""
    seconds = [_seconds((other, model), on) for _ in range(ROUNDS)]
    slow, fast = np.min(seconds, 0)
    return float(slow / fast)


def _seconds(runtimes: Sequence[Runtime], on: LabelledClip) -> list[float]:
    measured = []
    for runtime in runtimes:
        start = time.perf_counter()
        runtime(on.clips)
        measured.append(time.perf_counter() - start)
    return measured


def _fused(logits: ClipLogits) -> Scores:
    return VideoScores(*(None if stream is None else stream.mean((0, 1)) for stream in logits)).fused
