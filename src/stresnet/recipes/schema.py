"""The schema of recipes: training as data. A recipe is a list of stages; later ones start from earlier weights."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from stresnet.data.clips import ClipSampling
from stresnet.data.sampling import Protocol
from stresnet.errors import RecipeError
from stresnet.model.config import Architecture, Description, Stream, Whole

Balance = Literal["none", "sqrt", "full"]
IMAGENET = "imagenet"
"""Stands in `starts_from` for a ResNet trained on images, whose file is given when training."""
LATE_FUSION = "late fusion"
"""The row of a report that averages the scores of the single-stream stages."""


class Phase(Description):
    """A learning rate and how long it lasts, in epochs (passes over the training videos) or in iterations."""

    lr: float = Field(gt=0, description="The learning rate, at the start of the phase.")
    final_lr: float | None = Field(
        default=None,
        ge=0,
        description="The learning rate at the end of the phase, reached along half a cosine; by default `lr` is held.",
    )
    epochs: float | None = Field(default=None, gt=0, description="Length in passes over the training videos.")
    iterations: int | None = Field(default=None, gt=0, description="Length in iterations; instead of `epochs`.")

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give either `epochs` or `iterations`")
        return self

    def total_iterations(self, videos: int, batch_videos: int) -> int:
        """Return how many iterations the phase lasts, given the number of training videos and the batch size."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * videos / batch_videos))

    def lr_at(self, progress: float) -> float:
        """Return the learning rate after a part of the phase, from 0 to 1."""
        if self.final_lr is None:
            return self.lr
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2


class Optimisation(Description):
    """How a stage is trained: batches, learning rates, loss and SGD."""

    batch_videos: Whole = Field(description="Videos per iteration; gradients are averaged over them.")
    sub_batch_videos: Whole = Field(
        description="Videos per forward pass; batch norm takes its statistics over them. Must divide batch_videos."
    )
    schedule: tuple[Phase, ...] = Field(
        min_length=1, description="Learning rates in order, each for a number of `epochs` or `iterations`."
    )
    warmup_epochs: float = Field(
        default=0,
        ge=0,
        description="Passes over the training videos in which the learning rate grows from 0 to that of the schedule, "
        "linearly.",
    )
    loss: Literal["sum", "joint"] = Field(
        default="sum",
        description="`sum` of both streams' cross entropies, or the `joint` cross entropy of their summed logits "
        "(the paper reports that it overfits).",
    )
    consensus: bool = Field(
        default=False,
        description="Whether the loss sees the mean of a clip's temporal outputs, as testing does, instead of each "
        "output (released code). Helps where most moments of a video do not show its action (Wang et al. 2016, "
        "Temporal Segment Networks).",
    )
    label_smoothing: float = Field(
        default=0, ge=0, lt=1, description="Part of the target that is shared out evenly among all classes."
    )
    balance: Balance = Field(
        default="none",
        description="How often training videos come: each equally often (`none`), the videos of each class equally "
        "often (`full`), or in proportion to the square root of their number (`sqrt`).",
    )
    class_weights: Balance = Field(
        default="none",
        description="How the loss weighs training videos: each equally (`none`), so that each class has the same "
        "weight in all (`full`), or in proportion to the square root of its number of videos (`sqrt`).",
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="Which weights a stage ends with: the `last`, or those with the `best` validation accuracy, the "
        "first of them. Needs validation videos.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Epochs without a better validation accuracy after which the stage ends early; by default it never "
        "does. Needs validation videos.",
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd",
        description="`sgd` with momentum, as in the papers, or `adamw` (Loshchilov and Hutter 2019), which needs far "
        "smaller learning rates, such as 3e-4, and a far larger weight decay, such as 0.05.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of SGD, without Nesterov; β₁ of AdamW.")
    weight_decay: float = Field(
        default=5e-4, ge=0, description="Weight decay of filters; biases and batch norm have none."
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true",
        description="Numeric precision of training, as Lightning names it. A CPU that can only emulate bfloat16 "
        "trains in `32-true` instead of `bf16-mixed`.",
    )

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.batch_videos % self.sub_batch_videos:
            raise ValueError(
                f"batch_videos ({self.batch_videos}) must be a multiple of sub_batch_videos ({self.sub_batch_videos})"
            )
        return self


