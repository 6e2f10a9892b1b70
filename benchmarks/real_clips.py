"""Train from scratch on real videos: UT-Interaction by held-out sequences, arm movements by held-out persons.

    python benchmarks/real_clips.py CLIPS OUT [--recipe small] [--only ut_interaction]

CLIPS holds index.csv with the columns path, class and group, and the videos it names. For each data set this runs the
commands that a user would run (prepare once, then train and evaluate each fold with some groups held out), concatenates
the test videos of all folds, and prints a Markdown table of each stage's top-1 accuracy with its 95 % interval.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

from stresnet.evaluation.metrics import mcnemar, mean_class_accuracy, top_k_accuracy
from stresnet.evaluation.scores import ScoreTable, concatenate

FOLDS = {
    "ut_interaction": [("set1_seq9", "set1_seq10"), ("set1_seq1", "set1_seq2")],
    "gt_mhi": [("P1",), ("P2",), ("P3",)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--short-side", type=int, default=128)
    parser.add_argument("--only", choices=FOLDS)
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else FOLDS:
        run_set(name, arguments.clips, arguments.out, arguments.recipe, arguments.short_side)


def run_set(name: str, clips: Path, out: Path, recipe: str, short_side: int) -> None:
    """Prepare a data set, train and evaluate each fold, and print the table."""
    source, store = out / f"{name}.csv", out / f"{name}-store"
    write_source(name, clips, source)
    stresnet("prepare", source, store, "--short-side", short_side)
    minutes = 0.0
    reports = []
    for held_out in FOLDS[name]:
        run = out / f"{name}-{'-'.join(held_out)}"
        groups = [word for group in held_out for word in ("--test-group", group)]
        started = time.monotonic()
        stresnet("train", store, run, "--recipe", recipe, "--resume", *groups)
        stresnet("evaluate", run, store)
        minutes += (time.monotonic() - started) / 60
        reports.append(run / "report")
    print_table(name, reports, ["+".join(held_out) for held_out in FOLDS[name]], minutes)


def write_source(name: str, clips: Path, target: Path) -> None:
    """Write the list of a data set for `stresnet prepare`: path, label, group."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (clips / "index.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["path"].startswith(f"{name}/")]
    with target.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "label", "group"])
        writer.writerows([(clips / row["path"]).resolve(), row["class"], row["group"]] for row in rows)


def stresnet(*words: object) -> None:
    command = [sys.executable, "-m", "stresnet", *map(str, words)]
    print("$ stresnet", *map(str, words), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)  # only the tables go to standard output


def print_table(name: str, reports: list[Path], fold_names: list[str], minutes: float) -> None:
    """Print each row's accuracy over the test videos of all folds, and its p-value against the last row."""
    files = sorted((file for file in reports[0].glob("scores-*.parquet")), key=lambda file: file.stat().st_mtime_ns)
    rows = [
        concatenate(tables := [ScoreTable.read(report / file.name) for report in reports], tables[0].name)
        for file in files
    ]
    folds = " | ".join(fold_names)
    print(f"\n### {name}: {len(rows[0].labels)} test videos, {len(reports)} folds, {minutes:.1f} minutes\n")
    print(f"| | top-1 | 95 % | mean class | {folds} | p |")
    print("|---|---|---|---|" + "---|" * len(reports) + "---|")
    for row, file in zip(rows, files, strict=True):
        top1 = top_k_accuracy(row, 1)
        single = " | ".join(f"{100 * top_k_accuracy(ScoreTable.read(r / file.name), 1).value:.1f}" for r in reports)
        p = "" if row is rows[-1] else f"{mcnemar(row, rows[-1]).p_value:.2g}"
        print(
            f"| {row.name} | {100 * top1.value:.1f} | {100 * top1.low:.1f} – {100 * top1.high:.1f} "
            f"| {100 * mean_class_accuracy(row).value:.1f} | {single} | {p} |"
        )


if __name__ == "__main__":
    main()
