"""`stresnet models`: the table of networks, as text, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import console, print_json

if TYPE_CHECKING:
    from stresnet.recipes.networks import ModelRow

COLUMNS = ("network", "M parameters", "clip", "GFLOPs", "reach", "UCF101")


def models(
    as_json: options.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """List the networks of the papers and recipes: size, cost per clip, temporal reach, published accuracy."""
    if as_json and markdown:
        raise typer.BadParameter("give either --json or --markdown")
    from stresnet.recipes.networks import model_table

    rows = model_table()
    if as_json:
        print_json([row.to_dict() for row in rows])
    elif markdown:
        print("\n".join(_markdown(rows)))
    else:
        table = Table(box=None, pad_edge=False)
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == "network" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row))
        console.print(table)
        console.print("", *_notes(rows), sep="\n")


def _cells(row: ModelRow) -> tuple[str, ...]:
    """Return the cells of a row; parameters are shown as appearance + motion = total."""
    streams = (row.appearance_parameters, row.motion_parameters)
    return (
        row.name,
        "{} + {} = {}".format(*(f"{count / 1e6:.1f}" for count in (*streams, row.parameters))),
        f"{row.steps} × {row.side_px}²",
        f"{row.flops / 1e9:.1f}",
        str(row.reach_steps),
        "" if row.published_ucf101 is None else f"{row.published_ucf101:.1f}",
    )


def _notes(rows: Sequence[ModelRow]) -> list[str]:
    """Return explanations of the columns and rows."""
    from stresnet.model.profile import network_name
    from stresnet.recipes.networks import CLASSES, SOURCE

    caffe = ", ".join(row.name for row in rows if row.config.layout == "caffe")
    of_recipe = {row.name: network_name(row.config) for row in rows if row.recipes == (row.name,)}
    shared = [f"{row.name} by {', '.join(row.recipes)}" for row in rows if row.recipes and row.name not in of_recipe]
    return [
        f"M parameters: millions, appearance + motion = total, with {CLASSES} classes",
        "clip: time steps × px²; GFLOPs: of a forward pass over one clip, two per multiply-add",
        "reach: time steps that one output depends on, in a clip that is long enough",
        f"UCF101: published top-1 accuracy in %, mean of three splits ({SOURCE}), where confirmed",
        f"layout: caffe for {caffe}, as released; torchvision for all others",
        f"recipes: {'; '.join(shared)}; " + "; ".join(f"{name} is a narrow {kind}" for name, kind in of_recipe.items()),
    ]


def _markdown(rows: Sequence[ModelRow]) -> list[str]:
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *map(_cells, rows)]
    table = [f"| {' | '.join(cells)} |".replace("*", "\\*") for cells in lines]
    return [*table, "", *(f"- {note}".replace("*", "\\*") for note in _notes(rows))]
