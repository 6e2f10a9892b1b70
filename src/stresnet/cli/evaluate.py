"""`stresnet evaluate`: scores and a report of a model or a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stresnet.cli import options
from stresnet.cli.display import Bar, console, errors, exit_with_failures, note, print_json, show_rows

if TYPE_CHECKING:
    from stresnet.evaluation.localization import Localization
    from stresnet.inference.recognizer import Recognizer
    from stresnet.inference.timeline import Timeline

TrueSegments = Annotated[
    Path | None,
    typer.Option(
        "--segments",
        help="Compare time lines with the segments of this list: a path, label, start and end in each row.",
        show_default=False,
    ),
]


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file or folder of a run.", show_default=False)],
    store: Annotated[Path | None, typer.Argument(help="Prepared store.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores and report. Default: beside the model.")] = None,
    protocol: options.Protocols = None,
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    device: options.Device = None,
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Fit and test linear classifiers of the model's features instead.")
    ] = False,
    segments: TrueSegments = None,
    window_sec: options.WindowSec = None,
    stride_sec: options.StrideSec = None,
    smooth_sec: options.SmoothSec = 0,
    min_score: options.MinScore = 0,
    as_json: options.Json = False,
) -> None:
    """Score the test videos; write scores per video, report.json and report.html.

    With --segments, compare time lines of long videos with the true segments instead; with --probe, test linear
    classifiers of the model's features.
    """
    from stresnet.evaluation import evaluate as run_evaluate
    from stresnet.inference.recognizer import Recognizer
    from stresnet.training import Run

    protocols, wanted = options.parse_protocols(protocol or []), options.parse_precision(precision)
    if (store is None) == (segments is None):
        raise typer.BadParameter("give a prepared store, or --segments with a list of true segments")
    if segments is not None:
        recognizer = Recognizer(model, device=device, precision=wanted, compiled=bool(compiled))
        _evaluate_segments(recognizer, segments, window_sec, stride_sec, smooth_sec, min_score, as_json=as_json)
        return
    assert store is not None
    if probe:
        _evaluate_probes(model, store, split, as_json=as_json)
        return
    if (model / "store.json").is_file():
        raise typer.BadParameter(f"{model} is a prepared store: give the model or run first, then the store")
    if model.is_dir() and (missing := [stage.name for stage in Run.open(model).unfinished()]):
        note(f"not trained yet and left out of the report: {', '.join(missing)}")
    with Bar() as bar:
        evaluation = run_evaluate(
            model,
            store,
            out,
            protocols=protocols or None,
            split=split,
            device=device,
            precision=wanted,
            compiled=compiled,
            progress=bar,
        )
    for text in evaluation.notes:
        note(text)
    show_rows(evaluation.rows, as_json=as_json)
    errors.print(f"report: {evaluation.report}", soft_wrap=True)
    exit_with_failures(evaluation.failed)


def _evaluate_probes(model: Path, store: Path, split: str, *, as_json: bool) -> None:
    """Print how well linear classifiers tell the classes from the model's features."""
    from stresnet.data.store import Store
    from stresnet.evaluation.probe import probe

    with Bar() as bar:
        found = probe(model, Store.open(store), split=split, progress=bar)
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    table = Table("linear probe", "features", "top-1", "95 %", "weight decay", box=None, pad_edge=False)
    for one in found:
        low, high = 100 * one.top1.low, 100 * one.top1.high
        row = (f"{100 * one.top1.value:.1f}", f"{low:.1f} – {high:.1f}", f"{one.weight_decay:g}")
        table.add_row(one.features, str(one.dimensions), *row)
    console.print(table)


def _evaluate_segments(
    recognizer: Recognizer,
    segments: Path,
    window_sec: float | None,
    stride_sec: float | None,
    smooth_sec: float,
    min_score: float,
    *,
    as_json: bool,
) -> None:
    """Print how well the time lines of videos find the true segments of a list."""
    from stresnet.evaluation.localization import localize, read_true_segments

    def timeline(video: str) -> Timeline:
        return recognizer.timeline(video, window_sec=window_sec, stride_sec=stride_sec).smoothed(smooth_sec)

    truth = read_true_segments(segments)
    with Bar() as bar:
        found = localize(truth, timeline, recognizer.classes, min_score=min_score, progress=bar)
    if as_json:
        print_json(found.to_dict())
    else:
        _show_localization(found)
    exit_with_failures(found.failed)


def _show_localization(found: Localization) -> None:
    table = Table("mean average precision, %", *(f"IoU {t:g}" for t in found.mean_ap), box=None, pad_edge=False)
    for name, values in (("ActivityNet", found.mean_ap), ("THUMOS", found.mean_ap_thumos)):
        table.add_row(name, *(f"{100 * value:.1f}" for value in values.values()))
    console.print(table)
    of = f"{found.videos} videos with {found.segments} segments"
    console.print(f"frame accuracy {100 * found.frame_accuracy:.1f} % of {of}", soft_wrap=True)
