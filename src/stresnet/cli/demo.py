"""`stresnet demo`: the whole pipeline on generated videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, errors, exit_with_failures, show_rows

if TYPE_CHECKING:
    from stresnet.evaluation import Evaluation
    from stresnet.progress import Progress

SHORT_SIDE_PX = 64
TITLE = "Which colour drifts which way?"
INTRO = """\
Each video shows two fixed windows, one tinted red, one blue. The textures inside drift in opposite directions. The
class is the combination of colour and direction: left or right, up or down, four classes in all.

A single frame shows the colours but no motion, so the appearance stream can only guess: 25 %. Optical flow shows the
motion but no colours, so the motion stream can tell the axis but not the colour: at most 50 %, and averaging the two
streams cannot exceed that. The texture is renewed within five frames, and the frames of a training clip lie at least
five apart, so temporal convolutions find nothing to match in the frames either. Without links, the two streams stay
at 50 %. The residual links of ST-ResNet carry the motion to the location of the colour, which identifies the class.

The test videos use other backgrounds, positions and textures than the training videos; their backgrounds come from
another family."""


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for videos, store, run and report.")] = Path("demo-out"),
    as_json: options.Json = False,
) -> None:
    """Run the whole pipeline on generated videos in minutes: prepare, train, evaluate, report."""
    with Bar() as bar:
        evaluation = run_demo(out, bar)
    show_rows(evaluation.rows, as_json=as_json)
    errors.print(f"report: {evaluation.report}", soft_wrap=True)
    exit_with_failures(evaluation.failed)


def run_demo(out: Path, progress: Progress | None = None, changes: Sequence[str] = ()) -> Evaluation:
    """Return the evaluation of the demo; call again to resume an interrupted one.

    Args:
        out: folder for videos, store, run and report.
        progress: called as the work advances.
        changes: changes to the packaged recipe, as `train --set` takes them.

    Raises:
        StoreError: if the folder holds something else or cannot be written.
    """
    from stresnet.data.datasets import read_catalog
    from stresnet.data.prepare import prepare
    from stresnet.data.store import Store, StoreSpec
    from stresnet.data.synthetic import SyntheticSpec, write_dataset
    from stresnet.evaluation import evaluate
    from stresnet.flow import FlowSpec
    from stresnet.recipes import load_recipe
    from stresnet.training import train

    recipe = load_recipe("demo", changes)
    write_dataset(out / "videos", SyntheticSpec(), seed=0, progress=progress)
    store_spec = StoreSpec(FlowSpec(short_side=SHORT_SIDE_PX))
    prepare(read_catalog(out / "videos"), out / "store", store_spec, progress=progress)
    store = Store.open(out / "store")
    run = train(store, out / "run", recipe, resume=True, progress=progress)
    return evaluate(run, store, out / "report", title=TITLE, intro=INTRO, examples=4, progress=progress)
