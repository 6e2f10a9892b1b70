"""Lightning set up to train a stage: logs, atomic checkpoints, progress, and errors in one line."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import cv2
import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from stresnet.atomic import replacing
from stresnet.errors import CheckpointError, RecipeError, StresnetError
from stresnet.model.precision import has_native_bf16
from stresnet.progress import Progress
from stresnet.recipes import Recipe, Stage

SECONDS_BETWEEN_REPORTS = 0.1
"""Reading the loss makes the CPU wait for the GPU, so not every iteration reports it."""


def make_trainer(folder: Path, stage: Stage, epochs: int, devices: int, progress: Progress | None) -> L.Trainer:
    """Return the trainer of a stage, which writes logs and `last.ckpt` of the last whole epoch into a folder.

    The stage itself decides when to stop. Lightning's `max_steps` must stay unset: with it, a resumed training begins
    with an iteration over only part of a batch (Lightning 2.6).

    Args:
        folder: the folder of the stage.
        stage: the stage of the recipe.
        epochs: epochs after which to stop at the latest.
        devices: GPUs, or processes on the CPU.
        progress: called with the iterations done.
    """
    attempt = f"attempt_{len(list((folder / 'logs').glob('attempt_*')))}"
    # Flush at once: the learning curves of a resumed training include what a killed attempt logged.
    loggers: list[Logger] = [CSVLogger(folder, name="logs", version=attempt, flush_logs_every_n_steps=1)]
    if importlib.util.find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=attempt))
    callbacks: list[Callback] = [_KeepSigtermHandler(), *_watching_validation(folder, stage)]
    callbacks.append(ModelCheckpoint(dirpath=folder, filename="last", save_top_k=1, enable_version_counter=False))
    if progress is not None:
        callbacks.append(_ReportProgress(stage.name, progress))
    trainer = L.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=devices,
        benchmark=torch.cuda.is_available(),  # all clips of a stage have one size
        max_epochs=epochs,
        precision="32-true" if emulates_bf16(stage) else stage.optimisation.precision,
        logger=loggers,
        callbacks=callbacks,
        plugins=[_AtomicCheckpoints()],
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    batch, sub_batch = stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos
    trainer.accumulate_grad_batches = batch // (sub_batch * trainer.world_size)
    return trainer


def _watching_validation(folder: Path, stage: Stage) -> Iterator[Callback]:
    """Yield what keeps the best weights and ends a stage early; `last.ckpt` must be written after them."""
    watched, patience = "val_accuracy", stage.optimisation.patience
    if patience is not None:
        yield EarlyStopping(watched, mode="max", patience=patience, check_on_train_epoch_end=False)
    if stage.optimisation.keep == "best":
        yield ModelCheckpoint(folder, "best", watched, mode="max", save_weights_only=True, enable_version_counter=False)


def check_devices(recipe: Recipe, devices: int) -> None:
    """Raise unless the devices exist and can share the batches of all stages.

    Raises:
        RecipeError: if there are too few devices, or a stage's batch cannot be shared; the message names the stage.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else devices
    if not 1 <= devices <= available:
        raise RecipeError(f"--devices {devices}: expected 1 to {available}, the number available")
    for stage in recipe.stages:
        batch, sub_batch = stage.optimisation.batch_videos, stage.optimisation.sub_batch_videos
        if batch % (sub_batch * devices):
            raise RecipeError(
                f"stage {stage.name}: a batch of {batch} cannot be shared by {devices} devices in "
                f"sub-batches of {sub_batch}: change optimisation.batch_videos or --devices"
            )


def emulates_bf16(stage: Stage) -> bool:
    """Return whether a stage asks for bfloat16 that this machine would emulate, several times slower than float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return stage.optimisation.precision == "bf16-mixed" and not has_native_bf16(device)


class _AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that replace the previous one only when written completely, with errors that name the file.

    Lightning's implementation ignores missing permissions, and moves the file across file systems.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, completely or not at all."""
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
                f"{path} cannot be written ({error.strerror or error}): fix this, then resume with --resume"
            ) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """Read a checkpoint. It never runs code, whatever the defaults of PyTorch and Lightning are."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # the unpickler raises almost anything on a damaged file
            raise CheckpointError(f"{path} is damaged: delete it to train this stage from its start") from error
        return checkpoint


class _ReportProgress(Callback):
    """Reports the iterations of a stage, its loss, accuracy and speed, from the first device."""

    def __init__(self, stage: str, progress: Progress) -> None:
        self.activity = f"training {stage}"
        self.progress = progress
        self.detail = ""
        self.reported_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._report(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = trainer.global_step >= cast(int, pl_module.total_iterations)
        if not last and time.monotonic() - self.reported_at < SECONDS_BETWEEN_REPORTS:
            return
        metrics = trainer.callback_metrics
        values = [
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            f"loss {float(outputs['loss']) * trainer.accumulate_grad_batches:.2f}",
        ]
        for name, title in (("accuracy", "accuracy"), ("val_accuracy", "validation")):
            if name in metrics:  # of the last whole epoch
                values.append(f"{title} {100 * float(metrics[name]):.0f} %")
        values.append(f"{float(metrics.get('clips_per_sec', 0)):.0f} clips/s")
        self.detail = " · ".join(values)
        self._report(trainer, pl_module)

    def _report(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress(self.activity, trainer.global_step, cast(int, pl_module.total_iterations), self.detail)
        self.reported_at = time.monotonic()


class _KeepSigtermHandler(Callback):
    """Restores the program's handler of SIGTERM, if it has one.

    Lightning's handler waits for the end of a batch. With several devices it may wait forever, because they exchange
    the signal in the middle of other messages.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if callable(self.handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.handler)


_PROCESS_FAILURES = {
    "Too many open files": (
        "the loader processes need more open files than allowed; raise the limit, such as with ulimit -n 4096, or "
        "train with --workers 0"
    ),
    "shared memory|unable to write to file </torch_": (
        "the shared memory, /dev/shm, has no room for clips on their way from the loader processes; enlarge it, such "
        "as with docker run --shm-size=1g, or train with --workers 0"
    ),
    "DataLoader worker .*(killed|exited)": (
        "a loader process was killed, perhaps because memory ran out; train with fewer --workers"
    ),
    "Connection (closed|reset) by peer": "the process of another device ended; its own message says why",
}
"""What torch says when other processes of a training fail, and what is wrong then."""


@contextmanager
def plain_errors(trainer: L.Trainer) -> Iterator[None]:
    """Restore Ctrl-C and this library's errors, which Lightning and PyTorch's loader processes wrap.

    Raises:
        StresnetError: another process of the training failed.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if not trainer.interrupted:
            raise
        # After Ctrl-C, Lightning leaves the signal ignored and exits with an unusual code.
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from None
    except StresnetError as error:
        # From a loader process comes the text of a traceback, whose last line is the message.
        kind = type(error)
        line = str(error).rstrip().splitlines()[-1]
        raise kind(line.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")) from error
    except (RuntimeError, OSError) as error:
        for said, meant in _PROCESS_FAILURES.items():
            if re.search(said, str(error)):
                raise StresnetError(f"{meant}; then continue with --resume") from error
        raise


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's log messages and warnings, which address developers."""
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
def single_threaded_opencv() -> Iterator[None]:
    """Limit OpenCV to one thread in loader processes, as there are as many of them as cores.

    Set before they start: changing it in a forked process can hang OpenCV.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
