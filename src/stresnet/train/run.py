"""A run: the folder in which a recipe's stages are trained, left off and taken up again."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.utils.data import DataLoader

import stresnet
from stresnet.atomic import replacing
from stresnet.data.clips import CenteredClips, ClipSampling, Sample, TrainingClips
from stresnet.data.store import ClipStore
from stresnet.errors import RecipeError
from stresnet.model import Checkpoint, Preprocessing, STResNet, load_checkpoint, save_checkpoint
from stresnet.model.weights import inherit, load_image_weights
from stresnet.recipes import IMAGENET, Recipe, Stage, parse_recipe
from stresnet.train.stage import StageTraining, VideoStream


@dataclass(frozen=True)
class Run:
    """The folder of one training run: recipe.yaml, a folder a stage, and model.safetensors of the last one."""

    folder: Path
    recipe: Recipe

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """The run in a folder.

        Raises:
            RecipeError: if there is none.
        """
        folder = Path(folder)
        file = folder / "recipe.yaml"
        if not file.is_file():
            raise RecipeError(f"{folder} is no training run: it has no recipe.yaml; `stresnet train` makes one")
        return cls(folder, parse_recipe(yaml.safe_load(file.read_text("utf-8")), str(file)))

    def model_file(self, stage: str) -> Path:
        """Where a finished stage's model lies."""
        return self.folder / stage / "model.safetensors"

    def finished(self) -> list[Stage]:
        """The stages that have a model, in order."""
        return [s for s in self.recipe.stages if self.model_file(s.name).is_file()]

    def curves(self, stage: str) -> dict[str, list[float]]:
        """The learning curves of a stage: lists of equal length, `epoch` among them; later attempts win."""
        rows: dict[int, dict[str, float]] = {}
        for file in sorted((self.folder / stage / "logs").glob("*/metrics.csv")):
            with file.open(newline="", encoding="utf-8") as lines:
                for row in csv.DictReader(lines):
                    values = {k: float(v) for k, v in row.items() if v}
                    if "loss" in values or "val_accuracy" in values:
                        rows.setdefault(int(values["epoch"]), {}).update(values)
        names = sorted({name for row in rows.values() for name in row})
        return {name: [rows[e].get(name, float("nan")) for e in sorted(rows)] for name in names}


def train(
    store: ClipStore,
    folder: str | Path,
    recipe: Recipe,
    *,
    init: Mapping[str, Path] | None = None,
    only: str | None = None,
    resume: bool = False,
    workers: int | None = None,
    test_groups: tuple[str, ...] = (),
    on_stage: Callable[[str], None] | None = None,
) -> Run:
    """Train the stages of a recipe that are not trained yet; a stage cut off goes on from its last whole epoch.

    Args:
        store: prepared videos; those of split `train` are learnt from, `val` watched if there are any.
        folder: of the run.
        recipe: what to train.
        init: weight files, by stage name, or under `imagenet` for all stages that start from it.
        only: a single stage to train; those it starts from must be trained.
        resume: whether a folder that holds a run is gone on with.
        workers: loader processes; by default one for each core but one, at most eight.
        test_groups: groups held out of training; noted in the checkpoints, for evaluation to hold out the same.
        on_stage: told the name of every stage before it is trained.

    Raises:
        RecipeError: if the folder holds another run, or a stage lacks what it starts from.
        CheckpointError: if starting weights do not fit.
    """
    run = _open_run(Path(folder), recipe, resume)
    if test_groups:
        store = store.with_test_groups(test_groups)
    if not store.select("train"):
        raise RecipeError(f"{store.root} has no training videos: give some a `train` split")
    init = dict(init or {})
    stages = [recipe.stage(only)] if only else list(recipe.stages)
    _check_starts(run, stages, init)
    for stage in stages:
        if not run.model_file(stage.name).is_file():
            if on_stage:
                on_stage(stage.name)
            _train_stage(run, stage, store, init, workers, test_groups)
        with replacing(run.folder / "model.safetensors") as temporary:
            shutil.copyfile(run.model_file(stage.name), temporary)
    return run


def _open_run(folder: Path, recipe: Recipe, resume: bool) -> Run:
    file = folder / "recipe.yaml"
    if file.is_file():
        if not resume:
            raise RecipeError(f"{folder} holds a run already: pass --resume to go on with it, or name another folder")
        found = Run.open(folder)
        if found.recipe != recipe:
            differing = [f for f in Recipe.model_fields if getattr(found.recipe, f) != getattr(recipe, f)]
            raise RecipeError(
                f"{folder} was started with another recipe ({', '.join(differing)} differ): "
                "resume with the same one, or name another folder"
            )
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        temporary.write_text(
            yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True), "utf-8"
        )
    return Run(folder, recipe)


def _check_starts(run: Run, stages: list[Stage], init: Mapping[str, Path]) -> None:
    unknown = [name for name in init if name != IMAGENET and name not in {s.name for s in run.recipe.stages}]
    if unknown:
        raise RecipeError(f"--init {unknown[0]}=…: no such stage in recipe {run.recipe.name}")
    trained = {s.name for s in run.finished()}
    for stage in stages:
        for source in stage.starts_from if stage.name not in init else ():
            if source == IMAGENET and IMAGENET not in init:
                raise RecipeError(
                    f"stage {stage.name} starts from image weights: give them with --init FILE (a state dict with "
                    f"torchvision's names), or train from scratch with --set {stage.name}.starts_from=[]"
                )
            if source != IMAGENET and source not in trained:
                raise RecipeError(f"stage {stage.name} starts from {source}, which is not trained: train it first")
        trained.add(stage.name)


