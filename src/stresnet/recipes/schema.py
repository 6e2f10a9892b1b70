"""Recipes: training as data. A recipe is a network and a list of stages; each stage hands its weights on."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from stresnet.data.sampling import CropRule
from stresnet.errors import RecipeError
from stresnet.model.config import Depth, Stream, STResNetConfig

IMAGENET = "imagenet"
"""What a stage may start from besides earlier stages: a ResNet trained on images, given on the command line."""


LATE_FUSION = "late fusion"
"""The report's name for the single streams' averaged scores."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Phase(_Strict):
    """A learning rate and how long it is held: for so many epochs (passes over the training videos), or iterations."""

    lr: float = Field(gt=0)
    epochs: float | None = Field(default=None, gt=0)
    iterations: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_length(self) -> Phase:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give either `epochs` or `iterations`")
        return self

    def steps(self, videos: int, batch_videos: int) -> int:
        """Optimiser steps that this rate is held for, over so many training videos."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * videos / batch_videos))


class Stage(_Strict):
    """One training run: which network, from which weights, on which clips, at which rates.

    Attributes:
        name: of the stage, and of its folder in a run.
        title: its row in a report.
        note: what it is, in a few words, for the report.
        streams: the streams switched on.
        starts_from: earlier stages whose weights it takes; or `imagenet`; or nothing, for random weights.
        temporal: how second units span three time steps: `inflate` (ST-ResNet), `inject` (ST-MulNet) or null.
        temporal_init: what injected convolutions start as: `identity`, `average` or `difference`.
        link: `add`, `multiply` or null.
        temporal_pool: [size, stride] in steps of the max pool before the head, or null.
        dropout: before the classifier.
        motion_dropout: the motion stream's, where it differs.
        steps: T, time steps of a clip.
        tau: least and greatest distance between them, in frames.
        crop: `border` (spatiotemporal and appearance stages) or `corners` (motion stage).
        crop_jitter: how far a border crop's sides may depart from the crop size, as a share of it.
        color_jitter: how far contrast, brightness and colour of a clip's frames may vary, 0 … 1 (released code: not).
        batch_videos: videos an optimiser step averages over.
        sub_batch_videos: videos that go through the network at once; batch norm's statistics are theirs.
        schedule: the learning rates in turn, and how long each is held.
        loss: `sum` of both streams' cross entropies, or `joint` of their summed logits (paper: it overfits).
        consensus: whether a clip's temporal outputs are averaged before the loss, as testing averages them, rather
            than judged one by one (released code). Where most moments of a video say nothing of its action, judging
            each is mostly noise (Wang et al., Temporal Segment Networks, 2016).
        ceiling: the best top-1 accuracy that the stage's inputs allow, if known; shown in the report.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str = ""
    note: str = ""
    streams: tuple[Stream, ...] = ("appearance", "motion")
    starts_from: tuple[str, ...] = ()
    temporal: Literal["inflate", "inject"] | None = None
    temporal_init: Literal["identity", "average", "difference"] = "identity"
    link: Literal["add", "multiply"] | None = None
    temporal_pool: tuple[int, int] | None = None
    dropout: float = Field(default=0.0, ge=0, lt=1)
    motion_dropout: float | None = Field(default=None, ge=0, lt=1)
    steps: int = Field(default=1, ge=1)
    tau: tuple[int, int] = (1, 1)
    crop: CropRule = "border"
    crop_jitter: float = Field(default=0.25, ge=0, lt=1)
    color_jitter: float = Field(default=0.0, ge=0, le=1)
    batch_videos: int = Field(ge=1)
    sub_batch_videos: int = Field(ge=1)
    schedule: tuple[Phase, ...] = Field(min_length=1)
    loss: Literal["sum", "joint"] = "sum"
    consensus: bool = False
    ceiling: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _possible(self) -> Stage:
        if self.batch_videos % self.sub_batch_videos:
            raise ValueError(
                f"batch_videos ({self.batch_videos}) must be a multiple of sub_batch_videos ({self.sub_batch_videos})"
            )
        if not 1 <= self.tau[0] <= self.tau[1]:
            raise ValueError(f"tau must be [least, greatest] with 1 <= least <= greatest, not {list(self.tau)}")
        if self.temporal_pool and min(self.temporal_pool) < 1:
            raise ValueError(f"temporal_pool must be [size, stride], each at least 1, not {list(self.temporal_pool)}")
        if self.temporal_pool and self.steps < self.temporal_pool[0]:
            raise ValueError(f"a temporal pool of {self.temporal_pool[0]} needs clips as long, not {self.steps} steps")
        if not self.streams or len(set(self.streams)) < len(self.streams):
            raise ValueError(f"streams must name one stream or both, each once, not {list(self.streams)}")
        if IMAGENET in self.starts_from and len(self.starts_from) > 1:
            raise ValueError(f"starts_from must be {IMAGENET} alone or earlier stages, not {list(self.starts_from)}")
        if self.link is not None and len(self.streams) < 2:
            raise ValueError("a link needs both streams")
        return self


