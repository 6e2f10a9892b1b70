"""A whole project in seconds: twelve generated videos, and a recipe whose networks are a few channels wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresnet.data.catalog import Catalog
from stresnet.data.datasets import read_catalog
from stresnet.data.prepare import prepare
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.store import Store
from stresnet.data.synthetic import SyntheticSpec, write_dataset
from stresnet.flow import FlowSpec
from stresnet.recipes import Recipe, parse_recipe

if TYPE_CHECKING:
    from stresnet.model import Checkpoint

VIDEOS = SyntheticSpec(width=48, height=32, frames=26, window_px=16, train_per_class=2, test_per_class=1)
SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))

SHORT = [{"lr": 0.002, "epochs": 2}]
LONG = [*SHORT, {"lr": 0.0002, "epochs": 1}]
VALUES: dict[str, Any] = {
    "name": "tiny",
    "seed": 7,
    "network": {"depth": 26, "width": 0.0625, "dropout": 0.5},
    "clips": {"crop_px": 32},
    "optimisation": {"batch_videos": 4, "sub_batch_videos": 2, "schedule": LONG},
    "stages": [
        {
            "name": "appearance",
            "title": "Appearance",
            "network": {"streams": ["appearance"], "temporal": None, "link": None},
        },
        {
            "name": "motion",
            "title": "Motion",
            "network": {"streams": ["motion"], "temporal": None, "link": None},
            "clips": {"crop": "corners"},
        },
        {
            "name": "st-resnet",
            "title": "ST-ResNet",
            "starts_from": ["appearance", "motion"],
            "clips": {"steps": 5, "tau": [2, 4]},
            "optimisation": {"schedule": SHORT},
        },
    ],
}
Command = Callable[..., tuple[int, str, str]]
"""A command line's exit code, stdout and stderr."""

STAGES = [stage["name"] for stage in VALUES["stages"]]


def tiny_recipe(stages: Mapping[str, Mapping[str, Any]] | None = None, **fields: Any) -> Recipe:
    """Return the tiny recipe with some fields changed, of the recipe and of the stages named; others are left out.

    Mappings such as `network` are merged with those of the recipe or stage.
    """
    values = _merged(VALUES, fields)
    if stages is not None:
        values["stages"] = [_merged(s, stages[s["name"]]) for s in VALUES["stages"] if s["name"] in stages]
    return parse_recipe(values, "the tiny recipe")


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**values, **changes}
    return merged | {k: {**values.get(k, {}), **v} for k, v in changes.items() if isinstance(v, Mapping)}


def untrained() -> Checkpoint:
    """Return an ST-ResNet of the tiny recipe, τ 2 to 4 and T = 5, with random weights."""
    from helpers.networks import calibrated, network  # loads torch, which most tests do without
    from stresnet.model import Checkpoint
    from stresnet.model.preprocessing import Preprocessing

    return Checkpoint(
        model=calibrated(network(flow_stack=10, num_classes=3)),
        classes=("a", "b", "c"),
        preprocessing=Preprocessing(crop_px=32),
        store_spec=SPEC.to_dict(),
        stage="st-resnet",
        recipe=tiny_recipe().to_dict(),
    )


def write_videos(folder: Path) -> Path:
    """Write the videos, and return their folder; its name has spaces, brackets and accents."""
    return write_dataset(folder / "Vidéos à moi [1]", VIDEOS, seed=3)


def prepared(catalog: Catalog, root: Path, spec: StoreSpec = SPEC) -> Store:
    """Prepare a catalog, and return the store."""
    prepare(catalog, root, spec, workers=1)
    return Store.open(root)


def grouped(source: Path) -> Catalog:
    """Return the videos as a training split with groups: g1 and g2 by number, and g3 for those of the test split."""
    catalog = read_catalog(source)
    records = tuple(
        replace(r, split="train", group="g3" if r.split == "test" else f"g{r.id[-5]}") for r in catalog.records
    )
    return replace(catalog, name="grouped", records=records)


def one_line(text: str) -> str:
    """Return the text if it is a single line."""
    assert text.count("\n") == 1, text
    return text.strip()
