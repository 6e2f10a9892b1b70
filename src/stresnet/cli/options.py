"""Arguments and options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from stresnet.flow.methods import presets_help

if TYPE_CHECKING:
    from stresnet.inference.protocols import Protocol as ProtocolName

_PROTOCOL_HELP = "Test protocol: dense25, crop10x25 or center (fast)."
_CLASSES_HELP = (
    "File of class names, such as UCF101's classInd.txt. Required for image weights, whose classes it replaces."
)

Store = Annotated[Path, typer.Argument(help="Prepared store.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Protocol = Annotated[str, typer.Option(help=_PROTOCOL_HELP)]
Protocols = Annotated[list[str], typer.Option("--protocol", help=f"{_PROTOCOL_HELP} May be repeated.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: cuda if available, else cpu.")]
Classes = Annotated[str, typer.Option(help=_CLASSES_HELP, show_default=False)]
Preset = Annotated[
    str,
    typer.Option(
        help=f"Speed and accuracy of the flow method. {presets_help()}.",
        show_default=False,
    ),
]
SubtractMedian = Annotated[
    bool,
    typer.Option("--subtract-median", help="Subtract the median of each flow field to compensate for camera motion."),
]


def parse_protocols(names: Sequence[str]) -> list[ProtocolName]:
    """Return the protocols of these names, without duplicates.

    Raises:
        typer.BadParameter: if a name is unknown.
    """
    from stresnet.inference.protocols import PROTOCOLS

    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise typer.BadParameter(f"--protocol must be one of {', '.join(PROTOCOLS)}, not {unknown[0]!r}")
    return cast("list[ProtocolName]", list(dict.fromkeys(names)))
