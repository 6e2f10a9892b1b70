"""Every example runs, with tiny settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny import Command
from stresnet.data.store import Store
from stresnet.training import Run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TINY: dict[str, Any] = {
    "TRAIN_PER_CLASS": 1,
    "TEST_PER_CLASS": 1,
    "SHORT_SIDE": 32,
    "CHANGES": [
        "network.width=0.0625",
        "clips.crop_px=32",
        "*.optimisation.batch_videos=2",
        "*.optimisation.sub_batch_videos=2",
        "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]",
    ],
    "WORKERS": 1,
}


@pytest.fixture(name="trained")
def _trained(request: pytest.FixtureRequest) -> Run:
    return request.getfixturevalue("run")  # a name that the function below takes


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_the_plain_training_loop_writes_a_model_that_predict_uses(
    store: Store, videos: Path, tmp_path: Path, command: Command
) -> None:
    tiny = ["--epochs", 2, "--width", 0.0625, "--crop-px", 32, "--workers", 0]
    printed = run("train_loop.py", store.root, tmp_path / "model.safetensors", *tiny)
    assert len(re.findall(r"^epoch \d: loss \d+\.\d{3}$", printed, re.MULTILINE)) == 2
    assert re.search(r"^test accuracy: [0-4] of 4$", printed, re.MULTILINE)
    video = next((videos / "test").rglob("*.mp4"))
    code, answer, _ = command("predict", tmp_path / "model.safetensors", video, "--json")
    assert code == 0
    assert {action["label"] for action in json.loads(answer)[0]["top"]} == set(store.classes)


def test_an_own_data_set_feeds_the_network(videos: Path) -> None:
    printed = run("own_dataset.py", videos / "train", "--epochs", 1, "--width", 0.0625)
    assert re.fullmatch(r"epoch 1: loss \d+\.\d{3}\n", printed)


def test_features_give_neighbours_and_a_probe(trained: Run, videos: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "features.parquet"
    assert command("predict", trained.model_file("appearance"), videos / "train", "--embed", out)[0] == 0
    printed = run("features.py", out)
    assert re.fullmatch(r"nearest neighbour of the same class: [0-8] of 8\nlinear probe: [0-4] of 4\n", printed)


def test_the_cells_of_the_notebook_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            names |= {name: value for name, value in TINY.items() if name in names}
    assert set(TINY) <= set(names)
    assert names["prediction"].label in names["store"].classes
    assert names["evaluation"].report.is_file()
    assert "8 videos" in capsys.readouterr().out
    assert all(not cell.get("outputs") for cell in notebook["cells"])
