"""Adjust the most common settings of a recipe: the length of training, its learning rates and its batch size."""

from __future__ import annotations

from stresnet.errors import RecipeError
from stresnet.recipes.schema import Optimisation, Phase, Recipe


def adjust(
    recipe: Recipe,
    *,
    epochs: float | None = None,
    lr: float | None = None,
    batch_videos: int | None = None,
    stage: str | None = None,
) -> Recipe:
    """Return a recipe with the training of its stages rescaled.

    Args:
        recipe: the recipe.
        epochs: total length of each stage's schedule, > 0; its phases keep their proportions.
        lr: first learning rate of each stage, > 0; later rates keep their ratio to the first.
        batch_videos: videos per iteration, >= 1. The videos per forward pass are lowered to the largest divisor of it
            that does not exceed their number so far.
        stage: change this stage only; by default all.

    Raises:
        RecipeError: if the recipe has no such stage, or a schedule mixes epochs and iterations, which have no
            proportions until the number of videos is known.
    """
    chosen = recipe.stages if stage is None else (recipe.stage(stage),)
    changed = {}
    for old in chosen:
        optimisation = old.optimisation
        if epochs is not None:
            optimisation = _of_length(optimisation, epochs, old.name)
        if lr is not None:
            optimisation = optimisation.replace(schedule=_starting_at(optimisation.schedule, lr))
        if batch_videos is not None:
            optimisation = _with_batch(optimisation, batch_videos)
        changed[old.name] = old.replace(optimisation=optimisation)
    return recipe.replace(stages=tuple(changed.get(old.name, old) for old in recipe.stages))


def extend(recipe: Recipe, epochs: float) -> Recipe:
    """Return a recipe with one more stage, which trains the last one further: its last phase again, for some epochs.

    Args:
        recipe: the recipe.
        epochs: length of the new stage in passes over the training videos, > 0.
    """
    last = recipe.stages[-1]
    names, number = {stage.name for stage in recipe.stages}, 2
    while (name := f"{last.name}-{number}") in names:
        number += 1
    phase = last.optimisation.schedule[-1].replace(epochs=epochs, iterations=None)
    more = last.replace(
        name=name,
        title=f"{last.title or last.name}, {epochs:g} more epochs",
        note="trained further",
        starts_from=(last.name,),
        optimisation=last.optimisation.replace(schedule=(phase,), warmup_epochs=0),
    )
    return recipe.replace(stages=(*recipe.stages, more))


def _of_length(optimisation: Optimisation, epochs: float, stage: str) -> Optimisation:
    schedule = optimisation.schedule
    in_epochs = [phase.epochs for phase in schedule if phase.epochs is not None]
    in_iterations = [phase.iterations for phase in schedule if phase.iterations is not None]
    if in_epochs and in_iterations:
        raise RecipeError(f"stage {stage} has phases in epochs and in iterations; set its schedule with --set")
    lengths = in_epochs or in_iterations
    factor = epochs / sum(lengths)
    phases = (
        phase.replace(epochs=_rounded(length * factor), iterations=None)
        for phase, length in zip(schedule, lengths, strict=True)
    )
    warmup_epochs = _rounded(optimisation.warmup_epochs * (factor if in_epochs else 1))
    return optimisation.replace(schedule=tuple(phases), warmup_epochs=warmup_epochs)


def _starting_at(schedule: tuple[Phase, ...], lr: float) -> tuple[Phase, ...]:
    factor = lr / schedule[0].lr
    return tuple(
        phase.replace(
            lr=_rounded(phase.lr * factor),
            final_lr=None if phase.final_lr is None else _rounded(phase.final_lr * factor),
        )
        for phase in schedule
    )


def _with_batch(optimisation: Optimisation, batch_videos: int) -> Optimisation:
    largest = min(optimisation.sub_batch_videos, batch_videos)
    sub_batch = next(size for size in range(largest, 0, -1) if batch_videos % size == 0)
    return optimisation.replace(batch_videos=batch_videos, sub_batch_videos=sub_batch)


def _rounded(value: float) -> float:
    """Return a value without the last digits, where products of decimal numbers differ from the decimal result."""
    return float(f"{value:.12g}")
