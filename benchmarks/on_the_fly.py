"""Compare stored flow with flow computed when it is read: size, time and difference.

    python benchmarks/on_the_fly.py FOLDER [--videos 6] [--clips 24] [--rounds 3] [--short-side 256] [--model FILE]

FOLDER contains videos. A sample is prepared both ways with each preset of DIS. Then both are read in turn as in the
training of the recipe `ucf101`: 5 frames, 5 to 15 apart, and the flow of their stacks of 10, cut to 224 px. One thread,
page cache, processor time. With --model, its logits (dense25) on the sample are compared instead. Prints Markdown
tables.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from stresnet.data.clips import cut
from stresnet.data.encode_video import encode_video
from stresnet.data.prepared_video import PreparedVideo, StoreSpec
from stresnet.data.prepared_video_writer import write_prepared_video
from stresnet.data.sampling import border_crop, sample_centers
from stresnet.flow.spec import FlowSpec
from stresnet.inference.recognizer import Recognizer
from stresnet.media.video import VIDEO_EXTENSIONS

STEPS, TAU, FLOW_STACK, CROP_PX = 5, (5, 15), 10, 224


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--clips", type=int, default=24, dest="count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS)
    paths = paths[:: max(1, len(paths) // options.videos)][: options.videos]
    with tempfile.TemporaryDirectory() as folder:
        if options.model:
            compare_logits(Recognizer(options.model, device="cpu"), paths, Path(folder))
            return
        print("| DIS | flow | KB/frame | prepare ms/frame | clips/s | relative speed | cheaper up to clips per video |")
        print("|---|---|---|---|---|---|---|")
        for preset in ("medium", "fast", "ultrafast"):
            spec = StoreSpec(FlowSpec(preset=preset, short_side=options.short_side))
            compare(spec, paths, Path(folder, preset), options.count, options.rounds)


def both(spec: StoreSpec) -> tuple[StoreSpec, StoreSpec]:
    """Return the spec with flow stored, and with flow computed when read."""
    return replace(spec, flow_stored=True), replace(spec, flow_stored=False)


def compare(spec: StoreSpec, paths: Sequence[Path], folder: Path, count: int, rounds: int) -> None:
    """Print two rows of the table."""
    preparing = np.zeros((rounds, 2, len(paths)))
    for turn, way, n in np.ndindex(preparing.shape):
        start = time.process_time()
        target = folder / str(way) / f"{n}.arrow"
        write_prepared_video(target, partial(encode_video, str(n), paths[n], both(spec)[way]))
        preparing[turn, way, n] = time.process_time() - start
    frames = sum(PreparedVideo.open(folder / "0" / f"{n}.arrow").meta.frames for n in range(len(paths)))
    reading = np.zeros((rounds, 2, count))
    for turn, index, way in np.ndindex(rounds, count, 2):
        start = time.process_time()
        read(folder / str(way) / f"{index % len(paths)}.arrow", index)
        reading[turn, way, index] = time.process_time() - start
    # The minimum over rounds: other load on the machine only adds time.
    prepare_sec = preparing.min(axis=0).sum(axis=1) / frames
    read_sec = reading.min(axis=0).mean(axis=1)
    saved_sec = (prepare_sec[0] - prepare_sec[1]) * frames / len(paths)
    clips = saved_sec / (read_sec[1] - read_sec[0])
    for way, name in enumerate(("stored", "on the fly")):
        size = sum(path.stat().st_size for path in (folder / str(way)).iterdir()) / frames / 1000
        cells = [spec.flow.preset, name, f"{size:.1f}", f"{1000 * prepare_sec[way]:.1f}", f"{1 / read_sec[way]:.1f}"]
        cells += [f"{read_sec[0] / read_sec[way]:.2f}", f"{clips:.1f}" if way else ""]
        print(f"| {' | '.join(cells)} |", flush=True)


def read(path: Path, seed: int) -> None:
    """Cut a training clip."""
    video = PreparedVideo.open(path)
    rng = np.random.default_rng(seed)
    centers = sample_centers(video.meta.frames, FLOW_STACK, STEPS, TAU, rng)
    crop = border_crop(video.meta.height, video.meta.width, CROP_PX, 0.25, True, rng)
    cut(video, centers, crop, (CROP_PX, CROP_PX), flow_stack=FLOW_STACK)


def compare_logits(recognizer: Recognizer, paths: Sequence[Path], folder: Path) -> None:
    """Print the differences of levels and logits between the two ways."""
    levels, logits = [], []
    for n, path in enumerate(paths):
        pair = []
        for way, spec in enumerate(both(recognizer.store_spec)):
            write_prepared_video(folder / f"{n}.{way}.arrow", partial(encode_video, str(n), path, spec))
            pair.append(PreparedVideo.open(folder / f"{n}.{way}.arrow"))
        steps = np.arange(0, pair[0].meta.frames - 1, 5)
        levels.append(np.abs(pair[0].flow(steps).astype(np.int16) - pair[1].flow(steps)).mean())
        logits.append([recognizer.score(video).fused for video in pair])
    stored, computed = np.swapaxes(np.array(logits), 0, 1)  # (videos, classes) each
    print("| videos | mean difference, levels | logits: std. dev. | mean difference | maximum | same best class |")
    print("|---|---|---|---|---|---|")
    apart = np.abs(stored - computed)
    same = (stored.argmax(1) == computed.argmax(1)).mean()
    print(
        f"| {len(paths)} | {np.mean(levels):.2f} | {stored.std():.2f} | {apart.mean():.3f} | {apart.max():.3f} "
        f"| {same:.0%} |"
    )


if __name__ == "__main__":
    main()
