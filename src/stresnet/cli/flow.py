"""`stresnet flow`: show the optical flow of a video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import Bar, console, note, note_damaged, print_json
from stresnet.flow.methods import methods_help

if TYPE_CHECKING:
    from stresnet.flow.show.export import DrawingStyle
    from stresnet.flow.show.reader import FlowReader, Segment

Out = Annotated[
    str,
    typer.Argument(
        help=".mp4: frames beside colour-coded flow; .png: one step as frame, colours and arrows; .npz: all flow; "
        ".flo: one step; or a new folder, ending in /, of .flo files.",
        show_default=False,
    ),
]
FlowMethod = Annotated[str, typer.Option("--flow", help=f"Flow method: {methods_help()}.")]
Bound = Annotated[float, typer.Option(help="Report how much flow `prepare` would clip at ± this many px per frame.")]
At = Annotated[
    float | None,
    typer.Option(help="Time in s of the step to show in a .png or .flo file. Default: the strongest motion.", min=0),
]
From = Annotated[float | None, typer.Option("--from", help="Start time in s.", min=0)]
To = Annotated[float | None, typer.Option("--to", help="End time in s, exclusive.", min=0)]
Scale = Annotated[
    float | None,
    typer.Option(help="Speed shown in full colour, px per frame. Default: the 99th percentile."),
]


def flow(
    video: Annotated[Path, typer.Argument(help="Video file.", show_default=False)],
    out: Out,
    flow: FlowMethod = "dis",
    preset: options.Preset = "",
    subtract_median: options.SubtractMedian = False,
    short_side: Annotated[int, typer.Option(help="Short side in px at which flow is computed.", min=32)] = 256,
    bound: Bound = 20.0,
    at: At = None,
    from_sec: From = None,
    to_sec: To = None,
    max_frames: Annotated[int | None, typer.Option(help="Use at most this many frames.", min=2)] = None,
    scale: Scale = None,
    arrows: Annotated[bool, typer.Option("--arrows", help="Draw arrows over the frames of an .mp4.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show the flow of a video as colours, arrows or numbers, and how much of it would be clipped."""
    from stresnet.flow import FlowSpec, clipping_note
    from stresnet.flow.show.export import export_flow, format_of

    ending = format_of(out)
    segment = _segment(ending, at, from_sec, to_sec, max_frames)
    style = _style(ending, arrows=arrows, scale=scale)
    spec = FlowSpec.from_dict(
        {
            "method": flow,
            "preset": preset,
            "subtract_median": subtract_median,
            "short_side": short_side,
            "bound_px": bound,
        }
    )
    with Bar(transient=True) as bar:
        reader = export_flow(video, out, spec, segment=segment, style=style, progress=bar)
    found = _found(reader, out)
    if as_json:
        print_json(found)
    else:
        _show(found, spec.bound_px)
    if reader.truncated:
        note_damaged(video, found["frames"])
    if clipping := clipping_note(str(video), reader.statistics.clipped_share, spec.bound_px):
        note(clipping)


def _segment(
    ending: str, at: float | None, from_sec: float | None, to_sec: float | None, max_frames: int | None
) -> Segment:
    from stresnet.flow.show.reader import Segment

    for name, value in (("--at", at), ("--from", from_sec), ("--to", to_sec)):
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"{name} must be a finite number of seconds, not {value}")
    if at is not None:
        if ending in (".mp4", ".npz", "/"):
            raise typer.BadParameter(f"--at applies to .png and .flo; for {ending} use --from and --to")
        if not from_sec is to_sec is max_frames is None:
            raise typer.BadParameter("--at selects a single step and excludes --from, --to and --max-frames")
        return Segment(at_sec=at)
    segment = Segment(from_sec or 0.0, math.inf if to_sec is None else to_sec, max_frames)
    if segment.to_sec <= segment.from_sec:
        raise typer.BadParameter(f"--to must be after --from, not {segment.to_sec:g} after {segment.from_sec:g}")
    return segment


def _style(ending: str, *, arrows: bool, scale: float | None) -> DrawingStyle:
    from stresnet.flow.show.export import DrawingStyle

    if ending in (".npz", ".flo", "/") and (arrows or scale is not None):
        raise typer.BadParameter(f"--arrows and --scale apply to .mp4 and .png; {ending} holds numbers, not colours")
    if scale is not None and not 0 < scale < math.inf:
        raise typer.BadParameter(f"--scale must be a positive number of px/frame, not {scale}")
    return DrawingStyle(arrows, scale)


def _found(reader: FlowReader, out: str) -> dict[str, Any]:
    """Return the result as JSON types."""
    statistics = reader.statistics
    speeds = {
        "mean_px": statistics.mean_px,
        "p99_px": statistics.percentile_px(99),
        "largest_sec": reader.largest_sec,
    }
    return {
        "video": str(reader.video),
        "out": out,
        "flow": reader.spec.to_dict(),
        "frames": len(reader.times_sec),
        "width": reader.size[1],
        "height": reader.size[0],
        "fps": reader.info.fps,
        **{name: value if math.isfinite(value) else None for name, value in speeds.items()},
        "clipped_share": statistics.clipped_share,
        "unknown_share": statistics.unknown_share,
        "frames_per_sec": reader.steps_per_sec,
        "truncated": reader.truncated,
    }


def _show(found: dict[str, Any], bound_px: float) -> None:
    def speed(name: str) -> str:
        return "unknown" if found[name] is None else f"{found[name]:.2f} px/frame"

    rows = {
        "frames": f"{found['frames']} of {found['width']}x{found['height']} px, {found['fps']:g} fps",
        "mean speed": speed("mean_px"),
        "99th percentile": speed("p99_px"),
        f"beyond ±{bound_px:g} px": f"{found['clipped_share']:.1%}",
        "unknown": f"{found['unknown_share']:.1%}",
        "strongest motion at": "unknown" if found["largest_sec"] is None else f"{found['largest_sec']:.3f} s",
        "computed at": f"{found['frames_per_sec']:.0f} frames/s",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print(f"written: {found['out']}", soft_wrap=True)
