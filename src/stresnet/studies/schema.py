"""The schema of studies: the cells to compare, each a recipe, and the folds and seeds to train them with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from stresnet.data.sampling import Protocol
from stresnet.errors import RecipeError
from stresnet.model.config import Description, explain
from stresnet.recipes import LATE_FUSION, Recipe, load_recipe

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


class Cell(Description):
    """One row of a study: a recipe, and which of its rows to report."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the cell, unique in the study.")
    title: str = Field(default="", description="Name of its row on the page; by default the cell's name.")
    recipe: str | None = Field(
        default=None, description="Packaged recipe, or .yaml file beside the study, instead of the study's."
    )
    changes: tuple[str, ...] = Field(
        default=(), description="Changes to the recipe, as `train --set` takes them: PATH=VALUE."
    )
    row: str | None = Field(
        default=None,
        description="What it reports: a stage of the recipe, or `late fusion` of its single-stream stages. "
        "By default the last stage.",
    )


class Study(Description):
    """Cells that are trained and tested on the same folds with the same seeds, and compared video by video.

    The single-stream stages of the study's recipe, and their late fusion, are rows without being listed.
    """

    name: str = Field(description="Name of the study.")
    title: str = Field(default="", description="Heading of the page; by default the name.")
    note: str = Field(default="", description="Text below the heading of the page.")
    recipe: str = Field(description="Packaged recipe, or .yaml file beside the study, that the cells change.")
    folds: Annotated[int, Field(strict=True, ge=2)] | None = Field(
        default=None,
        description="Number of folds to cross-validate in: the groups of all videos outside the store's test split "
        "are shared out, and each is held out once. Without it, the store's test split is scored.",
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0,), min_length=1, description="Every cell is trained on every fold once with each of these seeds."
    )
    protocol: Protocol | None = Field(
        default=None, description="Test protocol of all rows; by default that of each row's recipe."
    )
    reference: str = Field(
        default=LATE_FUSION,
        description="The row that all others are tested against: a cell, a single-stream stage, or `late fusion`.",
    )
    cells: tuple[Cell, ...] = Field(min_length=1, description="The cells, in the order of the page.")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names: set[str] = set()
        for cell in self.cells:
            if cell.name in names:
                raise ValueError(f"two cells are called {cell.name!r}")
            names.add(cell.name)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must name each seed once, not {list(self.seeds)}")
        return self


def load_study(file: str | Path) -> tuple[Study, dict[str, Recipe]]:
    """Return the study in a YAML file, and the recipe of each cell by its name; that of the study is under "".

    Raises:
        RecipeError: if the file cannot be read, a field is unknown or wrong, or a recipe or a change to it is.
    """
    file = Path(file)
    try:
        values: Any = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(f"study {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"study {file} is not text in UTF-8: give a .yaml file") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{file} is not a study: it needs a `name`, a `recipe` and a list of `cells`")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{file}: {_named(explain(error), values)}") from None
    recipes = {"": load_recipe(_beside(file, study.recipe))}
    for cell in study.cells:
        try:
            recipes[cell.name] = load_recipe(_beside(file, cell.recipe or study.recipe), cell.changes)
        except RecipeError as error:
            raise RecipeError(f"{file}: cell {cell.name}: {str(error).removeprefix('--set ')}") from None
    return study, recipes


def _beside(study: Path, recipe: str) -> str | Path:
    """Return a packaged recipe's name, or the path of a file that is given relative to the study's."""
    return study.parent / recipe if recipe.endswith((".yaml", ".yml")) else recipe


def _named(problem: str, values: dict[str, Any]) -> str:
    """Return a problem such as `cells.3.titel: no such field` with the cell's name in place of its number."""
    parts = problem.split(".", 2)
    if len(parts) < 3 or parts[0] != "cells" or not parts[1].isdigit():
        return problem
    cell = values["cells"][int(parts[1])]
    return f"cell {cell['name']}: {parts[2]}" if isinstance(cell, dict) and "name" in cell else problem
