"""A run: the folder in which a recipe's stages are trained, left off and taken up again."""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

import stresnet
from stresnet.atomic import replacing
from stresnet.data.clips import CenteredClips, Sample, TrainingClips
from stresnet.data.store import Store, StoreSpec
from stresnet.data.workers import usable_cores
from stresnet.errors import CheckpointError, RecipeError
from stresnet.model import Checkpoint, Preprocessing, STResNet, load_checkpoint, save_checkpoint
from stresnet.model.checkpoint import transfer_weights, video_hash
from stresnet.model.profile import network_name
from stresnet.recipes import IMAGENET, Recipe, Stage, differing_fields, parse_recipe
from stresnet.training.stage import StageTraining, VideoStream
from stresnet.training.trainer import check_devices, make_trainer, one_thread_each, plain_errors, quiet_lightning
from stresnet.weights.image_weights import init_from_images, read_image_weights


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
            advice = (
                f"give {model}" if (model := folder / "model.safetensors").is_file() else "`stresnet train` makes one"
            )
            raise RecipeError(f"{folder} is no training run: it has no recipe.yaml; {advice}")
        return cls(folder, parse_recipe(_read_yaml(file), str(file)))

    def model_file(self, stage: str) -> Path:
        """Where a finished stage's model lies."""
        return self.folder / stage / "model.safetensors"

    @property
    def data_file(self) -> Path:
        """Where it is written what the run learns from."""
        return self.folder / "data.yaml"

    def unfinished_file(self, stage: str) -> Path:
        """Where a stage under training keeps its last whole epoch."""
        return self.folder / stage / "last.ckpt"

    def begun(self) -> bool:
        """Whether the folder holds a run in which anything has been trained."""
        return (self.folder / "recipe.yaml").is_file() and any(
            (self.folder / stage.name).exists() for stage in Run.open(self.folder).recipe.stages
        )

    def finished(self) -> list[Stage]:
        """The stages that have a model, in order."""
        return [s for s in self.recipe.stages if self.model_file(s.name).is_file()]

    def unfinished(self) -> list[Stage]:
        """The stages that have none yet."""
        return [s for s in self.recipe.stages if not self.model_file(s.name).is_file()]

    def curves(self, stage: str) -> dict[str, list[float]]:
        """The learning curves of a stage: lists of equal length, `epoch` among them; later attempts win."""
        rows: dict[int, dict[str, float]] = {}
        logs = (self.folder / stage / "logs").glob("attempt_*/metrics.csv")
        for file in sorted(logs, key=lambda file: int(file.parent.name.removeprefix("attempt_"))):
            with file.open(newline="", encoding="utf-8") as lines:
                for row in csv.DictReader(lines):
                    values = {k: float(v) for k, v in row.items() if v}
                    if "loss" in values or "val_accuracy" in values:
                        rows.setdefault(int(values["epoch"]), {}).update(values)
        names = sorted({name for row in rows.values() for name in row})
        return {name: [rows[e].get(name, float("nan")) for e in sorted(rows)] for name in names}


