"""Runs: the folder in which the stages of a recipe are trained."""

from __future__ import annotations

import csv
import hashlib
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from stresnet.atomic import remove_leftovers, replacing
from stresnet.data.store import Store
from stresnet.errors import CheckpointError, RecipeError
from stresnet.recipes import Recipe, Stage, differing_fields, parse_recipe


@dataclass(frozen=True)
class Run:
    """A training run: recipe.yaml, data.yaml, a folder per stage, and model.safetensors of the last trained stage.

    Attributes:
        folder: the folder of the run.
        recipe: the recipe it trains.
    """

    folder: Path
    recipe: Recipe = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Return the run in a folder.

        Raises:
            RecipeError: if the folder does not hold a run.
        """
        folder = Path(folder)
        file = folder / "recipe.yaml"
        if not file.is_file():
            model = folder / "model.safetensors"
            advice = f"give {model}" if model.is_file() else "`stresnet train` creates one"
            raise RecipeError(f"{folder} is not a training run: it has no recipe.yaml; {advice}")
        return cls(folder, parse_recipe(_read_yaml(file), str(file)))

    def model_file(self, stage: str) -> Path:
        """Return the path of a stage's model, which exists once the stage is trained."""
        return self.folder / stage / "model.safetensors"

    def resume_file(self, stage: str) -> Path:
        """Return the path of the checkpoint from which an interrupted stage resumes: that of its last whole epoch."""
        return self.folder / stage / "last.ckpt"

    def best_file(self, stage: str) -> Path:
        """Return the path of the best weights so far of a stage that keeps them."""
        return self.folder / stage / "best.ckpt"

    def finished(self) -> list[Stage]:
        """Return the stages that are trained, in order."""
        return [s for s in self.recipe.stages if self.model_file(s.name).is_file()]

    def unfinished(self) -> list[Stage]:
        """Return the stages that are not trained yet, in order."""
        return [s for s in self.recipe.stages if not self.model_file(s.name).is_file()]

    def finish(self, stage: str) -> None:
        """Remove what a trained stage no longer needs, and refresh the model of the run.

        Raises:
            CheckpointError: if the model of the run cannot be written.
        """
        self.resume_file(stage).unlink(missing_ok=True)
        self.best_file(stage).unlink(missing_ok=True)
        self.refresh_model()

    def refresh_model(self) -> None:
        """Make `model.safetensors` in the run's folder a copy of the last trained stage's model, if there is one.

        Raises:
            CheckpointError: if it cannot be written.
        """
        for stage in self.finished()[-1:]:
            target = self.folder / "model.safetensors"
            try:
                with replacing(target) as temporary:
                    shutil.copyfile(self.model_file(stage.name), temporary)
            except OSError as error:
                raise CheckpointError(f"{target} cannot be written ({error.strerror or error})") from error

    def curves(self, stage: str) -> dict[str, list[float]]:
        """Return the learning curves of a stage: lists of equal length by name, `epoch` among them.

        An epoch that several attempts logged has the values of the last one.
        """
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


def validation_note(run: Run) -> str:
    """Return a sentence if a stage is ahead of the last one on the validation videos; an empty text if none is.

    It takes the accuracy at the weights that each stage keeps, of one clip from the middle of each video.
    """
    found = {}
    for stage in run.finished():
        if values := [v for v in run.curves(stage.name).get("val_accuracy", []) if not math.isnan(v)]:
            found[stage.title or stage.name] = max(values) if stage.optimisation.keep == "best" else values[-1]
    if not found:
        return ""
    best, last = max(found, key=found.__getitem__), list(found)[-1]
    if found[best] <= found[last]:
        return ""
    return (
        f"on the validation videos {best} is right on {found[best]:.1%}, {last}, whose model the run is, on "
        f"{found[last]:.1%}: compare them with stresnet evaluate"
    )


