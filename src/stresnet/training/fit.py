"""Training: the stages of a recipe one after another, each resumed where it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from stresnet.data.class_notes import training_findings
from stresnet.data.copies import identities
from stresnet.data.store import Entries, Store
from stresnet.data.training_clips import CenteredClips, Sample, TrainingClips
from stresnet.data.workers import usable_cores
from stresnet.errors import RecipeError
from stresnet.model import Checkpoint, save_checkpoint
from stresnet.progress import Progress
from stresnet.recipes import Recipe, Stage, load_recipe
from stresnet.training.memory import keeping_freed_memory
from stresnet.training.order import VideoOrder, balancing_weights
from stresnet.training.run import Run, prepared_folder
from stresnet.training.stage import StageTraining
from stresnet.training.starts import StartingWeights
from stresnet.training.trainer import check_devices, make_trainer, plain_errors, quiet_lightning, single_threaded_opencv


def train(
    store: Store | str | Path,
    folder: str | Path,
    recipe: Recipe | str | Path = "small",
    *,
    init: Mapping[str, str | Path] | None = None,
    only: str | None = None,
    resume: bool = False,
    workers: int | None = None,
    devices: int = 1,
    test_groups: tuple[str, ...] = (),
    val_fraction: float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Train the stages of a recipe that are not trained yet; an interrupted stage resumes after its last whole epoch.

    Args:
        store: prepared videos, or their folder. Trains on the split `train`, validates on `val` if it has videos.
        folder: folder of the run.
        recipe: what to train: a recipe, the name of a packaged one, or a YAML file.
        init: weight files by the stage that starts from them, or under `imagenet` for all stages that start from it.
        only: name of the only stage to train; the stages it starts from must be trained.
        resume: whether to resume the run in the folder, if there is one.
        workers: loader processes per device; by default the cores are shared out, at most eight per device.
        devices: GPUs that share every batch; without a GPU, processes on the CPU.
        test_groups: groups to hold out of training. They are recorded in the checkpoints, and evaluation tests on them.
        val_fraction: part of the training videos to validate on instead, whole groups and about the same part of each
            class.
        progress: called with the iterations done.

    Raises:
        RecipeError: if the recipe is wrong, the folder holds another run, or a stage lacks what it starts from.
        CheckpointError: if starting weights do not fit.
        StoreError: if the store cannot be opened, or its training videos cannot be split.
    """
    store = store if isinstance(store, Store) else Store.open(store)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if test_groups:
        store = store.with_test_groups(test_groups)
    if val_fraction is not None:
        store = store.with_validation(val_fraction)
    check_videos(store, recipe)
    check_devices(recipe, devices)
    stages = [recipe.stage(only)] if only else recipe.stages
    run = Run(Path(folder), recipe)
    starts = StartingWeights(run, store, {name: Path(file) for name, file in (init or {}).items()})
    starts.check(stages)
    workers = min(8, max(1, (usable_cores() - 1) // devices)) if workers is None else workers
    with prepared_folder(run, store, test_groups, resume=resume):
        for stage in stages:
            if not run.model_file(stage.name).is_file():
                trained = _train_stage(starts, stage, workers, devices, progress)
                if trained.trainer.is_global_zero:
                    _save(run, trained, store, test_groups)
                trained.trainer.strategy.barrier()  # the next stage starts from the file just written
    return run


def check_videos(store: Store, recipe: Recipe) -> None:
    """Raise unless a recipe can be trained on the videos of a store.

    Raises:
        RecipeError: if there are no training videos, one class only, no validation videos that a stage needs, or a
            video is too short.
    """
    for finding in training_findings(store):
        raise RecipeError(f"{store.root} has {finding.message}")
    for stage in recipe.stages:
        if (stage.optimisation.keep == "best" or stage.optimisation.patience) and not store.select("val"):
            raise RecipeError(
                f"stage {stage.name} watches its validation accuracy (optimisation.keep or patience), but {store.root} "
                "has no validation videos: add --val-fraction 0.1, or give some the split `val`"
            )
    stack = max(stage.network.flow_stack for stage in recipe.stages)
    used = store.select().where("split", ("train", "val"))
    shortest = used[int(used.column("frames").to_numpy().argmin())]
    if shortest.frames < stack + 1:
        raise RecipeError(
            f"{shortest.record.id} has {shortest.frames} frames, but a stack of {stack} flows needs {stack + 1}: "
            "leave such videos out, or lower network.flow_stack"
        )


def _train_stage(
    starts: StartingWeights, stage: Stage, workers: int, devices: int, progress: Progress | None
) -> StageTraining:
    """Train one stage from its starting weights, or from where it was interrupted."""
    run, store, seed = starts.run, starts.store, starts.run.recipe.seed
    batch, sub_batch = stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos
    entries, validation_entries = store.select("train"), store.select("val")
    resume_file = run.resume_file(stage.name)
    resumes = resume_file.is_file()
    L.seed_everything(seed, workers=False, verbose=False)
    model, preprocessing = starts.new_network(stage) if resumes else starts.load(stage)
    labels = _class_indices(entries, store.classes)
    module = StageTraining(model, stage, preprocessing, labels, seed)
    with quiet_lightning():
        trainer = make_trainer(run.folder / stage.name, stage, module.epochs, devices, progress)
        weights = balancing_weights(labels, len(store.classes), stage.optimisation.balance)
        module.order = VideoOrder(
            len(entries),
            batch,
            seed,
            trainer.global_rank,
            trainer.world_size,
            None if weights is None else weights[labels],
        )
        clips = TrainingClips(store, entries, stage.clips, stage.network, seed)
        training = _loader(clips, sub_batch, workers, module.order)
        validation = None
        if validation_entries:
            centered = CenteredClips(store, validation_entries, stage.clips, stage.network)
            validation = _loader(centered, sub_batch, workers)
        with plain_errors(trainer), single_threaded_opencv(), keeping_freed_memory():
            trainer.fit(module, training, validation, ckpt_path=resume_file if resumes else None)
    return module


def _class_indices(entries: Entries, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the class index of each video, (N,)."""
    index = {name: k for k, name in enumerate(classes)}
    return np.array([index[label] for label in entries.column("label").to_pylist()], dtype=np.int64)


def _save(run: Run, trained: StageTraining, store: Store, test_groups: tuple[str, ...]) -> None:
    """Write the model of a stage, and a copy of the last stage's model into the folder of the run."""
    stage, entries = trained.stage, store.select("train")
    if stage.optimisation.keep == "best":
        trained.load_best(run.best_file(stage.name))
    checkpoint = Checkpoint(
        model=trained.model,
        classes=store.classes,
        preprocessing=trained.preprocessing,
        store_spec=store.spec.to_dict(),
        stage=stage.name,
        recipe=run.recipe.to_dict(),
        training={
            "store": store.name,
            "videos": len(entries),
            "iterations": trained.iterations,
            "minutes": round(trained.seconds / 60, 2),
        },
        trained_on=tuple(sorted(identities(entries))),
        test_groups=test_groups,
    )
    save_checkpoint(run.model_file(stage.name), checkpoint)
    run.finish(stage.name)


def _loader(clips: Any, batch: int, workers: int, order: VideoOrder | None = None) -> DataLoader[Sample]:
    return DataLoader(
        clips,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