def _train_stage(
    run: Run,
    stage: Stage,
    store: ClipStore,
    init: Mapping[str, Path],
    workers: int | None,
    test_groups: tuple[str, ...],
) -> None:
    recipe = run.recipe
    folder = run.folder / stage.name
    entries = store.select("train")
    preprocessing = Preprocessing(crop_px=recipe.crop_px, mirror=recipe.mirror)
    L.seed_everything(recipe.seed, workers=False, verbose=False)
    model = STResNet(recipe.config(stage, len(store.classes)))
    _start(model, run, stage, init)
    module = StageTraining(model, recipe, stage, preprocessing, len(entries))
    started = perf_counter()
    with _quiet_lightning():
        trainer = _trainer(folder, recipe, stage, module.total_steps)
        last = folder / "last.ckpt"
        trainer.fit(
            module,
            _training_loader(store, recipe, stage, trainer, workers),
            _validation_loader(store, recipe, stage, workers),
            ckpt_path=last if last.is_file() else None,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        save_checkpoint(
            run.model_file(stage.name),
            Checkpoint(
                model=model,
                classes=store.classes,
                preprocessing=preprocessing,
                flow_spec=store.spec.flow.to_dict(),
                jpeg_quality=store.spec.jpeg_quality,
                stage=stage.name,
                recipe=recipe.model_dump(mode="json"),
                training={
                    "store": store.name,
                    "videos": len(entries),
                    "steps": module.total_steps,
                    "minutes": round((perf_counter() - started) / 60, 2),
                },
                test_groups=test_groups,
                version=stresnet.__version__,
            ),
        )
        last.unlink(missing_ok=True)


def _start(model: STResNet, run: Run, stage: Stage, init: Mapping[str, Path]) -> None:
    """Fill a network with what its stage starts from; nothing leaves it random."""
    if stage.name in init:
        inherit(model, [load_checkpoint(init[stage.name]).model.state_dict()], new_classifier=True)
    elif IMAGENET in stage.starts_from:
        load_image_weights(model, init[IMAGENET])
    elif stage.starts_from:
        inherit(model, [load_checkpoint(run.model_file(name)).model.state_dict() for name in stage.starts_from])


def _trainer(folder: Path, recipe: Recipe, stage: Stage, total_steps: int) -> L.Trainer:
    attempt = f"attempt_{len(list((folder / 'logs').glob('attempt_*')))}"
    loggers: list[Logger] = [CSVLogger(folder, name="logs", version=attempt)]
    if importlib.util.find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=attempt))
    checkpoints = ModelCheckpoint(dirpath=folder, filename="last", save_top_k=1, enable_version_counter=False)
    progress: Callback = RichProgressBar(leave=True) if sys.stderr.isatty() else _EpochLines(stage)
    trainer = L.Trainer(
        max_steps=total_steps,
        max_epochs=-1,
        precision=recipe.precision,
        logger=loggers,
        callbacks=[checkpoints, progress],
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        accumulate_grad_batches=1,
    )
    sub_batches, rest = divmod(stage.batch_videos, stage.sub_batch_videos * trainer.world_size)
    if rest:
        raise RecipeError(
            f"stage {stage.name}: a batch of {stage.batch_videos} cannot be shared by {trainer.world_size} devices in "
            f"sub-batches of {stage.sub_batch_videos}: change batch_videos or the number of devices"
        )
    trainer.accumulate_grad_batches = sub_batches
    return trainer


def _training_loader(
    store: ClipStore, recipe: Recipe, stage: Stage, trainer: L.Trainer, workers: int | None
) -> DataLoader[Sample]:
    sampling = ClipSampling(
        steps=stage.steps,
        tau=stage.tau,
        crop=stage.crop,
        jitter=stage.crop_jitter,
        crop_px=recipe.crop_px,
        flow_stack=recipe.flow_stack,
        mirror=recipe.mirror,
        streams=stage.streams,
    )
    entries = store.select("train")
    order = VideoStream(len(entries), stage.batch_videos, recipe.seed, trainer.global_rank, trainer.world_size)
    clips = TrainingClips(store, entries, sampling, recipe.seed)
    return _loader(clips, stage.sub_batch_videos, workers, order)


def _validation_loader(
    store: ClipStore, recipe: Recipe, stage: Stage, workers: int | None
) -> DataLoader[Sample] | None:
    entries = store.select("val")
    if not entries:
        return None
    clips = CenteredClips(store, entries, stage.steps, recipe.crop_px, recipe.flow_stack, stage.streams)
    return _loader(clips, stage.sub_batch_videos, workers, None)


def _loader(clips: Any, batch: int, workers: int | None, order: VideoStream | None) -> DataLoader[Sample]:
    if workers is None:
        workers = min(8, max(1, (os.cpu_count() or 1) - 1))
    return DataLoader(
        clips,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class _EpochLines(Callback):
    """A line an epoch where there is no terminal for a bar."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        nan = torch.tensor(float("nan"))
        loss, accuracy, speed = (trainer.callback_metrics.get(k, nan) for k in ("loss", "accuracy", "clips_per_sec"))
        print(
            f"{self.stage.name}: step {trainer.global_step}/{trainer.max_steps}  "
            f"loss {loss:.3f}  accuracy {accuracy:.3f}  {speed:.1f} clips/s",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice to developers from users; what concerns them is said by this library."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", message=".*num_workers.*|.*does not have many workers.*")
        try:
            yield
        finally:
            logger.setLevel(level)
