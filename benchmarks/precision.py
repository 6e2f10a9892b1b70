"""Measure how far bf16, or a compiled network, is from float32 on the videos of a store.

    python benchmarks/precision.py MODEL STORE [--protocol center] [--split test] [--limit N] [--compiled] [--random]

MODEL is a model file or the folder of a run. The videos of the split, or N of them spread over it, are scored in fp32,
in bf16 (emulated, several times slower, where the processor lacks it) and, with --compiled, by the compiled network in
fp32. Groups that the model held out of training are the test split. With --random, the network is an untrained
ResNet-50 of full width whose batch-norm moments are measured on the first clips. Prints a Markdown table:

- top-1: the share of videos with the same most likely class as in fp32.
- mean error: the mean absolute difference of the logits, over videos and classes, the streams averaged.
- relative: that difference, divided by the standard deviation of fp32's logits over the classes of a video.
- margin: of videos with another class, the largest difference between fp32's two best logits, on the same scale.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from predict import calibrated
from stresnet.data.clips import cut_clips
from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.store import Store
from stresnet.errors import StresnetError
from stresnet.inference.protocols import PROTOCOLS, Protocol, views
from stresnet.inference.recognizer import Recognizer
from stresnet.model import Checkpoint, STResNet, load_checkpoint
from stresnet.model.precision import Precision
from stresnet.weights import hub

CALIBRATION_CLIPS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="center")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--random", action="store_true")
    options = parser.parse_args()
    model = load_checkpoint(hub.checkpoint_file(options.model))
    store = Store.open(options.store)
    store = store.with_test_groups(model.test_groups) if model.test_groups else store
    names = [entry.record.id for entry in store.select(options.split)]
    count = min(len(names), options.limit or len(names))
    videos = [store.video(names[n * len(names) // count]) for n in range(count)]
    if options.random:
        model = untrained(model, videos, options.protocol)
    exact = logits_of(model, videos, options.protocol, "fp32", False)
    network = "untrained" if options.random else model.stage or "model"
    print(f"{count} videos, {len(model.classes)} classes, `{options.protocol}`, {network}\n")
    print("| against fp32 | top-1 | mean error | relative | margin |\n|---|---|---|---|---|")
    print(row("bf16", exact, logits_of(model, videos, options.protocol, "bf16", False)), flush=True)
    if options.compiled:
        print(row("fp32, compiled", exact, logits_of(model, videos, options.protocol, "fp32", True)))


def logits_of(
    model: Checkpoint, videos: list[PreparedVideo], protocol: Protocol, precision: Precision, compiled: bool
) -> NDArray[np.float32]:
    """Return the logits of videos, (videos, classes)."""
    recognizer = Recognizer(model, device="cpu", precision=precision, compiled=compiled)
    scores = []
    for found in recognizer.score_all([lambda video=video: video for video in videos], protocol):
        if isinstance(found, StresnetError):
            raise found
        scores.append(found.fused)
    return np.stack(scores)


def row(name: str, exact: NDArray[np.float32], found: NDArray[np.float32]) -> str:
    """Return the differences of logits (videos, classes) as a row of the table."""
    error = np.abs(found - exact).mean(axis=1)
    spread = exact.std(axis=1)
    best = np.sort(exact, axis=1)
    margins = ((best[:, -1] - best[:, -2]) / spread)[found.argmax(1) != exact.argmax(1)]
    margin = f"{margins.max():.3f}" if len(margins) else ""
    same = f"{len(exact) - len(margins)} of {len(exact)}"
    return f"| {name} | {same} | {error.mean():.1e} | {(error / spread).mean():.1e} | {margin} |"


def untrained(model: Checkpoint, videos: list[PreparedVideo], protocol: Protocol) -> Checkpoint:
    """Return the model with a ResNet-50 of full width, with random filters, in place of its network."""
    config = model.model.config.replace(width=1.0, stem_channels=None, dropout=0.0)
    torch.manual_seed(0)
    clips = []
    for video in videos[:CALIBRATION_CLIPS]:
        shown = views(protocol, model, video.meta)
        crop, size = shown.crops[0]
        batch = cut_clips(video, shown.clips, crop, size, flow_stack=config.flow_stack)
        rgb, flow = model.preprocessing.normalize(
            *(torch.from_numpy(batch[name]) for name in ("rgb", "flow", "flow_scale"))
        )
        assert rgb is not None
        assert flow is not None
        clips.append((rgb, flow))
    return model.replace(model=calibrated(STResNet(config), clips))


if __name__ == "__main__":
    main()
