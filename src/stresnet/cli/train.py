"""`stresnet train`: the stages of a recipe, on a prepared store."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, console, note

if TYPE_CHECKING:
    from stresnet.data.store import Store
    from stresnet.recipes import Recipe

Run = Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="Packaged recipe (see `stresnet recipes list`) or .yaml file.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change the recipe: PATH=VALUE, such as seed=1, st-resnet.clips.steps=7, network.width=0.5 (for stages "
        "that do not set it) or *.optimisation.batch_videos=8 (for all stages). May be repeated.",
        show_default=False,
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        help="Length of each stage that is trained, in passes over the training videos; its phases keep their "
        "proportions.",
        show_default=False,
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        help="First learning rate of each stage that is trained; later rates keep their ratio to it.",
        show_default=False,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        help="Videos per iteration. The videos per forward pass are lowered to a divisor of it if necessary.",
        min=1,
        show_default=False,
    ),
]
Init = Annotated[
    list[str] | None,
    typer.Option(
        help="Initial weights: FILE of image weights, for every stage whose starts_from is imagenet; or STAGE=FILE, a "
        "model that this stage starts from. FILE may be a URL or hub name. Example: "
        "--init resnet50.pth --init motion=tvl1.safetensors",
        show_default=False,
    ),
]
Extend = Annotated[
    float | None,
    typer.Option(
        help="Train a finished run further: repeat the last phase of its last stage for this many passes over the "
        "training videos. Becomes a stage of its own, with its own row in reports.",
        show_default=False,
    ),
]
TestGroup = Annotated[
    list[str] | None,
    typer.Option(help="Hold this group out for testing and train on the others. May be repeated.", show_default=False),
]


def train(
    store: options.Store,
    run: Run,
    recipe: RecipeName = "small",
    changes: Changes = None,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch: Batch = None,
    stage: Annotated[str | None, typer.Option(help="Train this stage only.")] = None,
    init: Init = None,
    test_group: TestGroup = None,
    extend: Extend = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="Validate on this part of the training videos: whole groups, and about the same part of each class.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in this folder.")] = False,
    workers: Annotated[int | None, typer.Option(help="Loader processes per device.", min=0)] = None,
    devices: Annotated[int, typer.Option(help="Number of GPUs that share each batch.", min=1)] = 1,
) -> None:
    """Train the stages of a recipe in order; later ones start from the weights of earlier ones."""
    from stresnet.data.class_notes import class_notes
    from stresnet.data.copies import copy_notes
    from stresnet.data.finding import messages
    from stresnet.data.store import Store
    from stresnet.recipes import load_recipe
    from stresnet.recipes.adjust import adjust
    from stresnet.training import train as run_train
    from stresnet.training.run import validation_note

    for name, value in (("--epochs", epochs), ("--lr", lr), ("--extend", extend)):
        if value is not None and not 0 < value < math.inf:
            raise typer.BadParameter(f"{name} must be a positive number, not {value}")
    starts = fetch_initial_weights(init or [])
    prepared = Store.open(store)
    if extend is None:
        chosen = adjust(load_recipe(recipe, changes or []), epochs=epochs, lr=lr, batch_videos=batch, stage=stage)
    elif changes or epochs or lr or batch or stage:
        raise typer.BadParameter(
            "--extend keeps the recipe of the run: leave out --set, --epochs, --lr, --batch, --stage"
        )
    else:
        chosen, resume = extended_recipe(run, extend), True
    for warning in warnings_about(prepared, chosen, bool(test_group)):
        note(warning)
    split_as_trained = prepared.with_test_groups(test_group) if test_group else prepared
    for text in messages([*class_notes(split_as_trained), *copy_notes(split_as_trained)]):
        note(text)
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
            val_fraction=val_fraction,
            progress=bar,
        )
    if text := validation_note(done):
        note(text)
    names = ", ".join(s.name for s in done.finished())
    console.print(f"trained: {names}; model: {done.folder / 'model.safetensors'}", soft_wrap=True)


def extended_recipe(folder: Path, epochs: float) -> Recipe:
    """Return the recipe of a run with a stage that trains it further, or as it is if a stage is unfinished."""
    from stresnet.recipes.adjust import extend
    from stresnet.training import Run

    run = Run.open(folder)
    if unfinished := run.unfinished():
        note(f"{folder} is not finished: training {', '.join(s.name for s in unfinished)} only")
        return run.recipe
    return extend(run.recipe, epochs)


def warnings_about(store: Store, recipe: Recipe, has_test_groups: bool) -> Iterator[str]:
    """Yield a warning for each setting that is valid but probably unintended, or cannot be followed."""
    from stresnet.training.trainer import emulates_bf16

    if not has_test_groups and store.select("train") and not store.select("test"):
        groups = sorted(store.entries.distinct("group") - {""})
        advice = f"hold some out with --test-group: {', '.join(groups)}" if groups else "give some the split `test`"
        yield f"all videos are used for training, none are left for testing; {advice}"
    crop_px = max(stage.clips.crop_px for stage in recipe.stages)
    if store.spec.flow.short_side < crop_px:
        yield (
            f"crops of {crop_px} px are upscaled from frames of {store.spec.flow.short_side} px; prepare with "
            "a larger --short-side, or train with a smaller clips.crop_px (--set)"
        )
    if any(emulates_bf16(stage) for stage in recipe.stages):
        yield "this machine can only emulate bfloat16, several times slower: training in float32 instead"


def fetch_initial_weights(texts: Sequence[str]) -> dict[str, Path]:
    """Return the files of ``FILE`` or ``STAGE=FILE`` by stage, downloading URLs and hub names.

    A file name may itself contain a "=": a text that is an existing file is never split.
    """
    from stresnet.recipes import IMAGENET
    from stresnet.weights.fetch import fetch

    starts = {}
    with Bar(transient=True) as bar:
        for text in texts:
            stage, sign, file = text.partition("=")
            if not sign or not re.fullmatch("[a-z0-9][a-z0-9_-]*", stage) or Path(text).exists():
                stage, file = IMAGENET, text
            starts[stage] = fetch(file, progress=bar)
    return starts
