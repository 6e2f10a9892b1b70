"""Write `docs/recipe-fields.md` from the schema of recipes: `python docs/recipe_fields.py`. A test keeps it current."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stresnet.recipes.schema import SECTIONS, Phase, Recipe, Stage

PAGE = Path(__file__).with_name("recipe-fields.md")
INTRO = """\
# Recipe fields

A recipe is a list of `stages`. Each stage holds a `network`, `clips` and `optimisation`. At the top level of a recipe
the same three give defaults for all stages. Change any field from the command line with `--set`, see
[Recipes](recipes.md).
"""
NAMES = {int: "integer", float: "number", bool: "`true` or `false`", str: "text"}
SIGNS = [("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")]


def page() -> str:
    """Return the whole page in Markdown."""
    parts = [("Recipe", Recipe), ("Stage", Stage), *SECTIONS.items(), ("schedule", Phase)]
    return "\n".join([INTRO, *("\n".join(section(name, model)) for name, model in parts)])


def section(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of one section: a heading, a sentence and the table of fields."""
    yield f"## {name}\n\n{first_paragraph(model)}\n"
    yield "| field | value | default | meaning |\n|---|---|---|---|"
    for field, info in model.model_fields.items():
        cells = (f"`{field}`", value(info), default(info), info.description or "")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def first_paragraph(model: type[BaseModel]) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def value(info: FieldInfo) -> str:
    """Return the type and the limits of a field."""
    bounds = [(sign, getattr(limit, name, None)) for limit in info.metadata for name, sign in SIGNS]
    limits = [f"{sign} {bound}" for sign, bound in bounds if bound is not None]
    return ", ".join([type_name(info.annotation), *limits])


def type_name(annotation: Any) -> str:
    """Return a type in the words of YAML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if part is type(None) else type_name(part) for part in arguments)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {type_name(arguments[0])}"
    if origin is tuple:
        return "[" + ", ".join(type_name(part) for part in arguments) + "]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        anchors = {Stage: "stage", Phase: "schedule"} | {model: name for name, model in SECTIONS.items()}
        return f"[{annotation.__name__}](#{anchors[annotation]})"
    return NAMES[annotation]


def default(info: FieldInfo) -> str:
    """Return the default of a field as YAML."""
    if info.is_required():
        return "*required*"
    if isinstance(info.default, BaseModel):
        return "its fields' defaults"
    plain = list(info.default) if isinstance(info.default, tuple) else info.default
    return f"`{yaml.safe_dump(plain, default_flow_style=True).removesuffix('...' + chr(10)).strip()}`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
