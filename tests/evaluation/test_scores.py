"""Score tables and the measures taken from them, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stresnet.errors import ScoreError
from stresnet.evaluation import metrics, scores
from stresnet.evaluation.scores import ScoreTable

CLASSES = ("run", "jump", "wave")


def table_of(
    labels: Sequence[int], predicted: Sequence[int], classes: Sequence[str] = CLASSES, name: str = "net"
) -> ScoreTable:
    """Return a table whose highest logit is at ``predicted``; the others decrease with the class index."""
    logits = np.tile(-np.arange(len(classes), dtype=np.float32), (len(labels), 1))
    logits[np.arange(len(labels)), predicted] = 9.0
    ids = tuple(f"v{i}" for i in range(len(labels)))
    return ScoreTable(name, "dense25", tuple(classes), ids, np.array(labels), logits)


def shuffled(table: ScoreTable, seed: int = 0) -> ScoreTable:
    order = np.random.default_rng(seed).permutation(len(table.video_ids))
    ids = tuple(table.video_ids[i] for i in order)
    return replace(table, video_ids=ids, labels=table.labels[order], logits=table.logits[order])


# run: 3 of 4 right, jump: 1 of 2, wave: 0 of 1; one video of unknown class
LABELS = (0, 0, 0, 0, 1, 1, 2, -1)
PREDICTED = (0, 0, 0, 1, 1, 2, 0, 1)


def test_accuracies_equal_counts_by_hand() -> None:
    table = table_of(LABELS, PREDICTED)
    assert metrics.top_k_accuracy(table, 1).value == pytest.approx(4 / 7)
    assert metrics.mean_class_accuracy(table).value == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    np.testing.assert_allclose(metrics.per_class_accuracy(table), [3 / 4, 1 / 2, 0])


def test_confusion_counts_true_classes_in_rows_and_ignores_unlabelled() -> None:
    confusion = metrics.confusion_matrix(table_of(LABELS, PREDICTED))
    np.testing.assert_array_equal(confusion, [[3, 1, 0], [0, 1, 1], [1, 0, 0]])


def test_top_k_counts_the_rank_of_the_true_class() -> None:
    logits = np.array([[3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3]], dtype=np.float32)
    table = ScoreTable("t", "p", tuple("abcd"), tuple("wxyz"), np.array([0, 1, 2, 0]), logits)
    assert [metrics.top_k_accuracy(table, k).value for k in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_top_5_of_three_classes_is_top_3() -> None:
    table = table_of((0, 1, 2), (2, 2, 1))
    assert metrics.top_k_accuracy(table, 5).value == metrics.top_k_accuracy(table, 3).value == 1.0


def test_ties_go_to_the_first_class_everywhere() -> None:
    level = replace(table_of((0, 1, 2), (0, 0, 0)), logits=np.zeros((3, 3), dtype=np.float32))
    assert metrics.predictions(level).tolist() == [0, 0, 0]
    assert [metrics.top_k_accuracy(level, k).value for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert metrics.confusion_matrix(level)[:, 0].tolist() == [1, 1, 1]


def test_class_without_videos_is_nan_and_not_in_the_mean() -> None:
    table = table_of((0, 0, 1), (0, 1, 1))
    per_class = metrics.per_class_accuracy(table)
    assert per_class[:2].tolist() == [0.5, 1.0]
    assert np.isnan(per_class[2])
    assert metrics.mean_class_accuracy(table).value == 0.75


def test_measures_need_a_label() -> None:
    table = table_of((-1, -1), (0, 1))
    for measure in (metrics.mean_class_accuracy, metrics.per_class_accuracy, metrics.confusion_matrix):
        with pytest.raises(ScoreError, match="no video has a label"):
            measure(table)


def test_interval_of_top_1_is_that_of_the_binomial() -> None:
    # 60 of 100 right: the resampled count is Binomial(100, 0.6), whose 2.5 % and 97.5 % points are 50 and 69
    interval = metrics.top_k_accuracy(table_of([0] * 100, [0] * 60 + [1] * 40), 1)
    assert interval.value == 0.6
    assert interval.low == pytest.approx(0.50, abs=0.011)
    assert interval.high == pytest.approx(0.69, abs=0.011)


def test_interval_of_mean_class_accuracy_averages_over_present_classes() -> None:
    # The one video of wave is right, run is at 1/2. Where wave is drawn (63 %) the mean lies near 0.75, else near
    # 0.5; were an absent class counted as 0, a good third of the resamples would lie near 0.25.
    interval = metrics.mean_class_accuracy(table_of([0] * 400 + [2], [0, 1] * 200 + [2]))
    assert interval.value == 0.75
    assert 0.44 < interval.low < 0.5
    assert 0.75 < interval.high < 0.8


def test_intervals_cover_the_true_value_about_19_times_in_20() -> None:
    generator = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        wrong = generator.random(150) < 0.3
        interval = metrics.top_k_accuracy(table_of([0] * 150, wrong.astype(int).tolist()), 1)
        covered += interval.low <= 0.7 <= interval.high
    assert 180 <= covered <= 200


def test_intervals_are_reproducible() -> None:
    table = table_of(LABELS, PREDICTED)
    assert metrics.mean_class_accuracy(table) == metrics.mean_class_accuracy(shuffled(table))
    assert metrics.top_k_accuracy(table, 1) == metrics.top_k_accuracy(shuffled(table), 1)


@pytest.mark.parametrize(("only_a", "only_b", "both"), [(5, 1, 10), (1, 5, 0), (3, 3, 2), (0, 8, 1), (0, 0, 4)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int, both: int) -> None:
    count = only_a + only_b + both
    a = table_of([0] * count, [0] * only_a + [1] * only_b + [0] * both)
    b = table_of([0] * count, [1] * only_a + [0] * only_b + [0] * both)
    found = metrics.mcnemar(a, shuffled(b))
    assert (found.only_a, found.only_b) == (only_a, only_b)
    tail = sum(comb(only_a + only_b, i) for i in range(min(only_a, only_b) + 1)) / 2 ** (only_a + only_b)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail), rel=1e-12)


def test_mcnemar_of_five_to_one_by_hand() -> None:
    # 2·(C(6,0) + C(6,1)) / 2⁶ = 14 / 64
    found = metrics.mcnemar(table_of([0] * 6, [0, 0, 0, 0, 0, 1]), table_of([0] * 6, [1, 1, 1, 1, 1, 0]))
    assert (found.only_a, found.only_b) == (5, 1)
    assert found.p_value == pytest.approx(14 / 64)


def test_mcnemar_ignores_unlabelled_videos() -> None:
    a, b = table_of((0, -1, -1), (0, 0, 1)), table_of((0, -1, -1), (1, 1, 0))
    assert metrics.mcnemar(a, b) == metrics.McNemar(1, 0, 1.0)


def test_fusion_averages_logits_of_the_same_video() -> None:
    a = table_of(LABELS, PREDICTED, name="a")
    b = table_of(LABELS, PREDICTED[::-1], name="b")
    np.testing.assert_allclose(scores.fuse([a, shuffled(b)]).logits, (a.logits + b.logits) / 2, rtol=1e-6)
    weighted = scores.fuse([a, shuffled(b)], weights=[3, 1], name="both")
    np.testing.assert_allclose(weighted.logits, 0.75 * a.logits + 0.25 * b.logits, rtol=1e-6)
    assert weighted.name == "both"
    assert weighted.video_ids == a.video_ids
    np.testing.assert_array_equal(weighted.labels, a.labels)


def test_fusion_names_both_protocols() -> None:
    a = table_of(LABELS, PREDICTED)
    assert scores.fuse([a, a]).protocol == "dense25"
    assert scores.fuse([a, replace(a, protocol="center")]).protocol == "dense25 + center"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_ids": (*(f"v{i}" for i in range(7)), "other")}, "same videos.*2 are in only one"),
        ({"classes": ("run", "wave", "jump")}, "same order, first difference: 'jump' and 'wave'"),
        ({"labels": np.array((1, 0, 0, 0, 1, 1, 2, -1))}, "true classes.*1 videos, first 'v0'"),
    ],
)
def test_mismatched_tables_are_rejected(change: dict[str, object], message: str) -> None:
    a = table_of(LABELS, PREDICTED, name="a")
    b = replace(a, name="b", **change)  # type: ignore[arg-type]
    for combine in (lambda: scores.fuse([a, b]), lambda: metrics.mcnemar(a, b)):
        with pytest.raises(ScoreError, match=message) as caught:
            combine()
        assert "\n" not in str(caught.value)


def test_different_numbers_of_classes_is_rejected() -> None:
    with pytest.raises(ScoreError, match="found 3 and 2"):
        scores.fuse([table_of((0,), (0,)), table_of((0,), (0,), classes=("run", "jump"))])


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")]])
def test_unusable_weights_are_rejected(weights: list[float]) -> None:
    with pytest.raises(ScoreError, match="weight"):
        scores.fuse([table_of((0,), (0,))] * 2, weights=weights)


def test_fusing_no_tables_is_rejected() -> None:
    with pytest.raises(ScoreError, match="found none"):
        scores.fuse([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.full((2, 3), np.nan)}, "logits must be finite.*2 of 2.*'v0'"),
        ({"motion": np.array([[0, 0, 0], [0, np.inf, 0]])}, "motion must be finite.*'v1'"),
        ({"logits": np.full((2, 3), 1e300)}, "logits must be finite"),
        ({"logits": np.zeros((2, 4))}, r"shape \(2, 3\), found \(2, 4\)"),
        ({"labels": np.array([0])}, r"shape \(2,\), found \(1,\)"),
        ({"labels": np.array([0, 3])}, r"0\.\.2, found 0\.\.3"),
        ({"labels": np.array([0, -2])}, "found -2"),
        ({"video_ids": ("v", "v")}, "video 'v' is repeated"),
        ({"classes": ("run", "run", "wave")}, "class 'run' is repeated"),
        ({"video_ids": ()}, "at least one video"),
    ],
)
def test_unusable_tables_are_rejected(change: dict[str, object], message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        replace(table_of((0, 1), (0, 1)), **change)  # type: ignore[arg-type]


def test_tables_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    streams = generator.normal(size=(2, 8, 3)).astype(np.float32)
    written = replace(
        table_of(LABELS, PREDICTED, classes=("Zürich", "a,b", '"q"')), appearance=streams[0], motion=streams[1]
    )
    path = tmp_path / "new folder" / "scores.parquet"
    written.write(path)
    read = ScoreTable.read(path)
    for field in ("name", "protocol", "classes", "video_ids"):
        assert getattr(read, field) == getattr(written, field)
    for field in ("labels", "logits", "appearance", "motion"):
        np.testing.assert_array_equal(getattr(read, field), getattr(written, field))
        assert getattr(read, field).dtype == getattr(written, field).dtype
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.parquet"]


def test_absent_streams_stay_absent(tmp_path: Path) -> None:
    table_of(LABELS, PREDICTED).write(tmp_path / "s.parquet")
    read = ScoreTable.read(tmp_path / "s.parquet")
    assert read.appearance is None
    assert read.motion is None


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.parquet"
    table_of((0,), (0,), name="old").write(path)

    def full_disk(_table: object, target: Path, **_options: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(ScoreError, match="No space left"):
        table_of((0,), (0,), name="new").write(path)
    monkeypatch.undo()
    assert ScoreTable.read(path).name == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.parquet"]


def test_files_without_scores_are_rejected_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not parquet at all, but long enough to look for a footer")
    (tmp_path / "empty.parquet").touch()
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "foreign.parquet")
    metadata = {b"stresnet": b'{"format": "stresnet scores 1", "name": "n", "protocol": "p", "classes": ["a"]}'}
    headless = pa.table({"x": [1, 2]}).replace_schema_metadata(metadata)
    pq.write_table(headless, tmp_path / "columns.parquet")
    for name, message in {
        "missing": "no score file",
        "text": "cannot be read as Parquet",
        "empty": "cannot be read as Parquet",
        "foreign": "without scores",
        "columns": "without scores",
    }.items():
        with pytest.raises(ScoreError, match=message) as caught:
            ScoreTable.read(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)
        assert f"{name}.parquet" in str(caught.value)


def test_lists_of_doubles_are_accepted(tmp_path: Path) -> None:
    about = b'{"format": "stresnet scores 1", "name": "idt", "protocol": "svm", "classes": ["a", "b"]}'
    columns = {"video_id": ["x", "y"], "label": [0, 1], "logits": [[0.5, 0.25], [-1.0, 2.0]]}
    pq.write_table(pa.table(columns).replace_schema_metadata({b"stresnet": about}), tmp_path / "idt.parquet")
    read = ScoreTable.read(tmp_path / "idt.parquet")
    np.testing.assert_array_equal(read.logits, np.array([[0.5, 0.25], [-1, 2]], dtype=np.float32))


def test_nan_on_disk_is_rejected_with_the_file_named(tmp_path: Path) -> None:
    about = b'{"format": "stresnet scores 1", "name": "idt", "protocol": "svm", "classes": ["a", "b"]}'
    columns = {"video_id": ["x"], "label": [0], "logits": [[0.5, float("nan")]]}
    pq.write_table(pa.table(columns).replace_schema_metadata({b"stresnet": about}), tmp_path / "idt.parquet")
    with pytest.raises(ScoreError, match=r"idt\.parquet: .*must be finite"):
        ScoreTable.read(tmp_path / "idt.parquet")


def test_concatenation() -> None:
    table = replace(table_of(LABELS, PREDICTED), motion=np.arange(24, dtype=np.float32).reshape(8, 3))
    parts = [
        replace(
            table,
            video_ids=table.video_ids[a:b],
            labels=table.labels[a:b],
            logits=table.logits[a:b],
            motion=None if table.motion is None else table.motion[a:b],
        )
        for a, b in ((0, 3), (3, 8))
    ]
    whole = scores.concatenate(parts, "whole")
    assert whole.name == "whole"
    assert whole.video_ids == table.video_ids
    assert whole.appearance is None
    for field in ("labels", "logits", "motion"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(table, field))


def test_concatenation_rejects_repeated_videos_and_missing_streams() -> None:
    table = table_of((0, 1), (0, 1))
    with pytest.raises(ScoreError, match="is repeated"):
        scores.concatenate([table, table], "twice")
    other = replace(table, video_ids=("a", "b"), motion=table.logits)
    with pytest.raises(ScoreError, match="others lack"):
        scores.concatenate([table, other], "mixed")
