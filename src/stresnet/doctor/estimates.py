"""Estimate the time, memory and disk that preparing and training will need here, from short measurements."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from stresnet.data.index import StoreEntry
from stresnet.data.store import Store
from stresnet.data.workers import map_in_processes, usable_cores
from stresnet.doctor.calibration import PrepareCost, StageCost, measure_preparing, measure_stage, usable_memory
from stresnet.doctor.survey import Survey
from stresnet.errors import RecipeError
from stresnet.progress import Progress
from stresnet.recipes import Recipe, Stage
from stresnet.training.fit import check_videos

_CALIBRATION_VIDEOS = 3
_TOO_LARGE = "needs more memory than there is"


@dataclass(frozen=True)
class PrepareEstimate:
    """What preparing will need.

    Attributes:
        hours: on all cores.
        disk_bytes: size of the store.
    """

    hours: float
    disk_bytes: float

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON types."""
        return {"hours": self.hours, "disk_bytes": self.disk_bytes}


@dataclass(frozen=True)
class RecipeEstimate:
    """What training all stages of a recipe will need, without evaluation.

    Attributes:
        recipe: its name.
        hours: time; NaN where it is not known.
        memory_bytes: the most memory of the training process, or of the GPU; NaN where it is not known.
        disk_bytes: size of the run's folder; NaN where it is not known.
        problem: why it cannot be trained here; an empty text if it can.
    """

    recipe: str
    hours: float
    memory_bytes: float
    disk_bytes: float
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON types."""
        return {
            "recipe": self.recipe,
            "hours": self.hours,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Estimates:
    """What preparing and training will need here.

    Attributes:
        prepare: None for a store that is prepared.
        recipes: one for each recipe.
        load: processes that wanted to run in the last minute, for each core: above 1, the times are too long. 0 where
            it is not known.
    """

    prepare: PrepareEstimate | None
    recipes: tuple[RecipeEstimate, ...]
    load: float

    def to_dict(self) -> dict[str, Any]:
        """Return the estimates as JSON types."""
        prepare = None if self.prepare is None else self.prepare.to_dict()
        recipes = [estimate.to_dict() for estimate in self.recipes]
        return {"prepare": prepare, "recipes": recipes, "load": self.load}


def estimate(
    survey: Survey, recipes: Sequence[Recipe], workers: int, progress: Progress | None = None
) -> Estimates | None:
    """Prepare a few videos, train a few iterations of each stage, and extrapolate to all videos and iterations.

    Stages of the same cost are measured once. Nothing is measured without intact training videos.

    Args:
        survey: the videos.
        recipes: the recipes.
        workers: processes of preparing.
        progress: called after every measurement.

    Raises:
        StoreError: the temporary store cannot be written, or a prepared video that is read is damaged.
    """
    videos = len(survey.store.select("train"))
    if not videos or survey.damaged:
        return None
    load = _load()
    problems = [_problem(survey.store, recipe) for recipe in recipes]
    possible = [recipe for recipe, problem in zip(recipes, problems, strict=True) if not problem]
    with TemporaryDirectory() as folder:
        preparing, store = None, survey.store
        if not survey.prepared:
            chosen, root = _median_videos(store), Path(folder) / "store"
            preparing = _of_preparing(store, measure_preparing(chosen, store.classes, store.spec, root), workers)
            store = Store.open(root)
        measured = iter(_of_recipes(store, videos, possible, progress))
    return Estimates(
        preparing,
        tuple(
            RecipeEstimate(recipe.name, math.nan, math.nan, math.nan, problem) if problem else next(measured)
            for recipe, problem in zip(recipes, problems, strict=True)
        ),
        load,
    )


def _problem(store: Store, recipe: Recipe) -> str:
    """Return why a recipe cannot be trained on a store; an empty text if it can."""
    try:
        check_videos(store, recipe)
    except RecipeError as error:
        return str(error)
    return ""


def _load() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0  # Windows has none


def _median_videos(store: Store) -> list[StoreEntry]:
    """Return a few usable videos of about median length, of different files."""
    usable = store.select()
    frames = usable.column("frames").to_numpy()
    nearest = np.argsort(np.abs(frames - np.median(frames)), kind="stable").tolist()
    of_files: dict[str, StoreEntry] = {}
    for entry in islice((usable[row] for row in nearest), 100):
        if len(of_files) < _CALIBRATION_VIDEOS:
            of_files.setdefault(entry.record.path, entry)
    return list(of_files.values())


def _of_preparing(store: Store, cost: PrepareCost, workers: int) -> PrepareEstimate:
    frames = float(store.select().column("frames").to_numpy().sum())
    return PrepareEstimate(cost.frame_sec * frames / workers / 3600, cost.frame_bytes * frames)


def _of_recipes(
    store: Store, videos: int, recipes: Sequence[Recipe], progress: Progress | None
) -> tuple[RecipeEstimate, ...]:
    stages = list({_cost_key(stage): stage for recipe in recipes for stage in recipe.stages}.values())
    work = partial(_measure, store.root, torch.get_num_threads())
    costs: dict[Any, StageCost | None] = {}
    with closing(map_in_processes(work, stages, 1, _does_not_fit)) as results:
        for done, (key, cost) in enumerate(results, 1):
            costs[key] = cost
            if progress is not None:
                progress("measuring stages", done, len(stages))
    available = usable_memory()
    return tuple(
        recipe_estimate(recipe, videos, lambda stage: costs[_cost_key(stage)], available) for recipe in recipes
    )


def _cost_key(stage: Stage) -> Any:
    """Return what a stage's cost depends on."""
    o, network = stage.optimisation, stage.network.replace(dropout=0.0, motion_dropout=None)
    return network, stage.clips.replace(crop="border"), o.sub_batch_videos, o.precision, o.optimizer


