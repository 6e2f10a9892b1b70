"""Measure the memory of preparing and predicting by video length, and the cost of the temporary file.

    python benchmarks/streaming.py [--minutes 5 120] [--rounds 5] [CLIPS]

Generates a video of each length (H.264, 64x48, 25 frames/s), then prepares it (DIS ultrafast, one worker) and predicts
from it (a random network, protocols dense25 and center), each in a separate process. Peak memory is that of the process
and its workers, as reported by the system. With CLIPS, a folder of short videos, also encodes some of them with and
without a temporary file in turn, at a short side of 256. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

FPS, HEIGHT, WIDTH = 25, 48, 64
VERBS = ("prepare", "predict dense25", "predict center")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, nargs="*", default=[5, 120])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("VERB", "VIDEO"), help="for internal use")
    options = parser.parse_args()
    if options.measure:
        run(options.measure[0], Path(options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.minutes:
            print("| video | frames |" + "".join(f" {verb}: s | peak MB |" for verb in VERBS))
            print("|---|---|" + "---|---|" * len(VERBS))
        for minutes in options.minutes:
            source = Path(folder, f"{minutes:g} min", "class")
            source.mkdir(parents=True)
            frames = generate(source / "video.mp4", minutes)
            cells = [cell for verb in VERBS for cell in measured(verb, source / "video.mp4")]
            print(f"| {minutes:g} min | {frames} | {' | '.join(cells)} |", flush=True)
    if options.clips:
        compare(options.clips, options.rounds)


def generate(path: Path, minutes: float) -> int:
    """Write a video of a wandering texture; return its number of frames."""
    from stresnet.media import write_video

    texture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    count = round(minutes * 60 * FPS)

    def frames() -> Iterator[np.ndarray]:
        for t in range(count):
            top, left = round(50 * (1 + np.sin(t / 40))), round(60 * (1 + np.cos(t / 60)))
            yield texture[top : top + HEIGHT, left : left + WIDTH]

    write_video(path, frames(), fps=FPS, quality_crf=28)
    return count


def measured(verb: str, video: Path) -> tuple[str, str]:
    """Return the seconds and the peak megabytes of a verb, workers included, as table cells."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, "--measure", verb, video], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{verb} failed")
    return f"{time.perf_counter() - start:.0f}", f"{usage.ru_maxrss / 1000:.0f}"


def run(verb: str, video: Path) -> None:
    """Run the work that is measured."""
    from stresnet.data.prepared_video import StoreSpec
    from stresnet.flow.spec import FlowSpec

    spec = StoreSpec(FlowSpec(preset="ultrafast", short_side=HEIGHT))
    if verb == "prepare":
        from stresnet.data.datasets import read_catalog
        from stresnet.data.prepare import prepare

        summary = prepare(read_catalog(video.parents[1]), video.parents[2] / "store", spec, workers=1)
        assert summary.done, summary.failed
        return
    import torch

    from stresnet.inference.recognizer import Recognizer
    from stresnet.model import Checkpoint, Preprocessing, STResNet
    from stresnet.recipes import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe("demo", ["network.width=0.0625", "clips.crop_px=32"])
    stage = recipe.stage("st-resnet")
    network = STResNet(stage.network.with_classes(3)).eval()
    model = Checkpoint(
        model=network,
        classes=("a", "b", "c"),
        preprocessing=Preprocessing(crop_px=32),
        store_spec=spec.to_dict(),
        stage=stage.name,
        recipe=recipe.to_dict(),
    )
    print(json.dumps(Recognizer(model, device="cpu").predict(video, protocol=verb.split()[1]).top))


def compare(clips: Path, rounds: int) -> None:
    """Print what a temporary file adds to the time of encoding a short video."""
    import cv2

    from stresnet.data.encode_video import encode_video, temporary_video
    from stresnet.data.store import StoreSpec
    from stresnet.flow.spec import FlowSpec
    from stresnet.media.video import VIDEO_EXTENSIONS

    cv2.setNumThreads(1)
    videos = sorted(p for p in clips.rglob("*") if p.suffix.lower() in VIDEO_EXTENSIONS)
    videos = videos[:: max(1, len(videos) // 4)][:4]
    print("\n| DIS | frames | without a file, ms/frame | into a temporary file | ratio |\n|---|---|---|---|---|")
    nowhere = open(os.devnull, "wb")  # noqa: SIM115
    for preset in ("ultrafast", "medium"):
        spec = StoreSpec(FlowSpec(preset=preset))
        ways = (partial(encode_video, sink=nowhere), temporary_video)
        seconds = np.zeros((rounds, 2, len(videos)))
        for turn in np.ndindex(seconds.shape):
            video = videos[turn[2]]
            start = time.perf_counter()
            ways[turn[1]]("v", video, spec)
            seconds[turn] = time.perf_counter() - start
        frames = sum(temporary_video("v", video, spec).meta.frames for video in videos)
        # The minimum of all rounds, because other load only adds time.
        nothing, file = 1000 * seconds.min(axis=0).sum(axis=1) / frames
        print(f"| {preset} | {frames} | {nothing:.2f} | {file:.2f} | {file / nothing:.3f} |", flush=True)


if __name__ == "__main__":
    main()
