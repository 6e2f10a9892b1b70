"""The scores of a split: every model looks at every video, and what it saw is on disk at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from stresnet.data.store import Store, StoreEntry
from stresnet.errors import StoreError
from stresnet.evaluation.scores import ScoreTable, concatenate
from stresnet.inference.recognizer import Protocol, Recognizer, VideoScores
from stresnet.model import Checkpoint

OnProgress = Callable[[str, int, int], None]
"""Told what is being scored, how many of its videos are done, and how many there are."""

PART_VIDEOS = 64  # scores are kept on disk in parts of so many videos, so that a killed run loses few


@dataclass
class Scoring:
    """The scoring of some videos of a store by one model after another.

    Attributes:
        store: prepared videos.
        entries: those to be scored.
        parts: folder where scores are kept until the report is written.
        progress: told of every video.
        failed: reasons by id of the videos that could not be scored.
    """

    store: Store
    entries: Sequence[StoreEntry]
    parts: Path
    progress: OnProgress | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _used: list[Path] = field(default_factory=list)

    def table(self, recognizer: Recognizer, protocol: Protocol, name: str) -> ScoreTable:
        """What one model says, video by video; parts that an earlier call left on disk are taken from there.

        Raises:
            StoreError: if none of the videos can be scored.
        """
        self.parts.mkdir(parents=True, exist_ok=True)  # rather told now than after the first part
        key = self._key(recognizer.checkpoint, protocol)
        parts: list[ScoreTable] = []
        for start in range(0, len(self.entries), PART_VIDEOS):
            chunk = self.entries[start : start + PART_VIDEOS]
            file = self.parts / f"{key}-{start:07d}.parquet"
            self._used.append(file)
            if file.is_file():
                parts.append(replace(ScoreTable.read(file), name=name))
            elif scored := self._score(recognizer, protocol, name, start, chunk):
                parts.append(self._as_table(recognizer, scored, protocol, name))
                if len(scored) == len(chunk):  # else the one who goes on would not learn what failed
                    parts[-1].write(file)
            self._tell(name, start + len(chunk))
        if not parts:
            first = next(iter(self.failed.values()))
            raise StoreError(f"none of the {len(self.entries)} videos could be scored, first: {first}")
        return concatenate(parts, name)

    def discard_parts(self) -> None:
        """Remove what a later call could have gone on from."""
        for file in self._used:
            file.unlink(missing_ok=True)
        if self.parts.is_dir() and not any(self.parts.iterdir()):
            self.parts.rmdir()

    def without_failed(self, table: ScoreTable) -> ScoreTable:
        """The table without the videos that any model failed on, so that all rows tell of the same ones.

        Raises:
            StoreError: if none is left.
        """
        keep = [i for i, video_id in enumerate(table.video_ids) if video_id not in self.failed]
        if not keep:
            first = next(iter(self.failed.values()))
            raise StoreError(f"none of the videos could be scored by all models, first: {first}")
        return replace(
            table,
            video_ids=tuple(table.video_ids[i] for i in keep),
            labels=table.labels[keep],
            logits=table.logits[keep],
            appearance=None if table.appearance is None else table.appearance[keep],
            motion=None if table.motion is None else table.motion[keep],
        )

    def _score(
        self, recognizer: Recognizer, protocol: Protocol, name: str, start: int, chunk: Sequence[StoreEntry]
    ) -> list[tuple[StoreEntry, VideoScores]]:
        scored = []
        for done, entry in enumerate(chunk, start):
            self._tell(name, done)
            try:
                clip = self.store.video(entry.record.id)
                clip.verify()  # a damaged picture may well be decoded, to something else
                scored.append((entry, recognizer.score(clip, protocol)))
            except StoreError as error:  # a damaged clip: named at the end, the rest goes on
                self.failed[entry.record.id] = str(error)
        return scored

    def _as_table(
        self, recognizer: Recognizer, scored: Sequence[tuple[StoreEntry, VideoScores]], protocol: Protocol, name: str
    ) -> ScoreTable:
        # a model from elsewhere may number the same classes otherwise
        order = [recognizer.classes.index(name) for name in self.store.classes]

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

    def _tell(self, name: str, done: int) -> None:
        if self.progress:
            self.progress(name, done, len(self.entries))

    def _key(self, checkpoint: Checkpoint, protocol: Protocol) -> str:
        """A name that only the same model, protocol and videos have."""
        content = [(e.record.id, e.record.label, e.frames, e.bytes) for e in self.entries]
        story = f"{_digest(checkpoint)} {protocol} {self.store.spec} {content}"
        return hashlib.blake2b(story.encode(), digest_size=8).hexdigest()


def _digest(checkpoint: Checkpoint) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in checkpoint.model.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(repr((checkpoint.preprocessing, checkpoint.recipe, checkpoint.stage)).encode())
    return digest.hexdigest()
