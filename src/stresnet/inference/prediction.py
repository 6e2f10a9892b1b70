"""The results of recognition: scores of a video and the prediction made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresnet.data.sampling import Protocol

Scores = NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class VideoScores:
    """Logits of one video, averaged over views and temporal outputs.

    Attributes:
        appearance: (K,) float32; None if the stream is switched off.
        motion: (K,) float32; None if the stream is switched off.
    """

    appearance: Scores | None
    motion: Scores | None

    @property
    def fused(self) -> Scores:
        """The mean over the streams, (K,) float32."""
        return mean_scores([s for s in (self.appearance, self.motion) if s is not None])

    def to_dict(self) -> dict[str, list[float] | None]:
        """Return the logits of each stream and their mean as plain JSON values."""
        streams = {"appearance": self.appearance, "motion": self.motion, "fused": self.fused}
        return {name: None if scores is None else scores.tolist() for name, scores in streams.items()}

    def __repr__(self) -> str:
        streams = [name for name in ("appearance", "motion") if getattr(self, name) is not None]
        return f"VideoScores({' + '.join(streams)}, {len(self.fused)} classes)"


@dataclass(frozen=True, repr=False)
class Prediction:
    """The predicted action of a video.

    Attributes:
        label: the most likely class.
        probability: its softmax probability from the fused logits, 0 to 1; not calibrated.
        top: the most likely classes with their probabilities, best first.
        scores: the logits, in the order of the classes.
        protocol: how the video was sampled.
        flow: the flow method and its preset, such as ``tvl1/fast``; None if the network has no motion stream.
        frames: number of decoded frames.
        truncated: whether some frames could not be decoded, because the file is cut short or damaged.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    scores: VideoScores
    protocol: Protocol
    flow: str | None
    frames: int
    truncated: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        return {
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            "protocol": self.protocol,
            "flow": self.flow,
            "frames": self.frames,
            "truncated": self.truncated,
            "scores": self.scores.to_dict(),
        }

    def __repr__(self) -> str:
        truncated = ", truncated" if self.truncated else ""
        return f"Prediction({self.label!r}, {self.probability:.1%}, {self.frames} frames{truncated})"


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean of logits, (K,) float32."""
    mean: Scores = np.stack(scores).mean(axis=0, dtype=np.float32)
    return mean


def mean_video_scores(scores: Sequence[VideoScores]) -> VideoScores:
    """Return the mean of the logits of each stream."""

    def of_stream(values: list[Scores | None]) -> Scores | None:
        present = [value for value in values if value is not None]
        return mean_scores(present) if present else None

    return VideoScores(of_stream([s.appearance for s in scores]), of_stream([s.motion for s in scores]))


def ranked(classes: Sequence[str], logits: Scores, top: int) -> tuple[tuple[str, float], ...]:
    """Return the `top` most likely classes with their softmax probabilities, best first.

    Ties are broken in favour of the earlier class.
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = shifted / shifted.sum()
    return tuple((classes[k], float(probabilities[k])) for k in np.argsort(-logits, kind="stable")[:top])
