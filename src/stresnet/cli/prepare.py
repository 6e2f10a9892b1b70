"""`stresnet prepare`: from videos, or from frames and flow extracted elsewhere, to a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from stresnet.cli.display import MOST_NAMED, Bar, console, errors, exit_with_failures
from stresnet.data.datasets import DATASETS, read_catalog

if TYPE_CHECKING:
    from stresnet.data.catalog import Catalog
    from stresnet.data.prepare import PrepareSummary
    from stresnet.flow import FlowSpec

ON_THE_FLY = "on-the-fly"


Source = Annotated[
    Path,
    typer.Argument(help="Class folders, {train,test}/class folders, or a CSV path,label[,split][,group]."),
]
DatasetName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="The data set: "
        + "; ".join(f"{d.name}, {d.description}{' in --splits' if d.needs_lists else ''}" for d in DATASETS.values())
        + ". Default: folders, or csv for a CSV file.",
        show_default=False,
    ),
]
FromJpegs = Annotated[
    bool,
    typer.Option(
        "--from-jpegs",
        help="Take over frames and flow extracted elsewhere: a video is a folder of JPEGs (docs/store.md). Method and "
        "bound of the flow are not seen in the files: say them with --flow and --bound.",
    ),
]
Flow = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="dis, tvl1 (the paper's), farneback, mv (the codec's motion vectors) or raft; on-the-fly, or "
        "on-the-fly:METHOD, stores frames only and computes flow whenever it is read. Default: dis.",
        show_default=False,
    ),
]
Preset = Annotated[
    str,
    typer.Option(
        help="ultrafast, fast or medium for dis; default or fast for tvl1; small or large for raft; default: the "
        "method's own."
    ),
]
ShortSide = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        help="Stored size in px; flow is computed at it. Default: 256, or that of the JPEGs.",
        min=32,
        show_default=False,
    ),
]
Bound = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Flow is clipped at ± this many px per frame. Default: 20.", show_default=False),
]


def prepare(
    source: Source,
    store: Annotated[Path, typer.Argument(help="The store to create or to complete.")],
    dataset: DatasetName = None,
    splits: Annotated[Optional[Path], typer.Option(help="Folder of the official lists.")] = None,  # noqa: UP045
    split: Annotated[int, typer.Option(help="Number of the official split.", min=1, max=3)] = 1,
    from_jpegs: FromJpegs = False,
    flow: Flow = None,
    preset: Preset = "",
    subtract_median: Annotated[
        bool, typer.Option("--subtract-median", help="Subtract each flow field's median, against camera motion.")
    ] = False,
    short_side: ShortSide = None,
    bound: Bound = None,
    jpeg_quality: Annotated[int, typer.Option(help="Of stored frames and flow.", min=1, max=100)] = 95,
    workers: Annotated[Optional[int], typer.Option(help="Processes; by default one for each core.", min=0)] = None,  # noqa: UP045
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Decode videos, compute their flow and store both for random access. Interrupted, run it again to resume."""
    from stresnet.data.prepare import prepare as run_prepare
    from stresnet.data.store import StoreSpec
    from stresnet.flow import FlowSpec

    when, _, method = (flow or "dis").partition(":")
    flow_stored = when != ON_THE_FLY
    if from_jpegs and flow_stored and (flow is None or bound is None):
        raise typer.BadParameter(
            f"--from-jpegs needs --flow and --bound: what the levels mean cannot be seen in the files (or --flow "
            f"{ON_THE_FLY}, which takes over frames only)"
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
    catalog = _catalog(source, dataset, splits, split, from_jpegs)
    for note in catalog.notes:
        errors.print(f"note: {note}", soft_wrap=True)
    if from_jpegs:
        wanted = _imported(wanted, catalog, short_side, flow_stored)
    spec = StoreSpec(wanted, jpeg_quality, flow_stored=flow_stored)
    with Bar() as bar:
        summary = run_prepare(catalog, store, spec, from_jpegs=from_jpegs, workers=workers, progress=bar.prepare)
    _show_prepared(summary, store, as_json=as_json)


def _imported(wanted: FlowSpec, catalog: Catalog, short_side: int | None, flow_stored: bool) -> FlowSpec:
    """The flow of imported pictures: at their size, and otherwise as the user says."""
    from stresnet.data.import_jpegs import short_side_of

    if short_side is None:
        wanted = replace(wanted, short_side=short_side_of(record.path for record in catalog.records))
    if flow_stored:
        errors.print(f"note: the flow is taken to be {wanted}: the files do not say", soft_wrap=True)
    return wanted


def _show_prepared(summary: PrepareSummary, store: Path, *, as_json: bool) -> None:
    """Print what was done, then note what is odd; exit with 1 if videos failed."""
    if as_json:
        print(json.dumps({**vars(summary), "failed": dict(summary.failed)}, ensure_ascii=False))
    else:
        console.print(
            f"{summary.done} videos prepared, {summary.kept} kept, {len(summary.failed)} failed; "
            f"{summary.frames} frames, {summary.bytes / 1e6:.1f} MB, {summary.seconds:.0f} s",
            soft_wrap=True,
        )
    if summary.unlisted:
        errors.print(
            f"note: {len(summary.unlisted)} videos that the store listed are not in this source, such as "
            f"{summary.unlisted[0]}: it lists them no longer, their clips stay",
            soft_wrap=True,
        )
    if summary.truncated:
        _note_damaged(summary.truncated, store)
    for line in summary.clipped[:MOST_NAMED]:
        errors.print(f"note: {line}", soft_wrap=True)
    if len(summary.clipped) > MOST_NAMED:
        more = f"and {len(summary.clipped) - MOST_NAMED} more are clipped as much"
        errors.print(f"note: {more}; clipped_share in {store / 'index.parquet'} says how much", soft_wrap=True)
    for name in summary.empty_classes:
        errors.print(f"class {name}: no usable video", soft_wrap=True)
    exit_with_failures(summary.failed, store / "index.parquet")


def _note_damaged(damaged: Sequence[str], store: Path) -> None:
    from stresnet.data.store import Store

    frames = {entry.record.id: entry.frames for entry in Store.open(store).select()}
    for name in damaged[:MOST_NAMED]:
        errors.print(f"note: {name}: damaged; {frames[name]} frames could be decoded and are used", soft_wrap=True)
    if len(damaged) > MOST_NAMED:
        more = f"{len(damaged) - MOST_NAMED} more are damaged"
        errors.print(f"note: and {more}; all are marked as truncated in {store / 'index.parquet'}", soft_wrap=True)


def _catalog(source: Path, dataset: str | None, lists: Path | None, split: int, from_jpegs: bool) -> Catalog:
    if dataset is not None and dataset not in DATASETS:
        raise typer.BadParameter(f"--dataset must be one of {', '.join(DATASETS)}, not {dataset!r}")
    if dataset is not None and DATASETS[dataset].needs_lists and lists is None:
        raise typer.BadParameter(f"--dataset {dataset} needs --splits, the folder of its official lists")
    return read_catalog(source, dataset=dataset, lists=lists, split=split, jpegs=from_jpegs)
