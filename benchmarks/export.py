"""Compare exported models with the network in PyTorch: parity, agreement, speed and size; start-up and memory.

    python benchmarks/export.py run/st-resnet/model.safetensors store/ [--compile] [--full-width] [--videos 64]

Speeds are ratios to PyTorch in float32, both in turn in one process. int8 is quantised and shown whether or not
`stresnet export` would keep it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from stresnet.data.store import Store
from stresnet.export import network
from stresnet.export.check import compare
from stresnet.export.clips import LabelledClip, generated, held_out, of_training
from stresnet.export.quantize import CALIBRATION_VIDEOS, quantize
from stresnet.inference.runtime import Runtime, open_runtime
from stresnet.model import Checkpoint, STResNet, load_checkpoint

CHILD = """
import resource, sys, time
start = time.perf_counter()
from stresnet import Recognizer
recognizer = Recognizer(sys.argv[1])
ready = time.perf_counter() - start
recognizer.predict(sys.argv[2], protocol="center")
first = time.perf_counter() - start
print(ready, first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--compile", action="store_true", help="also PyTorch compiled, which takes a minute")
    parser.add_argument("--full-width", action="store_true", help="random weights of full width on generated clips")
    parser.add_argument("--videos", type=int, default=64, help="held-out videos to compare on")
    parser.add_argument("--start-up", metavar="VIDEO", help="also measure start-up and memory with this video")
    options = parser.parse_args()
    checkpoint, store = load_checkpoint(options.model), Store.open(options.store)
    if options.full_width:
        config = checkpoint.config.replace(width=1.0, stem_channels=None)
        checkpoint = checkpoint.replace(model=STResNet(config).eval())
    reference = open_runtime(checkpoint, "cpu", "fp32")
    with TemporaryDirectory() as folder:
        files = export_all(checkpoint, store, Path(folder))
        print("| runtime | largest relative difference | same top-1 | top-1 (PyTorch's) | × PyTorch fp32 | MB |")
        print("|---|---|---|---|---|---|", flush=True)
        for runtime, size_mb in runtimes(checkpoint, files, compiled=options.compile):
            clips = generated(checkpoint) if options.full_width else held_out(checkpoint, store, options.videos)
            print(row(runtime, reference, clips, size_mb), flush=True)
        if options.start_up:
            start_up([options.model, *files], options.start_up)


def export_all(checkpoint: Checkpoint, store: Store, folder: Path) -> list[Path]:
    """Write a network in float32 and int8 for both runtimes, and return the files."""
    proto = network.trace(checkpoint)
    model = network.as_openvino(proto)
    clips = [one.clips for one in of_training(checkpoint, store, CALIBRATION_VIDEOS)]
    files = []
    for precision in ("fp32", "int8"):
        metadata = network.exported_metadata(checkpoint, precision)
        for graph, ending, write in ((proto, "onnx", network.write_onnx), (model, "xml", network.write_openvino)):
            file = folder / f"{precision}.{ending}"
            write(file, graph if precision == "fp32" else quantize(graph, checkpoint, clips), metadata)
            files.append(file)
    return files


def runtimes(checkpoint: Checkpoint, files: list[Path], *, compiled: bool) -> Iterator[tuple[Runtime, float]]:
    """Yield each runtime and the size of its file in MB, 0 for PyTorch."""
    if compiled:
        yield open_runtime(checkpoint, "cpu", "fp32", compiled=True), 0
    for file in files:
        size = sum(f.stat().st_size for f in (file, file.with_suffix(".bin")) if f.is_file()) / 1e6
        exact = open_runtime(file, precision="fp32")
        yield exact, size
        fastest = open_runtime(file)
        if fastest.numerics != exact.numerics:
            yield fastest, size


def row(runtime: Runtime, reference: Runtime, clips: Iterator[LabelledClip], size_mb: float) -> str:
    found = compare(runtime, reference, clips)
    accuracy = "" if found.accuracy is None else f"{found.accuracy:.1%} ({found.accuracy_against:.1%})"
    cells = (runtime.numerics, f"{found.error:.1e}", f"{found.agreement:.1%}", accuracy, f"{found.speed:.2f}")
    return f"| {' | '.join(cells)} | {size_mb:.1f} |"


def start_up(files: list[Path], video: str, rounds: int = 3) -> None:
    """Print what starting and the first prediction take, the best of some rounds in turn."""
    measured: dict[Path, list[list[float]]] = {file: [] for file in files}
    for _ in range(rounds):
        for file in files:
            printed = subprocess.run([sys.executable, "-c", CHILD, file, video], check=True, stdout=subprocess.PIPE)
            measured[file].append([float(value) for value in printed.stdout.split()])
    print("\n| file | ready, s | first prediction, s | peak memory, MiB |\n|---|---|---|---|")
    for file, found in measured.items():
        ready, first, memory = (min(column) for column in zip(*found, strict=True))
        print(f"| {file.name} | {ready:.2f} | {first:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
