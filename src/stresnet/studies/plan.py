"""What a study trains: the distinct stages of all cells, folds and seeds, each once."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from stresnet.data.folds import split_groups
from stresnet.data.sampling import Protocol
from stresnet.data.store import Entries, Store
from stresnet.errors import CheckpointError, RecipeError
from stresnet.recipes import IMAGENET, LATE_FUSION, Recipe, Stage
from stresnet.studies.schema import Study
from stresnet.training import Run
from stresnet.training.starts import StartingWeights
from stresnet.weights.digest import sha256_of


@dataclass(frozen=True)
class Fold:
    """Videos that are held out together.

    Attributes:
        name: its name in folders and tables.
        test_groups: the groups held out; empty for the store's own test split.
    """

    name: str
    test_groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of the results: one stage of a recipe, or the late fusion of its single streams.

    Attributes:
        name: its unique name: that of a cell, of a single-stream stage, or `late fusion`.
        title: its name on the page.
        reports: the stage it reports, or `late fusion`.
        recipe: the recipe.
        protocol: the protocol of the test.
        changes: what distinguishes it from the study's recipe, in words.
    """

    name: str
    title: str
    reports: str
    recipe: Recipe = field(repr=False)
    protocol: Protocol
    changes: tuple[str, ...] = ()

    @property
    def stages(self) -> list[Stage]:
        """The stages whose scores it averages."""
        return single_streams(self.recipe) if self.reports == LATE_FUSION else [self.recipe.stage(self.reports)]


@dataclass(frozen=True, eq=False)
class Training:
    """One stage, trained from given weights on one fold with one seed.

    Attributes:
        stage: the stage, without the fields that only a report shows.
        sources: the trainings whose weights it starts from.
        fold: the videos held out.
        seed: the seed.
        init: the file it starts from, as `train` takes it; empty if there is none.
        digest: identifies everything that the trained weights depend on.
    """

    stage: Stage
    sources: tuple[Training, ...]
    fold: Fold
    seed: int
    init: Mapping[str, Path]
    digest: str

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return f"{self.stage.name}-{self.fold.name}-seed{self.seed}-{self.digest}"

    @cached_property
    def needed(self) -> tuple[Training, ...]:
        """This training and all that it depends on, sources first, each once."""
        return (*_distinct(self.sources), self)

    @property
    def recipe(self) -> Recipe:
        """The recipe of this stage and those it depends on."""
        return Recipe(
            name=f"{self.stage.name}-{self.digest}", seed=self.seed, stages=tuple(t.stage for t in self.needed)
        )


