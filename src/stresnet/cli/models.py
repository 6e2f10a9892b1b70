"""`stresnet models`: the table of networks, as text, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import console

if TYPE_CHECKING:
    from stresnet.recipes.networks import ModelRow

COLUMNS = ("network", "M parameters", "clip", "GFLOPs", "reach", "UCF101", "HMDB51")
RECALLED = "r"


def models(
    as_json: options.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
) -> None:
    """List the networks of the papers and the recipes: size, cost of a clip, reach in time, published accuracy."""
    if as_json and markdown:
        raise typer.BadParameter("give either --json or --markdown")
    from stresnet.recipes.networks import model_table

    rows = model_table()
    if as_json:
        print(json.dumps([row.to_dict() for row in rows]))
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
    """A row as shown: parameters as appearance + motion = whole."""
    streams = (row.appearance_parameters, row.motion_parameters)
    return (
        row.name,
        "{} + {} = {}".format(*(f"{count / 1e6:.1f}" for count in (*streams, row.parameters))),
        f"{row.steps} × {row.side_px}²",
        f"{row.flops / 1e9:.1f}",
        str(row.reach_steps),
        _figure(row, "ucf101"),
        _figure(row, "hmdb51"),
    )


def _figure(row: ModelRow, data_set: str) -> str:
    if row.published is None:
        return ""
    mark = f" {RECALLED}" if data_set in row.published.recalled else ""
    return f"{getattr(row.published, data_set):.1f}{mark}"


def _notes(rows: Sequence[ModelRow]) -> list[str]:
    """What the columns mean, and what the rows are."""
    from stresnet.model.profile import network_name
    from stresnet.recipes.networks import CLASSES

    papers = dict.fromkeys(row.published.paper for row in rows if row.published)
    caffe = ", ".join(row.name for row in rows if row.config.layout == "caffe")
    own = {row.name: network_name(row.config) for row in rows if row.recipes == (row.name,)}
    shared = [f"{row.name} by {', '.join(row.recipes)}" for row in rows if row.recipes and row.name not in own]
    return [
        f"M parameters: millions, appearance + motion = whole, of {CLASSES} classes",
        "clip: time steps × px²; GFLOPs: of one forward pass over it, two for every multiply-add",
        "reach: time steps that one output sees, in a clip long enough",
        f"UCF101, HMDB51: published top-1 %, mean of three splits ({'; '.join(papers)}); "
        f"{RECALLED}: recalled, not checked against a second source",
        f"layout: caffe for {caffe}, as released; torchvision for all others",
        f"recipes: {'; '.join(shared)}; " + "; ".join(f"{name} is a narrow {kind}" for name, kind in own.items()),
    ]


def _markdown(rows: Sequence[ModelRow]) -> list[str]:
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *map(_cells, rows)]
    table = [f"| {' | '.join(cells)} |".replace("*", "\\*") for cells in lines]
    return [*table, "", *(f"- {note}".replace("*", "\\*") for note in _notes(rows))]
