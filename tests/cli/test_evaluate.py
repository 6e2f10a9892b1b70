"""`stresnet evaluate` and `stresnet fuse`: tables, JSON and files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import Command
from stresnet.data.store import Store
from stresnet.evaluation.metrics import mcnemar, top_k_accuracy
from stresnet.evaluation.scores import ScoreTable
from stresnet.model import load_checkpoint, save_checkpoint
from stresnet.training import Run


@pytest.fixture
def scores(tmp_path: Path) -> list[Path]:
    """Two score files of 20 videos: the first is correct on 16, the second on 10 of these and 2 others."""
    labels = np.arange(20) % 3
    files = []
    for name, correct in (("a", range(16)), ("b", [*range(10), 18, 19])):
        answers = np.where(np.isin(np.arange(20), list(correct)), labels, (labels + 1) % 3)
        logits = np.eye(3, dtype=np.float32)[answers] * (3 if name == "a" else 1)
        table = ScoreTable(name, "dense25", ("x", "y", "z"), tuple(f"v{i:02}" for i in range(20)), labels, logits)
        files.append(tmp_path / f"{name}.parquet")
        table.write(files[-1])
    return files


def test_evaluate(command: Command, store: Store, copy: Path, tmp_path: Path) -> None:
    options = ["--protocol", "center", "--protocol", "center"]  # repeated protocols count once
    code, out, err = command("evaluate", copy, store.root, *options, "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["name"] for row in rows] == ["Appearance", "Motion", "late fusion", "ST-ResNet"]
    table = ScoreTable.read(copy / "report" / "scores-st-resnet.parquet")
    top1 = top_k_accuracy(table, 1)
    assert rows[-1]["top1"] == [top1.value, top1.low, top1.high]
    assert (rows[-1]["protocol"], rows[-1]["videos"], rows[-1]["p_value"]) == ("center", 4, None)
    assert err.splitlines()[-1] == f"report: {copy / 'report' / 'report.html'}"
    model = copy / "model.safetensors"
    code, out, err = command("evaluate", model, store.root, *options, "--out", tmp_path / "out", "--split", "train")
    assert code == 0
    assert out.splitlines()[1].startswith("st-resnet ")
    assert (tmp_path / "out" / "report.html").is_file()


def test_evaluate_uses_the_protocol_of_the_recipe_and_notes_strides_outside_training(
    command: Command, store: Store, copy: Path, tmp_path: Path
) -> None:
    code, out, err = command("evaluate", copy, store.root, "--json")
    assert code == 0
    assert {row["protocol"] for row in json.loads(out)} == {"dense25"}
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1, notes  # the single streams do not convolve over time
    assert notes[0].startswith("note: ST-ResNet: in 4 of 4 videos the 25 steps of dense25 are closer together or")
    assert notes[0].endswith("(2 to 4 frames), which may cost accuracy; use --protocol dense")
    model = tmp_path / "dense.safetensors"
    checkpoint = load_checkpoint(copy / "model.safetensors")
    save_checkpoint(model, checkpoint.replace(recipe=checkpoint.recipe | {"protocol": "dense"}))
    code, out, err = command("evaluate", model, store.root, "--json")
    assert code == 0
    assert [row["protocol"] for row in json.loads(out)] == ["dense"]
    assert "note: " not in err


def test_evaluate_notes_untrained_stages(command: Command, store: Store, run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    shutil.rmtree(copy / "st-resnet")
    code, out, err = command("evaluate", copy, store.root, "--protocol", "center", "--json")
    assert code == 0
    assert err.splitlines()[0] == "note: not trained yet and left out of the report: st-resnet"
    assert [row["name"] for row in json.loads(out)] == ["Appearance", "Motion", "late fusion"]


def test_fuse(command: Command, scores: list[Path], tmp_path: Path) -> None:
    code, out, err = command("fuse", *scores, "--out", tmp_path / "new" / "fused.parquet", "--json")
    assert (code, err) == (0, "")
    a, b, fused = json.loads(out)
    assert [row["top1"][0] for row in (a, b, fused)] == [0.8, 0.6, 0.8]  # the more confident one wins
    first, second, both = (ScoreTable.read(f) for f in (*scores, tmp_path / "new" / "fused.parquet"))
    np.testing.assert_allclose(both.logits, (first.logits + second.logits) / 2)
    assert (a["p_value"], fused["p_value"]) == (1.0, None)
    assert b["p_value"] == mcnemar(second, both).p_value == pytest.approx(0.289, abs=1e-3)  # 6 against 2 of 8
    code, out, _ = command("fuse", *scores, "--weights", "0,1")
    assert code == 0
    a_line, b_line, fused_line = out.splitlines()[1:]
    assert a_line.split()[:2] == ["a", "80.0"]
    assert b_line.split()[-1] == "1"
    assert fused_line.split()[:2] == ["fusion", "60.0"]
    assert a_line.split()[-1] == "0.29"
