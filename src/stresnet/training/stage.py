"""One stage of training as a Lightning module: data order, loss, optimiser."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from stresnet.data.training_clips import Sample
from stresnet.errors import CheckpointError, RecipeError
from stresnet.model import Preprocessing, StreamLogits, STResNet
from stresnet.recipes import Optimisation, Stage
from stresnet.training.order import VideoOrder, balancing_weights, epoch_iterations


def clip_loss(
    logits: StreamLogits, labels: Tensor, optimisation: Optimisation, class_weights: Tensor | None = None
) -> Tensor:
    """Return the training loss, a scalar: summed over temporal outputs, averaged over videos.

    Args:
        logits: (B,T′,K) of each stream.
        labels: (B,) class indices.
        optimisation: gives `loss`, `consensus` and `label_smoothing`.
        class_weights: (K,), the weight of each class's videos; by default all weigh 1.
    """
    streams = [s for s in logits if s is not None]
    if optimisation.loss == "joint":
        streams = [torch.stack(streams).sum(0)]
    if optimisation.consensus:
        streams = [s.float().mean(1, keepdim=True) for s in streams]
    per_output = [
        F.cross_entropy(
            s.float().transpose(1, 2),
            labels[:, None].expand(s.shape[:2]),
            weight=class_weights,
            reduction="none",
            label_smoothing=optimisation.label_smoothing,
        )
        for s in streams
    ]
    return torch.stack([loss.sum(1).mean() for loss in per_output]).sum()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups with the released code's multipliers; the `lr` of a group is its multiplier.

    The multipliers of (rate, decay) are (1, 1) for filters, (2, 0) for biases and for the scales of batch norm and
    links, and (1, 0) for the shift of batch norm.
    """
    filters, doubled, shifts = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.BatchNorm2d) and name == "bias":
                shifts.append(parameter)
            elif name in ("bias", "scale") or isinstance(module, nn.BatchNorm2d):
                doubled.append(parameter)
            else:
                filters.append(parameter)
    groups = [(filters, 1.0, weight_decay), (doubled, 2.0, 0.0), (shifts, 1.0, 0.0)]
    return [{"params": p, "lr": rate, "weight_decay": decay} for p, rate, decay in groups if p]


class StageTraining(L.LightningModule):
    """The network of a stage under training."""

    class_weights: Tensor | None

    def __init__(
        self, model: STResNet, stage: Stage, preprocessing: Preprocessing, labels: NDArray[np.int64], seed: int
    ) -> None:
        """Prepare to train a stage.

        Args:
            model: the network with its starting weights.
            stage: the stage of the recipe.
            preprocessing: how the starting weights expect their input.
            labels: (N,), the class index of each training video.
            seed: seed of dropout.
        """
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stage = stage
        self.preprocessing = preprocessing
        self.seed = seed
        self.order: VideoOrder | None = None
        videos, batch = len(labels), stage.optimisation.batch_videos
        self.boundaries = np.cumsum([p.total_iterations(videos, batch) for p in stage.optimisation.schedule])
        self._warmup_iterations = round(stage.optimisation.warmup_epochs * videos / batch)
        self._epoch_iterations = epoch_iterations(videos, batch)
        self.epochs = -(-self.total_iterations // self._epoch_iterations)
        classes = model.config.num_classes
        weights = balancing_weights(labels, classes, stage.optimisation.class_weights)
        self.register_buffer("class_weights", None if weights is None else torch.from_numpy(weights).float(), False)
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self._epoch_started, self._epoch_clips = 0.0, 0
        self._started, self._seconds_before = perf_counter(), 0.0
        self._best_iteration: int | None = None

    @property
    def total_iterations(self) -> int:
        """The iterations of the whole stage."""
        return int(self.boundaries[-1])

    def lr_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, before the multipliers of parameter groups."""
        schedule = self.stage.optimisation.schedule
        index = min(int(np.searchsorted(self.boundaries, iteration, side="right")), len(schedule) - 1)
        end, start = int(self.boundaries[index]), int(self.boundaries[index - 1]) if index else 0
        lr = schedule[index].lr_at((iteration - start) / (end - start))
        return lr * min(1.0, (iteration + 1) / (self._warmup_iterations + 1))

    @property
    def iterations(self) -> int:
        """The iterations that the weights have been trained for."""
        return self.global_step if self._best_iteration is None else self._best_iteration

    def load_best(self, file: Path) -> None:
        """Take the weights of an earlier epoch.

        Args:
            file: what Lightning has kept of that epoch.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        try:
            best = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises almost anything on a damaged file
            raise CheckpointError(
                f"{file}, the best weights, is missing or damaged: train in another folder"
            ) from error
        self.load_state_dict(best["state_dict"])
        self._best_iteration = best["global_step"]

    @property
    def seconds(self) -> float:
        """The time this stage has been trained for, interrupted attempts included."""
        return self._seconds_before + perf_counter() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the training time and the preprocessing, which came with the starting weights."""
        checkpoint["seconds"] = self.seconds
        checkpoint["preprocessing"] = self.preprocessing.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the training time, the preprocessing and the place in the data order."""
        self._seconds_before = checkpoint.get("seconds", 0.0)
        self.preprocessing = Preprocessing.from_dict(checkpoint["preprocessing"])
        if self.order is not None:
            # Lightning sets the sampler's epoch too late: by then its loader processes have begun to read.
            self.order.set_epoch(checkpoint["global_step"] // self._epoch_iterations)

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and the learning rate of each iteration."""
        optimisation = self.stage.optimisation
        groups = parameter_groups(self.model, optimisation.weight_decay)
        optimizer: torch.optim.Optimizer
        if optimisation.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, betas=(optimisation.momentum, 0.999))
        else:
            optimizer = torch.optim.SGD(groups, momentum=optimisation.momentum)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_at)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def forward(self, batch: Sample) -> StreamLogits:
        """Return the logits of a batch of clips."""
        rgb, flow = self.preprocessing.normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])
        return cast(StreamLogits, self.model(rgb, flow))

    def on_train_epoch_start(self) -> None:
        """Start measuring the epoch's speed."""
        self._epoch_started, self._epoch_clips = perf_counter(), 0

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed dropout, so that neither resuming nor the number of loader processes changes what is dropped."""
        place = [self.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of one sub-batch."""
        labels = batch["label"]
        logits = self(batch)
        loss = clip_loss(logits, labels, self.stage.optimisation, self.class_weights)
        self.train_accuracy(logits.fused.detach().float(), labels)
        size = len(labels)
        self._epoch_clips += size * self.trainer.world_size
        speed = self._epoch_clips / (perf_counter() - self._epoch_started)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=size)
        self.log("accuracy", self.train_accuracy, prog_bar=True, on_step=False, on_epoch=True, batch_size=size)
        self.log("clips_per_sec", speed, prog_bar=True, on_step=True, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Sample, batch_idx: int) -> None:
        """Stop after the last iteration of the stage, which may be within an epoch."""
        if self.global_step >= self.total_iterations:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Log the learning rate; stop a diverged training before it overwrites its last good checkpoint.

        Raises:
            RecipeError: if a weight is NaN or infinite.
        """
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            raise RecipeError(
                f"stage {self.stage.name}: weights became NaN or infinite by iteration {self.global_step} of "
                f"{self.total_iterations}: lower the learning rate in its schedule, and train in another folder"
            )
        self.log("lr", self.lr_at(max(0, self.global_step - 1)))

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Count the validation videos whose centred clip is classified correctly."""
        self.val_accuracy(self(batch).fused.float(), batch["label"])
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, on_step=False, on_epoch=True)
