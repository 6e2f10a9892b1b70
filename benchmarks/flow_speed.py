"""How fast each way to compute flow is, decoding included, against decoding alone, in turn.

    python benchmarks/flow_speed.py CLIPS [--videos 6] [--frames 80] [--rounds 5] [--methods mv dis …]

Every round decodes and matches the first frames of the same videos by each way, one after the other, on one thread.
Times are processor time of this process, so that other work on the machine counts for less. Prints a Markdown table:
frames per second, medians over rounds, and their ratio to decoding alone, the median of each round's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2

from flow_codec import sample
from stresnet.flow import FlowSpec, flow_of
from stresnet.media import Frame, iter_frames

WAYS = ("mv", "mv+median", "dis/ultrafast", "dis/fast", "dis/medium", "farneback", "tvl1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--methods", nargs="+", default=list(WAYS[:-1]), help=f"of {', '.join(WAYS)}")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    videos = sample(arguments.clips, arguments.videos)

    def frames(video: Path, vectors: bool) -> Iterator[Frame]:
        with iter_frames(video, short_side=arguments.short_side, motion_vectors=vectors) as reader:
            yield from islice(reader, arguments.frames)

    def decoding(vectors: bool) -> Callable[[], int]:
        return lambda: sum(1 for video in videos for _ in frames(video, vectors))

    def matching(spec: FlowSpec) -> Callable[[], int]:
        return lambda: sum(1 + sum(1 for _ in flow_of(frames(video, spec.from_codec), spec)) for video in videos)

    ways = {"decode": decoding(False), "decode, with vectors": decoding(True)}
    ways |= {name: matching(spec_of(name, arguments.short_side)) for name in arguments.methods}
    print_table(measured(ways, arguments.rounds))


def spec_of(name: str, short_side: int) -> FlowSpec:
    method, _, preset = name.removesuffix("+median").partition("/")
    values = {"method": method, "preset": preset, "short_side": short_side, "subtract_median": "+median" in name}
    return FlowSpec.from_dict(values)


def measured(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            count = way()
            if number > 0:  # the first round warms up
                rates[name].append(count / (time.process_time() - started))
    return rates


def print_table(rates: dict[str, list[float]]) -> None:
    alone = rates["decode"]
    print("| | frames/s | of decoding |\n|---|---|---|")
    for name, found in rates.items():
        ratio = statistics.median(one / two for one, two in zip(found, alone, strict=True))
        print(f"| {name} | {statistics.median(found):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
