"""The answers of a study's rows to its test videos, as arrays and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stresnet.studies.folder import StudyFolder
from stresnet.studies.plan import Block, Row
from stresnet.studies.statistics import Floats, Ints

Bools = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Answers:
    """The answers of all rows to V test videos with S seeds.

    Attributes:
        videos: (V,) ids, ordered by fold.
        folds: (V,) name of the fold in which each video is held out.
        groups: (V,) group of each video; "" if it has none.
        labels: (V,) true class of each video.
        seeds: S seeds.
        known: (V,S) whether all rows scored the video with the seed; at least one seed is known for each video.
        predicted: by the name of the row, (V,S) predicted class.
        unscored: number of test videos left out because a model could not score them.
    """

    videos: Texts
    folds: Texts
    groups: Texts
    labels: Texts
    seeds: tuple[int, ...]
    known: Bools
    predicted: Mapping[str, Texts]
    unscored: int

    @cached_property
    def clusters(self) -> Ints:
        """(V,) index of each video's group, 0-based; a video without a group is one by itself."""
        index: dict[tuple[bool, str], int] = {}
        names = [(bool(group), group or video) for group, video in zip(self.groups, self.videos, strict=True)]
        return np.array([index.setdefault(name, len(index)) for name in names], np.int64)

    def correct(self, row: str) -> Bools:
        """Return whether a row is correct, (V,S); false where it is not known."""
        return np.asarray((self.predicted[row] == self.labels[:, None]) & self.known, np.bool_)

    def shares(self, row: str) -> Floats:
        """Return the share of its known seeds with which a row classifies each video correctly, (V,)."""
        return np.asarray(self.correct(row).sum(axis=1) / self.known.sum(axis=1))

    def surplus(self, row: str, reference: str) -> Ints:
        """Return the difference of two rows' shares as whole numbers proportional to it, (V,) int64."""
        seeds = self.known.sum(axis=1)  # differs between folds while a study is not complete
        difference = self.correct(row).sum(axis=1) - self.correct(reference).sum(axis=1)
        return np.asarray(difference * (math.lcm(*set(seeds.tolist())) // seeds), np.int64)

    def to_arrow(self, reports: Mapping[str, str]) -> pa.Table:
        """Return a table with a row per (cell, row, fold, seed, video).

        Args:
            reports: the stage that each cell reports, or `late fusion`, by the name of its row.
        """
        v, s = np.nonzero(self.known)
        columns: dict[str, Any] = {"fold": self.folds[v], "seed": np.array(self.seeds, np.int64)[s]}
        columns |= {"video": self.videos[v], "group": self.groups[v], "label": self.labels[v]}
        tables = []
        for name, predicted in self.predicted.items():
            which = {"cell": [name] * len(v), "row": [reports[name]] * len(v)}
            answer = {"predicted": predicted[v, s], "correct": self.correct(name)[v, s]}
            tables.append(pa.table(which | columns | answer))
        return pa.concat_tables(tables)


def collect_answers(folder: StudyFolder, rows: Sequence[Row], blocks: Sequence[Block]) -> Answers:
    """Return the answers of some rows in some blocks, at least one of each, all of them scored.

    Raises:
        ScoreError: if scores cannot be read.
    """
    seeds = tuple(dict.fromkeys(block.seed for block in blocks))
    videos: list[tuple[str, str, str, str]] = []  # id, fold, group, label
    for fold in {block.fold.name: block.fold for block in blocks}.values():
        entries = folder.plan.test_videos(fold)
        columns = (entries.column(name).to_pylist() for name in ("id", "group", "label"))
        videos += [(video, fold.name, group, label) for video, group, label in zip(*columns, strict=True)]
    place = {video: v for v, (video, *_) in enumerate(videos)}
    predicted = {row.name: np.full((len(videos), len(seeds)), "", object) for row in rows}
    for block in blocks:
        for row in rows:
            scores = folder.scores(row, block)
            where = [place[video] for video in scores.video_ids]
            classes = [scores.classes[k] for k in scores.outcomes.predicted]
            predicted[row.name][where, seeds.index(block.seed)] = classes
    known = np.all([answers != "" for answers in predicted.values()], axis=0)
    keep = known.any(axis=1)
    ids, folds, groups, labels = np.array(videos, object)[keep].T
    answers = {name: values[keep] for name, values in predicted.items()}
    return Answers(ids, folds, groups, labels, seeds, known[keep], answers, int((~keep).sum()))
