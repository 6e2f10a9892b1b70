"""Arguments and options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from stresnet.data.datasets import DATASETS
from stresnet.flow.methods import presets_help

if TYPE_CHECKING:
    from stresnet.data.sampling import Protocol as ProtocolName
    from stresnet.model.precision import PrecisionChoice

_PROTOCOL_HELP = "Test protocol: dense25, crop10x25, dense, fast or center. Default: that of the model's recipe."
_CLASSES_HELP = (
    "File of class names, such as UCF101's classInd.txt. Required for image weights, whose classes it replaces."
)

Store = Annotated[Path, typer.Argument(help="Prepared store.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Protocol = Annotated[str | None, typer.Option(help=_PROTOCOL_HELP, show_default=False)]
Protocols = Annotated[
    list[str] | None, typer.Option("--protocol", help=f"{_PROTOCOL_HELP} May be repeated.", show_default=False)
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        help="Data set: "
        + "; ".join(f"{d.name}, {d.description}{' in --splits' if d.needs_lists else ''}" for d in DATASETS.values())
        + ". Default: folders, or list for a file.",
        show_default=False,
    ),
]
SplitLists = Annotated[Path | None, typer.Option("--splits", help="Folder of the official split lists.")]
SplitNumber = Annotated[int, typer.Option("--split", help="Number of the official split.", min=1, max=3)]
TrainList = Annotated[
    Path | None, typer.Option("--train", help="List of the training videos; SRC is then the folder of all videos.")
]
ValList = Annotated[Path | None, typer.Option("--val", help="List of the validation videos, as --train.")]
TestList = Annotated[Path | None, typer.Option("--test", help="List of the test videos, as --train.")]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="Names of the classes that lists give by number: '3 Archery' on each line, or 'Archery', counted from 0.",
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: cuda if available, else cpu.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or auto: bf16 where the device computes in it natively.")]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="Compile the network: minutes at first, then faster. Default: for many videos in bf16.",
        show_default=False,
    ),
]
Classes = Annotated[str, typer.Option(help=_CLASSES_HELP, show_default=False)]
Stream = Annotated[
    int | None,
    typer.Option(
        help="Which video stream of each file to read, from 0 on. Default: the one that players show.",
        min=0,
        show_default=False,
    ),
]
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
WindowSec = Annotated[
    float | None,
    typer.Option(help="Length of the windows of a time line. Default: that of a clip in training.", show_default=False),
]
StrideSec = Annotated[
    float | None, typer.Option(help="From one window to the next. Default: half of --window-sec.", show_default=False)
]
SmoothSec = Annotated[
    float, typer.Option(help="Average the scores of windows over this time.", min=0, show_default=False)
]
MinScore = Annotated[
    float, typer.Option(help="Leave out where no action has this probability.", min=0, max=1, show_default=False)
]


def parse_precision(name: str) -> PrecisionChoice:
    """Return the precision of this name.

    Raises:
        typer.BadParameter: if the name is unknown.
    """
    from stresnet.model import precision

    if name not in (names := get_args(precision.PrecisionChoice)):
        raise typer.BadParameter(f"--precision must be one of {', '.join(names)}, not {name!r}")
    return cast("PrecisionChoice", name)


def parse_protocols(names: Sequence[str]) -> list[ProtocolName]:
    """Return the protocols of these names, without duplicates.

    Raises:
        typer.BadParameter: if a name is unknown.
    """
    from stresnet.inference.protocols import PROTOCOLS

    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise typer.BadParameter(f"--protocol must be one of {', '.join(PROTOCOLS)}, not {unknown[0]!r}")
    return cast("list[ProtocolName]", list(dict.fromkeys(names)))


def check_dataset(dataset: str | None, lists: Path | None) -> None:
    """Raise unless a data set is known, and has its official lists if it needs them.

    Raises:
        typer.BadParameter: if not.
    """
    if dataset is not None and dataset not in DATASETS:
        raise typer.BadParameter(f"--dataset must be one of {', '.join(DATASETS)}, not {dataset!r}")
    if dataset is not None and DATASETS[dataset].needs_lists and lists is None:
        raise typer.BadParameter(f"--dataset {dataset} needs --splits, the folder of its official lists")