def train(
    store: Store,
    folder: str | Path,
    recipe: Recipe,
    *,
    init: Mapping[str, Path] | None = None,
    only: str | None = None,
    resume: bool = False,
    workers: int | None = None,
    devices: int = 1,
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
        workers: loader processes for each device; by default the cores are shared out, at most eight.
        devices: GPUs to share every batch between; without any, processes on the CPU.
        test_groups: groups held out of training; noted in the checkpoints, for evaluation to hold out the same.
        on_stage: told the name of every stage before it is trained.

    Raises:
        RecipeError: if the folder holds another run, or a stage lacks what it starts from.
        CheckpointError: if starting weights do not fit.
    """
    if test_groups:
        store = store.with_test_groups(test_groups)
    _check_videos(store, recipe)
    check_devices(recipe, devices)
    init = dict(init or {})
    stages = [recipe.stage(only)] if only else list(recipe.stages)
    run = Run(Path(folder), recipe)
    _check_starts(run, stages, init)
    _try_starts(run, stages, init, store)
    _claim(run, _data_story(store, test_groups), resume)
    for stage in stages:
        if not run.model_file(stage.name).is_file():
            if on_stage:
                on_stage(stage.name)
            _train_stage(run, stage, store, init, workers, devices, test_groups)
    return run


def _check_videos(store: Store, recipe: Recipe) -> None:
    entries = store.select("train")
    if not entries:
        raise RecipeError(f"{store.root} has no training videos: give some a `train` split")
    if len(store.classes) < 2:
        raise RecipeError(f"{store.root} has one class, {store.classes[0]}: to tell actions apart takes at least two")
    shortest = min((*entries, *store.select("val")), key=lambda entry: entry.frames)
    stack = max(stage.network.flow_stack for stage in recipe.stages)
    if shortest.frames < stack + 1:
        raise RecipeError(
            f"{shortest.record.id} has {shortest.frames} frames, but a stack of {stack} flows needs {stack + 1}: "
            "leave such videos out, or lower network.flow_stack"
        )


def _claim(run: Run, data: dict[str, Any], resume: bool) -> None:
    """Make a folder the run's, or check that the one in it is of this recipe and data."""
    later_process = getattr(rank_zero_only, "rank", 0) > 0  # Lightning starts the same command for every device
    if (run.folder / "store.json").exists() or (run.folder.exists() and not run.folder.is_dir()):
        what = "a prepared store" if run.folder.is_dir() else "a file"
        raise RecipeError(f"{run.folder} is {what}: name another folder for the run")
    if run.begun() and not later_process:
        if not resume:
            raise RecipeError(
                f"{run.folder} holds a run already: pass --resume to go on with it, or name another folder"
            )
        _require_same(run, data)
    for file, values in ((run.folder / "recipe.yaml", run.recipe.to_dict()), (run.data_file, data)):
        run.folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")


def _require_same(run: Run, data: dict[str, Any]) -> None:
    found = Run.open(run.folder).recipe
    if found != run.recipe:
        fields = differing_fields(found, run.recipe)
        shown = ", ".join([*fields[:3], *(["…"] if len(fields) > 3 else [])])
        raise RecipeError(
            f"{run.folder} was started with another recipe ({shown} differ): "
            "repeat the --recipe and --set it was started with, or name another folder"
        )
    there = _read_yaml(run.data_file) if run.data_file.is_file() else data
    differing = [name for name in data if not isinstance(there, dict) or there.get(name) != data[name]]
    if differing:
        raise RecipeError(
            f"{run.folder} was started on other data ({', '.join(differing)} differ): "
            "repeat the store and --test-group it was started with, or name another folder"
        )


def _data_story(store: Store, test_groups: tuple[str, ...]) -> dict[str, Any]:
    """What all stages of a run must have in common: else a later one learns from what an earlier one is tested on."""
    return {
        "classes": list(store.classes),
        "flow": store.spec.flow.to_dict(),
        "jpeg_quality": store.spec.jpeg_quality,
        "test_groups": sorted(test_groups),
        "training_videos": hashlib.blake2b(
            repr(sorted((e.record.id, e.record.label) for e in store.select("train"))).encode(errors="surrogateescape"),
            digest_size=8,
        ).hexdigest(),
    }


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is damaged ({' '.join(str(error).split())}): name another folder") from None


def _check_starts(run: Run, stages: list[Stage], init: Mapping[str, Path]) -> None:
    unknown = [name for name in init if name != IMAGENET and name not in {s.name for s in run.recipe.stages}]
    if unknown:
        raise RecipeError(f"--init {unknown[0]}=…: no such stage in recipe {run.recipe.name}")
    idle = [name for name in init if name not in {s.name for s in stages} and name != IMAGENET]
    if IMAGENET in init and not any(IMAGENET in s.starts_from and s.name not in init for s in stages):
        idle.append(IMAGENET)
    if idle:
        what = "image weights" if idle[0] == IMAGENET else f"a start of stage {idle[0]}"
        raise RecipeError(
            f"--init gives {what}, but no stage to be trained takes it: leave it out, or say which does with "
            "--set STAGE.starts_from=[imagenet] or --init STAGE=FILE"
        )
    for file in init.values():
        if not file.is_file():
            raise CheckpointError(f"no weights at {file}: give --init an existing file")
    trained = {s.name for s in run.finished()}
    for stage in stages:
        has_start = stage.name in init or stage.name in trained or run.unfinished_file(stage.name).is_file()
        for source in () if has_start else stage.starts_from:
            if source == IMAGENET and IMAGENET not in init:
                raise RecipeError(
                    f"stage {stage.name} starts from image weights: give them with --init FILE (a state dict with "
                    f"torchvision's names), or train from scratch with --set {stage.name}.starts_from=[]"
                )
            if source != IMAGENET and source not in trained:
                raise RecipeError(f"stage {stage.name} starts from {source}, which is not trained: train it first")
        trained.add(stage.name)


def _try_starts(run: Run, stages: list[Stage], init: Mapping[str, Path], store: Store) -> None:
    """Start every stage from the files given, if only to see that they fit: found out later, it would cost days."""
    for stage in stages:
        if run.model_file(stage.name).is_file() or run.unfinished_file(stage.name).is_file():
            continue
        if stage.name in init or IMAGENET in stage.starts_from:
            model = STResNet(stage.network.with_classes(len(store.classes)))
            _start(model, Preprocessing(), run, stage, init, store)


def _train_stage(
    run: Run,
    stage: Stage,
    store: Store,
    init: Mapping[str, Path],
    workers: int | None,
    devices: int,
    test_groups: tuple[str, ...],
) -> None:
    recipe, videos = run.recipe, len(store.select("train"))
    L.seed_everything(recipe.seed, workers=False, verbose=False)
    model = STResNet(stage.network.with_classes(len(store.classes)))
    last = run.unfinished_file(stage.name)
    preprocessing = Preprocessing.of_layout(
        stage.network.layout, crop_px=stage.clips.crop_px, mirror=stage.clips.mirror
    )
    if not last.is_file():  # which would say both
        preprocessing = _start(model, preprocessing, run, stage, init, store)
    workers = min(8, max(1, (usable_cores() - 1) // devices)) if workers is None else workers
    module = StageTraining(model, recipe, stage, preprocessing, videos)
    with quiet_lightning():
        trainer = make_trainer(run.folder / stage.name, stage, module.epochs, devices)
        order = VideoStream(
            videos, stage.optimisation.batch_videos, recipe.seed, trainer.global_rank, trainer.world_size
        )
        module.order = order
        batch = stage.optimisation.sub_batch_videos
        clips = TrainingClips(store, store.select("train"), stage.clips, stage.network, recipe.seed)
        training = _loader(clips, batch, workers, order)
        watched = store.select("val")
        validation = (
            _loader(CenteredClips(store, watched, stage.clips, stage.network), batch, workers) if watched else None
        )
        with plain_errors(trainer), one_thread_each():
            trainer.fit(module, training, validation, ckpt_path=last if last.is_file() else None)
    if trainer.is_global_zero:
        _save(run, module, store, test_groups)
        last.unlink(missing_ok=True)
    trainer.strategy.barrier()  # the next stage starts from the file just written


def _save(run: Run, module: StageTraining, store: Store, test_groups: tuple[str, ...]) -> None:
    stage = module.stage
    checkpoint = Checkpoint(
        model=module.model,
        classes=store.classes,
        preprocessing=module.preprocessing,
        store_spec=store.spec.to_dict(),
        stage=stage.name,
        recipe=run.recipe.to_dict(),
        training={
            "store": store.name,
            "videos": len(store.select("train")),
            "steps": module.total_steps,
            "minutes": round(module.seconds / 60, 2),
        },
        trained_on=tuple(sorted(video_hash(e.record.id) for e in store.select("train"))),
        test_groups=test_groups,
        version=stresnet.__version__,
    )
    save_checkpoint(run.model_file(stage.name), checkpoint)
    with replacing(run.folder / "model.safetensors") as temporary:
        shutil.copyfile(run.model_file(run.finished()[-1].name), temporary)


def _start(
    model: STResNet,
    preprocessing: Preprocessing,
    run: Run,
    stage: Stage,
    init: Mapping[str, Path],
    store: Store,
) -> Preprocessing:
    """Fill a network with what its stage starts from, and take over how that saw pixels; nothing leaves it random."""
    if stage.name in init:
        start = _foreign_start(init[stage.name], store)
        try:
            transfer_weights(model, [start.model.state_dict()], new_classifier=start.classes != store.classes)
        except CheckpointError as error:
            theirs, own = network_name(start.model.config), network_name(model.config)
            raise CheckpointError(
                f"{init[stage.name]}, {theirs}, cannot start stage {stage.name}, {own}: {error}; give another file, or "
                "change the recipe with --set"
            ) from None
        return preprocessing.with_levels_of(rgb=start.preprocessing, flow=start.preprocessing)
    if IMAGENET in stage.starts_from:
        image = read_image_weights(init[IMAGENET])
        init_from_images(model, image)
        return preprocessing.with_levels_of(rgb=image.preprocessing, flow=image.preprocessing)
    if not stage.starts_from:
        return preprocessing
    sources = [load_checkpoint(run.model_file(name)) for name in stage.starts_from]
    transfer_weights(model, [source.model.state_dict() for source in sources])
    # as with weights, the last source that has a stream speaks for it
    of = {stream: source.preprocessing for source in sources for stream in source.model.config.streams}
    return preprocessing.with_levels_of(rgb=of.get("appearance", preprocessing), flow=of.get("motion", preprocessing))


def _foreign_start(file: Path, store: Store) -> Checkpoint:
    """A model from elsewhere to start a stage from, if it has seen the same flow and none of the held-out videos."""
    start = load_checkpoint(file)
    if start.store_spec:  # a start from images has seen no flow
        store.spec.require_same(StoreSpec.from_dict(start.store_spec), f"the store and {file}")
    held_out = [e.record.id for split in ("val", "test") for e in store.select(split)]
    seen = [video_id for video_id in held_out if video_hash(video_id) in set(start.trained_on)]
    if seen:
        raise RecipeError(
            f"{file} was trained on {len(seen)} of the videos held out here, first {seen[0]}: "
            "start from a model of the same split"
        )
    return start


def _loader(clips: Any, batch: int, workers: int, order: VideoStream | None = None) -> DataLoader[Sample]:
    return DataLoader(
        clips,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
