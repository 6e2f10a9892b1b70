"""Load recipes from packaged or other YAML files, apply changes to their fields, and name the field in errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from stresnet.errors import RecipeError
from stresnet.model.config import Description, explain
from stresnet.recipes.schema import SECTIONS, Phase, Recipe, Stage

_SECTION_FIELDS = {field: f"{name}.{field}" for name, model in SECTIONS.items() for field in model.model_fields}
_RECIPE_FIELDS = [field for field in Recipe.model_fields if field != "stages"]


def packaged_recipes() -> list[str]:
    """Return the names of the recipes that come with the library."""
    return sorted(
        f.name.removesuffix(".yaml") for f in resources.files(__package__).iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(name_or_file: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Return a packaged recipe, or one from a YAML file, with changes applied in order.

    Args:
        name_or_file: a name such as `ucf101`, or a path that ends in `.yaml`.
        changes: `PATH=VALUE`, the value in YAML. A path is a field of the recipe (`seed`), of one stage
            (`st-resnet.clips.steps`, `motion.starts_from`), of every stage (`*.optimisation.schedule`), or a default
            for the stages that do not set the field themselves (`network.width`).

    Raises:
        RecipeError: if a field is unknown or its value is wrong; the message names the field and what was expected.
    """
    values = _read(name_or_file)
    for change in changes:
        _apply(values, change)
    return parse_recipe(values, str(name_or_file))


def parse_recipe(values: Any, source: str) -> Recipe:
    """Return the recipe in plain values, such as those in a checkpoint or in the folder of a run.

    Args:
        values: a mapping of the recipe's fields.
        source: what to call the values in error messages, such as their file.

    Raises:
        RecipeError: if a field is unknown, missing or wrong; the message names `source` and the first such field.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error, values)}") from None


def differing_fields(a: Recipe, b: Recipe) -> list[str]:
    """Return the paths of the fields in which two recipes differ, such as `motion.clips.steps`."""
    x, y = (dict(_flat(recipe.to_dict())) for recipe in (a, b))
    return [path for path in x | y if x.get(path) != y.get(path)]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name == "stages":
            for stage in value:
                yield from _flat(stage, f"{stage['name']}.")
        elif isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read(name_or_file: str | Path) -> dict[str, Any]:
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_file) not in packaged_recipes():
            raise RecipeError(
                f"unknown recipe {str(name_or_file)!r}: give one of {', '.join(packaged_recipes())}, or a .yaml file"
            )
        text = (resources.files(__package__) / f"{name_or_file}.yaml").read_text("utf-8")
    else:
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RecipeError(f"recipe {path} is not text in UTF-8: give a .yaml file") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not isinstance(values.get("stages"), list):
        raise RecipeError(f"{path} is not a recipe: it needs a `name` and a list of `stages`")
    return values


def _apply(values: dict[str, Any], change: str) -> None:
    """Set one field of a recipe's plain values."""
    path, sign, text = change.partition("=")
    if not sign:
        raise RecipeError(f"--set {change}: write PATH=VALUE, such as seed=1 or st-resnet.clips.steps=7")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change}: the value is not valid YAML: {' '.join(str(error).split())}") from None
    first, *rest = path.strip().split(".")
    holders = [values]
    if rest and first not in SECTIONS:
        holders = [s for s in values["stages"] if isinstance(s, dict) and first in ("*", s.get("name"))]
        if not holders:
            names = ", ".join(str(s.get("name")) for s in values["stages"] if isinstance(s, dict))
            raise RecipeError(f"--set {change}: no stage {first!r}; the stages are {names}")
        known, prefix = [*Stage.model_fields], f"{first}."
    else:
        rest, known, prefix = [first, *rest], [*_RECIPE_FIELDS, *SECTIONS], ""
    if problem := _unknown(rest, known, prefix, text) or _without_effect(values, holders, rest, text):
        raise RecipeError(f"--set {change}: {problem}")
    for holder in holders:
        *sections, field = rest
        for section in sections:
            holder = holder.setdefault(section, {})
        if isinstance(holder, dict):  # otherwise the file is wrong, which parsing reports
            holder[field] = value


def _unknown(path: list[str], known: list[str], prefix: str, text: str) -> str | None:
    """Return why a path within a stage or recipe is unknown, with a suggestion; None if it is known."""
    section, field = (path[0] if len(path) > 1 else ""), path[-1]
    if len(path) == 1 and field in known:
        return None
    if len(path) == 2 and section in SECTIONS and field in SECTIONS[section].model_fields:
        return None
    if field in _SECTION_FIELDS:
        right = _SECTION_FIELDS[field]
        return f"{field} is in {right.partition('.')[0]}: write {prefix}{right}={text}"
    if field in Stage.model_fields and not prefix:
        return f"{field} is a field of stages: write STAGE.{field}={text}"
    if field in _RECIPE_FIELDS and field != "name" and prefix:
        return f"{field} is a field of the recipe: write {field}={text}"
    return f"no such field{_suggestion(field, known, prefix)}"


def _without_effect(values: dict[str, Any], holders: list[Any], path: list[str], text: str) -> str | None:
    """Return what is wrong with the change of a default that every stage overrides."""
    if holders != [values] or len(path) < 2:
        return None
    section, field = path
    stages = [stage for stage in values["stages"] if isinstance(stage, dict)]
    if not all(field in (stage.get(section) or {}) for stage in stages):
        return None
    return (
        f"every stage sets {field} itself, so the default has no effect: write *.{section}.{field}={text} for all "
        f"stages, or {stages[0].get('name')}.{section}.{field}={text} for one"
    )


def _suggestion(field: str, known: Sequence[str], prefix: str = "") -> str:
    candidates = {name: name for name in known} | _SECTION_FIELDS
    near = get_close_matches(field, candidates, 1)
    return f"; did you mean {prefix}{candidates[near[0]]}?" if near else ""


def _explain(error: ValidationError, values: Any) -> str:
    """Return the first mistake in one line: the stage by its name, the field, what was expected and what was found."""
    first = error.errors()[0]
    location = tuple(map(str, first["loc"]))
    field = ".".join(location)
    problem = explain(error).removeprefix(f"{field}: ")
    stage, place = _locate(first["loc"], values)
    if first["type"] == "extra_forbidden":
        problem += _known_fields(place, in_stage="stages" in location)
    return ": ".join(part for part in (stage, ".".join(place), problem) if part)


def _locate(location: tuple[int | str, ...], values: Any) -> tuple[str, tuple[str, ...]]:
    """Return the stage that a mistake is in, and the path within it; no stage if a default of the recipe is wrong."""
    path = tuple(map(str, location))
    if len(path) < 2 or path[0] != "stages":
        return "", path
    stage = values["stages"][location[1]]
    if not isinstance(stage, dict) or "name" not in stage or path[2:] == ("name",):
        return "", path
    if len(path) > 3 and path[3] in values.get(path[2], {}) and path[3] not in stage.get(path[2], {}):
        return "", path[2:]
    return f"stage {stage['name']}", path[2:]


def _known_fields(place: tuple[str, ...], in_stage: bool) -> str:
    """Return a suggestion for an unknown field at a place in a stage or recipe."""
    field = place[-1]
    if "schedule" in place[:-1]:
        near = get_close_matches(field, Phase.model_fields, 1)
        return f"; did you mean {near[0]}?" if near else ""
    model: type[Description] = Stage if in_stage else Recipe
    return _suggestion(field, [*model.model_fields])
