"""A whole project in seconds: twelve generated videos, and a recipe whose networks are a few channels wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stresnet.data.catalog import Catalog
from stresnet.data.datasets import read_catalog
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.store import Store
from stresnet.data.synthetic import SyntheticSpec, write_dataset
from stresnet.flow import FlowSpec
from stresnet.recipes import Recipe, parse_recipe

VIDEOS = SyntheticSpec(width=48, height=32, frames=26, window_px=16, train_per_class=2, test_per_class=1)
SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))

SINGLE: dict[str, Any] = {
    "batch_videos": 4,
    "sub_batch_videos": 2,
    "dropout": 0.5,
    "schedule": [{"lr": 0.002, "epochs": 2}, {"lr": 0.0002, "epochs": 1}],
}
JOINT: dict[str, Any] = {
    **SINGLE,
    "temporal": "inflate",
    "link": "add",
    "steps": 5,
    "tau": [2, 4],
    "schedule": [{"lr": 0.002, "epochs": 2}],
}
VALUES: dict[str, Any] = {
    "name": "tiny",
    "depth": 26,
    "width": 0.0625,
    "crop_px": 32,
    "seed": 7,
    "stages": [
        {"name": "appearance", "title": "Appearance", "streams": ["appearance"], **SINGLE},
        {"name": "motion", "title": "Motion", "streams": ["motion"], "crop": "corners", **SINGLE},
        {"name": "st-resnet", "title": "ST-ResNet", "starts_from": ["appearance", "motion"], **JOINT},
    ],
}
Command = Callable[..., tuple[int, str, str]]
"""A command line's exit code, stdout and stderr."""

STAGES = [stage["name"] for stage in VALUES["stages"]]


def tiny_recipe(stages: Mapping[str, Mapping[str, Any]] | None = None, **fields: Any) -> Recipe:
    """The recipe with some fields changed, or some of its stages' fields; stages not named go."""
    values = {**VALUES, **fields}
    if stages is not None:
        values["stages"] = [s | stages[s["name"]] for s in VALUES["stages"] if s["name"] in stages]
    return parse_recipe(values, "the tiny recipe")


def write_videos(folder: Path) -> Path:
    """The folder of videos; its name is one that careless code trips over."""
    return write_dataset(folder / "Vidéos à moi [1]", VIDEOS, seed=3)


def prepared(catalog: Catalog, root: Path, spec: StoreSpec = SPEC) -> Store:
    """A store of a catalog."""
    prepare(catalog, root, spec, workers=1)
    return Store.open(root)


def grouped(source: Path) -> Catalog:
    """The videos as one catalog without test split, in groups by their number: g1, g2; those of the test split, g3."""
    catalog = read_catalog(source)
    records = tuple(
        replace(r, split="train", group="g3" if r.split == "test" else f"g{r.id[-5]}") for r in catalog.records
    )
    return replace(catalog, name="grouped", records=records)


def one_line(text: str) -> str:
    """The only line that was printed."""
    assert text.count("\n") == 1, text
    return text.strip()
