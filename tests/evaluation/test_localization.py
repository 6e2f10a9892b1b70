"""Localisation: the formulas by hand, and long videos through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import Command, one_line
from stresnet.data.store import Store
from stresnet.errors import ScoreError, VideoError
from stresnet.evaluation.localization import (
    TrueSegment,
    average_precision,
    localize,
    mean_average_precision,
    read_true_segments,
    temporal_iou,
)
from stresnet.inference.timeline import Timeline, TimelineSegment
from stresnet.media import read_video, write_video
from stresnet.training import Run

CLASSES = ("run", "wave")


def test_temporal_iou() -> None:
    true = TrueSegment(2, 6, "run")
    assert temporal_iou(TrueSegment(2, 6, "run"), true) == 1
    assert temporal_iou(TrueSegment(4, 8, "run"), true) == pytest.approx(2 / 6)
    assert temporal_iou(TrueSegment(3, 5, "run"), true) == pytest.approx(2 / 4)
    assert temporal_iou(TrueSegment(6, 8, "run"), true) == 0


def test_average_precision_of_both_kits() -> None:
    # Precision at the matches is 1, 2/3 and 3/5; interpolation changes nothing where it falls.
    assert average_precision(np.array([True, False, True, False, True]), 4) == pytest.approx(
        ((1 + 2 / 3 + 3 / 5) / 4,) * 2
    )
    # Precision at the matches is 1/2 and 2/3: interpolated, that at the first one is 2/3 too.
    interpolated, plain = average_precision(np.array([False, True, True]), 2)
    assert (interpolated, plain) == (pytest.approx(2 / 3), pytest.approx((1 / 2 + 2 / 3) / 2))
    assert average_precision(np.array([], bool), 3) == (0, 0)


def test_each_true_segment_is_matched_once_by_the_best_score() -> None:
    truth = {"a": [TrueSegment(0, 10, "run"), TrueSegment(20, 30, "wave")], "b": [TrueSegment(0, 10, "run")]}
    found = {
        "a": [
            TimelineSegment(0, 6, "run", 0.9),  # IoU 0.6
            TimelineSegment(0, 10, "run", 0.8),  # IoU 1, but the true segment is taken at 0.5
            TimelineSegment(20, 30, "run", 0.7),  # another class
        ],
        "b": [TimelineSegment(1, 10, "run", 0.6)],  # IoU 0.9
    }
    # run at 0.5: match, miss, miss, match: (1 + 2/4) / 2; wave: nothing found
    assert mean_average_precision(truth, found, 0.5) == pytest.approx(((1 + 2 / 4) / 2 / 2,) * 2)
    # at 0.7 the first is a miss and the second matches: precisions 1/2 and 2/4
    assert mean_average_precision(truth, found, 0.7) == pytest.approx(((1 / 2 + 2 / 4) / 2 / 2,) * 2)


def timeline(labels: list[int], sure: float = 0.8) -> Timeline:
    """Return windows of 1 s in which these classes have that probability, in a video of two frames a second."""
    logits = np.log([[sure if k == label else 1 - sure for k in range(2)] for label in labels]).astype(np.float32)
    windows = np.array([[k, k + 1.0] for k in range(len(labels))])
    return Timeline(CLASSES, windows, logits, float(len(labels)), 2 * len(labels), truncated=False)


def test_localize_counts_frames_and_leaves_out_failures() -> None:
    truth = {"a": [TrueSegment(0, 2, "run")], "broken": [TrueSegment(0, 1, "wave")], "b": [TrueSegment(1, 4, "wave")]}

    def line(video: str) -> Timeline:
        if video == "broken":
            raise VideoError("broken: damaged")
        return timeline([0, 0, 1, 1])

    found = localize(truth, line, CLASSES)
    # a: frames of the first 2 s are right, those after are claimed where there is nothing; b: 2 of 4 s are right
    assert found.frame_accuracy == pytest.approx((4 + 4) / 16)
    assert (found.videos, found.segments, found.failed) == (2, 2, (("broken", "broken: damaged"),))
    # run: a's match comes first, as scores are equal; wave: a's is false and first, b's has IoU 2/3
    assert found.mean_ap[0.5] == pytest.approx((1 + 1 / 2) / 2)
    assert found.mean_ap[0.7] == pytest.approx(1 / 2)
    none = localize(truth, line, CLASSES, min_score=0.9)
    assert none.frame_accuracy == pytest.approx((4 + 2) / 16)
    assert set(none.mean_ap.values()) == {0.0}
    with pytest.raises(ScoreError, match="found 'jump', which is none of them"):
        localize({"a": [TrueSegment(0, 2, "jump")]}, line, CLASSES)
    with pytest.raises(ScoreError, match="no video could be scored, the first because: broken: damaged"):
        localize({"broken": truth["broken"]}, line, CLASSES)


@pytest.fixture
def truth(store: Store, tmp_path: Path) -> Path:
    """Return the list of the true segments of two videos, each the test videos one after the other."""
    entries = list(store.select("test"))
    rows = []
    for name, order in (("one.mp4", entries), ("two [2].mp4", entries[::-1])):
        frames = [read_video(entry.record.path).frames for entry in order]
        write_video(tmp_path / name, np.concatenate(frames), fps=20)
        borders = np.cumsum([0, *map(len, frames)]) / 20
        rows += [(name, e.record.label, *map(float, borders[k : k + 2])) for k, e in enumerate(order)]
    with open(tmp_path / "truth.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label", "start", "end"), *rows])
    return tmp_path / "truth.csv"


def test_evaluate_segments(command: Command, store: Store, run: Run, truth: Path) -> None:
    entries = [entry.record.label for entry in store.select("test")]
    read = read_true_segments(truth)
    assert [[s.label for s in segments] for segments in read.values()] == [entries, entries[::-1]]
    evaluate = ["evaluate", run.folder, "--segments", truth, "--window-sec", "0.5"]
    code, out, err = command(*evaluate, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["videos"], found["segments"], list(found["mean_ap"])) == (2, 8, ["0.3", "0.4", "0.5", "0.6", "0.7"])
    assert 0 <= found["mean_ap"]["0.7"] <= found["mean_ap"]["0.3"] <= 1
    code, out, _ = command(*evaluate)
    assert code == 0
    assert f"frame accuracy {100 * found['frame_accuracy']:.1f} % of 2 videos with 8 segments" in out


def test_wrong_lists(command: Command, run: Run, truth: Path) -> None:
    (truth.parent / "one.mp4").write_bytes(b"no video")
    code, out, err = command("evaluate", run.folder, "--segments", truth, "--json")
    assert (code, json.loads(out)["videos"]) == (1, 1)
    assert err.splitlines()[-1].startswith(f"failed: {truth.parent / 'one.mp4'}: ")
    truth.write_text("path,label\none.mp4,red_up_blue_down\n")
    code, _, err = command("evaluate", run.folder, "--segments", truth)
    assert (code, "expected the end of each true segment, found none for one.mp4" in one_line(err)) == (1, True)
    truth.write_text("path,label,start,end\none.mp4,red_up_blue_down,3,2\n")
    code, _, err = command("evaluate", run.folder, "--segments", truth)
    assert (code, "line 2: expected a start before the end, found 3 and 2" in one_line(err)) == (1, True)
    code, _, err = command("evaluate", run.folder)
    assert (code, "give a prepared store, or --segments" in one_line(err)) == (2, True)
    code, _, err = command("evaluate", run.folder, truth.parent, "--segments", truth)
    assert (code, "give a prepared store, or --segments" in one_line(err)) == (2, True)