class Recipe(_Strict):
    """A network and the stages that train it.

    Attributes:
        name: shown in reports.
        depth: of each stream, see `STResNetConfig`.
        motion_depth: of the motion stream, where it differs.
        width: factor on channels.
        layout: `torchvision` or `caffe`.
        link_direction: see `STResNetConfig`.
        link_scale: see `STResNetConfig`.
        flow_stack: L.
        crop_px: side of training crops.
        mirror: whether an action keeps its name in a mirror; if not, nothing is flipped in training or testing.
        momentum: of SGD, without Nesterov.
        weight_decay: of filters; biases and batch norm's scale have none.
        precision: of Lightning's Trainer.
        seed: of weights, data order, clips and dropout.
        late_fusion_ceiling: the best accuracy that averaging the single streams' scores allows, if known.
        stages: in the order in which they are trained.
    """

    name: str
    depth: Depth = 50
    motion_depth: Depth | None = None
    width: float = Field(default=1.0, gt=0)
    layout: Literal["torchvision", "caffe"] = "torchvision"
    link_direction: Literal["motion_to_appearance", "appearance_to_motion", "both"] = "motion_to_appearance"
    link_scale: float | None = None
    flow_stack: int = Field(default=10, ge=1)
    crop_px: int = Field(default=224, ge=32)
    mirror: bool = True
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = Field(default=0, ge=0, lt=2**32)
    late_fusion_ceiling: float | None = Field(default=None, ge=0, le=1)
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Recipe:
        known: dict[str, Stage] = {}
        titles = {LATE_FUSION}
        for stage in self.stages:
            unknown = [name for name in stage.starts_from if name != IMAGENET and name not in known]
            if unknown:
                raise ValueError(f"stage {stage.name} starts from {unknown[0]!r}, which is no earlier stage")
            if stage.name in known or stage.name == IMAGENET:
                raise ValueError(f"two stages are called {stage.name!r}")
            # Found out only by training, this would cost the days that the earlier stages take.
            sources = [known[name] for name in stage.starts_from if name != IMAGENET]
            without = sorted(set(stage.streams) - {stream for source in sources for stream in source.streams})
            if sources and without:
                raise ValueError(f"stage {stage.name} starts from no stage that has its {without[0]} stream")
            if other := [s for s in sources if s.temporal not in (None, stage.temporal)]:
                raise ValueError(
                    f"stage {stage.name} starts from stage {other[0].name}, so its temporal must be {other[0].temporal}"
                )
            title = (stage.title or stage.name).casefold()
            if title in titles:
                raise ValueError(f"two rows of the report would be called {title!r}: give stage {stage.name} a title")
            titles.add(title)
            known[stage.name] = stage
        return self

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            RecipeError: if there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise RecipeError(f"recipe {self.name} has no stage {name!r}: it has {', '.join(s.name for s in self.stages)}")

    def config(self, stage: Stage, num_classes: int) -> STResNetConfig:
        """The network that a stage trains."""
        return STResNetConfig(
            num_classes=num_classes,
            depth=self.depth,
            motion_depth=self.motion_depth,
            width=self.width,
            layout=self.layout,
            streams=stage.streams,
            link=stage.link,
            link_direction=self.link_direction,
            link_scale=self.link_scale if stage.link else None,
            temporal=stage.temporal,
            temporal_init=stage.temporal_init,
            temporal_pool=stage.temporal_pool,
            flow_stack=self.flow_stack,
            dropout=stage.dropout,
            motion_dropout=stage.motion_dropout,
        )


