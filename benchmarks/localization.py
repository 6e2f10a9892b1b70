"""How well time lines find actions: join held-out videos end to end, with known borders, and localise their actions.

    python benchmarks/localization.py RUN STORE OUT [--clips 8]

STORE is a prepared store whose source files are still there; the videos are those of the groups that RUN held out of
training. Each joined video has CLIPS of them, of different classes next to each other, at one size and frame rate.
Prints the table of `stresnet evaluate --segments` for several times of smoothing.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import cv2
import numpy as np

from stresnet import Recognizer
from stresnet.data.store import Store
from stresnet.evaluation.localization import localize, read_true_segments
from stresnet.media import read_video, write_video

FPS, SIZE = 25.0, (320, 240)


def join_videos(store: Store, clips: int, folder: Path) -> Path:
    """Write the joined videos of the test split and the list of their segments, and return the list."""
    entries = sorted(store.select("test"), key=lambda entry: entry.record.id)
    random.Random(0).shuffle(entries)
    rows: list[tuple[object, ...]] = [("path", "label", "start", "end")]
    folder.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(entries), clips)):
        name, frames, borders = f"joined_{number:02}.mp4", [], [0]
        for entry in entries[first : first + clips]:
            frames += [cv2.resize(frame, SIZE) for frame in read_video(entry.record.path).frames]
            rows.append((name, entry.record.label, borders[-1] / FPS, len(frames) / FPS))
            borders.append(len(frames))
        write_video(folder / name, np.stack(frames), fps=FPS)
    with open(folder / "truth.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "truth.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    arguments = parser.parse_args()
    recognizer = Recognizer(arguments.run)
    store = Store.open(arguments.store).with_test_groups(recognizer.checkpoint.test_groups)
    truth = read_true_segments(join_videos(store, arguments.clips, arguments.out))
    lines = {video: recognizer.timeline(video) for video in truth}
    thresholds = ""
    for smooth_sec in (0.0, 0.5, 1.0, 2.0):
        found = localize(truth, lambda video, s=smooth_sec: lines[video].smoothed(s), recognizer.classes)
        if not thresholds:
            print(f"{found.videos} videos, {found.segments} segments, {len(recognizer.classes)} classes")
            thresholds = "  ".join(f"mAP@{t:g}" for t in found.mean_ap)
            print(f"smoothing  frame acc.  {thresholds}  (ActivityNet's formula, %)")
        values = "  ".join(f"{100 * value:7.1f}" for value in found.mean_ap.values())
        print(f"{smooth_sec:7.1f} s  {100 * found.frame_accuracy:8.1f}  {values}", flush=True)


if __name__ == "__main__":
    main()
