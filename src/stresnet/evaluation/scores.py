"""Scores: the logits of N videos over K classes, in memory as tables, on disk as Parquet, and how they are combined.

Videos with label -1 (unknown) are scored but ignored by every measure.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from stresnet.atomic import replacing
from stresnet.errors import ScoreError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

UNKNOWN = -1

BATCH_VIDEOS = 1024
"""Videos whose scores are held at a time when a file is written or measured."""

_METADATA_KEY = b"stresnet"
_FORMAT = "stresnet scores 1"
_ABOUT = ("name", "protocol", "classes", "numerics")  # fields kept in the metadata of the file
STREAMS = ("logits", "appearance", "motion")


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How the videos were classified; all measures are computed from it.

    Attributes:
        labels: (N,) int64, index of the true class, -1 if unknown.
        predicted: (N,) int64, index of the class with the highest logit.
        ranks: (N,) int64, number of classes before the true one, by logit, then by index; undefined if that is unknown.
    """

    labels: Ints
    predicted: Ints
    ranks: Ints

    @classmethod
    def of(cls, labels: Ints, logits: Floats) -> Outcomes:
        """Return the outcomes of logits (N, K)."""
        true_logit = logits[np.arange(len(labels)), labels][:, None]
        before = np.arange(logits.shape[1]) < labels[:, None]
        ranks = ((logits > true_logit) | ((logits == true_logit) & before)).sum(axis=1)
        return cls(labels, logits.argmax(axis=1).astype(np.int64), ranks)


class Scores(ABC):
    """The logits of N videos over K classes, from one model under one test protocol.

    Attributes:
        name: name of the evaluated model or fusion, as shown in reports.
        protocol: the test protocol, such as ``dense25``.
        classes: K class names, in the order of the columns.
        video_ids: N unique ids.
        labels: (N,) int64, index of the true class, -1 if unknown.
        logits: (N, K) float32, the fused scores before softmax.
        appearance: (N, K) float32 logits of the appearance stream alone, or None.
        motion: (N, K) float32 logits of the motion stream alone, or None.
        numerics: what the network computed in, see `Recognizer.numerics`.
    """

    name: str
    protocol: str
    numerics: str
    classes: tuple[str, ...]
    video_ids: tuple[str, ...]
    labels: Ints
    logits: Floats
    appearance: Floats | None
    motion: Floats | None

    def __repr__(self) -> str:
        size = f"{len(self.labels)} videos × {len(self.classes)} classes"
        return f"{type(self).__name__}({self.name!r}, {self.protocol!r}, {size})"

    @abstractmethod
    def batches(self, streams: Sequence[str] = STREAMS) -> Iterator[ScoreTable]:
        """Yield tables of up to `BATCH_VIDEOS` videos, in order, with the logits and of the other streams these."""

    @abstractmethod
    def take(self, rows: Sequence[int]) -> ScoreTable:
        """Return a table of these rows, 0-based; at least one."""

    @cached_property
    def outcomes(self) -> Outcomes:
        """How the videos were classified."""
        parts = [Outcomes.of(table.labels, table.logits) for table in self.batches(streams=())]
        return Outcomes(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("labels", "predicted", "ranks")))