@contextmanager
def prepared_folder(run: Run, store: Store, test_groups: tuple[str, ...], *, resume: bool) -> Iterator[None]:
    """Hold a run's folder for this process alone, with the recipe and the data's fingerprint in it.

    The system releases the folder however the process ends. What killed processes left in it is removed.

    Args:
        run: the run.
        store: the store it trains on.
        test_groups: groups held out of training.
        resume: whether the folder may hold a started run.

    Raises:
        RecipeError: if the folder holds something else, a run of another recipe or data, or a started run while
            `resume` is off, if another process is training in it, or if it cannot be written.
    """
    if (run.folder / "store.json").exists() or (run.folder.exists() and not run.folder.is_dir()):
        what = "a prepared store" if run.folder.is_dir() else "a file"
        raise RecipeError(f"{run.folder} is {what}: name another folder for the run")
    if getattr(rank_zero_only, "rank", 0) > 0:  # Lightning runs the same command once per device
        yield
        return
    lock = FileLock(run.folder / ".lock", timeout=0)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RecipeError(
            f"another process is training in {run.folder}: wait for it or stop it, or choose another folder"
        ) from None
    except OSError as error:
        raise RecipeError(f"{run.folder} cannot be written ({error.strerror or error})") from error
    try:
        _check_and_describe(run, _fingerprint(store, test_groups), resume=resume)
        yield
    finally:
        lock.release()


def _check_and_describe(run: Run, data: dict[str, Any], *, resume: bool) -> None:
    """Write the recipe and the data's fingerprint, or check that they match those in the folder, and tidy it up."""
    if _is_started(run.folder):
        if not resume:
            raise RecipeError(
                f"{run.folder} already contains a run: add --resume to continue it, or choose another folder"
            )
        _require_same(run, data)
    for file, values in ((run.folder / "recipe.yaml", run.recipe.to_dict()), (_data_file(run), data)):
        with replacing(file) as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")
    for folder in (run.folder, *(run.folder / stage.name for stage in run.recipe.stages)):
        remove_leftovers(folder)
    for stage in run.finished():
        run.finish(stage.name)


def _data_file(run: Run) -> Path:
    return run.folder / "data.yaml"


def _is_started(folder: Path) -> bool:
    """Return whether the folder holds a run in which a stage has been trained, at least in part."""
    if not (folder / "recipe.yaml").is_file():
        return False
    return any((folder / stage.name).exists() for stage in Run.open(folder).recipe.stages)


def _require_same(run: Run, data: dict[str, Any]) -> None:
    """Raise unless the run in the folder has the same recipe, perhaps without its last stages, and data."""
    there = Run.open(run.folder).recipe
    fields = differing_fields(there, run.recipe.replace(stages=run.recipe.stages[: len(there.stages)]))
    if fields:
        shown = ", ".join([*fields[:3], *(["…"] if len(fields) > 3 else [])])
        raise RecipeError(
            f"{run.folder} was started with another recipe ({shown} differ): "
            "repeat the --recipe and --set it was started with, or name another folder"
        )
    found = _read_yaml(_data_file(run)) if _data_file(run).is_file() else data
    differing = [name for name in data if not isinstance(found, dict) or found.get(name) != data[name]]
    if differing:
        raise RecipeError(
            f"{run.folder} was started on other data ({', '.join(differing)} differ): "
            "use the same store, --test-group and --val-fraction as before, or name another folder"
        )


def _fingerprint(store: Store, test_groups: tuple[str, ...]) -> dict[str, Any]:
    """Return values that identify a run's data. If they changed, stages could train on videos held out from others."""
    entries = store.select("train")
    videos = list(zip(entries.column("id").to_pylist(), entries.column("label").to_pylist(), strict=True))
    return {
        "classes": list(store.classes),
        "flow": store.spec.flow.to_dict(),
        "jpeg_quality": store.spec.jpeg_quality,
        "test_groups": sorted(test_groups),
        "training_videos": hashlib.blake2b(repr(videos).encode(errors="surrogateescape"), digest_size=8).hexdigest(),
    }


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is damaged ({' '.join(str(error).split())}): name another folder") from None
