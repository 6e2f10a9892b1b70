"""Lightning, set up for a stage: logs, checkpoints that are whole or absent, and errors that are this library's."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import cv2
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError, RecipeError, StresnetError
from stresnet.recipes import Recipe, Stage


def make_trainer(folder: Path, stage: Stage, epochs: int, devices: int) -> L.Trainer:
    """The trainer of a stage, which keeps logs and its last whole epoch, `last.ckpt`, in the stage's folder.

    The stage itself says when to stop. Lightning's `max_steps` must stay unset: with it, a training gone on with
    begins with a step of a part of a batch (Lightning 2.6).
    """
    attempt = f"attempt_{len(list((folder / 'logs').glob('attempt_*')))}"
    # Flushed at once: what a killed attempt logged belongs to the learning curves of the one that goes on.
    loggers: list[Logger] = [CSVLogger(folder, name="logs", version=attempt, flush_logs_every_n_steps=1)]
    if importlib.util.find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=attempt))
    checkpoints = ModelCheckpoint(dirpath=folder, filename="last", save_top_k=1, enable_version_counter=False)
    progress: Callback = _StageBar(stage) if sys.stderr.isatty() else _EpochLines(stage)
    trainer = L.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=devices,
        benchmark=torch.cuda.is_available(),  # all clips of a stage are of one size
        max_epochs=epochs,
        precision=stage.optimisation.precision,
        logger=loggers,
        callbacks=[checkpoints, progress, _OwnSigterm()],
        plugins=[_WholeCheckpoints()],
        enable_model_summary=False,
        enable_progress_bar=False,  # Lightning's counts epochs of its own, over four lines each
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    batch, sub_batch = stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos
    trainer.accumulate_grad_batches = batch // (sub_batch * trainer.world_size)
    return trainer


def check_devices(recipe: Recipe, devices: int) -> None:
    """Refuse a number of devices that some stage's batch cannot be shared by, before any stage is trained.

    Raises:
        RecipeError: naming the stage.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else devices
    if not 1 <= devices <= there:
        raise RecipeError(f"{devices} devices are asked for, but there are {there}: lower --devices")
    for stage in recipe.stages:
        batch, sub_batch = stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos
        if batch % (sub_batch * devices):
            raise RecipeError(
                f"stage {stage.name}: a batch of {batch} cannot be shared by {devices} devices in "
                f"sub-batches of {sub_batch}: change batch_videos or --devices"
            )


class _WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that replace the one before only when they are whole, and say what is wrong with them.

    Lightning's own passes over a missing permission in silence, and moves the file from another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(Path(path)) as temporary, temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be written ({error.strerror or error}): mend that and go on with --resume"
            ) from error

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        try:
            return super().load_checkpoint(path, *args, **kwargs)
        except Exception as error:  # what is no checkpoint sends the unpickler anywhere
            raise CheckpointError(f"{path} is damaged: delete it to train this stage from its start") from error


class _StageBar(Callback):
    """One line for a whole stage: its steps, loss, accuracy, clips a second and the time left."""

    def __init__(self, stage: Stage) -> None:
        columns = (
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            "{task.fields[state]}",
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task = self.progress.add_task(stage.name, total=None, state="")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress.start()
            self.progress.update(self.task, total=cast(int, pl_module.total_steps), completed=trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        metrics = trainer.callback_metrics
        state = f"loss {float(outputs['loss']) * trainer.accumulate_grad_batches:.2f}"
        if "accuracy" in metrics:  # of the last whole epoch
            state += f" · accuracy {float(metrics['accuracy']):.0%}"
        state += f" · {float(metrics.get('clips_per_sec', 0)):.0f} clips/s"
        self.progress.update(self.task, completed=trainer.global_step, state=state)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.progress.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.progress.stop()


class _EpochLines(Callback):
    """A line an epoch where there is no terminal for a bar."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        nan = torch.tensor(float("nan"))
        loss, accuracy, speed = (trainer.callback_metrics.get(k, nan) for k in ("loss", "accuracy", "clips_per_sec"))
        print(
            f"{self.stage.name}: step {trainer.global_step}/{pl_module.total_steps}  "
            f"loss {loss:.3f}  accuracy {accuracy:.3f}  {speed:.1f} clips/s",
            file=sys.stderr,
            flush=True,
        )


class _OwnSigterm(Callback):
    """Leaves SIGTERM to the program, if that handles it.

    Lightning waits for the end of a batch. Several devices may do so for ever: they tell each other of the signal in
    the midst of whatever else they exchange.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if callable(self.handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)


@contextmanager
def plain_errors(trainer: L.Trainer) -> Iterator[None]:
    """Undo what Lightning and PyTorch's loader processes make of Ctrl-C and of this library's errors."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Ctrl-C: Lightning leaves it switched off, and the program with another code than users expect.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    except StresnetError as error:
        # Out of a loader process comes the text of a whole traceback, our line being its last.
        kind = type(error)
        line = str(error).rstrip().splitlines()[-1]
        raise kind(line.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")) from error


@contextmanager
def quiet_lightning() -> Iterator[None]:
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


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep each loader process to one thread, as there are as many of them as cores.

    Said before they start: to change it in a forked process can hang OpenCV.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
