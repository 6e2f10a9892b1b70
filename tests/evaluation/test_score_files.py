"""Scores on disk: the same measures as in memory, and evaluations that hold a batch of videos at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers.counting import count_calls
from stresnet.data.catalog import VideoRecord
from stresnet.data.store import Entries, Store, StoreEntry, StoreSpec
from stresnet.errors import ScoreError, StoreError
from stresnet.evaluation import metrics
from stresnet.evaluation.report import Report, ReportRow, write_report
from stresnet.evaluation.rows import _Files
from stresnet.evaluation.score_files import ScoreFile, write_scores
from stresnet.evaluation.scores import BATCH_VIDEOS, ScoreTable, fuse
from stresnet.evaluation.scoring import PART_VIDEOS, SplitScorer
from stresnet.flow.spec import FlowSpec
from stresnet.inference.prediction import VideoScores

CLASSES = ("run", "jump", "wave", "sit", "stand", "fall")


def table_of(videos: int, seed: int = 0) -> ScoreTable:
    random = np.random.default_rng(seed)
    logits = random.integers(0, 9, (3, videos, len(CLASSES))).astype(np.float32)  # with ties
    labels = random.integers(-1, len(CLASSES), videos)
    return ScoreTable("net", "center", CLASSES, tuple(f"v{i:06}" for i in range(videos)), labels, *logits)


def same(a: ScoreTable, b: Any) -> bool:
    arrays = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("labels", "logits", "appearance", "motion"))
    return arrays and all(getattr(a, n) == getattr(b, n) for n in ("name", "protocol", "classes", "video_ids"))


class RandomScorer(SplitScorer):
    """Scores videos at random, except for those in `damaged`."""

    damaged: Sequence[str] = ()

    def _score(self, recognizer: Any, protocol: Any, name: str, start: int, chunk: Sequence[StoreEntry]) -> Any:
        random = np.random.default_rng([start, len(name)])
        scored = []
        for entry in chunk:
            streams = random.normal(size=(2, len(CLASSES))).astype(np.float32)
            if entry.record.id in self.damaged:
                self.failed[entry.record.id] = "damaged"
            else:
                scored.append((entry, VideoScores(*streams)))
        return scored


MODEL: Any = SimpleNamespace(
    metadata=SimpleNamespace(preprocessing="", recipe="", stage=""),
    digest=lambda: "weights",
    classes=CLASSES[::-1],
    numerics="fp32",
)


def scorer_of(folder: Path, videos: int) -> RandomScorer:
    records = (VideoRecord(f"{i:06}", "", CLASSES[i % len(CLASSES)], "test") for i in range(videos))
    entries = Entries.of(StoreEntry(record, frames=20) for record in records)
    store = Store(folder, StoreSpec(FlowSpec()), CLASSES, "made up", entries)
    return RandomScorer(store, entries, folder / ".parts")


def evaluated(folder: Path, videos: int) -> list[ScoreFile]:
    """Score, merge, fuse and report, as an evaluation does."""
    scorer = scorer_of(folder, videos)
    parts = [scorer.score(MODEL, {"center": name})[0] for name in ("a", "bb")]
    a, b = (scorer.merge(p, folder / f"{p.name}.parquet") for p in parts)
    pairs = zip(a.batches(()), b.batches(()), strict=True)
    fused = write_scores(folder / "fused.parquet", (fuse(pair) for pair in pairs))
    write_report(folder, Report("title", "", [ReportRow(s) for s in (a, b, fused)], [], {}, 0.25, {}))
    scorer.discard_parts()
    return [a, b, fused]


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("videos", [1, 100, 2 * BATCH_VIDEOS + 3])
def test_files_are_what_was_written(tmp_path: Path, videos: int) -> None:
    table = table_of(videos)
    whole = write_scores(tmp_path / "new" / "whole.parquet", [table])
    parts = write_scores(tmp_path / "parts.parquet", table.batches())
    for file in (whole, parts):
        assert same(table, file)
        assert same(table, ScoreTable.read(file.path))
        rows = list(dict.fromkeys([videos - 1, 0, videos // 2]))
        assert same(table.take(rows), file.take(rows))
        assert [len(batch.video_ids) for batch in file.batches()] == [len(b.video_ids) for b in table.batches()]
        assert all(b.appearance is None and b.motion is not None for b in file.batches(("motion",)))
        for measure in (metrics.confusion_matrix, metrics.predictions):
            np.testing.assert_array_equal(measure(file), measure(table))
        for k in (1, 3):
            assert metrics.top_k_accuracy(file, k) == metrics.top_k_accuracy(table, k)
        assert metrics.mean_class_accuracy(file) == metrics.mean_class_accuracy(table)
    assert repr(whole) == f"ScoreFile('net', 'center', {videos} videos × 6 classes)"


def test_ranks_equal_a_stable_sort() -> None:
    table = table_of(500)
    order = np.argsort(-table.logits, axis=1, kind="stable")
    known = table.labels >= 0
    ranks = (order == table.labels[:, None]).argmax(axis=1)
    np.testing.assert_array_equal(table.outcomes.ranks[known], ranks[known])
    np.testing.assert_array_equal(table.outcomes.predicted, order[:, 0])


def test_absent_streams_and_files_that_hold_no_scores(tmp_path: Path) -> None:
    file = write_scores(tmp_path / "scores.parquet", [replace(table_of(3), appearance=None)])
    assert file.appearance is None
    assert file.motion is not None
    with pytest.raises(ScoreError, match="no score file at"):
        ScoreFile(tmp_path / "other.parquet")
    pq.write_table(pq.read_table(file.path).replace_schema_metadata({}), tmp_path / "other.parquet")
    with pytest.raises(ScoreError, match="is a Parquet file without scores"):
        ScoreFile(tmp_path / "other.parquet")


def test_a_failure_midway_keeps_the_old_file(tmp_path: Path) -> None:
    def tables() -> Iterator[ScoreTable]:
        yield table_of(5, seed=1)
        raise ScoreError("the next part is damaged")

    write_scores(tmp_path / "scores.parquet", [table_of(3)])
    with pytest.raises(ScoreError, match="the next part is damaged"):
        write_scores(tmp_path / "scores.parquet", tables())
    assert same(table_of(3), ScoreFile(tmp_path / "scores.parquet"))
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_rows_of_equal_names_have_files_of_their_own(tmp_path: Path) -> None:
    files = _Files(tmp_path)
    names = [files.named(title).name for title in ("ST-ResNet*", "a b", "A-B", "a/b")]
    assert names[:2] == ["scores-st-resnet-star.parquet", "scores-a-b.parquet"]
    assert len(set(names)) == 4


# ---------------------------------------------------------------- evaluations


def test_an_evaluation_holds_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    check = ScoreTable.__post_init__
    monkeypatch.setattr(ScoreTable, "__post_init__", lambda self: sizes.append(len(self.labels)) or check(self))
    a, b, fused = evaluated(tmp_path, 3 * BATCH_VIDEOS)
    assert max(sizes) == BATCH_VIDEOS
    monkeypatch.undo()
    np.testing.assert_array_equal(fused.logits, fuse([ScoreTable.read(a.path), ScoreTable.read(b.path)]).logits)
    assert a.video_ids == b.video_ids == tuple(f"{i:06}" for i in range(3 * BATCH_VIDEOS))


def test_the_work_of_an_evaluation_grows_with_the_videos(tmp_path: Path) -> None:
    evaluated(tmp_path / "imports", 64)
    few, many = (count_calls(lambda n=n: evaluated(tmp_path / str(n), n)) for n in (1_000, 10_000))  # type: ignore[misc]
    assert many < 10 * few


def test_a_video_that_fails_once_is_left_out_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(tmp_path, 3 * PART_VIDEOS)
    scorer.damaged = ["000001", *(f"{i:06}" for i in range(PART_VIDEOS, 2 * PART_VIDEOS))]
    (first,) = scorer.score(MODEL, {"center": "a"})
    assert list(scorer.failed) == scorer.damaged
    assert len(first.files) == 2  # one is incomplete, one would hold no video at all
    scorer.damaged = []
    (second,) = scorer.score(MODEL, {"dense25": "b"})
    assert len(second.files) == 3
    kept = tuple(f"{i:06}" for i in range(3 * PART_VIDEOS) if f"{i:06}" not in scorer.failed)
    for parts in (first, second):
        assert scorer.merge(parts, tmp_path / "scores.parquet").video_ids == kept
    starts = []
    score = scorer._score
    monkeypatch.setattr(scorer, "_score", lambda *call: starts.append(call[3]) or score(*call))
    scorer.score(MODEL, {"center": "a", "dense25": "b"})
    assert starts == [0, PART_VIDEOS]  # incomplete parts are scored again, to find their failures
    scorer.discard_parts()
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_no_video_is_scored_by_all_models(tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path, 3)
    (parts,) = scorer.score(MODEL, {"center": "a"})
    scorer.failed = dict.fromkeys(("000000", "000001", "000002"), "damaged")
    with pytest.raises(StoreError, match="none of the videos could be scored by all models, first: damaged"):
        scorer.merge(parts, tmp_path / "scores.parquet")
