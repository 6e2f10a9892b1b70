"""Compare flow methods by the accuracy of the motion stream, trained and tested on each.

    python benchmarks/flow_backends.py CLIPS OUT [--set ut_interaction] [--backends dis-medium mv …] [--shorten 1]

CLIPS is as in real_clips.py, whose sets and commands are used here. For each backend the set is prepared, and the
motion stage of the recipe is trained and evaluated with the same seed on the same folds, each group of the set being
held out once. Prints a Markdown table: top-1 accuracy over all test videos with its 95 % bootstrap interval, the
accuracy of each fold, p of McNemar's exact test against the first backend, and frames prepared per second, decoding and
storing included.

Prepared stores and finished trainings under OUT are reused.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from real_clips import FOLDS, stresnet, write_source
from stresnet.data.datasets import read_catalog
from stresnet.data.prepare import prepare
from stresnet.data.store import StoreSpec
from stresnet.evaluation.metrics import mcnemar, top_k_accuracy
from stresnet.evaluation.scores import ScoreTable, concatenate
from stresnet.flow import FlowSpec
from stresnet.recipes import load_recipe

BACKENDS: dict[str, dict[str, Any]] = {
    "dis-medium": {},
    "dis-medium-median": {"subtract_median": True},
    "dis-fast": {"preset": "fast"},
    "dis-ultrafast": {"preset": "ultrafast"},
    "farneback": {"method": "farneback"},
    "mv": {"method": "mv"},
    "mv-median": {"method": "mv", "subtract_median": True},
    "tvl1-fast": {"method": "tvl1", "preset": "fast"},
    "tvl1-fast-median": {"method": "tvl1", "preset": "fast", "subtract_median": True},
    "tvl1": {"method": "tvl1"},
    "raft-small": {"method": "raft", "preset": "small"},
    "raft-large": {"method": "raft", "preset": "large"},
}
# Without OpenCV's TV-L1, which takes hours, and RAFT, which may not be installed.
DEFAULT_BACKENDS = [name for name in BACKENDS if name != "tvl1" and not name.startswith("raft")]
ALL_FOLDS = {
    "ut_interaction": [(f"set1_seq{first}", f"set1_seq{first + 1}") for first in range(1, 11, 2)],
    "gt_mhi": FOLDS["gt_mhi"],
}


@dataclass(frozen=True)
class Result:
    """One backend's scores, a table per fold, with the speed of preparing and the size of its store."""

    name: str
    folds: list[ScoreTable]
    frames_per_sec: float
    kb_per_frame: float

    @property
    def joined(self) -> ScoreTable:
        return concatenate(self.folds, self.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", choices=ALL_FOLDS, default="ut_interaction")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=DEFAULT_BACKENDS, metavar="BACKEND")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--shorten", type=float, default=1.0, help="divisor of all numbers of epochs")
    parser.add_argument("--folds", type=int, help="number of folds to use; all by default")
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes for preparing; 1 gives comparable speeds")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(arguments.recipe, arguments.shorten, arguments.seed, arguments.out)
    source = arguments.out / f"{arguments.set}.csv"
    write_source(arguments.set, arguments.clips, source)
    folds = ALL_FOLDS[arguments.set][: arguments.folds]
    started = time.monotonic()
    results = []
    for name in arguments.backends:
        spec = FlowSpec(short_side=arguments.short_side, **BACKENDS[name])
        store = arguments.out / f"{arguments.set}-{arguments.short_side}-{name}"
        cost = prepared(source, store, spec, arguments.workers)
        tables = [trained(store, recipe, held_out) for held_out in folds]
        results.append(Result(name, tables, *cost))
        print_table(results, folds, (time.monotonic() - started) / 60)  # intermediate tables; the last one is complete


def write_recipe(name: str, shorten: float, seed: int, out: Path) -> Path:
    """Write a recipe with the motion stage of a packaged recipe only."""
    values = load_recipe(name).to_dict()
    (stage,) = (stage for stage in values["stages"] if stage["network"]["streams"] == ["motion"])
    for phase in stage["optimisation"]["schedule"]:
        for length in ("epochs", "iterations"):
            if phase[length] is not None:
                phase[length] = max(1, round(phase[length] / shorten))
    values.update(name=f"{name}-motion", seed=seed, stages=[stage])
    file = out / f"{name}-motion-{shorten:g}-{seed}.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    return file


def prepared(source: Path, store: Path, spec: FlowSpec, workers: int) -> tuple[float, float]:
    """Prepare a store unless it exists; return frames per second and kilobytes per frame."""
    note = store.with_name(f"{store.name}.json")
    if not note.exists():
        summary = prepare(read_catalog(source), store, StoreSpec(spec), workers=workers)
        if summary.failed:
            raise SystemExit(f"{store}: {len(summary.failed)} videos failed, the first: {summary.failed[0]}")
        rate = summary.frames / summary.seconds if summary.kept == 0 else float("nan")
        note.write_text(json.dumps([rate, summary.bytes / summary.frames / 1000]))
    frames_per_sec, kb_per_frame = json.loads(note.read_text())
    return frames_per_sec, kb_per_frame


def trained(store: Path, recipe: Path, held_out: tuple[str, ...]) -> ScoreTable:
    """Train and evaluate one fold unless that is done; return the scores of its test videos."""
    run = store.with_name(f"{store.name}-{recipe.stem}-{'-'.join(held_out)}")
    if not list(run.glob("report/scores-*.parquet")):
        groups = [word for group in held_out for word in ("--test-group", group)]
        stresnet("train", store, run, "--recipe", recipe, "--resume", *groups)
        stresnet("evaluate", run, store)
    (scores,) = run.glob("report/scores-*.parquet")
    return ScoreTable.read(scores)


def print_table(results: list[Result], folds: list[tuple[str, ...]], minutes: float) -> None:
    videos = len(results[0].joined.labels)
    print(f"\n{videos} test videos, {len(folds)} folds, {minutes:.1f} minutes\n")
    print("| flow | top-1 % | 95 % | " + " | ".join("+".join(fold) for fold in folds) + " | p | frames/s | KB/frame |")
    print("|---|---|---|" + "---|" * len(folds) + "---|---|---|")
    for result in results:
        top1 = top_k_accuracy(result.joined, 1)
        single = " | ".join(f"{100 * top_k_accuracy(table, 1).value:.1f}" for table in result.folds)
        p = "" if result is results[0] else f"{mcnemar(result.joined, results[0].joined).p_value:.2g}"
        print(
            f"| {result.name} | {100 * top1.value:.1f} | {100 * top1.low:.1f} – {100 * top1.high:.1f} | {single} "
            f"| {p} | {result.frames_per_sec:.0f} | {result.kb_per_frame:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
