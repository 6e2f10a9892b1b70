"""`stresnet prepare`: turn videos, or extracted frames and flow, into a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import MAX_NAMED, Bar, console, errors, exit_with_failures, note, note_damaged, print_json
from stresnet.data.datasets import read_catalog
from stresnet.flow.methods import methods_help

if TYPE_CHECKING:
    from stresnet.data.catalog import Catalog
    from stresnet.data.prepare import PrepareSummary
    from stresnet.flow import FlowSpec

ON_THE_FLY = "on-the-fly"

Source = Annotated[
    Path,
    typer.Argument(
        help="Class folders, {train,test}/class folders, or a list such as a CSV file path,label,split,group.",
        show_default=False,
    ),
]
FromJpegs = Annotated[
    bool,
    typer.Option(
        "--from-jpegs",
        help="Import extracted frames and flow: each video is a folder of JPEGs (docs/store.md). Requires --flow and "
        "--bound, because the files do not record them.",
    ),
]
FlowMethod = Annotated[
    str | None,
    typer.Option(
        "--flow",
        help=f"Flow method: {methods_help()}. on-the-fly or on-the-fly:METHOD stores frames only and computes flow "
        "when it is read. Default: dis.",
        show_default=False,
    ),
]
ShortSide = Annotated[
    int | None,
    typer.Option(
        help="Short side of stored frames in px; flow is computed at this size. Default: 256, or that of the JPEGs.",
        min=32,
        show_default=False,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        help="Resample videos to this many frames per second, by time. Default: all frames as they are.",
        show_default=False,
    ),
]
Deinterlace = Annotated[
    bool, typer.Option("--deinterlace/--no-deinterlace", help="Make whole pictures of interlaced ones.")
]
ToneMap = Annotated[bool, typer.Option("--tone-map/--no-tone-map", help="Show HDR (PQ, HLG) as ordinary screens do.")]
Bound = Annotated[
    float | None,
    typer.Option(help="Clip stored flow at ± this many px per frame. Default: 20.", show_default=False),
]


def prepare(
    source: Source,
    store: Annotated[Path, typer.Argument(help="Store to create or resume.", show_default=False)],
    dataset: options.DatasetName = None,
    splits: options.SplitLists = None,
    split: options.SplitNumber = 1,
    train: options.TrainList = None,
    val: options.ValList = None,
    test: options.TestList = None,
    classes: options.ClassNames = None,
    from_jpegs: FromJpegs = False,
    flow: FlowMethod = None,
    preset: options.Preset = "",
    subtract_median: options.SubtractMedian = False,
    short_side: ShortSide = None,
    bound: Bound = None,
    stream: options.Stream = None,
    fps: Fps = None,
    deinterlace: Deinterlace = True,
    tone_map: ToneMap = True,
    jpeg_quality: Annotated[int, typer.Option(help="JPEG quality of stored frames and flow.", min=1, max=100)] = 95,
    workers: Annotated[int | None, typer.Option(help="Number of processes. Default: one per core.", min=1)] = None,
    as_json: options.Json = False,
) -> None:
    """Decode videos, compute their flow and store both for random access. Run again to resume."""
    from stresnet.data.prepare import prepare as run_prepare
    from stresnet.data.store import StoreSpec
    from stresnet.flow import FlowSpec
    from stresnet.media import FrameSpec

    when, _, method = (flow or "dis").partition(":")
    flow_stored = when != ON_THE_FLY
    if from_jpegs and flow_stored and (flow is None or bound is None):
        raise typer.BadParameter(
            "--from-jpegs needs --flow and --bound, which the files do not record (or "
            f"--flow {ON_THE_FLY}, which imports frames only)"
        )
    wanted = FlowSpec.from_dict(
        {
            "method": flow or "dis" if flow_stored else method or "dis",
            "preset": preset,
            "short_side": short_side or 256,
            "bound_px": 20.0 if bound is None else bound,
            "subtract_median": subtract_median,
        }
    )
    options.check_dataset(dataset, splits)
    lists = {name: file for name, file in (("train", train), ("val", val), ("test", test)) if file is not None}
    catalog = read_catalog(
        source, dataset=dataset, lists=splits, split=split, jpegs=from_jpegs, split_lists=lists, class_names=classes
    )
    for text in catalog.notes:
        note(text)
    if from_jpegs:
        wanted = _imported(wanted, catalog, short_side, flow_stored)
    frames = FrameSpec(stream, fps, deinterlace, tone_map)
    spec = StoreSpec(wanted, jpeg_quality, flow_stored, frames)
    with Bar() as bar:
        summary = run_prepare(catalog, store, spec, from_jpegs=from_jpegs, workers=workers, progress=bar)
    _show_prepared(summary, store, as_json=as_json)


def _imported(wanted: FlowSpec, catalog: Catalog, short_side: int | None, flow_stored: bool) -> FlowSpec:
    """Return the flow spec of imported JPEGs: as requested, at their size unless a size was given."""
    from stresnet.data.import_jpegs import short_side_of

    if short_side is None:
        wanted = replace(wanted, short_side=short_side_of(record.path for record in catalog.records))
    if flow_stored:
        note(f"assuming the flow is {wanted}; the files do not record it")
    return wanted


def _show_prepared(summary: PrepareSummary, store: Path, *, as_json: bool) -> None:
    """Print the summary and notes about unusual videos; exit with code 1 if videos failed or rows were rejected."""
    if as_json:
        print_json(summary.to_dict())
    else:
        console.print(
            f"{summary.done} videos prepared, {summary.kept} kept, {len(summary.failed)} failed; "
            f"{summary.frames} frames, {summary.bytes / 1e6:.1f} MB, {summary.seconds:.0f} s",
            soft_wrap=True,
        )
    if summary.no_longer_listed:
        note(
            f"{len(summary.no_longer_listed)} videos of the store are not in this source, such as "
            f"{summary.no_longer_listed[0]}; they are removed from its index, their files are kept"
        )
    if summary.truncated:
        _note_truncated(summary.truncated, store)
    for conversion, names in summary.converted:
        note(f"{len(names)} video(s): {conversion}, such as {names[0]}")
    for line in summary.clipped[:MAX_NAMED]:
        note(line)
    if len(summary.clipped) > MAX_NAMED:
        more = len(summary.clipped) - MAX_NAMED
        note(f"the flow of {more} more is clipped as much; see clipped_share in {store / 'index.parquet'}")
    for line in summary.notes:
        note(line)
    for name in summary.empty_classes:
        errors.print(f"class {name}: no usable video", soft_wrap=True)
    for where, reason in summary.rejected[:MAX_NAMED]:
        errors.print(f"rejected: {where}: {reason}", soft_wrap=True)
    if len(summary.rejected) > MAX_NAMED:
        errors.print(f"and {len(summary.rejected) - MAX_NAMED} more rows; --json names all", soft_wrap=True)
    exit_with_failures(summary.failed, store / "index.parquet")
    if summary.rejected:
        raise typer.Exit(1)


def _note_truncated(truncated: Sequence[str], store: Path) -> None:
    from stresnet.data.store import Store

    entries = Store.open(store).entries
    for name in truncated[:MAX_NAMED]:
        entry = entries.find(name)
        assert entry is not None
        note_damaged(name, entry.frames)
    if len(truncated) > MAX_NAMED:
        more = len(truncated) - MAX_NAMED
        note(f"{more} more are damaged; all are marked as truncated in {store / 'index.parquet'}")
