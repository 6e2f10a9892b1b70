"""Segments through all commands: prepared, trained on, evaluated, reported, and predicted with the same scores."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from helpers.commands import ONE_STEP, TINY
from helpers.tiny import Command
from stresnet.data.datasets import read_catalog
from stresnet.data.store import Store
from stresnet.evaluation.scores import ScoreTable


def test_segments_through_all_commands(command: Command, videos: Path, recipe: Path, tmp_path: Path) -> None:
    rows = ["path,label,split,start,end"]
    for record in read_catalog(videos).records:
        half = "0,0.52" if record.split == "train" else "0.48,1.04"
        rows += [f"{record.path},{record.label},{record.split},{half}"]
        rows += [f"{record.path},{record.label},{record.split},0.04,0.6"] if record.split == "train" else []
    (tmp_path / "list.csv").write_text("\n".join(rows), "utf-8")
    code, out, _ = command("prepare", tmp_path / "list.csv", tmp_path / "store", *TINY, "--json")
    assert (code, json.loads(out)["done"]) == (0, 8 * 2 + 4)
    train = ["train", tmp_path / "store", tmp_path / "run", "--recipe", recipe, "--stage", "motion", *ONE_STEP]
    assert command(*train)[0] == 0
    assert command("evaluate", tmp_path / "run", tmp_path / "store", "--protocol", "center")[0] == 0
    table = ScoreTable.read(tmp_path / "run" / "report" / "scores-motion.parquet")
    tests = Store.open(tmp_path / "store").select("test")
    assert list(table.video_ids) == [entry.record.id for entry in tests]
    assert all(video.endswith("#t=0.48,1.04") for video in table.video_ids)
    assert "#t=0.48,1.04" in (tmp_path / "run" / "report" / "report.html").read_text("utf-8")
    sources = [f"{entry.record.path}#t=0.48,1.04" for entry in tests]
    code, out, _ = command("predict", tmp_path / "run", *sources, "--protocol", "center", "--json")
    assert code == 0
    for found, entry, logits in zip(json.loads(out), tests, table.logits, strict=True):
        assert found["frames"] == entry.frames == 14
        best = max(range(len(logits)), key=lambda k: logits[k])
        assert found["label"] == table.classes[best]
        probability = 1 / sum(math.exp(value - logits[best]) for value in logits)
        assert found["probability"] == pytest.approx(probability, rel=1e-5)
    video = tests[0].record.path
    code, _, err = command("predict", tmp_path / "run", *(f"{video}#t={t}" for t in ("0.1,0.2", "100,110", "2,1")))
    assert code == 1
    failed = [line.removeprefix(f"failed: {video}#t=") for line in err.splitlines() if line.startswith("failed: ")]
    assert failed[0] == f"0.1,0.2: {video}: 2 frames from 0.1 s to 0.2 s; at least 11 needed"
    assert failed[1].startswith(f"100,110: {video}: 0 frames from 100 s to 110 s")
    assert failed[2].startswith("2,1: no ")  # such file, though not a segment either
