"""Features: what the classifiers read, in Python and as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from helpers.tiny import Command
from stresnet.data.store import Store
from stresnet.inference.recognizer import Recognizer
from stresnet.training import Run


def test_classified_features_are_the_logits(run: Run, store: Store) -> None:
    recognizer = Recognizer(run.model_file("st-resnet"))
    video = store.select("test")[0].record.path
    features, scores = recognizer.embed(video), recognizer.predict(video).scores
    for stream in ("appearance", "motion"):
        fc = getattr(recognizer.checkpoint.model, stream).fc
        logits = fc(torch.from_numpy(getattr(features, stream))).detach().numpy()
        np.testing.assert_allclose(logits, getattr(scores, stream), rtol=1e-4, atol=1e-4)
    assert features.fused.tolist() == [*features.appearance, *features.motion]
    np.testing.assert_array_equal(recognizer.predict(video).scores.fused, scores.fused)  # it still classifies
    assert repr(features) == "Embedding(appearance: 128, motion: 128)"


def test_features_of_windows_are_classified_as_the_time_line_is(
    command: Command, run: Run, store: Store, tmp_path: Path
) -> None:
    recognizer = Recognizer(run.model_file("st-resnet"))
    video, out = store.select("test")[0].record.path, tmp_path / "windows.parquet"
    line = recognizer.timeline(video, window_sec=0.4, stride_sec=0.2)
    found = recognizer.embed_windows(video, window_sec=0.4, stride_sec=0.2)
    assert [(start, end) for start, end, _ in found] == [tuple(window) for window in line.windows_sec.tolist()]
    streams = [getattr(recognizer.checkpoint.model, stream).fc for stream in ("appearance", "motion")]
    for (_, _, features), expected in zip(found, line.logits, strict=True):
        seen = (torch.from_numpy(features.appearance), torch.from_numpy(features.motion))
        logits = torch.stack([fc(x) for fc, x in zip(streams, seen, strict=True)]).mean(0)
        np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    options = ["--window-sec", "0.4", "--stride-sec", "0.2"]
    assert command("predict", run.folder, video, "--embed", out, *options)[0] == 0
    rows = pq.read_table(out).to_pylist()
    assert [(row["start"], row["end"]) for row in rows] == [(start, end) for start, end, _ in found]
    np.testing.assert_allclose(np.float32(rows[0]["motion"]), found[0][2].motion, rtol=1e-5)
    (motion, *_) = Recognizer(run.model_file("motion")).embed_windows(video)
    assert motion[2].appearance is None


def test_predict_writes_features(command: Command, run: Run, store: Store, tmp_path: Path) -> None:
    videos = [entry.record.path for entry in store.select("test")[:2]]
    out = tmp_path / "features.parquet"
    code, printed, err = command("predict", run.folder, *videos, tmp_path / "no.mp4", "--embed", out)
    assert (code, printed) == (1, "")
    assert err.splitlines()[-1].startswith(f"failed: {tmp_path / 'no.mp4'}: no such file")
    rows = pq.read_table(out).to_pylist()
    assert [row["video"] for row in rows] == [str(video) for video in videos]
    expected = Recognizer(run.folder).embed(videos[1])
    np.testing.assert_array_equal(np.float32(rows[1]["motion"]), expected.motion)
    motion = tmp_path / "motion.parquet"
    assert command("predict", run.model_file("motion"), videos[0], "--embed", motion)[0] == 0
    assert pq.read_schema(motion).names == ["video", "motion"]
    assert command("predict", run.folder, tmp_path / "no.mp4", "--embed", tmp_path / "none.parquet")[0] == 1
    assert not (tmp_path / "none.parquet").exists()
