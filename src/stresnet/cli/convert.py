"""`stresnet convert`: weights in other formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Released .mat file, or ResNet weights (.pth, .safetensors or .mat); or the URL or hub name of such a "
            "file.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="File to write (.safetensors).", show_default=False)],
    classes: options.Classes = "",
    sha256: Annotated[str, typer.Option(help="Expected SHA-256 of a downloaded file.", show_default=False)] = "",
    as_json: options.Json = False,
) -> None:
    """Convert released weights to a model, or image weights to an initial two-stream model."""
    from stresnet.weights.convert import convert as run_convert
    from stresnet.weights.convert import require_possible
    from stresnet.weights.fetch import fetch

    require_possible(out, classes)  # before the download
    with Bar(transient=True) as bar:
        file = fetch(source, sha256=sha256, progress=bar)
    report = run_convert(file, out, classes=classes)
    if as_json:
        print(json.dumps({"out": str(report.out), "report": report.lines}, ensure_ascii=False))
        return
    for line in report.lines:
        console.print(line, soft_wrap=True)
    console.print(f"written: {report.out}", soft_wrap=True)