@dataclass(frozen=True, eq=False, repr=False)
class ScoreTable(Scores):
    """Scores in memory, with the attributes of `Scores`.

    Raises:
        ScoreError: shapes do not match, an id or class is repeated, a label is out of range, or a score is not finite.
    """

    name: str
    protocol: str
    classes: tuple[str, ...]
    video_ids: tuple[str, ...]
    labels: Ints
    logits: Floats
    appearance: Floats | None = None
    motion: Floats | None = None
    numerics: str = "fp32"

    def __post_init__(self) -> None:
        def put(field: str, value: object) -> None:
            object.__setattr__(self, field, value)

        put("classes", tuple(self.classes))
        put("video_ids", tuple(self.video_ids))
        self._require_unique("class", self.classes)
        self._require_unique("video", self.video_ids)
        put("labels", self._checked_labels())
        for field in STREAMS:
            scores = getattr(self, field)
            if scores is not None:
                put(field, self._checked_scores(field, scores))

    def _require_unique(self, what: str, names: tuple[str, ...]) -> None:
        if not names:
            raise ScoreError(f"scores {self.name!r}: expected at least one {what}, found none")
        if len(set(names)) != len(names):
            repeated = Counter(names).most_common(1)[0][0]
            raise ScoreError(f"scores {self.name!r}: {what} {repeated!r} is repeated; each may occur once")

    def _checked_labels(self) -> Ints:
        labels = np.asarray(self.labels, dtype=np.int64)
        n, k = len(self.video_ids), len(self.classes)
        if labels.shape != (n,):
            raise ScoreError(f"scores {self.name!r}: labels must have shape ({n},), found {labels.shape}")
        if labels.min() < UNKNOWN or labels.max() >= k:
            raise ScoreError(
                f"scores {self.name!r}: labels must be -1 (unknown) or 0..{k - 1}, found {labels.min()}..{labels.max()}"
            )
        return labels

    def _checked_scores(self, field: str, values: npt.ArrayLike) -> Floats:
        with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected below
            scores = np.asarray(values, dtype=np.float32)
        expected = (len(self.video_ids), len(self.classes))
        if scores.shape != expected:
            raise ScoreError(f"scores {self.name!r}: {field} must have shape {expected}, found {scores.shape}")
        broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        if len(broken):
            raise ScoreError(
                f"scores {self.name!r}: {field} must be finite, but {len(broken)} of {len(scores)} videos "
                f"have NaN or infinite scores, first {self.video_ids[broken[0]]!r}"
            )
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON types; a stream that is absent is null."""
        return {
            "name": self.name,
            "protocol": self.protocol,
            "classes": list(self.classes),
            "video_ids": list(self.video_ids),
            "labels": self.labels.tolist(),
            **{field: None if (scores := getattr(self, field)) is None else scores.tolist() for field in STREAMS},
        }

    def batches(self, streams: Sequence[str] = STREAMS) -> Iterator[ScoreTable]:
        wanted = replace(
            self,
            appearance=self.appearance if "appearance" in streams else None,
            motion=self.motion if "motion" in streams else None,
        )
        for start in range(0, len(self.video_ids), BATCH_VIDEOS):
            yield wanted.take(range(start, min(start + BATCH_VIDEOS, len(self.video_ids))))

    def take(self, rows: Sequence[int]) -> ScoreTable:
        index = list(rows)
        return replace(
            self,
            video_ids=tuple(self.video_ids[i] for i in index),
            labels=self.labels[index],
            logits=self.logits[index],
            appearance=None if self.appearance is None else self.appearance[index],
            motion=None if self.motion is None else self.motion[index],
        )

    def write(self, path: str | Path) -> None:
        """Write the table as a Parquet file, atomically.

        Columns: ``video_id`` string, ``label`` int64, ``logits`` and, if present, ``appearance`` and ``motion`` as
        float32 lists of length K. The schema metadata holds a JSON object under ``stresnet`` with ``format``
        ("stresnet scores 1"), ``name``, ``protocol``, ``classes`` and ``numerics`` (fp32 if it is missing).

        Raises:
            ScoreError: the file cannot be written.
        """
        with writing(Path(path)) as temporary:
            pq.write_table(self.to_arrow(), temporary, use_dictionary=False)

    def to_arrow(self) -> Any:
        """Return the table in the form in which it is written, see `write`."""
        columns: dict[str, Any] = {
            "video_id": pa.array(self.video_ids, pa.string()),
            "label": pa.array(self.labels),
        }
        for field in STREAMS:
            scores = getattr(self, field)
            if scores is not None:
                flat = pa.array(np.ascontiguousarray(scores).ravel())
                columns[field] = pa.FixedSizeListArray.from_arrays(flat, len(self.classes))
        about = {"format": _FORMAT} | {name: getattr(self, name) for name in _ABOUT}
        return pa.table(columns).replace_schema_metadata({_METADATA_KEY: json.dumps(about).encode()})

    @classmethod
    def read(cls, path: str | Path) -> ScoreTable:
        """Read a table written by `write`, bit for bit.

        Raises:
            ScoreError: the file is missing, is not a Parquet file, or does not hold scores.
        """
        with reading(Path(path)) as file:
            return cls.from_arrow(file.read())

    @classmethod
    def from_arrow(cls, table: Any) -> ScoreTable:
        """Return the table that `to_arrow` turned into this.

        Raises:
            ScoreError, KeyError, TypeError, ValueError, pyarrow.ArrowException: it holds no scores.
        """
        about = read_about(table.schema)
        shape = (table.num_rows, len(about["classes"]))
        scores = {
            field: table.column(field).combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(shape)
            for field in STREAMS
            if field in table.column_names or field == "logits"
        }
        return cls(
            **{name: about[name] for name in _ABOUT},
            video_ids=tuple(table.column("video_id").to_pylist()),
            labels=table.column("label").to_numpy(),
            **scores,
        )


@contextmanager
def reading(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file of scores; errors in the block are those of reading it.

    Raises:
        ScoreError: the file is missing, is not a Parquet file, or does not hold scores.
    """
    if not path.is_file():
        raise ScoreError(f"no score file at {path}; expected a Parquet file written by an evaluation")
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except ScoreError as error:
        raise ScoreError(f"{path}: {error}") from error
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScoreError(f"{path} cannot be read as Parquet scores: {reason}") from error
    except (KeyError, TypeError, ValueError) as error:
        needed = "columns video_id, label, logits and 'stresnet' metadata"
        raise ScoreError(f"{path} is a Parquet file without scores; expected {needed}") from error


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes ``path`` when the block ends without an error.

    Raises:
        ScoreError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ScoreError(f"cannot write scores to {path}: {error.strerror or error}") from error


