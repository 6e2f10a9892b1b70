"""`stresnet demo`: the whole pipeline, shortened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import stresnet
import stresnet.recipes
from helpers.tiny import Command
from stresnet.data.synthetic import SyntheticSpec


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from loader processes, since Python 3.12
def test_demo(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SyntheticSpec(width=64, height=64, frames=14, window_px=24, train_per_class=1, test_per_class=1)
    load_recipe = stresnet.recipes.load_recipe

    def shorter(name: str, changes: Sequence[str]) -> Any:
        short = ["network.width=0.0625", "optimisation.precision=32-true"]
        return load_recipe(name, [*short, "*.optimisation.schedule=[{lr: 0.01, iterations: 1}]"])

    monkeypatch.setattr("stresnet.data.synthetic.SyntheticSpec", lambda: spec)
    monkeypatch.setattr("stresnet.recipes.load_recipe", shorter)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    code, out, err = command("demo", tmp_path / "demo", "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads(out)}
    assert set(rows) >= {"appearance", "motion", "late fusion", "ST-ResNet", "ST-ResNet*"}
    assert {row["videos"] for row in rows.values()} == {4}
    assert "Which colour drifts which way?" in (tmp_path / "demo" / "report" / "report.html").read_text("utf-8")
    steps = [line.partition(":")[0] for line in err.splitlines() if not line.startswith(("generating", "preparing"))]
    stages = list(dict.fromkeys(s.removeprefix("training ") for s in steps if s.startswith("training ")))
    assert stages == ["appearance", "motion", "no-links", "st-resnet", "st-resnet-star"]
    assert not any(s == "note" for s in steps)
    again = command("demo", tmp_path / "demo")
    assert again[0] == 0
    assert "training" not in again[2]
