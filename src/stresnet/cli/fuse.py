"""`stresnet fuse`: late fusion of score files, or of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import errors, show_rows


def fuse(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Parquet files of scores; or the models (.safetensors) of an appearance and a motion stream.",
            show_default=False,
        ),
    ],
    weights: Annotated[
        str, typer.Option(help="One weight per file, separated by commas. Default: equal.", show_default=False)
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the fused scores, or the fused model, to this file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Average score files and test each against the average with McNemar's paired test.

    Or make one model of two single streams, whose scores are the average of theirs.
    """
    if any(file.suffix == ".safetensors" for file in files):
        _fuse_models(files, out, weighted=bool(weights))
        return
    from stresnet.evaluation.report import ReportRow
    from stresnet.evaluation.scores import ScoreTable
    from stresnet.evaluation.scores import fuse as run_fuse

    try:
        numbers = [float(w) for w in weights.split(",")] if weights else None
    except ValueError:
        raise typer.BadParameter(f"--weights must be numbers separated by commas, not {weights!r}") from None
    tables = [ScoreTable.read(file) for file in files]
    fused = run_fuse(tables, numbers)
    if out:
        fused.write(out)
    show_rows([*(ReportRow(t) for t in tables), ReportRow(fused, chosen=True)], as_json=as_json)


def _fuse_models(files: list[Path], out: Path | None, *, weighted: bool) -> None:
    """Write one model of an appearance and a motion stream, given in either order."""
    from stresnet.model import load_checkpoint, save_checkpoint
    from stresnet.weights.late_fusion import fuse_streams

    if len(files) != 2 or out is None or weighted:
        raise typer.BadParameter("models are fused in pairs: give two .safetensors files and --out, without --weights")
    appearance, motion = sorted(map(load_checkpoint, files), key=lambda one: one.model.config.streams)
    save_checkpoint(out, fuse_streams(appearance, motion))
    errors.print(f"model: {out}", soft_wrap=True)
