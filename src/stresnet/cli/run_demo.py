"""The whole road on a laptop: generated videos, their store, all stages of training, evaluation, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stresnet.data.datasets import read_catalog
from stresnet.data.prepare import Progress, prepare
from stresnet.data.store import Store, StoreSpec
from stresnet.data.synthetic import SyntheticSpec, write_dataset
from stresnet.evaluation import Evaluation, OnProgress, evaluate
from stresnet.flow import FlowSpec
from stresnet.recipes import Recipe, load_recipe
from stresnet.training import train

SHORT_SIDE_PX = 64

INTRO = """\
Each video shows two windows that stay in place, one tinted red, one blue. The textures inside drift in opposite
directions, and the class is which colour drifts which way: left or right, up or down, four classes in all.

One frame shows the colours and no motion, so the appearance stream can only guess: 25 %. Flow shows the motions and
no colours, so the motion stream can tell the axis but not the colour: 50 % at best, and so can any average of the two.
Texture in the windows is renewed within five frames, and the frames of a training clip lie at least five apart, so
convolutions over time find nothing to match in the frames either: without links the two streams stay at 50 %. The
residual links of ST-ResNet carry motion to the place where the colour is, and that is the answer.

Backgrounds, places and textures of the test videos are not those of the training videos; the test backgrounds are of
another family."""


def run_demo(
    out: str | Path,
    *,
    spec: SyntheticSpec | None = None,
    recipe: Recipe | None = None,
    on_videos: Callable[[int, int], None] | None = None,
    on_prepare: Callable[[Progress], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_score: OnProgress | None = None,
) -> Evaluation:
    """The demo's evaluation; a demo cut off goes on where it was.

    Args:
        out: folder for videos, store, run and report.
        spec: of the generated videos.
        recipe: by default the packaged `demo`.
        on_videos: told of every generated video.
        on_prepare: told of every prepared video.
        on_stage: told of every stage before it is trained.
        on_score: told of every scored video.

    Raises:
        StoreError: if the folder holds something else, or cannot be written.
    """
    out = Path(out)
    recipe = recipe or load_recipe("demo")
    write_dataset(out / "videos", spec or SyntheticSpec(), seed=0, progress=on_videos)
    store_spec = StoreSpec(FlowSpec(short_side=SHORT_SIDE_PX))
    prepare(read_catalog(out / "videos"), out / "store", store_spec, progress=on_prepare)
    store = Store.open(out / "store")
    run = train(store, out / "run", recipe, resume=True, on_stage=on_stage)
    title = "Which colour drifts which way?"
    return evaluate(run.folder, store, out / "report", title=title, intro=INTRO, examples=4, progress=on_score)
