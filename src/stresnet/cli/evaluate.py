"""`stresnet evaluate`: scores and a report of a model or a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, errors, exit_with_failures, note, show_rows


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file or folder of a run.", show_default=False)],
    store: options.Store,
    out: Annotated[Path | None, typer.Option(help="Folder for scores and report. Default: beside the model.")] = None,
    protocol: options.Protocols = None,
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    device: options.Device = None,
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
    as_json: options.Json = False,
) -> None:
    """Score the test videos; write scores per video, report.json and report.html."""
    from stresnet.evaluation import evaluate as run_evaluate
    from stresnet.training import Run

    protocols, wanted = options.parse_protocols(protocol or []), options.parse_precision(precision)
    if (model / "store.json").is_file():
        raise typer.BadParameter(f"{model} is a prepared store: give the model or run first, then the store")
    if model.is_dir() and (missing := [stage.name for stage in Run.open(model).unfinished()]):
        note(f"not trained yet and left out of the report: {', '.join(missing)}")
    with Bar() as bar:
        evaluation = run_evaluate(
            model,
            store,
            out,
            protocols=protocols or None,
            split=split,
            device=device,
            precision=wanted,
            compiled=compiled,
            progress=bar,
        )
    for text in evaluation.notes:
        note(text)
    show_rows(evaluation.rows, as_json=as_json)
    errors.print(f"report: {evaluation.report}", soft_wrap=True)
    exit_with_failures(evaluation.failed)
