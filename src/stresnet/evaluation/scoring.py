"""Score the videos of a split with one model after another, keeping finished parts on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from stresnet.data.store import Entries, Store, StoreEntry
from stresnet.errors import StoreError
from stresnet.evaluation.scores import ScoreTable, concatenate
from stresnet.inference.prediction import VideoScores
from stresnet.inference.protocols import Protocol
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint
from stresnet.progress import Progress

PART_VIDEOS = 64  # videos per part on disk: at most this many are scored again after an interruption


@dataclass
class SplitScorer:
    """Scores videos of a store, with one model after another.

    Attributes:
        store: prepared videos.
        entries: the videos to score.
        parts: folder where finished parts are kept until the report is written.
        progress: called before and after every video.
        failed: reason by id of each video that could not be scored.
    """

    store: Store
    entries: Entries
    parts: Path
    progress: Progress | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _part_files: list[Path] = field(default_factory=list)

    def score(self, recognizer: Recognizer, protocol: Protocol, name: str) -> ScoreTable:
        """Return the scores of one model, called ``name``; parts left by an interrupted call are read from disk.

        Raises:
            StoreError: if none of the videos can be scored.
        """
        self.parts.mkdir(parents=True, exist_ok=True)  # fail before the first part is computed
        key = self._key(recognizer.checkpoint, protocol)
        parts: list[ScoreTable] = []
        for start in range(0, len(self.entries), PART_VIDEOS):
            chunk = self.entries[start : start + PART_VIDEOS]
            file = self.parts / f"{key}-{start:07d}.parquet"
            self._part_files.append(file)
            if file.is_file():
                parts.append(replace(ScoreTable.read(file), name=name))
            elif scored := self._score(recognizer, protocol, name, start, chunk):
                parts.append(self._as_table(recognizer, scored, protocol, name))
                if len(scored) == len(chunk):  # an incomplete part would hide its failures from a resumed call
                    parts[-1].write(file)
            self._report_progress(name, start + len(chunk))
        if not parts:
            first = next(iter(self.failed.values()))
            raise StoreError(f"none of the {len(self.entries)} videos could be scored, first: {first}")
        return concatenate(parts, name)

    def discard_parts(self) -> None:
        """Remove the parts from disk, once they are no longer needed to resume."""
        for file in self._part_files:
            file.unlink(missing_ok=True)
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()

    def without_failed(self, table: ScoreTable) -> ScoreTable:
        """Return a table without the videos on which any model failed, so that all tables have the same videos.

        Raises:
            StoreError: if none is left.
        """
        keep = [i for i, video_id in enumerate(table.video_ids) if video_id not in self.failed]
        if not keep:
            first = next(iter(self.failed.values()))
            raise StoreError(f"none of the videos could be scored by all models, first: {first}")
        return table.take(keep)

    def _score(
        self, recognizer: Recognizer, protocol: Protocol, name: str, start: int, chunk: Sequence[StoreEntry]
    ) -> list[tuple[StoreEntry, VideoScores]]:
        scored = []
        for done, entry in enumerate(chunk, start):
            self._report_progress(name, done)
            try:
                video = self.store.video(entry.record.id)
                video.verify()  # a damaged JPEG may decode without an error, to another picture
                scored.append((entry, recognizer.score(video, protocol)))
            except StoreError as error:
                self.failed[entry.record.id] = str(error)
        return scored

    def _as_table(
        self, recognizer: Recognizer, scored: Sequence[tuple[StoreEntry, VideoScores]], protocol: Protocol, name: str
    ) -> ScoreTable:
        # The model may have been trained on a store with another order of classes.
        order = [recognizer.classes.index(label) for label in self.store.classes]

        def stream(which: str) -> np.ndarray | None:
            values = [getattr(scores, which) for _, scores in scored]
            return None if values[0] is None else np.stack(values)[:, order]

        return ScoreTable(
            name=name,
            protocol=protocol,
            classes=self.store.classes,
            video_ids=tuple(entry.record.id for entry, _ in scored),
            labels=np.array([self.store.classes.index(entry.record.label) for entry, _ in scored], dtype=np.int64),
            logits=np.stack([scores.fused for _, scores in scored])[:, order],
            appearance=stream("appearance"),
            motion=stream("motion"),
        )

    def _report_progress(self, name: str, done: int) -> None:
        if self.progress:
            self.progress(f"scoring {name}", done, len(self.entries))

    def _key(self, checkpoint: Checkpoint, protocol: Protocol) -> str:
        """Return a file name that is unique to the model, the protocol and the videos."""
        videos = [(e.record.id, e.record.label, e.frames, e.bytes) for e in self.entries]
        identity = f"{_digest(checkpoint)} {protocol} {self.store.spec} {videos}"
        return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in checkpoint.model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(repr((checkpoint.preprocessing, checkpoint.recipe, checkpoint.stage)).encode())
    return digest.hexdigest()