def packaged_recipes() -> list[str]:
    """The names of the recipes that come with the library."""
    return sorted(
        f.name.removesuffix(".yaml") for f in resources.files(__package__).iterdir() if f.name.endswith(".yaml")
    )


def load_recipe(name_or_file: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A packaged recipe by name, or one from a YAML file, with changes applied.

    Args:
        name_or_file: such as `ucf101`, or a path ending in `.yaml`.
        changes: `field=value` for the recipe, `stage.field=value` for one stage, `*.field=value` for all of them;
            values are YAML.

    Raises:
        RecipeError: naming the field that is wrong and what was expected.
    """
    values = _read(name_or_file)
    for change in changes:
        _apply(values, change)
    return parse_recipe(values, str(name_or_file))


def parse_recipe(values: Any, source: str) -> Recipe:
    """The recipe in plain values, such as a checkpoint or a run folder holds.

    Raises:
        RecipeError: naming `source` and the first field that is wrong.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_mistake(error.errors()[0], values)}") from None


def _mistake(error: ErrorDetails, values: Any) -> str:
    """Where a mistake is, a stage called by its name if it has one, and what was expected and found."""
    place, known, stage = error["loc"], list(Recipe.model_fields), ""
    if len(place) > 1 and place[0] == "stages" and isinstance(found := values["stages"][place[1]], dict):
        known = [*Stage.model_fields, *Phase.model_fields]
        if "name" in found and place[2:] != ("name",):
            stage, place = f"stage {found['name']}", place[2:]
    said = error["msg"].removeprefix("Value error, ").replace("valid tuple", "list").replace("Tuple", "List")
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(place[-1]), known, 1)
        said = "no such field" + (f"; is {near[0]} meant?" if near else "")
    elif error["type"] not in ("missing", "value_error"):  # else what was found is all there is
        said += f" (found {repr(error['input'])[:80]})"
    return ": ".join(part for part in (stage, ".".join(map(str, place)), said) if part)


def _read(name_or_file: str | Path) -> dict[str, Any]:
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_file) not in packaged_recipes():
            raise RecipeError(
                f"no recipe {str(name_or_file)!r}: give one of {', '.join(packaged_recipes())}, or a .yaml file"
            )
        text = (resources.files(__package__) / f"{name_or_file}.yaml").read_text("utf-8")
    else:
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RecipeError(f"recipe {path} is no text in UTF-8: give a .yaml file") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not isinstance(values.get("stages"), list):
        raise RecipeError(f"{path} is no recipe: it needs a `name` and a list of `stages`")
    return values


def _apply(values: dict[str, Any], change: str) -> None:
    key, sign, text = change.partition("=")
    if not sign:
        raise RecipeError(f"--set {change}: write field=value or stage.field=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {change}: the value is no valid YAML: {' '.join(str(error).split())}") from None
    stage_name, dot, field = key.strip().rpartition(".")
    if not dot:
        values[field] = value
        return
    stages = [s for s in values["stages"] if isinstance(s, dict) and stage_name in ("*", s.get("name"))]
    if not stages:
        names = ", ".join(str(s.get("name")) for s in values["stages"] if isinstance(s, dict))
        raise RecipeError(f"--set {change}: no stage {stage_name!r}; the stages are {names}")
    for stage in stages:
        stage[field] = value
