"""Starting weights: where the network of each stage starts, and whether those weights fit it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.copies import videos_among
from stresnet.data.store import Store, StoreSpec
from stresnet.errors import CheckpointError, RecipeError
from stresnet.model import Checkpoint, Preprocessing, STResNet, load_checkpoint
from stresnet.model.checkpoint import transfer_weights
from stresnet.model.profile import network_name
from stresnet.recipes import IMAGENET, Stage
from stresnet.training.run import Run
from stresnet.weights.image_weights import init_from_images, read_image_weights


@dataclass(frozen=True)
class StartingWeights:
    """The starting weights of a run's stages.

    Attributes:
        run: the run; its trained stages are what later ones start from.
        store: the store it trains on.
        files: weight files given by the user, by the stage that starts from them, or under `imagenet`.
    """

    run: Run
    store: Store
    files: Mapping[str, Path]

    def check(self, stages: Sequence[Stage]) -> None:
        """Raise unless every stage to be trained has starting weights, and those in files fit its network.

        Raises:
            RecipeError: if a stage lacks weights to start from, or a file is given that no stage starts from.
            CheckpointError: if a file does not exist, cannot be read or does not fit.
        """
        self._check_files(stages)
        self._check_sources(stages)
        for stage in stages:  # load the files now: finding a mismatch after the earlier stages would cost days
            if not self._is_started(stage) and (stage.name in self.files or IMAGENET in stage.starts_from):
                self.load(stage)

    def new_network(self, stage: Stage) -> tuple[STResNet, Preprocessing]:
        """Return the network of a stage with random weights, and the default preprocessing of its layout."""
        model = STResNet(stage.network.with_classes(len(self.store.classes)))
        clips = stage.clips
        return model, Preprocessing.of_layout(stage.network.layout, crop_px=clips.crop_px, mirror=clips.mirror)

    def load(self, stage: Stage) -> tuple[STResNet, Preprocessing]:
        """Return the network of a stage with its starting weights, and the preprocessing they were trained with.

        Raises:
            CheckpointError: if the weights cannot be read or do not fit.
            RecipeError: if they were trained on videos that are held out here.
        """
        model, preprocessing = self.new_network(stage)
        if stage.name in self.files:
            return model, self._load_file(model, preprocessing, stage)
        if IMAGENET in stage.starts_from:
            image = read_image_weights(self.files[IMAGENET])
            init_from_images(model, image)
            return model, preprocessing.with_levels_of(rgb=image.preprocessing, flow=image.preprocessing)
        sources = [load_checkpoint(self.run.model_file(name)) for name in stage.starts_from]
        if sources:
            transfer_weights(model, [source.model.state_dict() for source in sources])
        # As for weights, the last source that has a stream counts.
        by_stream = {stream: source.preprocessing for source in sources for stream in source.model.config.streams}
        return model, preprocessing.with_levels_of(
            rgb=by_stream.get("appearance", preprocessing), flow=by_stream.get("motion", preprocessing)
        )

    def _load_file(self, model: STResNet, preprocessing: Preprocessing, stage: Stage) -> Preprocessing:
        file = self.files[stage.name]
        start = load_checkpoint(file)
        self._check_data(start, file)
        try:
            transfer_weights(model, [start.model.state_dict()], new_classifier=start.classes != self.store.classes)
        except CheckpointError as error:
            found, needed = network_name(start.model.config), network_name(model.config)
            raise CheckpointError(
                f"{file}, {found}, cannot start stage {stage.name}, {needed}: {error}; give another file, or change "
                "the recipe with --set"
            ) from None
        return preprocessing.with_levels_of(rgb=start.preprocessing, flow=start.preprocessing)

    def _check_data(self, start: Checkpoint, file: Path) -> None:
        """Raise unless a model was trained on the same kind of flow and on none of the videos held out here."""
        if start.store_spec:  # empty for image weights, which have not seen flow
            self.store.spec.require_same(StoreSpec.from_dict(start.store_spec), f"the store and {file}")
        held_out = self.store.select().where("split", ("val", "test"))
        if seen := videos_among(start.trained_on, held_out):
            raise RecipeError(
                f"{file} was trained on {len(seen)} of the videos held out here, such as {seen[0]}: "
                "start from a model of the same split"
            )

    def _check_files(self, stages: Sequence[Stage]) -> None:
        """Raise unless each file exists and some stage to be trained starts from it."""
        recipe = self.run.recipe
        for name, file in self.files.items():
            if name != IMAGENET and name not in {s.name for s in recipe.stages}:
                raise RecipeError(f"--init {name}=…: recipe {recipe.name} has no such stage")
            if name == IMAGENET:
                used = any(IMAGENET in s.starts_from and s.name not in self.files for s in stages)
            else:
                used = name in {s.name for s in stages}
            if not used:
                what = "image weights" if name == IMAGENET else f"weights for stage {name}"
                raise RecipeError(
                    f"--init gives {what}, but no stage to be trained starts from them: leave the option out, or use "
                    "--set STAGE.starts_from=[imagenet] or --init STAGE=FILE"
                )
            if not file.is_file():
                raise CheckpointError(f"{file} does not exist: give --init an existing file")

    def _check_sources(self, stages: Sequence[Stage]) -> None:
        """Raise unless the sources of each stage are given, already trained, or trained before it."""
        trained = {s.name for s in self.run.finished()}
        for stage in stages:
            if stage.name not in self.files and not self._is_started(stage):
                for source in stage.starts_from:
                    self._check_source(stage, source, trained)
            trained.add(stage.name)

    def _check_source(self, stage: Stage, source: str, trained: set[str]) -> None:
        if source == IMAGENET and IMAGENET not in self.files:
            raise RecipeError(
                f"stage {stage.name} starts from image weights: give them with --init FILE (a state dict with "
                f"torchvision's names), or train from scratch with --set {stage.name}.starts_from=[]"
            )
        if source != IMAGENET and source not in trained:
            raise RecipeError(f"stage {stage.name} starts from {source}, which is not trained: train it first")

    def _is_started(self, stage: Stage) -> bool:
        """Return whether a stage has been trained, at least in part, so that it needs no starting weights."""
        return self.run.model_file(stage.name).is_file() or self.run.resume_file(stage.name).is_file()
