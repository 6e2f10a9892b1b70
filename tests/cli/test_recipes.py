"""`stresnet recipes`: the packaged recipes, and the fields of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny import Command, one_line
from stresnet.recipes import Recipe, load_recipe, packaged_recipes
from stresnet.recipes.schema import SECTIONS


def test_list(command: Command) -> None:
    code, out, err = command("recipes", "list", "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert sorted(rows) == packaged_recipes()
    assert rows["small"] == {
        "name": "small",
        "network": "ST-ResNet-26, width 0.25",
        "clip": "5 × 112²",
        "stages": ["appearance", "motion", "st-resnet"],
    }
    assert rows["ucf101"]["network"] == "ST-ResNet*-50"
    code, out, _ = command("recipes", "list")
    assert code == 0
    assert out.splitlines()[1].split()[0] in rows


def test_show_as_json_explains_every_field(command: Command, recipe: Path) -> None:
    code, out, err = command("recipes", "show", recipe, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [field["name"] for field in found["fields"]] == [f for f in Recipe.model_fields if f != "stages"]
    sections = {f"{name}.{field}" for name, model in SECTIONS.items() for field in model.model_fields}
    loaded = load_recipe(recipe)
    for name, fields in found["stages"].items():
        by_name: dict[str, dict[str, Any]] = {field["name"]: field for field in fields}
        assert sections < set(by_name)
        assert all(field["description"] for field in fields)
        assert by_name["clips.steps"]["value"] == loaded.stage(name).clips.steps
        assert (by_name["clips.steps"]["default"], by_name["clips.steps"]["required"]) == (1, False)
        assert by_name["optimisation.schedule"]["required"]


def test_show_groups_stages_with_the_same_value(command: Command) -> None:
    code, out, err = command("recipes", "show", "small")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "seed = 0  (default)" in lines
    assert "network.depth = 26  (default: 50)" in lines
    start = lines.index("clips.tau  (default: [1, 1])")
    assert lines[start + 1 : start + 3] == ["  appearance, motion = [8, 20]", "  st-resnet = [2, 10]"]
    assert "  motion = [{lr: 0.01, epochs: 70.0}, {lr: 0.001, epochs: 30.0}]" in lines
    assert "optimisation.batch_videos = 8  (required)" in lines


@pytest.mark.parametrize(
    ("name", "words"), [("huge", "unknown recipe 'huge': give one of"), ("no.yaml", "cannot be read")]
)
def test_show_unknown_recipes(command: Command, name: str, words: str) -> None:
    code, out, err = command("recipes", "show", name)
    assert (code, out) == (1, "")
    assert words in one_line(err)