class Stage(Description):
    """One stage of training: a network, where its weights start, the clips it sees, and the optimisation."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the stage and of its folder in a run.")
    title: str = Field(default="", description="Name of its row in a report; by default the stage's name.")
    note: str = Field(default="", description="A few words on the stage for the report.")
    starts_from: tuple[str, ...] = Field(
        default=(),
        description="Earlier stages whose weights it starts from, or `imagenet` for image weights given when "
        "training. Empty: random weights.",
    )
    network: Architecture = Field(default=Architecture(), description="The network it trains.")
    clips: ClipSampling = Field(default=ClipSampling(), description="How clips are cut from the training videos.")
    optimisation: Optimisation = Field(description="Batches, learning rates and loss.")
    ceiling: float | None = Field(
        default=None, ge=0, le=1, description="Best top-1 accuracy that the stage's inputs allow, if known."
    )

    @model_validator(mode="after")
    def _check_stage(self) -> Self:
        if self.name in (IMAGENET, *SECTIONS):
            raise ValueError(f"a stage cannot be called {self.name!r}: the name has another meaning in recipes")
        if IMAGENET in self.starts_from and len(self.starts_from) > 1:
            raise ValueError(f"starts_from must be {IMAGENET} alone or earlier stages, not {list(self.starts_from)}")
        pool = self.network.temporal_pool
        if pool and self.clips.steps < pool[0]:
            raise ValueError(
                f"a temporal pool of {pool[0]} needs clips of at least {pool[0]} steps, not {self.clips.steps}"
            )
        return self


SECTIONS: dict[str, type[Description]] = {"network": Architecture, "clips": ClipSampling, "optimisation": Optimisation}
"""The parts of a stage for which a recipe may give defaults."""


class Recipe(Description):
    """Stages of training, in order.

    Beside these fields a recipe's values may hold `network`, `clips` and `optimisation`: defaults for the same parts
    of every stage.
    """

    name: str = Field(description="Name of the recipe, shown in reports.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of initial weights, data order, clips and dropout.")
    protocol: Protocol = Field(
        default="dense25",
        description="Test protocol of its models unless one is given. `dense25` is the published one; `dense` keeps to "
        "the strides of training, also in short videos.",
    )
    late_fusion_ceiling: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Best top-1 accuracy that averaging both streams' scores allows, if known.",
    )
    stages: tuple[Stage, ...] = Field(min_length=1, description="The stages, in the order of training.")

    @model_validator(mode="before")
    @classmethod
    def _merge_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("stages"), list | tuple):
            return values
        defaults = {name: values[name] for name in SECTIONS if name in values}
        for name, fields in defaults.items():
            if not isinstance(fields, dict):
                raise ValueError(f"{name} must be a mapping of fields to values, not {fields!r}")
        rest = {name: value for name, value in values.items() if name not in SECTIONS}
        return rest | {"stages": [_with_defaults(stage, defaults) for stage in values["stages"]]}

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        earlier: dict[str, Stage] = {}
        titles = {LATE_FUSION}
        for stage in self.stages:
            if stage.name in earlier:
                raise ValueError(f"two stages are called {stage.name!r}")
            for name in stage.starts_from:
                if name != IMAGENET and name not in earlier:
                    raise ValueError(f"stage {stage.name} starts from {name!r}, which is not an earlier stage")
            _check_sources(stage, [earlier[name] for name in stage.starts_from if name != IMAGENET])
            title = (stage.title or stage.name).casefold()
            if title in titles:
                raise ValueError(f"two rows of the report would be called {title!r}: give stage {stage.name} a title")
            titles.add(title)
            earlier[stage.name] = stage
        return self

    def stage(self, name: str) -> Stage:
        """Return the stage of that name.

        Raises:
            RecipeError: if the recipe has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise RecipeError(f"recipe {self.name} has no stage {name!r}: it has {', '.join(s.name for s in self.stages)}")


def _with_defaults(stage: Any, defaults: dict[str, dict[str, Any]]) -> Any:
    """Return a stage's values, completed by the defaults of the recipe."""
    if not isinstance(stage, dict):
        return stage
    merged = {
        name: {**fields, **given} for name, fields in defaults.items() if isinstance(given := stage.get(name, {}), dict)
    }
    return {**stage, **merged}


def _check_sources(stage: Stage, sources: list[Stage]) -> None:
    """Raise unless the weights of earlier stages fit a stage. Finding out in training would cost days."""
    network = stage.network
    for stream in network.streams:
        holders = [source for source in sources if stream in source.network.streams]
        if sources and not holders:
            raise ValueError(f"stage {stage.name} starts from no stage that has its {stream} stream")
        for source in holders:
            for field, needed, found in _differences(stream, network, source.network):
                raise ValueError(
                    f"stage {stage.name} starts from stage {source.name}, so its {field} must be {found}, not {needed}"
                )


def _differences(stream: Stream, network: Architecture, source: Architecture) -> list[tuple[str, Any, Any]]:
    """Return the fields in which a network does not fit a stream's weights: name, its value, the source's value."""
    fields: list[tuple[str, Any, Any]] = [
        (f"{stream} depth", network.depth_of(stream), source.depth_of(stream)),
        ("width", network.width, source.width),
        ("stem_channels", network.conv1_channels, source.conv1_channels),
        ("layout", network.layout, source.layout),
    ]
    if stream == "motion":
        fields.append(("flow_stack", network.flow_stack, source.flow_stack))
    if source.temporal_layers_of(stream):  # taps can be added to image filters, but not taken away
        fields.append(("temporal", network.temporal, source.temporal))
    return [(name, needed, found) for name, needed, found in fields if needed != found]
