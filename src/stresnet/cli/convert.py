"""`stresnet convert`: weights in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console, print_json


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
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Prepared store on whose frames the batch-norm moments of image weights are measured. Required if "
            "batch norm was folded or lacks its variances. The function of the network stays the same.",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        Literal["torchvision", "caffe"] | None,
        typer.Option(help="Layout of image weights. Default: caffe if only conv1 has a bias.", show_default=False),
    ] = None,
    channels: Annotated[Literal["rgb", "bgr"], typer.Option(help="Order in which image weights read colours.")] = "rgb",
    mean: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            help="Subtracted from levels, 0 to 255, in the order of --channels. Default: that of the layout.",
            show_default=False,
        ),
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Divides levels after that. Default: that of the layout.", show_default=False),
    ] = None,
    sha256: Annotated[str, typer.Option(help="Expected SHA-256 of a downloaded file.", show_default=False)] = "",
    as_json: options.Json = False,
) -> None:
    """Convert released weights to a model, or image weights to an initial two-stream model."""
    from stresnet.data.store import Store
    from stresnet.weights.convert import convert as run_convert
    from stresnet.weights.convert import require_possible
    from stresnet.weights.fetch import fetch
    from stresnet.weights.image_weights import ImageFormat

    if std is not None and min(std) <= 0:
        raise typer.BadParameter(f"--std must be three positive numbers, not {' '.join(map(str, std))}")
    require_possible(out, classes)  # before the download
    frames_of = None if calibrate is None else Store.open(calibrate)
    with Bar(transient=True) as bar:
        file = fetch(source, sha256=sha256, progress=bar)
        image_format = ImageFormat(layout, channels, mean, std)
        report = run_convert(file, out, classes=classes, image_format=image_format, frames_of=frames_of, progress=bar)
    if as_json:
        print_json({"out": str(report.out), "report": report.lines})
        return
    for line in report.lines:
        console.print(line, soft_wrap=True)
    console.print(f"written: {report.out}", soft_wrap=True)
