"""`stresnet export`: networks for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console, note, print_json


def export(
    model: Annotated[str, typer.Argument(help="Model file, folder of a run, URL or hub name.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="File to write: .onnx, or .xml for OpenVINO.", show_default=False)],
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Quantise to int8. Kept only if it is as good, and faster. Needs --calibrate."),
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Prepared store of the training videos: int8 is calibrated on them, and the file is compared with "
            "the model on videos held out of training. Default: compared on generated clips.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Export a model to a file that runs without PyTorch, and compare it with the model."""
    from stresnet.data.store import Store
    from stresnet.export.run import export as run_export
    from stresnet.export.run import require_possible
    from stresnet.weights.fetch import fetch

    require_possible(out, int8=int8, calibrate=calibrate)
    store = None if calibrate is None else Store.open(calibrate)
    with Bar(transient=True) as bar:
        result = run_export(fetch(model, progress=bar), out, int8=int8, calibrate=store, progress=bar)
    for text in result.notes:
        note(text)
    if as_json:
        print_json(result.to_dict())
        return
    for comparison in result.comparisons:
        console.print(str(comparison), soft_wrap=True)
    console.print(f"written: {result.out} ({result.precision}, {result.megabytes:.1f} MB)", soft_wrap=True)
