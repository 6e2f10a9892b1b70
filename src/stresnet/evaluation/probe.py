"""Linear probes: how well a linear classifier tells the classes from a network's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stresnet.data.folds import split_groups
from stresnet.data.store import Entries, Store
from stresnet.errors import StoreError
from stresnet.evaluation.metrics import Interval, top_k_accuracy
from stresnet.evaluation.scores import ScoreTable
from stresnet.inference.embedding import Embedding
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, load_checkpoint
from stresnet.progress import Progress
from stresnet.weights import hub

WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, times half the squared norm of the weights; the loss is the mean over videos."""
FOLDS = 5
_ITERATIONS = 100


@dataclass(frozen=True)
class Probe:
    """The accuracy of a linear classifier of features.

    Attributes:
        features: `appearance`, `motion` or `fused`.
        dimensions: number of features.
        weight_decay: the penalty that cross-validation on the training videos chose.
        top1: accuracy on the test videos, 0..1.
    """

    features: str
    dimensions: int
    weight_decay: float
    top1: Interval

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {
            "features": self.features,
            "dimensions": self.dimensions,
            "weight_decay": self.weight_decay,
            "top1": [self.top1.value, self.top1.low, self.top1.high],
        }


def probe(
    model: str | Path | Checkpoint, store: Store, *, split: str = "test", progress: Progress | None = None
) -> tuple[Probe, ...]:
    """Fit linear classifiers to a network's features of the training videos, and test them on another split.

    The classifiers are multinomial logistic regressions of standardised features. Their penalty is the one of
    `WEIGHT_DECAYS` that is best in a cross-validation over groups of the training videos.

    Args:
        model: a trained network; or an initial model, such as image weights: its features of the store's flow.
        store: prepared videos; groups that the model held out of training become its test split.
        split: the split to test on.
        progress: called before every video.

    Raises:
        StoreError: a split has no videos, or one cannot be read.
        FlowSpecError: the store's flow differs from that of the training store.
    """
    recognizer = _recognizer(model, store)
    if recognizer.metadata.test_groups:
        store = store.with_test_groups(recognizer.metadata.test_groups)
    train, test = (_selected(store, name) for name in ("train", split))
    seen = _Features(recognizer, store, len(train) + len(test), progress)
    of_train, of_test = seen.of(train), seen.of(test)
    return tuple(_probe(name, of_train[name], of_test[name], train, test, store.classes) for name in of_train)


def _recognizer(model: str | Path | Checkpoint, store: Store) -> Recognizer:
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(hub.checkpoint_file(Path(model)))
    return Recognizer(checkpoint if checkpoint.store_spec else checkpoint.replace(store_spec=store.spec.to_dict()))


def _selected(store: Store, split: str) -> Entries:
    if not (entries := store.select(split)):
        raise StoreError(f"{store.root} has no usable videos of split {split!r}")
    return entries


class _Features:
    """Computes the features of a store's videos."""

    def __init__(self, recognizer: Recognizer, store: Store, total: int, progress: Progress | None) -> None:
        self._recognizer, self._store, self._total, self._progress = recognizer, store, total, progress
        self._done = 0

    def of(self, entries: Entries) -> dict[str, Tensor]:
        """Return the features of some videos, (N,D) for each stream and for both."""
        found: list[Embedding] = []
        for entry in entries:
            if self._progress:
                self._progress("computing features", self._done, self._total)
            found.append(self._recognizer.embed(self._store.video(entry.record.id)))
            self._done += 1
        streams = {name: [getattr(one, name) for one in found] for name in ("appearance", "motion", "fused")}
        kept = {name: values for name, values in streams.items() if values[0] is not None}
        if len(kept) == 2:  # of a single stream
            del kept["fused"]
        return {name: torch.from_numpy(np.stack(values)) for name, values in kept.items()}


def _probe(
    name: str, of_train: Tensor, of_test: Tensor, train: Entries, test: Entries, classes: tuple[str, ...]
) -> Probe:
    index = {label: k for k, label in enumerate(classes)}
    labels = [torch.tensor([index[entry.record.label] for entry in entries]) for entries in (train, test)]
    weight_decay = _best_weight_decay(of_train, labels[0], train, len(classes))
    logits = _fitted(of_train, labels[0], weight_decay, len(classes))(of_test)
    ids = tuple(entry.record.id for entry in test)
    table = ScoreTable(f"probe of {name}", "linear probe", classes, ids, labels[1].numpy(), logits.numpy())
    return Probe(name, of_train.shape[1], weight_decay, top_k_accuracy(table, 1))


def _best_weight_decay(features: Tensor, labels: Tensor, entries: Entries, classes: int) -> float:
    """Return the penalty that classifies most videos of groups that were left out; the strongest among equals."""
    groups = [entry.record.group or entry.record.id for entry in entries]
    folds = split_groups([(entry.record.label, group) for entry, group in zip(entries, groups, strict=True)], FOLDS)
    correct = dict.fromkeys(WEIGHT_DECAYS, 0)
    for fold in folds:
        out = torch.tensor([group in set(fold) for group in groups])
        if out.any() and not out.all():
            for weight_decay in WEIGHT_DECAYS:
                logits = _fitted(features[~out], labels[~out], weight_decay, classes)(features[out])
                correct[weight_decay] += int((logits.argmax(1) == labels[out]).sum())
    return max(WEIGHT_DECAYS, key=lambda weight_decay: (correct[weight_decay], weight_decay))


def _fitted(features: Tensor, labels: Tensor, weight_decay: float, classes: int) -> Callable[[Tensor], Tensor]:
    """Return a function from features, (N,D), to logits, (N,K): logistic regression of standardised features."""
    mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
    x = (features - mean) / std
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(F.linear(x, weight, bias), labels) + 0.5 * weight_decay * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    w, b = weight.detach(), bias.detach()
    return lambda other: F.linear((other - mean) / std, w, b)
