"""Studies in YAML: what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.studies import CELLS, write_study
from stresnet.errors import RecipeError
from stresnet.studies import load_study


def test_a_study_with_its_recipes(tmp_path: Path) -> None:
    study, recipes = load_study(write_study(tmp_path, seeds=[3, 1]))
    assert (study.seeds, study.folds, study.reference) == ((3, 1), None, "late fusion")
    assert list(recipes) == ["", "st-resnet", "no-link", "other-motion"]
    assert recipes["no-link"].stage("st-resnet").network.link is None
    assert recipes[""] == recipes["st-resnet"]


def test_a_cell_with_another_recipe(tmp_path: Path) -> None:
    cell = {"name": "packaged", "recipe": "small", "changes": ["seed=4"]}
    _, recipes = load_study(write_study(tmp_path, cells=[cell]))
    assert (recipes["packaged"].name, recipes["packaged"].seed) == ("small", 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": [{**CELLS[0], "titel": "x"}]}, "cell st-resnet: titel: no such field"),
        ({"cells": [CELLS[0], CELLS[0]]}, "two cells are called 'st-resnet'"),
        ({"cells": []}, "cells: List should have at least 1 item"),
        ({"folds": 1}, "folds: Input should be greater than or equal to 2 (found 1)"),
        ({"seeds": [1, 1]}, "seeds must name each seed once, not [1, 1]"),
        ({"protocol": "all"}, "protocol: Input should be "),
        ({"cells": [{"name": "x", "changes": ["st-resnet.clips.step=4"]}]}, "cell x: st-resnet.clips.step=4: no such"),
        ({"cells": [{"name": "x", "recipe": "smal"}]}, "cell x: unknown recipe 'smal'"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write_study(tmp_path, **changes)
    with pytest.raises(RecipeError) as error:
        load_study(file)
    assert str(error.value).startswith(f"{file}: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "is not text in UTF-8"),
        (b"a: [", "is not valid YAML"),
        (b"[]", "is not a study"),
    ],
)
def test_files_that_hold_no_study(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "study.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_study(file)
