"""A tiny study: the tiny recipe, one iteration a stage, and cells that share its single streams."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from helpers.tiny import VALUES
from stresnet.data.store import Store
from stresnet.studies import Plan, load_study, plan_study

ONE_ITERATION = [{"lr": 0.01, "iterations": 1}]
RECIPE = {
    **VALUES,
    "protocol": "center",
    "stages": [
        {**stage, "optimisation": {"schedule": ONE_ITERATION}, "clips": {**stage.get("clips", {}), "steps": 3}}
        for stage in VALUES["stages"]
    ],
}
CELLS: list[dict[str, Any]] = [
    {"name": "st-resnet", "title": "ST-ResNet"},
    {"name": "no-link", "title": "without links", "changes": ["st-resnet.network.link=null"]},
    {"name": "other-motion", "row": "late fusion", "changes": ["motion.clips.steps=4"]},
]
STUDY: dict[str, Any] = {"name": "tiny", "recipe": "base.yaml", "cells": CELLS}


def write_study(folder: Path, **changes: Any) -> Path:
    """Write the study, with some fields changed, and its recipe beside it; return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(yaml.safe_dump(RECIPE), "utf-8")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY | changes), "utf-8")
    return file


def planned(folder: Path, store: Store, init: Mapping[str, Path] | None = None, **changes: Any) -> Plan:
    """Return the plan of the study with some fields changed."""
    return plan_study(*load_study(write_study(folder, **changes)), store, init)
