"""`stresnet`: every command reads its arguments, shows how far it is, and calls the verb of its name."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from stresnet import __version__
from stresnet.cli import weights
from stresnet.cli.convert import convert
from stresnet.cli.display import Bar, console, errors, exit_with_failures, show_rows
from stresnet.cli.flow import flow
from stresnet.cli.models import models
from stresnet.cli.prepare import prepare
from stresnet.errors import StresnetError

if TYPE_CHECKING:
    from stresnet.data.store import Store
    from stresnet.inference.recognizer import Protocol
    from stresnet.recipes import Recipe

app = typer.Typer(
    help="Spatiotemporal residual networks for video action recognition: from a folder of videos to a recogniser.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Typer comes with a click of its own, or uses the one installed, depending on its version: this is either's.
_UsageError: Any = typer.BadParameter.__base__
INTERRUPTED, TERMINATED = 130, 143
"""The exit codes of Ctrl-C, which Typer makes of it, and of SIGTERM, as shells count."""
_RESUMED = {"demo": "", "prepare": "", "train": " with --resume", "evaluate": "", "weights": ""}
"""The commands that can be gone on with, and how."""


class _Settings:
    """What is known of the command at work."""

    debug = False
    command: str | None = None
    terminated = False


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stresnet {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _Settings.debug = debug
    _Settings.command = context.invoked_subcommand


StoreArgument = Annotated[Path, typer.Argument(help="A prepared store.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Protocols = Annotated[
    list[str], typer.Option("--protocol", help="dense25, crop10x25 or center; may be given more than once.")
]


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for videos, store, run and report.")] = Path("demo-out"),
    as_json: Json = False,
) -> None:
    """Generate videos, prepare, train all stages, evaluate, write the report: the whole road in minutes."""
    from stresnet.cli.run_demo import run_demo

    with Bar() as bar:
        evaluation = run_demo(
            out,
            on_videos=lambda done, total: bar.update("generating videos", done, total),
            on_prepare=bar.prepare,
            on_stage=bar.stage,
            on_score=lambda name, done, total: bar.update(f"scoring {name}", done, total),
        )
    show_rows(evaluation.rows, as_json=as_json)
    errors.print(f"report: {evaluation.report}", soft_wrap=True)
    exit_with_failures(evaluation.failed)


app.command()(prepare)


@app.command()
def train(
    store: StoreArgument,
    run: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)],
    recipe: Annotated[str, typer.Option(help="A packaged recipe, or a .yaml file.")] = "small",
    changes: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="field=value, stage.field=value or *.field=value.", show_default=False),
    ] = None,
    stage: Annotated[Optional[str], typer.Option(help="Train this stage only.")] = None,  # noqa: UP045
    init: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="FILE of image weights, or STAGE=FILE, a model to start a stage from; also by URL or hub name.",
            show_default=False,
        ),
    ] = None,
    test_group: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Hold this group out for testing; all others are learnt from.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in this folder.")] = False,
    workers: Annotated[Optional[int], typer.Option(help="Loader processes for each device.", min=0)] = None,  # noqa: UP045
    devices: Annotated[int, typer.Option(help="GPUs to share every batch between.", min=1)] = 1,
) -> None:
    """Train the stages of a recipe, each from the ones before it."""
    from stresnet.data.store import Store
    from stresnet.recipes import load_recipe
    from stresnet.training import train as run_train

    starts = _starts(init or [])
    prepared = Store.open(store)
    chosen = load_recipe(recipe, changes or [])
    for note in _doubts(prepared, chosen, bool(test_group)):
        errors.print(f"note: {note}", soft_wrap=True)
    with Bar() as bar:
        done = run_train(
            prepared,
            run,
            chosen,
            init=starts,
            only=stage,
            resume=resume,
            workers=workers,
            devices=devices,
            test_groups=tuple(test_group or ()),
            on_stage=bar.stage,
        )
    names = ", ".join(s.name for s in done.finished())
    console.print(f"trained: {names}; model: {done.folder / 'model.safetensors'}", soft_wrap=True)


def _doubts(store: Store, recipe: Recipe, tested: bool) -> Iterator[str]:
    """What may not be meant, though it can be trained."""
    if not tested and store.select("train") and not store.select("test"):
        groups = sorted({e.record.group for e in store.entries} - {""})
        advice = f"hold some out with --test-group: {', '.join(groups)}" if groups else "give some a `test` split"
        yield f"all videos are learnt from, none is left to test on; {advice}"
    if store.spec.flow.short_side < recipe.crop_px:
        yield (
            f"crops of {recipe.crop_px} px are enlarged from frames of {store.spec.flow.short_side} px: prepare with "
            "a larger --short-side, or train with a lower --set crop_px"
        )


def _starts(texts: Sequence[str]) -> dict[str, Path]:
    """The stages and files of FILE or STAGE=FILE, downloaded where they are addresses; names may hold a = too."""
    from stresnet.recipes import IMAGENET
    from stresnet.weights.fetch import fetch

    starts = {}
    with Bar(transient=True) as bar:
        for text in texts:
            stage, sign, file = text.partition("=")
            if not sign or not re.fullmatch("[a-z0-9][a-z0-9_-]*", stage) or Path(text).exists():
                stage, file = IMAGENET, text
            starts[stage] = fetch(file, progress=partial(bar.fetch, file))
    return starts


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model, or the folder of a run.", show_default=False)],
    store: StoreArgument,
    out: Annotated[Optional[Path], typer.Option(help="Folder for scores and report.")] = None,  # noqa: UP045
    protocol: Protocols = ["dense25"],  # noqa: B006
    split: Annotated[str, typer.Option(help="The videos scored.")] = "test",
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda …")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Score the test videos; write scores per video, report.json and report.html."""
    from stresnet.data.store import Store
    from stresnet.evaluation import evaluate as run_evaluate
    from stresnet.training import Run

    protocols = _protocols(protocol)
    if (model / "store.json").is_file():
        raise typer.BadParameter(f"{model} is a prepared store: give the model or run first, then the store")
    if model.is_dir() and (missing := [stage.name for stage in Run.open(model).unfinished()]):
        errors.print(f"note: not trained yet, so not in the report: {', '.join(missing)}", soft_wrap=True)
    base = model / "report" if model.is_dir() else model.parent / f"report-{model.stem}"
    folder = out or (base if split == "test" else base.with_name(f"{base.name}-{split}"))
    with Bar() as bar:
        evaluation = run_evaluate(
            model,
            Store.open(store),
            folder,
            protocols=protocols,
            split=split,
            device=device,
            progress=lambda name, done, total: bar.update(f"scoring {name}", done, total),
        )
    show_rows(evaluation.rows, as_json=as_json)
    errors.print(f"report: {evaluation.report}", soft_wrap=True)
    exit_with_failures(evaluation.failed)


