"""Measure the error and the size of stored flow by bound, JPEG quality and frame size, on real videos.

    python benchmarks/flow_codec.py CLIPS [--videos 40] [--pairs 6] [--method dis] [--short-side 256]

CLIPS is a folder of videos. Flow is computed for some evenly spaced pairs of frames of an even sample of them, and
stored as in a store: clipped to ± the bound, 256 levels, one gray JPEG with u above v. The error of a vector is its
distance to the computed one (endpoint error). Tables show the mean over all vectors and over moving ones, faster than
1 px per frame. The table of sizes compares with flow at --short-side: smaller flow is enlarged, and its values scaled.
Prints Markdown tables.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stresnet.flow import FlowSpec, clipped_share, dequantize_flow, estimate_flow, quantize_flow
from stresnet.media import VIDEO_EXTENSIONS, iter_frames, probe

Field = NDArray[np.float32]
BOUNDS_PX = (5.0, 10.0, 20.0, 40.0)
QUALITIES = (80, 90, 92, 95, 98, 100)
SIZES_PX = (128, 192, 256)
DEFAULT_BOUND_PX, DEFAULT_QUALITY = 20.0, 95
MOVING_PX = 1.0


@dataclass
class Sum:
    """Errors and bytes, summed over fields."""

    fields: int = 0
    bytes: float = 0.0
    error: float = 0.0
    vectors: int = 0
    moving_error: float = 0.0
    moving: int = 0
    clipped: float = 0.0

    def add(self, true: Field, stored: Field, size: int = 0, clipped: float = 0.0) -> None:
        error = np.hypot(*(stored - true))
        moving = np.hypot(*true) > MOVING_PX
        self.fields += 1
        self.bytes += size
        self.error += float(error.sum())
        self.vectors += error.size
        self.moving_error += float(error[moving].sum())
        self.moving += int(moving.sum())
        self.clipped += clipped

    def cells(self) -> str:
        moving = self.moving_error / max(self.moving, 1)
        return f"{self.error / self.vectors:.3f} | {moving:.3f} | {self.bytes / self.fields / 1000:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--method", default="dis")
    parser.add_argument("--preset", default="")
    parser.add_argument("--short-side", type=int, default=256)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    spec = FlowSpec(arguments.method, arguments.preset, short_side=arguments.short_side)
    bounds: dict[str, Sum] = defaultdict(Sum)
    joint: dict[tuple[str, int], Sum] = defaultdict(Sum)
    sizes: dict[int, Sum] = defaultdict(Sum)
    for video in sample(arguments.clips, arguments.videos):
        for number in spread(probe(video).header_frames, arguments.pairs):
            study(video, number, spec, bounds, joint, sizes)
    print_tables(spec, bounds, joint, sizes)


def sample(clips: Path, count: int) -> list[Path]:
    videos = sorted(path for path in clips.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    if not videos:
        raise SystemExit(f"{clips}: found no videos")
    return [videos[i] for i in np.linspace(0, len(videos) - 1, min(count, len(videos))).astype(int)]


def spread(frames: int, pairs: int) -> list[int]:
    """Return the first frames of pairs. Headers may count a few frames too many."""
    return sorted({int(i) for i in np.linspace(0, max(0, 0.9 * frames - 2), pairs + 2)[1:-1]})


def study(
    video: Path,
    number: int,
    spec: FlowSpec,
    bounds: dict[str, Sum],
    joint: dict[tuple[str, int], Sum],
    sizes: dict[int, Sum],
) -> None:
    """Add one pair of frames to all sums."""
    pair = read_pair(video, number, spec.short_side)
    if pair is None:
        return
    true = estimate_flow(pair, spec)[0]
    for name, bound_px in [(f"{b:g}", b) for b in BOUNDS_PX] + [("largest of each field", largest(true))]:
        levels = quantize_flow(true, bound_px)
        clipped = clipped_share(true, bound_px)
        bounds[name].add(true, dequantize_flow(levels, bound_px), levels.size, clipped)
        for quality in QUALITIES:
            joint[name, quality].add(true, *through_jpeg(levels, bound_px, quality), clipped)
    for short_side in (*(size for size in SIZES_PX if size < spec.short_side), spec.short_side):
        small = read_pair(video, number, short_side)
        assert small is not None
        flow = estimate_flow(small, replace(spec, short_side=short_side))[0]
        bound_px = DEFAULT_BOUND_PX * short_side / spec.short_side  # clips the same motion
        stored, size = through_jpeg(quantize_flow(flow, bound_px), bound_px, DEFAULT_QUALITY)
        sizes[short_side].add(true, enlarged(stored, true.shape[1:]), size)


def largest(flow: Field) -> float:
    return max(1.0, float(np.abs(flow).max()))


def read_pair(video: Path, number: int, short_side: int) -> NDArray[np.uint8] | None:
    def frames() -> Iterator[NDArray[np.uint8]]:
        with iter_frames(video, short_side=short_side) as reader:
            for index, frame in enumerate(reader):
                if index >= number:
                    yield frame.rgb
                if index > number:
                    return

    pair = list(frames())
    return np.stack(pair) if len(pair) == 2 else None


def through_jpeg(levels: NDArray[np.uint8], bound_px: float, quality: int) -> tuple[Field, int]:
    """Return flow as it is read back, and its size in bytes."""
    u_above_v = levels.reshape(-1, levels.shape[2], 1)
    jpeg = simplejpeg.encode_jpeg(u_above_v, quality, "GRAY", "Gray")
    return dequantize_flow(simplejpeg.decode_jpeg(jpeg, "GRAY").reshape(levels.shape), bound_px), len(jpeg)


def enlarged(flow: Field, size: tuple[int, ...]) -> Field:
    height, width = size
    scales = width / flow.shape[2], height / flow.shape[1]
    return np.stack([cv2.resize(c, (width, height)) * s for c, s in zip(flow, scales, strict=True)])


def print_tables(
    spec: FlowSpec, bounds: dict[str, Sum], joint: dict[tuple[str, int], Sum], sizes: dict[int, Sum]
) -> None:
    first = next(iter(bounds.values()), None)
    if first is None:
        raise SystemExit("no video has two frames")
    moving = f"{100 * first.moving / first.vectors:.1f} % of vectors move by more than {MOVING_PX:g} px"
    print(f"{spec.method}/{spec.preset}, short side {spec.short_side} px, {first.fields} fields; {moving}.\n")
    jpeg = f"with JPEG {DEFAULT_QUALITY}"
    print(f"| bound px | clipped % | error px | moving | raw KB | {jpeg}: error px | moving | KB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in bounds.items():
        clipped = 100 * row.clipped / row.fields
        print(f"| {name} | {clipped:.3f} | {row.cells()} | {joint[name, DEFAULT_QUALITY].cells()} |")
    print("\nError px of all vectors / of moving ones / KB per field, by bound and JPEG quality:\n")
    print("| bound px | " + " | ".join(map(str, QUALITIES)) + " |\n|---" + "|---" * len(QUALITIES) + "|")
    for name in bounds:
        cells = (joint[name, quality].cells().replace(" | ", " / ") for quality in QUALITIES)
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\n| short side px | error px | moving | KB {jpeg}, bound {DEFAULT_BOUND_PX:g} px at {spec.short_side} |")
    print("|---|---|---|---|")
    for short_side, row in sizes.items():
        print(f"| {short_side} | {row.cells()} |")


if __name__ == "__main__":
    main()