@dataclass(frozen=True, eq=False)
class Block:
    """All rows on one fold with one seed.

    Attributes:
        fold: the videos held out.
        seed: the seed.
        parts: by the name of each row, the trainings whose scores it averages.
        protocols: by the name of each row, the protocol under which these are scored.
    """

    fold: Fold
    seed: int
    parts: Mapping[str, tuple[Training, ...]]
    protocols: Mapping[str, Protocol]

    @cached_property
    def trainings(self) -> tuple[Training, ...]:
        """The distinct trainings, each after those it depends on."""
        return _distinct(t for part in self.parts.values() for t in part)

    def protocols_of(self, training: Training) -> list[Protocol]:
        """Return the protocols under which a training is scored; none if no row reports it."""
        names = [name for name, part in self.parts.items() if training.digest in {t.digest for t in part}]
        return list(dict.fromkeys(self.protocols[name] for name in names))

    def needed_by(self, row: str) -> tuple[Training, ...]:
        """Return the distinct trainings that a row needs."""
        return _distinct(self.parts[row])

    def rows_with(self, training: Training) -> list[str]:
        """Return the names of the rows that need a training."""
        return [name for name in self.parts if training.digest in {t.digest for t in self.needed_by(name)}]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a study trains and reports.

    Attributes:
        study: the study.
        store: the videos; in cross-validation without the store's test split.
        rows: the rows of the results, those of single streams first.
        blocks: all folds with the first seed, then with the next.
    """

    study: Study
    store: Store
    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]

    def test_videos(self, fold: Fold) -> Entries:
        """Return the usable videos that are held out in a fold."""
        store = self.store.with_test_groups(fold.test_groups) if fold.test_groups else self.store
        return store.select("test")


def plan_study(
    study: Study, recipes: Mapping[str, Recipe], store: Store, init: Mapping[str, Path] | None = None
) -> Plan:
    """Return what a study trains, checked as far as possible without training.

    Args:
        study: the study.
        recipes: the recipe of each cell by its name, and that of the study under "".
        store: prepared videos.
        init: weight files by the stage that starts from them, or under `imagenet`.

    Raises:
        RecipeError: if rows have the same name, the reference is no row, a cell reports no such stage, a stage lacks
            what it starts from, or a file is not used.
        StoreError: if the store lacks groups or test videos.
        CheckpointError: if starting weights do not exist or do not fit.
    """
    init = init or {}
    store, folds = _make_folds(study, store)
    rows = tuple(_rows(study, recipes))
    names = [row.name for row in rows]
    for what, found in (("called", names), ("titled", [row.title.casefold() for row in rows])):
        twice, times = Counter(found).most_common(1)[0]
        if times > 1:
            raise RecipeError(f"two rows of the study are {what} {twice!r}: rename a cell; single streams are rows")
    if study.reference not in names:
        raise RecipeError(f"reference: {study.reference!r} is no row of the study; its rows are {', '.join(names)}")
    _check_files(init, rows)
    trainings = _Trainings(store, init)
    protocols = {row.name: row.protocol for row in rows}
    blocks = tuple(
        Block(fold, seed, {row.name: trainings.of_row(row, seed, fold) for row in rows}, protocols)
        for seed in study.seeds
        for fold in folds
    )
    _check_starts(blocks[0], store)
    return Plan(study, store, rows, blocks)


def single_streams(recipe: Recipe) -> list[Stage]:
    """Return the stages of a recipe that late fusion averages: the last with each stream alone, if both exist."""
    by_stream = {s.network.streams[0]: s for s in recipe.stages if len(s.network.streams) == 1}
    return list(by_stream.values()) if len(by_stream) == 2 else []


def _rows(study: Study, recipes: Mapping[str, Recipe]) -> Iterator[Row]:
    base = recipes[""]
    protocol = study.protocol or base.protocol
    singles = single_streams(base)
    for stage in singles:
        yield Row(stage.name, stage.title or stage.name, stage.name, base, protocol)
    if singles:
        yield Row(LATE_FUSION, LATE_FUSION, LATE_FUSION, base, protocol)
    for cell in study.cells:
        recipe = recipes[cell.name]
        reports = cell.row or recipe.stages[-1].name
        if reports == LATE_FUSION and not single_streams(recipe):
            raise RecipeError(f"cell {cell.name}: its recipe has no two single-stream stages to average")
        if reports != LATE_FUSION:
            recipe.stage(reports)
        own = [f"recipe {cell.recipe}"] if cell.recipe else []
        shown = [f"row {cell.row}"] if cell.row else []
        changes = (*own, *cell.changes, *shown)
        yield Row(cell.name, cell.title or cell.name, reports, recipe, study.protocol or recipe.protocol, changes)


def _make_folds(study: Study, store: Store) -> tuple[Store, tuple[Fold, ...]]:
    if study.folds is None:
        if not store.select("test"):
            raise RecipeError(f"{store.root} has no test videos: set `folds` to cross-validate by group")
        return store, (Fold("test"),)
    store = replace(store, entries=store.entries.where("split", ["train", "val"]))
    videos = store.select()
    labels, groups = (videos.column(name).to_pylist() for name in ("label", "group"))
    found = set(groups)
    if "" in found or len(found) < study.folds:
        count = len(found - {""})
        lack = "videos without a group" if "" in found else f"only {count} groups outside its test split"
        raise RecipeError(
            f"{store.root} has {lack}: {study.folds} folds need every video's group (the `group` column of the CSV "
            f"that prepare reads), and at least {study.folds} of them"
        )
    split = split_groups(list(zip(labels, groups, strict=True)), study.folds)
    return store, tuple(Fold(f"fold{k}", names) for k, names in enumerate(split))


class _Trainings:
    """Makes the trainings of rows."""

    def __init__(self, store: Store, init: Mapping[str, Path]) -> None:
        self._init = init
        self._files = {file: sha256_of(file) for file in init.values()}
        digest = hashlib.blake2b(repr((store.spec.to_dict(), store.classes)).encode(), digest_size=16)
        for column in ("id", "label", "split", "group", "frames", "bytes"):
            digest.update(repr(store.select().column(column).to_pylist()).encode("utf-8", "surrogateescape"))
        self._store = digest.hexdigest()

    def of_row(self, row: Row, seed: int, fold: Fold) -> tuple[Training, ...]:
        """Return the trainings whose scores a row averages."""
        made: dict[str, Training] = {}
        for stage in row.recipe.stages:
            sources = tuple(made[name] for name in stage.starts_from if name != IMAGENET)
            made[stage.name] = self._training(stage, sources, seed, fold)
        return tuple(made[stage.name] for stage in row.stages)

    def _training(self, stage: Stage, sources: tuple[Training, ...], seed: int, fold: Fold) -> Training:
        bare = stage.replace(title="", note="", ceiling=None)
        init = _init_of(stage, self._init)
        if stage.name in init:  # its own file replaces what the recipe starts it from
            bare, sources = bare.replace(starts_from=()), ()
        identity = {
            "stage": bare.model_dump(mode="json", exclude_defaults=True),  # a field added later changes nothing
            "sources": [source.digest for source in sources],
            "init": [self._files[file] for file in init.values()],
            "seed": seed,
            "test_groups": fold.test_groups,
            "store": self._store,
        }
        digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=5).hexdigest()
        return Training(bare, sources, fold, seed, init, digest)


def _distinct(trainings: Iterable[Training]) -> tuple[Training, ...]:
    """Return the distinct trainings of some and of all that they depend on, sources first."""
    return tuple({t.digest: t for training in trainings for t in training.needed}.values())


def _init_of(stage: Stage, init: Mapping[str, Path]) -> dict[str, Path]:
    """Return the file that a stage starts from, as `train` takes it."""
    name = stage.name if stage.name in init else IMAGENET if IMAGENET in stage.starts_from else ""
    return {name: init[name]} if name in init else {}


def _check_files(init: Mapping[str, Path], rows: Sequence[Row]) -> None:
    """Raise unless every file exists and some stage starts from it."""
    stages = [stage for row in rows for stage in row.recipe.stages]
    for name, file in init.items():
        if not file.is_file():
            raise CheckpointError(f"{file} does not exist: give --init an existing file")
        if not any(name in _init_of(stage, init) for stage in stages):
            raise RecipeError(f"--init {name}=…: no stage of the study starts from it; leave the option out")


def _check_starts(block: Block, store: Store) -> None:
    """Raise unless every stage has starting weights that fit. Finding out in training would cost days."""
    if block.fold.test_groups:
        store = store.with_test_groups(block.fold.test_groups)
    for training in block.trainings:
        if training.init or IMAGENET in training.stage.starts_from:
            untrained = Run(Path(os.devnull), training.recipe)
            StartingWeights(untrained, store, training.init).check([training.stage])
