"""`stresnet flow`: a look at the flow of a video."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.table import Table

from stresnet.cli.display import Bar, console, errors

if TYPE_CHECKING:
    from stresnet.flow.show.steps import Look, Part
    from stresnet.flow.show.view import Style

Seconds = Optional[float]  # noqa: UP045


def flow(
    video: Annotated[Path, typer.Argument(help="A video file.", show_default=False)],
    out: Annotated[
        str,
        typer.Argument(
            help=".mp4: frame and flow in colours; .png: one step as frame, colours and arrows; .npz: all of the flow; "
            ".flo: one step; or a new folder, ending in /, of .flo files.",
            show_default=False,
        ),
    ],
    flow: Annotated[str, typer.Option(help="dis, tvl1 (the paper's), farneback, mv (the codec's) or raft.")] = "dis",
    preset: Annotated[
        str,
        typer.Option(
            help="ultrafast, fast or medium for dis; default or fast for tvl1; small or large for raft; default: the "
            "method's own."
        ),
    ] = "",
    subtract_median: Annotated[
        bool, typer.Option("--subtract-median", help="Subtract each field's median, against camera motion.")
    ] = False,
    short_side: Annotated[int, typer.Option(help="Size in px that the flow is computed at.", min=32)] = 256,
    bound: Annotated[float, typer.Option(help="Tell how much `prepare` would clip at ± this many px/frame.")] = 20.0,
    at: Annotated[Seconds, typer.Option(help="Moment for .png and .flo; default: where most moves.", min=0)] = None,
    from_sec: Annotated[Seconds, typer.Option("--from", help="Leave out what is before, in seconds.", min=0)] = None,
    to_sec: Annotated[Seconds, typer.Option("--to", help="Leave out this moment and what is after.", min=0)] = None,
    max_frames: Annotated[Optional[int], typer.Option(help="Take no more frames than this.", min=2)] = None,  # noqa: UP045
    scale: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Speed in full colour, px/frame; default: what few vectors exceed."),
    ] = None,
    arrows: Annotated[bool, typer.Option("--arrows", help="Draw arrows over the frames of an .mp4 too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Look at the flow of a video: in colours, as arrows or as numbers, and how much of it would be clipped."""
    from stresnet.flow import FlowSpec, clipping_note
    from stresnet.flow.show.view import ending_of, view_flow

    ending = ending_of(out)
    part = _part(ending, at, from_sec, to_sec, max_frames)
    style = _style(ending, arrows=arrows, scale=scale)
    which = {"method": flow, "preset": preset, "subtract_median": subtract_median}
    spec = FlowSpec.from_dict({**which, "short_side": short_side, "bound_px": bound})
    with Bar(transient=True) as bar:
        look = view_flow(video, out, spec, part=part, style=style, progress=bar.update)
    found = _found(look, out)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _show(found, spec.bound_px)
    if look.truncated:
        frames = f"{found['frames']} frames could be decoded and are used"
        errors.print(f"note: {video}: damaged; {frames}", soft_wrap=True)
    if note := clipping_note(str(video), look.statistics.clipped_share, spec.bound_px):
        errors.print(f"note: {note}", soft_wrap=True)


def _part(ending: str, at: float | None, from_sec: float | None, to_sec: float | None, max_frames: int | None) -> Part:
    from stresnet.flow.show.steps import Part

    for name, value in (("--at", at), ("--from", from_sec), ("--to", to_sec)):
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"{name} must be a number of seconds, not {value}")
    if at is not None:
        if ending in (".mp4", ".npz", "/"):
            raise typer.BadParameter(f"--at is for .png and .flo; for {ending} use --from and --to")
        if not from_sec is to_sec is max_frames is None:
            raise typer.BadParameter("--at takes one step: give it without --from, --to and --max-frames")
        return Part(at_sec=at)
    part = Part(from_sec or 0.0, math.inf if to_sec is None else to_sec, max_frames)
    if part.to_sec <= part.from_sec:
        raise typer.BadParameter(f"--to must be after --from, not {part.to_sec:g} after {part.from_sec:g}")
    return part


def _style(ending: str, *, arrows: bool, scale: float | None) -> Style:
    from stresnet.flow.show.view import Style

    if ending in (".npz", ".flo", "/") and (arrows or scale is not None):
        raise typer.BadParameter(f"--arrows and --scale are for .mp4 and .png; {ending} holds numbers, not colours")
    if scale is not None and not 0 < scale < math.inf:
        raise typer.BadParameter(f"--scale must be a number of px/frame above 0, not {scale}")
    return Style(arrows, scale)


def _found(look: Look, out: str) -> dict[str, Any]:
    """What was found, as JSON types."""
    statistics = look.statistics
    speeds = {
        "mean_px": statistics.mean_px,
        "p99_px": statistics.percentile_px(99),
        "largest_sec": look.largest_sec,
    }
    return {
        "video": str(look.video),
        "out": out,
        "flow": look.spec.to_dict(),
        "frames": len(look.times_sec),
        "width": look.size[1],
        "height": look.size[0],
        "fps": look.info.fps,
        **{name: value if math.isfinite(value) else None for name, value in speeds.items()},
        "clipped_share": statistics.clipped_share,
        "unknown_share": statistics.unknown_share,
        "frames_per_sec": look.steps_per_sec,
        "truncated": look.truncated,
    }


def _show(found: dict[str, Any], bound_px: float) -> None:
    def speed(name: str) -> str:
        return "unknown" if found[name] is None else f"{found[name]:.2f} px/frame"

    rows = {
        "frames": f"{found['frames']} of {found['width']}x{found['height']} px, {found['fps']:g} a second",
        "mean speed": speed("mean_px"),
        "99 % are below": speed("p99_px"),
        f"beyond ±{bound_px:g} px": f"{found['clipped_share']:.1%}",
        "unknown": f"{found['unknown_share']:.1%}",
        "most moves at": "unknown" if found["largest_sec"] is None else f"{found['largest_sec']:.3f} s",
        "computed": f"{found['frames_per_sec']:.0f} frames/s",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print(f"written: {found['out']}", soft_wrap=True)
