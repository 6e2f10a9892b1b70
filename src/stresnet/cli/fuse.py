"""`stresnet fuse`: late fusion of score files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import show_rows


def fuse(
    scores: Annotated[list[Path], typer.Argument(help="Parquet files of scores.", show_default=False)],
    weights: Annotated[
        str, typer.Option(help="One weight per file, separated by commas. Default: equal.", show_default=False)
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the fused scores to this file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Average score files and test each against the average with McNemar's paired test."""
    from stresnet.evaluation.report import ReportRow
    from stresnet.evaluation.scores import ScoreTable
    from stresnet.evaluation.scores import fuse as run_fuse

    try:
        numbers = [float(w) for w in weights.split(",")] if weights else None
    except ValueError:
        raise typer.BadParameter(f"--weights must be numbers separated by commas, not {weights!r}") from None
    tables = [ScoreTable.read(file) for file in scores]
    fused = run_fuse(tables, numbers)
    if out:
        fused.write(out)
    show_rows([*(ReportRow(t) for t in tables), ReportRow(fused, chosen=True)], as_json=as_json)
