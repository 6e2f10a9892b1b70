"""One stage of training as Lightning sees it: loss, optimiser, data order."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Sampler
from torchmetrics.classification import MulticlassAccuracy

from stresnet.data.clips import Sample
from stresnet.errors import RecipeError
from stresnet.model import Preprocessing, StreamLogits, STResNet
from stresnet.recipes import Recipe, Stage


class VideoStream(Sampler[int]):
    """The order of training: all videos in a fresh random order, pass after pass, cut into epochs of whole batches.

    An epoch is the fewest optimiser steps that cover a pass, so no batch is ever short. Item p·N + v is video v in
    pass p; what follows depends on (seed, epoch) alone, so a restart sees what an unbroken run would have seen.
    """

    def __init__(self, videos: int, batch_videos: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.videos = videos
        self.epoch_steps = -(-videos // batch_videos)
        self.epoch_items = self.epoch_steps * batch_videos
        self.seed = seed
        self.rank, self.world = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; Lightning does."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.epoch_items // self.world

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.epoch_items
        for position in range(start + self.rank, start + self.epoch_items, self.world):
            a_pass, place = divmod(position, self.videos)
            yield a_pass * self.videos + int(self._order(a_pass)[place])

    def _order(self, a_pass: int) -> np.ndarray:
        if getattr(self, "_cached", (None,))[0] != a_pass:
            self._cached = (a_pass, np.random.default_rng([self.seed, a_pass]).permutation(self.videos))
        return cast(np.ndarray, self._cached[1])


def clip_loss(logits: StreamLogits, labels: Tensor, kind: str, *, consensus: bool = False) -> Tensor:
    """The training loss, a scalar: over temporal outputs summed, over videos averaged.

    `sum` adds both streams' cross entropies (released code); `joint` takes one softmax of the streams' summed logits.

    Args:
        logits: (B,T′,K) of each stream.
        labels: (B,) class indices.
        kind: `sum` or `joint`.
        consensus: whether the temporal outputs are averaged first and judged as one, as in testing.
    """
    streams = [s for s in logits if s is not None]
    if kind == "joint":
        streams = [torch.stack(streams).sum(0)]
    if consensus:
        streams = [s.float().mean(1, keepdim=True) for s in streams]
    per_output = [
        F.cross_entropy(s.float().transpose(1, 2), labels[:, None].expand(s.shape[:2]), reduction="none")
        for s in streams
    ]
    return torch.stack([loss.sum(1).mean() for loss in per_output]).sum()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The released code's (rate, decay) multipliers as SGD groups whose `lr` is the multiplier.

    Filters (1, 1); biases (2, 0); batch norm's scale (2, 0) and shift (1, 0); a link's scale as batch norm's.
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
    """A network under training in one stage."""

    def __init__(
        self, model: STResNet, recipe: Recipe, stage: Stage, preprocessing: Preprocessing, videos: int
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.stage = stage
        self.preprocessing = preprocessing
        batch = stage.optimisation.batch_videos
        self.boundaries = np.cumsum([phase.total_iterations(videos, batch) for phase in stage.optimisation.schedule])
        classes = model.config.num_classes
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self._epoch_steps = -(-videos // batch)
        self.epochs = -(-self.total_steps // self._epoch_steps)
        self.order: VideoStream | None = None
        self._clock = (0.0, 0)
        self._started, self._seconds_before = perf_counter(), 0.0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole stage."""
        return int(self.boundaries[-1])

    def lr_at(self, step: int) -> float:
        """The learning rate of an optimiser step, before the groups' multipliers."""
        place = int(np.searchsorted(self.boundaries, step, side="right"))
        schedule = self.stage.optimisation.schedule
        return schedule[min(place, len(schedule) - 1)].lr

    @property
    def seconds(self) -> float:
        """How long this stage has been trained, attempts that were cut off included."""
        return self._seconds_before + perf_counter() - self._started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the time spent, and how pixels are normalised: the weights that the stage started from said so."""
        checkpoint["seconds"] = self.seconds
        checkpoint["preprocessing"] = self.preprocessing.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting from the time spent, and with the videos that come next."""
        self._seconds_before = checkpoint.get("seconds", 0.0)
        self.preprocessing = Preprocessing.from_dict(checkpoint["preprocessing"])
        if self.order is not None:
            # Lightning names the epoch to the sampler too late: its loader processes have begun to read by then.
            self.order.set_epoch(checkpoint["global_step"] // self._epoch_steps)

    def configure_optimizers(self) -> Any:
        """SGD with momentum, without Nesterov, its rate a function of the step."""
        groups = parameter_groups(self.model, self.stage.optimisation.weight_decay)
        optimizer = torch.optim.SGD(groups, momentum=self.stage.optimisation.momentum)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_at)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def forward(self, batch: Sample) -> StreamLogits:
        """The logits of a batch of clips."""
        rgb, flow = self.preprocessing.normalize(batch.get("rgb"), batch.get("flow"), batch["flow_scale"])
        return cast(StreamLogits, self.model(rgb, flow))

    def on_train_epoch_start(self) -> None:
        """Start the clock."""
        self._clock = (perf_counter(), 0)

    def on_train_batch_start(self, batch: Sample, batch_idx: int) -> None:
        """Seed dropout, so that neither a restart nor the number of loader processes changes what is dropped."""
        place = [self.recipe.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]) >> 1)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of one sub-batch."""
        labels = batch["label"]
        logits = self(batch)
        loss = clip_loss(logits, labels, self.stage.optimisation.loss, consensus=self.stage.optimisation.consensus)
        self.train_accuracy(logits.fused.detach().float(), labels)
        start, clips = self._clock[0], self._clock[1] + len(labels) * self.trainer.world_size
        self._clock = (start, clips)
        size = len(labels)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=size)
        self.log("accuracy", self.train_accuracy, prog_bar=True, on_step=False, on_epoch=True, batch_size=size)
        self.log("clips_per_sec", clips / (perf_counter() - start), prog_bar=True, on_step=True, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Sample, batch_idx: int) -> None:
        """End the stage after its last step, be it in the midst of an epoch."""
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Note the learning rate in the logs; end what can learn no more, before its last good epoch is lost.

        Raises:
            RecipeError: if a weight is no number any more.
        """
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            raise RecipeError(
                f"stage {self.stage.name}: its weights are no numbers any more after step {self.global_step} of "
                f"{self.total_steps}: train it in another folder with a lower lr in its schedule"
            )
        self.log("lr", self.lr_at(max(0, self.global_step - 1)))

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Count what the centred clip of a validation video is taken for."""
        self.val_accuracy(self(batch).fused.float(), batch["label"])
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, on_step=False, on_epoch=True)
