"""`stresnet study`: the plan, the results, and what failed."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.studies import CELLS, write_study
from helpers.tiny import Command, one_line
from stresnet.data.store import Store


def test_plan_run_and_repeat(command: Command, store: Store, tmp_path: Path) -> None:
    file, out = write_study(tmp_path / "étude", cells=CELLS[:1]), tmp_path / "out [1]"
    study = ["study", file, store.root, out, "--workers", "0"]
    code, printed, _ = command(*study, "--dry-run")
    assert code == 0
    assert "3 trainings: 3 distinct stages × folds 1 × seeds 1; 0 done; without sharing" in printed
    assert not out.exists()
    code, printed, err = command(*study)
    assert code == 0, err
    assert [line.split("  ")[0] for line in printed.splitlines()[1:]] == [
        "Appearance",
        "Motion",
        "late fusion",
        "ST-ResNet",
    ]
    assert err.splitlines()[-1] == f"page: {out / 'study.md'}"
    assert "3/3 st-resnet, test, seed 0, training" not in err  # the only row of a stage of its name
    assert "3/3 test, seed 0, training st-resnet: 1/1" in err
    code, answer, err = command(*study, "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(answer)["rows"]] == ["appearance", "motion", "late fusion", "st-resnet"]
    assert "training" not in err
    summary = json.loads(command(*study, "--dry-run", "--json")[1])
    assert summary["trained"] == 3
    assert summary["stages"][2] == {"stage": "st-resnet", "rows": ["st-resnet"], "trained": 1}


def test_a_failed_cell_is_named(command: Command, store: Store, tmp_path: Path) -> None:
    hot = {"name": "hot", "changes": ["motion.optimisation.schedule=[{lr: 1e+30, epochs: 2}]"], "row": "motion"}
    code, _, err = command("study", write_study(tmp_path, cells=[hot]), store.root, tmp_path / "out", "--workers", "0")
    assert code == 1
    assert err.splitlines()[-1].startswith("failed: hot: test, seed 0: stage motion: weights became NaN")


def test_a_wrong_study(command: Command, store: Store, tmp_path: Path) -> None:
    file = write_study(tmp_path, reference="best")
    code, _, err = command("study", file, store.root, tmp_path / "out")
    assert code == 1
    assert one_line(err).startswith("stresnet: reference: 'best' is no row of the study; its rows are appearance")