def read_about(schema: Any) -> dict[str, Any]:
    """Return name, protocol, classes and numerics of the scores in a file, given its Arrow schema.

    Raises:
        ScoreError, KeyError, TypeError, ValueError: it holds no scores.
    """
    about: dict[str, Any] = json.loads((schema.metadata or {})[_METADATA_KEY])
    if about["format"] != _FORMAT:
        raise ScoreError(f"expected format {_FORMAT!r}, found {about['format']!r}; evaluate again")
    return {"numerics": "fp32"} | about


def fuse(tables: Sequence[ScoreTable], weights: Sequence[float] | None = None, name: str = "fusion") -> ScoreTable:
    """Return the weighted mean of the tables' logits, in the row order of the first table.

    Args:
        tables: at least one; rows are matched by video id.
        weights: one per table, non-negative and not all zero; only their ratios matter. By default equal.
        name: name of the new table, which has fused logits only.

    Raises:
        ScoreError: the tables differ in classes, videos or labels, or the weights are invalid.
    """
    if not tables:
        raise ScoreError("expected at least one score table, found none")
    shares = np.asarray([1.0] * len(tables) if weights is None else weights, dtype=np.float64)
    if shares.shape != (len(tables),):
        raise ScoreError(f"fusion needs one weight per table: {len(tables)} tables, {shares.size} weights")
    if not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() <= 0:
        raise ScoreError(f"fusion weights must be finite, at least 0 and not all 0, found {shares.tolist()}")
    first = tables[0]
    total = np.zeros(first.logits.shape, dtype=np.float64)
    for table, share in zip(tables, shares / shares.sum(), strict=True):
        total += share * table.logits[rows_of(first, table)]
    return ScoreTable(
        name=name,
        protocol=" + ".join(dict.fromkeys(table.protocol for table in tables)),
        numerics=" + ".join(dict.fromkeys(table.numerics for table in tables)),
        classes=first.classes,
        video_ids=first.video_ids,
        labels=first.labels,
        logits=total.astype(np.float32),
    )


def concatenate(tables: Sequence[ScoreTable], name: str) -> ScoreTable:
    """Concatenate tables of different videos, such as parts of a split or folds.

    Raises:
        ScoreError: there are no tables, their classes or streams differ, or a video is in two of them.
    """
    if not tables or len({t.classes for t in tables}) > 1:
        raise ScoreError(f"scores {name!r}: expected at least one table, all with the same classes")
    if len({(t.appearance is None, t.motion is None) for t in tables}) > 1:
        raise ScoreError(f"scores {name!r}: some tables have a stream that others lack")

    def joined(field: str) -> Floats | None:
        arrays = [getattr(t, field) for t in tables]
        return None if arrays[0] is None else np.concatenate(arrays)

    return ScoreTable(
        name=name,
        protocol=tables[0].protocol,
        numerics=tables[0].numerics,
        classes=tables[0].classes,
        video_ids=tuple(video for t in tables for video in t.video_ids),
        labels=np.concatenate([t.labels for t in tables]),
        logits=np.concatenate([t.logits for t in tables]),
        appearance=joined("appearance"),
        motion=joined("motion"),
    )


def rows_of(reference: Scores, other: Scores) -> Ints:
    """Return the row of ``other`` for each row of ``reference``, (N,) int64.

    Raises:
        ScoreError: the tables differ in classes, videos or labels.
    """
    pair = f"scores {reference.name!r} and {other.name!r}"
    if reference.classes != other.classes:
        here, there = len(reference.classes), len(other.classes)
        raise ScoreError(
            f"{pair} must have the same classes in the same order, found {here} and {there}"
            if here != there
            else f"{pair} must have the same classes in the same order, first difference: "
            + next(f"{x!r} and {y!r}" for x, y in zip(reference.classes, other.classes, strict=True) if x != y)
        )
    row_of = {video: row for row, video in enumerate(other.video_ids)}
    videos = reference.video_ids
    unmatched = row_of.keys() ^ set(videos)
    if unmatched:
        raise ScoreError(
            f"{pair} must score the same videos, but {len(unmatched)} are in only one of them, "
            f"for instance {min(unmatched)!r}; evaluate both on the same split"
        )
    rows = np.array([row_of[video] for video in videos], dtype=np.int64)
    differ = np.flatnonzero(other.labels[rows] != reference.labels)
    if len(differ):
        raise ScoreError(
            f"{pair} must agree on the true classes, but differ on {len(differ)} videos, first {videos[differ[0]]!r}"
        )
    return rows