def _measure(root: Path, threads: int, stage: Stage) -> tuple[Any, StageCost | None]:
    return _cost_key(stage), measure_stage(root, threads, stage)


def _does_not_fit(stage: Stage) -> tuple[Any, None]:
    """Return the result of a stage that killed its process: it needs more memory than there is."""
    return _cost_key(stage), None


def recipe_estimate(
    recipe: Recipe, videos: int, cost_of: Callable[[Stage], StageCost | None], available_bytes: float
) -> RecipeEstimate:
    """Return what a recipe will need.

    Args:
        recipe: the recipe.
        videos: number of training videos.
        cost_of: what a stage costs; None if it does not fit.
        available_bytes: the memory that there is; NaN if it is not known.
    """
    hours = memory = disk = largest_state = 0.0
    for stage in recipe.stages:
        cost = cost_of(stage)
        if cost is None:
            return RecipeEstimate(recipe.name, math.nan, math.nan, math.nan, _TOO_LARGE)
        optimisation = stage.optimisation
        iterations = sum(p.total_iterations(videos, optimisation.batch_videos) for p in optimisation.schedule)
        hours += iterations * optimisation.batch_videos * seconds_per_clip(cost) / 3600
        memory = max(memory, cost.memory_bytes)
        largest_state = max(largest_state, cost.state_bytes)
        disk += cost.model_bytes * (2 if stage is recipe.stages[-1] else 1)  # the last is copied
    problem = _TOO_LARGE if memory > available_bytes else ""
    return RecipeEstimate(recipe.name, hours, memory, disk + largest_state, problem)


def seconds_per_clip(cost: StageCost) -> float:
    """Return the time for a clip: loaders work beside a GPU, but share the cores with a network on the CPU."""
    cores = usable_cores()
    if torch.cuda.is_available():
        return max(cost.clip_sec, cost.read_sec / min(8, max(1, cores - 1)))
    return cost.clip_sec + cost.read_sec / cores
