"""Time lines: windows and segments by hand, one pass over a long video, and the files."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny import Command, one_line
from stresnet.data.store import Store
from stresnet.errors import ScoreError
from stresnet.inference.protocols import runs
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.scorer import prepare_for
from stresnet.inference.timeline import Timeline, windowed
from stresnet.inference.timeline_files import write_timeline
from stresnet.media import read_video, write_video
from stresnet.model import Checkpoint, load_checkpoint
from stresnet.training import Run

CLASSES = ("run", "<wave>", "=jump")


def timeline(labels: list[int], sure: float = 0.8) -> Timeline:
    """Return windows of 2 s, 1 s apart, in which these classes have that probability."""
    rest = (1 - sure) / (len(CLASSES) - 1)
    logits = np.log([[sure if k == label else rest for k in range(len(CLASSES))] for label in labels])
    windows = np.array([[k, k + 2.0] for k in range(len(labels))])
    return Timeline(CLASSES, windows, logits.astype(np.float32), len(labels) + 1.0, 99, truncated=False)


# Windows


def test_a_window_has_the_mean_of_its_steps() -> None:
    times = np.array([0.1, 0.5, 1.0, 2.9])
    logits = np.array([[1, 0], [3, 0], [8, 4], [0, 2]], np.float32)
    windows, means = windowed(times, logits, duration_sec=3.0, window_sec=1.0, stride_sec=0.5)
    assert windows.tolist() == [[0, 1], [0.5, 1.5], [1, 2], [1.5, 2.5], [2, 3]]
    # 1.0 belongs to the second window and the third, not to the first; the fourth is empty: 2.0 is nearer to 2.9
    assert means.tolist() == [[2, 0], [5.5, 2], [8, 4], [0, 2], [0, 2]]


@pytest.mark.parametrize(("duration", "count"), [(0.4, 1), (1.0, 1), (1.2, 2), (1.5, 2), (1.6, 3)])
def test_the_last_window_reaches_the_end(duration: float, count: int) -> None:
    windows, means = windowed(np.array([0.2]), np.ones((1, 3), np.float32), duration, 1.0, 0.5)
    assert (len(windows), windows[-1, 1]) == (count, duration)
    assert means.tolist() == [[1, 1, 1]] * count


def test_smoothing_averages_windows_nearby() -> None:
    raw = timeline([0, 0, 1, 0, 0])
    smooth = raw.smoothed(2.0)  # the neighbours at most 1 s away
    expected = [raw.logits[max(0, k - 1) : k + 2].mean(0) for k in range(5)]
    np.testing.assert_allclose(smooth.logits, expected, rtol=1e-6)
    assert [s.label for s in smooth.segments()] == ["run"]
    np.testing.assert_array_equal(raw.smoothed(0).logits, raw.logits)


# Segments


def test_segments_meet_halfway_between_windows() -> None:
    found = timeline([0, 0, 1, 1, 2]).segments()
    assert [(s.start_sec, s.end_sec, s.label) for s in found] == [
        (0, 2.5, "run"),
        (2.5, 4.5, "<wave>"),
        (4.5, 6, "=jump"),
    ]
    assert [s.score for s in found] == pytest.approx([0.8] * 3)


def test_where_no_class_is_likely_there_is_no_segment() -> None:
    line = timeline([0, 1, 0])
    line.logits[1] = 0
    assert [(s.start_sec, s.end_sec, s.label) for s in line.segments(0.5)] == [(0, 1.5, "run"), (2.5, 4, "run")]
    assert line.segments(0.9) == ()


# One pass over a video


def of_protocol(checkpoint: Checkpoint, protocol: str) -> Checkpoint:
    return checkpoint.replace(recipe=checkpoint.recipe | {"protocol": protocol})


@pytest.fixture
def long_video(store: Store, tmp_path: Path) -> Path:
    """Return a video of 130 frames: the test videos one after the other, at 20 frames a second."""
    frames = np.concatenate([read_video(entry.record.path).frames for entry in store.select("test")] * 2)[:130]
    path = tmp_path / "long [1].mp4"
    write_video(path, frames, fps=20)
    return path


def test_every_step_is_scored_once_as_in_one_long_clip(run: Run, long_video: Path) -> None:
    checkpoint = load_checkpoint(run.model_file("st-resnet"))  # τ 2 to 4, T = 5, tested by a published protocol
    parts = runs(checkpoint, 130)
    scored = np.concatenate([clip[first:end] for clip, first, end in parts])
    assert len(parts) == 2
    assert scored.tolist() == list(range(scored[0], scored[-1] + 1, 3))
    recognizer = Recognizer(checkpoint)
    prepared = prepare_for(checkpoint, recognizer.store_spec, long_video, None)
    steps = recognizer._scorer.score_steps(prepared)
    times, logits = steps.times_sec, steps.fused
    assert times.tolist() == prepared.times_sec[scored].tolist()
    whole = recognizer._scorer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stresnet.inference.protocols.LONG_STEPS", 1000)
        assert len(runs(checkpoint, 130)) == 1
        at_once = whole.score_steps(prepared).fused
    np.testing.assert_allclose(logits, at_once, rtol=0, atol=2e-5 * np.abs(at_once).max())


def test_clips_are_as_long_as_in_training_where_they_are_tested_so(run: Run) -> None:
    checkpoint = of_protocol(load_checkpoint(run.model_file("st-resnet")), "dense")
    parts = runs(checkpoint, 100)
    assert {len(part.clip) for part in parts} == {5}
    scored = np.concatenate([clip[first:end] for clip, first, end in parts])
    assert scored.tolist() == list(range(scored[0], scored[-1] + 1, 3))
    assert len(parts) == math.ceil(len(scored) / 5)
    (short,) = runs(checkpoint, 13)
    assert (len(short.clip), short.first, short.end) == (5, 0, 5)


def test_windows_are_the_means_of_the_clips_within(run: Run, long_video: Path) -> None:
    recognizer = Recognizer(of_protocol(load_checkpoint(run.model_file("st-resnet")), "center"))
    line = recognizer.timeline(long_video)  # windows as long as a clip: 5 steps, 3 frames apart
    assert (line.frames, line.duration_sec) == (130, pytest.approx(6.5))
    assert line.windows_sec[1].tolist() == pytest.approx([0.375, 1.125])
    coarse = recognizer.timeline(long_video, window_sec=2.0, stride_sec=2.0)
    assert len(coarse.logits) == 4
    with pytest.raises(ValueError, match="window_sec must be a positive number of seconds, not 0"):
        recognizer.timeline(long_video, window_sec=0)


def test_a_temporal_pool_gives_fewer_outputs(run: Run) -> None:
    checkpoint = load_checkpoint(run.model_file("st-resnet"))
    torch.manual_seed(0)
    config = checkpoint.model.config.replace(temporal_pool=(5, 2))
    model = type(checkpoint.model)(config).eval()
    model.load_state_dict(checkpoint.model.state_dict())
    pooled = checkpoint.replace(model=model)
    parts = runs(pooled, 300)
    assert {len(part.clip) for part in parts} == {25}


# Files


def written(path: Path, line: Timeline, **options: float) -> str:
    write_timeline(path, line, title="a <b>.mp4", **options)
    return path.read_text("utf-8")


def test_files(tmp_path: Path) -> None:
    line = timeline([0, 0, 1, 2])
    line = replace(line, windows_sec=line.windows_sec + 3600, duration_sec=3606.0)
    rows = list(csv.reader(written(tmp_path / "a.csv", line).splitlines()))
    assert rows == [
        ["start", "end", "label", "score"],
        ["0.000", "3602.500", "run", "0.8000"],
        ["3602.500", "3603.500", "<wave>", "0.8000"],
        ["3603.500", "3606.000", "'=jump", "0.8000"],
    ]
    vtt = written(tmp_path / "a.VTT", line)
    assert vtt.startswith(
        "WEBVTT\n\n00:00:00.000 --> 01:00:02.500\nrun 80%\n\n01:00:02.500 --> 01:00:03.500\n&lt;wave&gt; 80%"
    )
    srt = written(tmp_path / "a.srt", line)
    assert srt.startswith("1\n00:00:00,000 --> 01:00:02,500\nrun 80%\n\n2\n01:00:02,500 --> 01:00:03,500\n<wave> 80%\n")
    values = json.loads(written(tmp_path / "a.json", line))
    assert values["video"] == "a <b>.mp4"
    assert [s["label"] for s in values["segments"]] == list(CLASSES)
    assert values["windows"][2]["top"][0] == {"label": "<wave>", "probability": pytest.approx(0.8)}
    page = written(tmp_path / "a.html", line)
    assert "a &lt;b&gt;.mp4" in page
    assert "<wave>" not in page
    assert page.count("<rect") == page.count("<polyline") == 3
    assert not re.search(r"https?://", page)
    assert json.loads(written(tmp_path / "b.json", line, min_score=0.9))["segments"] == []
    with pytest.raises(ScoreError, match=r"a\.txt: expected a file .* \.json, \.csv, \.vtt, \.srt, \.html, \.png"):
        written(tmp_path / "a.txt", line)


def test_predict_writes_a_time_line(command: Command, run: Run, long_video: Path, tmp_path: Path) -> None:
    predict = ["predict", run.folder, long_video, "--timeline"]
    code, out, err = command(*predict, tmp_path / "a.csv", "--window-sec", "1", "--smooth-sec", "2")
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert len(out.splitlines()) == len(rows)
    assert (float(rows[0]["start"]), float(rows[-1]["end"])) == (0, 6.5)
    code, out, _ = command(*predict, tmp_path / "a.json", "--json", "--from", "1", "--to", "4")
    assert (code, json.loads(out)) == (0, json.loads((tmp_path / "a.json").read_text()))
    assert json.loads(out)["duration"] == pytest.approx(3)
    code, _, err = command(*predict, tmp_path / "a.txt")
    assert (code, "expected a file of a time line" in one_line(err)) == (1, True)
    code, _, err = command("predict", run.folder, long_video, long_video, "--timeline", tmp_path / "b.csv")
    assert (code, "--timeline and --overlay are for one video: found 2" in one_line(err)) == (2, True)