def _protocols(names: Sequence[str]) -> list[Protocol]:
    from stresnet.inference.recognizer import PROTOCOLS

    if unknown := [name for name in names if name not in PROTOCOLS]:
        raise typer.BadParameter(f"--protocol must be one of {', '.join(PROTOCOLS)}, not {unknown[0]!r}")
    return [p for name in dict.fromkeys(names) for p in PROTOCOLS if p == name]


@app.command()
def fuse(
    scores: Annotated[list[Path], typer.Argument(help="Parquet files of scores.", show_default=False)],
    weights: Annotated[str, typer.Option(help="One number for each file, separated by commas.")] = "",
    out: Annotated[Optional[Path], typer.Option(help="Write the fused scores here.")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Average score files, and test each against the average with McNemar's paired test."""
    from stresnet.evaluation.report import ReportRow
    from stresnet.evaluation.scores import ScoreTable
    from stresnet.evaluation.scores import fuse as run_fuse

    try:
        numbers = [float(w) for w in weights.split(",")] if weights else None
    except ValueError:
        raise typer.BadParameter(f"--weights must be numbers separated by commas, not {weights!r}") from None
    tables = [ScoreTable.read(file) for file in scores]
    fused = run_fuse(tables, numbers)
    if out:
        fused.write(out)
    show_rows([*(ReportRow(t) for t in tables), ReportRow(fused, chosen=True)], as_json=as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model, or its URL or hub name.", show_default=False)],
    videos: Annotated[list[Path], typer.Argument(help="Video files.", show_default=False)],
    top: Annotated[int, typer.Option(help="How many actions to name.", min=1)] = 5,
    protocol: Annotated[str, typer.Option(help="dense25, crop10x25 or center (fast).")] = "dense25",
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda …")] = None,  # noqa: UP045
    as_json: Json = False,
) -> None:
    """Name the action in each video, its flow computed on the way."""
    from stresnet.inference.recognizer import Recognizer
    from stresnet.weights.fetch import fetch

    look = _protocols([protocol])[0]
    with Bar(transient=True) as bar:
        recognizer = Recognizer(fetch(model, progress=partial(bar.fetch, model)), device=device)
    failed: list[tuple[str, str]] = []
    results: list[dict[str, object]] = []
    with Bar(transient=True) as bar:
        for done, video in enumerate(videos):
            bar.update("recognising", done, len(videos))
            which = f"{done + 1}/{len(videos)} {video.name[-40:]}" if len(videos) > 1 else video.name[-40:]
            try:
                if re.match("[a-z0-9]+:/[^/]", str(video)) and not video.exists():  # pathlib made one slash of two
                    raise StresnetError(f"{video}: a file is expected, this is an address: download it first")
                found = recognizer.predict(video, protocol=look, top=top, progress=partial(_predicting, bar, which))
            except StresnetError as error:
                failed.append((str(video), str(error)))
                results.append({"video": str(video), "error": str(error)})
                continue
            ranking = [{"label": n, "probability": p} for n, p in found.top]
            results.append({"video": str(video), "top": ranking, "frames": found.frames, "truncated": found.truncated})
            bar.hide()
            if found.truncated:
                errors.print(
                    f"note: {video}: damaged; {found.frames} frames could be decoded and are used", soft_wrap=True
                )
            if not as_json:
                names = "  ".join(f"{name} {probability:.1%}" for name, probability in found.top)
                console.print(f"{video}: {names}", soft_wrap=True)
    if as_json:
        print(json.dumps(results, ensure_ascii=False))
    exit_with_failures(failed)


def _predicting(bar: Bar, which: str, doing: str, done: int, total: int) -> None:
    bar.detail(f"{which}: {doing}", done, total)


app.command()(convert)
app.command()(models)
app.command()(flow)
app.add_typer(weights.app, name="weights")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 something failed and is named, 2 wrong usage, 130 or 143 stopped."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    sys.exit(run(arguments))


def _terminate(*_: object) -> None:
    """End as Ctrl-C does; once only, as `timeout` and others ask twice."""
    if not _Settings.terminated:
        _Settings.terminated = True
        raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line, whose errors are printed in one line."""
    try:
        code = app(arguments, standalone_mode=False)
    except _UsageError as error:
        return _show_usage(error)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if _Settings.terminated:  # as were loader processes, which torch makes an error of
            return _stopped()
        # Out of memory is the user's affair too, but torch gives it no common base; loading it only to ask takes long.
        if isinstance(error, RuntimeError) and type(error).__name__ != "OutOfMemoryError":
            raise
        if _Settings.debug:
            traceback.print_exc()
        errors.print(f"stresnet: {_line(error)}", soft_wrap=True)
        return 1
    if code == INTERRUPTED:
        return _stopped()
    return code if isinstance(code, int) else 0


def _stopped() -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # else Lightning started the same command for another device
        how = _RESUMED.get(_Settings.command or "")
        then = "" if how is None else f"; the same command{how} goes on from here"
        errors.print(f"stopped{then}", soft_wrap=True)
    return TERMINATED if _Settings.terminated else INTERRUPTED


def _show_usage(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "stresnet"
    if text := " ".join(error.format_message().split()).rstrip("."):  # none where the help is shown instead
        errors.print(f"stresnet: {text}; see {command} --help", soft_wrap=True)
    return int(error.exit_code)


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file system'}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
