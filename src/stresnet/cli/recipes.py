"""`stresnet recipes`: list the packaged recipes, and explain one field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import console, print_json

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from stresnet.recipes import Recipe

app = typer.Typer(help="List the training recipes and explain their fields.", no_args_is_help=True)


@dataclass(frozen=True)
class Field:
    """A field of a recipe or stage, as JSON types.

    Attributes:
        name: dotted path, such as ``network.depth``.
        value: its value in the recipe.
        default: its default; meaningless if required.
        required: whether it has no default.
        description: what it means.
    """

    name: str
    value: Any
    default: Any
    required: bool
    description: str


@app.command("list")
def list_recipes(as_json: options.Json = False) -> None:
    """List the packaged recipes: their stages, and the network that the last one trains."""
    from stresnet.recipes import load_recipe, packaged_recipes

    rows = [_summary(load_recipe(name)) for name in packaged_recipes()]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "network", "clip", "stages", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["network"], row["clip"], " → ".join(row["stages"]))
    console.print(table)


def _summary(recipe: Recipe) -> dict[str, Any]:
    from stresnet.model import STResNetConfig
    from stresnet.model.profile import network_name

    last = recipe.stages[-1]
    config = STResNetConfig(num_classes=2, **dict(last.network))  # the name does not depend on the classes
    width = f", width {config.width:g}" if config.width != 1 else ""
    return {
        "name": recipe.name,
        "network": f"{network_name(config)}{width}",
        "clip": f"{last.clips.steps} × {last.clips.crop_px}²",
        "stages": [stage.name for stage in recipe.stages],
    }


@app.command("show")
def show_recipe(
    recipe: Annotated[str, typer.Argument(help="Packaged recipe or .yaml file.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Show every field of a recipe with its explanation, value and default."""
    from stresnet.recipes import load_recipe

    loaded = load_recipe(recipe)
    fields = list(_fields(loaded))
    stages = {stage.name: list(_fields(stage)) for stage in loaded.stages}
    if as_json:
        values: dict[str, Any] = {"fields": [asdict(field) for field in fields]}
        values["stages"] = {name: [asdict(field) for field in of_stage] for name, of_stage in stages.items()}
        print_json(values)
        return
    console.print(f"Recipe {loaded.name}. Change a field with `stresnet train --set PATH=VALUE`.", soft_wrap=True)
    console.print()
    for field in fields:
        _show_field(field, {"": field.value})
    console.print()
    console.print(
        f"Fields of each stage ({', '.join(stages)}). Write --set STAGE.PATH=VALUE for one stage, *.PATH=VALUE for "
        "all.",
        soft_wrap=True,
    )
    console.print()
    for row in zip(*stages.values(), strict=True):
        _show_field(row[0], {name: field.value for name, field in zip(stages, row, strict=True)})


def _fields(model: BaseModel, prefix: str = "") -> Iterator[Field]:
    """Yield the fields of a recipe or stage, those of its parts included; the stages of a recipe are left out."""
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if name == "stages":
            continue
        if hasattr(type(value), "model_fields"):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield _field(f"{prefix}{name}", value, info)


def _field(name: str, value: Any, info: FieldInfo) -> Field:
    required = info.is_required()
    default = None if required else _plain(info.get_default(call_default_factory=True))
    return Field(name, _plain(value), default, required, info.description or "")


def _plain(value: Any) -> Any:
    """Return a value as JSON types, without the unset fields of models."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _show_field(field: Field, values: dict[str, Any]) -> None:
    """Print a field with its value, or its values by stage where they differ, and its explanation."""
    default = "required" if field.required else f"default: {_text(field.default)}"
    stages_of: dict[str, list[str]] = {}
    for stage, value in values.items():
        stages_of.setdefault(_text(value), []).append(stage)
    if len(stages_of) == 1:
        text = next(iter(stages_of))
        shown = "default" if default == f"default: {text}" else default
        console.print(f"{field.name} = {text}  ({shown})", soft_wrap=True)
    else:
        console.print(f"{field.name}  ({default})", soft_wrap=True)
        for text, stages in stages_of.items():
            console.print(f"  {', '.join(stages)} = {text}", soft_wrap=True)
    if field.description:
        console.print(Padding(field.description, (0, 0, 0, 4), expand=False), style="dim")


def _text(value: Any) -> str:
    """Return a value as YAML in one line, as `--set` takes it."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return str(text).removesuffix("\n").removesuffix("\n...")
