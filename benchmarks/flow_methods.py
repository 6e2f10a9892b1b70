"""Measure the speed of each flow method, decoding included, and its distance to the paper's, on real videos.

    python benchmarks/flow_methods.py CLIPS [--videos 6] [--frames 80] [--rounds 5] [--pairs 3] [--methods mv dis …]

Every round decodes the first frames of the same videos and computes their flow by each method in turn, on one thread.
Times are processor time of this process, which depends less on other load. Prints a Markdown table: frames per second
(median of rounds); relative to decoding alone (median of the ratios within a round); and the mean distance in px to the
flow of --reference (endpoint error) over --pairs pairs of frames per video, for all vectors and for those that move by
more than 1 px. The first row shows the distances of zero flow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from flow_codec import Sum, sample
from stresnet.flow import FlowSpec, estimate_flow, flow_of
from stresnet.media import Frame, iter_frames

WAYS = ("mv", "mv+median", "dis/ultrafast", "dis/fast", "dis/medium", "farneback", "tvl1/fast", "tvl1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=list(WAYS[:-1]), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--reference", default="tvl1")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    videos = sample(arguments.clips, arguments.videos)
    specs = {name: spec_of(name, arguments.short_side) for name in arguments.methods}
    reference = spec_of(arguments.reference, arguments.short_side)
    distances = compared(videos, specs, reference, arguments.frames, arguments.pairs)
    rates = measured(videos, specs, arguments.short_side, arguments.frames, arguments.rounds)
    print_table(rates, distances, arguments.reference)


def spec_of(name: str, short_side: int) -> FlowSpec:
    method, _, preset = name.removesuffix("+median").partition("/")
    values = {"method": method, "preset": preset, "short_side": short_side, "subtract_median": "+median" in name}
    return FlowSpec.from_dict(values)


def first_frames(video: Path, short_side: int, count: int, vectors: bool) -> Iterator[Frame]:
    with iter_frames(video, short_side=short_side, motion_vectors=vectors) as reader:
        yield from islice(reader, count)


def compared(
    videos: list[Path], specs: dict[str, FlowSpec], reference: FlowSpec, count: int, pairs: int
) -> dict[str, Sum]:
    """Return the distances of each method to the reference, except for those that subtract the median."""
    distances: dict[str, Sum] = defaultdict(Sum)
    for video in videos:
        frames = [list(first_frames(video, reference.short_side, count, vectors)) for vectors in (False, True)]
        steps = np.linspace(0, len(frames[0]) - 1, pairs + 2)[1:-1].astype(int)
        for t in steps:
            wanted = estimate_flow(np.stack([frame.rgb for frame in frames[0][t : t + 2]]), reference)[0]
            distances[""].add(wanted, np.zeros_like(wanted))
            for name, spec in specs.items():
                if not spec.subtract_median:
                    # From the start, because a field of motion vectors may repeat an earlier one.
                    near = frames[1][: t + 2] if spec.from_codec else frames[0][t : t + 2]
                    distances[name].add(wanted, list(flow_of(near, spec))[-1])
    return distances


def measured(
    videos: list[Path], specs: dict[str, FlowSpec], short_side: int, count: int, rounds: int
) -> dict[str, list[float]]:
    """Return frames per second of each method, by round."""

    def decoding(vectors: bool) -> Callable[[], int]:
        return lambda: sum(1 for video in videos for _ in first_frames(video, short_side, count, vectors))

    def matching(spec: FlowSpec) -> Callable[[], int]:
        def run() -> int:
            streams = (first_frames(video, short_side, count, spec.from_codec) for video in videos)
            return sum(1 + sum(1 for _ in flow_of(frames, spec)) for frames in streams)

        return run

    ways = {"decode": decoding(False), "decode, with vectors": decoding(True)}
    ways |= {name: matching(spec) for name, spec in specs.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            found = way()
            if number > 0:  # the first round warms up
                rates[name].append(found / (time.process_time() - started))
    return rates


def print_table(rates: dict[str, list[float]], distances: dict[str, Sum], reference: str) -> None:
    still = distances.pop("")
    print(f"Distances to {reference}; {100 * still.moving / still.vectors:.1f} % of its vectors are moving.\n")
    print(
        "| | frames/s | relative to decoding | distance, all vectors, px | distance, moving vectors, px |\n"
        "|---|---|---|---|---|"
    )
    print(f"| no motion | | | {still.error / still.vectors:.2f} | {still.moving_error / max(still.moving, 1):.2f} |")
    for name, found in rates.items():
        ratio = statistics.median(one / two for one, two in zip(found, rates["decode"], strict=True))
        cells = " | "
        if name in distances:
            row = distances[name]
            cells = f"{row.error / row.vectors:.2f} | {row.moving_error / max(row.moving, 1):.2f}"
        print(f"| {name} | {statistics.median(found):.0f} | {ratio:.2f} | {cells} |")


if __name__ == "__main__":
    main()
