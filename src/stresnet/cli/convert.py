"""`stresnet convert`: weights from elsewhere."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stresnet.cli.display import Bar, console


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A released .mat; a ResNet's .pth, .safetensors or .mat; or the URL or hub name of one.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.", show_default=False)],
    classes: Annotated[
        str, typer.Option(help="File of class names, such as classInd.txt; for image weights also their number.")
    ] = "",
    sha256: Annotated[str, typer.Option(help="What a downloaded file must be.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Convert released weights to a model, or image weights to a two-stream start."""
    from stresnet.weights.convert import convert as run_convert
    from stresnet.weights.convert import require_possible
    from stresnet.weights.fetch import fetch

    require_possible(out, classes)  # said before the download rather than after it
    with Bar(transient=True) as bar:
        file = fetch(source, sha256=sha256, progress=partial(bar.fetch, source))
    report = run_convert(file, out, classes=classes)
    if as_json:
        print(json.dumps({"out": str(report.out), "report": report.lines}, ensure_ascii=False))
        return
    for line in report.lines:
        console.print(line, soft_wrap=True)
    console.print(f"written: {report.out}", soft_wrap=True)
