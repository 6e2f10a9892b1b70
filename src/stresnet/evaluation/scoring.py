"""Score the videos of a split with one model after another, keeping finished parts on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from stresnet.data.sampling import Protocol
from stresnet.data.store import Entries, PreparedVideo, Store, StoreEntry
from stresnet.errors import StoreError
from stresnet.evaluation.score_files import ScoreFile, write_scores
from stresnet.evaluation.scores import BATCH_VIDEOS, ScoreTable, concatenate
from stresnet.inference.prediction import VideoScores
from stresnet.inference.recognizer import Recognizer
from stresnet.progress import Progress

PART_VIDEOS = 64  # videos per part on disk: at most this many are scored again after an interruption


@dataclass(frozen=True)
class ScoredParts:
    """The scores of one model under one protocol, in files of up to `PART_VIDEOS` videos.

    Attributes:
        name: name of the model.
        files: the files, in the order of the videos.
    """

    name: str
    files: Sequence[Path]


@dataclass
class SplitScorer:
    """Scores videos of a store, with one model after another.

    Attributes:
        store: prepared videos.
        entries: the videos to score.
        parts: folder where parts are kept until the report is written.
        progress: called before and after every video.
        failed: reason by id of each video that could not be scored.
    """

    store: Store
    entries: Entries
    parts: Path
    progress: Progress | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _part_files: list[Path] = field(default_factory=list)

    def score(self, recognizer: Recognizer, names: Mapping[Protocol, str]) -> list[ScoredParts]:
        """Score the videos with one model under some protocols; parts left by an interrupted call are kept.

        Args:
            recognizer: the model.
            names: the name of the model's scores under each protocol.

        Raises:
            StoreError: if none of the videos can be scored.
            ScoreError: if a part cannot be written.
        """
        self.parts.mkdir(parents=True, exist_ok=True)  # fail before the first part is computed
        model = f"{_digest(recognizer)} {recognizer.numerics}"
        return [self._score_parts(recognizer, protocol, name, model) for protocol, name in names.items()]

    def _score_parts(self, recognizer: Recognizer, protocol: Protocol, name: str, model: str) -> ScoredParts:
        key = self._key(model, protocol)
        files = []
        for start in range(0, len(self.entries), PART_VIDEOS):
            chunk = self.entries[start : start + PART_VIDEOS]
            file = self.parts / f"{key}-{start:07d}.parquet"
            incomplete = file.with_suffix(".incomplete.parquet")  # a resumed call scores it again, to find its failures
            self._part_files += file, incomplete
            if not file.is_file():
                scored = self._score(recognizer, protocol, name, start, chunk)
                file = file if len(scored) == len(chunk) else incomplete
                file.unlink(missing_ok=True)
                if scored:
                    self._as_table(recognizer, scored, protocol, name).write(file)
            if file.is_file():
                files.append(file)
            self._report_progress(name, start + len(chunk))
        if not files:
            first = next(iter(self.failed.values()))
            raise StoreError(f"none of the {len(self.entries)} videos could be scored, first: {first}")
        return ScoredParts(name, files)

    def merge(self, parts: ScoredParts, path: Path) -> ScoreFile:
        """Write parts to one file, without the videos on which any model failed, so that all files have the same.

        Raises:
            StoreError: if none is left.
            ScoreError: if a part cannot be read, or the file cannot be written.
        """
        if len(self.failed) == len(self.entries):
            first = next(iter(self.failed.values()))
            raise StoreError(f"none of the videos could be scored by all models, first: {first}")
        return write_scores(path, self._scored_by_all(parts))

    def _scored_by_all(self, parts: ScoredParts) -> Iterator[ScoreTable]:
        at_once = BATCH_VIDEOS // PART_VIDEOS
        for start in range(0, len(parts.files), at_once):
            table = concatenate([ScoreTable.read(file) for file in parts.files[start : start + at_once]], parts.name)
            keep = [row for row, video_id in enumerate(table.video_ids) if video_id not in self.failed]
            if keep:
                yield table.take(keep)

    def discard_parts(self) -> None:
        """Remove the parts from disk, once they are no longer needed to resume."""
        for file in self._part_files:
            file.unlink(missing_ok=True)
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()

    def _score(
        self, recognizer: Recognizer, protocol: Protocol, name: str, start: int, chunk: Sequence[StoreEntry]
    ) -> list[tuple[StoreEntry, VideoScores]]:
        scored = []
        results = recognizer.score_all((partial(self._open, entry) for entry in chunk), protocol)
        for done, entry in enumerate(chunk, start):
            self._report_progress(name, done)
            result = next(results)
            if isinstance(result, VideoScores):
                scored.append((entry, result))
            elif isinstance(result, StoreError):
                self.failed[entry.record.id] = str(result)
            else:
                raise result
        return scored

    def _open(self, entry: StoreEntry) -> PreparedVideo:
        video = self.store.video(entry.record.id)
        video.verify()  # a damaged JPEG may decode without an error, to another picture
        return video

    def _as_table(
        self, recognizer: Recognizer, scored: Sequence[tuple[StoreEntry, VideoScores]], protocol: Protocol, name: str
    ) -> ScoreTable:
        # The model may have been trained on a store with another order of classes.
        position = {label: k for k, label in enumerate(recognizer.classes)}
        order = [position[label] for label in self.store.classes]
        index = {label: k for k, label in enumerate(self.store.classes)}

        def stream(which: str) -> np.ndarray | None:
            values = [getattr(scores, which) for _, scores in scored]
            return None if values[0] is None else np.stack(values)[:, order]

        return ScoreTable(
            name=name,
            protocol=protocol,
            classes=self.store.classes,
            video_ids=tuple(entry.record.id for entry, _ in scored),
            labels=np.array([index[entry.record.label] for entry, _ in scored], dtype=np.int64),
            logits=np.stack([scores.fused for _, scores in scored])[:, order],
            appearance=stream("appearance"),
            motion=stream("motion"),
            numerics=recognizer.numerics,
        )

    def _report_progress(self, name: str, done: int) -> None:
        if self.progress:
            self.progress(f"scoring {name}", done, len(self.entries))

    def _key(self, model: str, protocol: Protocol) -> str:
        """Return a file name that is unique to the model, given by digest and numerics, the protocol and the videos."""
        identity = f"{model} {protocol} {self.store.spec} {self._videos}"
        return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()

    @cached_property
    def _videos(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for name in ("id", "label", "frames", "bytes"):
            digest.update("\0".join(map(str, self.entries.column(name).to_pylist())).encode() + b"\0\0")
        return digest.hexdigest()


def _digest(recognizer: Recognizer) -> str:
    model = recognizer.metadata
    identity = repr((recognizer.digest(), model.preprocessing, model.recipe, model.stage))
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
