"""Compare converted networks of the released sizes with an interpreter of their files.

    python benchmarks/released_format.py [--networks …] [--steps 5 11 25] [--sizes 224x224 256x340] [--base 64]

Writes random networks like those of the authors' scripts (tests/helpers/dagnn_surgery.py), converts each in its own
process, and compares its logits with those of an interpreter that shares no code with the converter or the model
(tests/helpers/dagnn_oracle.py). Both compute in single precision; the first clip of each network is also interpreted in
double precision. Errors are largest differences relative to the largest logit of the stream. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers import dagnn_files as files
from helpers import dagnn_surgery as surgery
from helpers.dagnn_oracle import Net, logits, read
from stresnet.model import STResNet
from stresnet.weights.matconvnet import read_matconvnet

CLASSES = 101

NETWORKS: dict[str, tuple[int, int, Callable[[Net, Net], Net]]] = {
    "ST-ResNet": (50, 50, surgery.st_resnet),
    "ST-ResNet*": (50, 50, lambda a, b: surgery.pool_time(surgery.st_resnet(a, b))),
    "ST-MulNet": (50, 50, surgery.st_mulnet),
    "ST-MulNet 50/152": (50, 152, surgery.st_mulnet),
}
"""Depths of the appearance and the motion stream, and the surgery."""

CONVERT = """
import json, sys, time
from stresnet.weights.matconvnet import read_matconvnet
def peak():  # getrusage would count the parent's, whose memory this process began with
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024
before, start = peak(), time.perf_counter()
read_matconvnet(sys.argv[1])
print(json.dumps([time.perf_counter() - start, before, peak()]))
"""


def clip(channels: int, steps: int, height: int, width: int) -> Tensor:
    """Moving blobs, changes of brightness and noise, (1,C,T,H,W), of the size that normalised pixels have."""
    draw = torch.Generator().manual_seed(channels)
    x = F.interpolate(torch.randn(steps, channels, 5, 6, generator=draw), (height, width), mode="bilinear")
    x += torch.randn(steps, channels, 1, 1, generator=draw)
    x += 0.5 * torch.randn(steps, channels, height, width, generator=draw)
    return (40 * x).transpose(0, 1)[None]


def conversion(path: Path) -> str:
    """A row: the file's size, the seconds to convert it, the peak of memory before and after."""
    out = subprocess.run([sys.executable, "-c", CONVERT, str(path)], capture_output=True, text=True, check=True).stdout
    seconds, before, after = json.loads(out)
    return f"{path.stat().st_size / 2**20:.0f} | {seconds:.1f} | {after:.0f} | {after - before:.0f}"


@torch.inference_mode()
def errors(model: STResNet, net: Net, steps: int, size: tuple[int, int], double: bool) -> str:
    """A row: each stream's error, of single and of double precision, and the seconds both took."""
    rgb, flow = clip(3, steps, *size), clip(20, steps, *size)
    start = time.perf_counter()
    ours = model(rgb, flow)._asdict()
    ours_sec = time.perf_counter() - start
    start = time.perf_counter()
    theirs = logits(net, rgb, flow, dtype=torch.float32)
    theirs_sec = time.perf_counter() - start
    exact = logits(net, rgb, flow) if double else None
    cells = []
    for stream in ("appearance", "motion"):
        assert ours[stream].shape == theirs[stream].shape
        cells.append(relative(ours[stream], theirs[stream]))
        cells.append(relative(ours[stream], exact[stream]) if exact else "")
    return " | ".join([*cells, f"{ours_sec:.1f}", f"{theirs_sec:.1f}"])


def relative(ours: Tensor, theirs: Tensor) -> str:
    return f"{((ours - theirs).abs().max() / theirs.abs().max()).item():.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 11, 25])
    parser.add_argument("--sizes", nargs="+", default=["224x224", "256x340"])
    parser.add_argument("--base", type=int, default=64, help="channels after conv1")
    args = parser.parse_args()

    conversions, rows = [], []
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            depth, motion_depth, make = NETWORKS[name]
            streams = surgery.appearance(depth, args.base, CLASSES), surgery.motion(motion_depth, args.base, CLASSES)
            path = files.write(Path(folder) / "released.mat", make(*streams), nested=True)
            del streams
            row, imported, net = conversion(path), read_matconvnet(path), read(path)
        model = STResNet(imported.config).eval()
        model.load_state_dict(imported.weights)
        count = sum(p.numel() for p in model.parameters())
        conversions.append(f"| {name} | {count:,} | {row} |")
        print(conversions[-1], file=sys.stderr, flush=True)
        double = True
        for size in args.sizes:
            height, width = map(int, size.split("x"))
            for steps in args.steps:
                rows.append(f"| {name} | {steps} | {size} | {errors(model, net, steps, (height, width), double)} |")
                print(rows[-1], file=sys.stderr, flush=True)
                double = False

    print("| network | parameters | file, MiB | conversion, s | peak RSS, MiB | of it conversion |")
    print("|---|---:|---:|---:|---:|---:|", *conversions, "", sep="\n")
    print("| network | T | size | appearance | double | motion | double | ours, s | interpreter, s |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", *rows, sep="\n")


if __name__ == "__main__":
    main()
