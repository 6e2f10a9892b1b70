"""Compare ways to run the network, and measure where the time of a prediction goes.

    python benchmarks/predict.py VIDEO [--width 1.0] [--rounds 3] [--threads 2] [--precision auto] [--skip PART …]

The network is a ResNet-50 with random filters and batch-norm moments of a random clip. Forward passes (the whole graph
as it is trained, folded, compiled, and by OpenVINO if that is installed) take turns with a product of matrices, the
limit of the machine. Times are minima over the rounds, because other load only adds time; errors are relative to the
largest logit. Then VIDEO is predicted by each protocol, and its parts are measured alone. Last, fresh processes measure
the processor time of starting to predict, beyond importing torch. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from stresnet.data.prepared_video import StoreSpec
from stresnet.flow import FlowSpec, iter_flow
from stresnet.inference.engine import Engine
from stresnet.inference.protocols import PROTOCOLS
from stresnet.inference.recognizer import Recognizer
from stresnet.inference.scorer import prepare_for
from stresnet.media import iter_frames
from stresnet.media.video import probe
from stresnet.model import Checkpoint, Preprocessing, StreamLogits, STResNet
from stresnet.model.checkpoint import save_checkpoint
from stresnet.model.precision import choose_precision
from stresnet.model.profile import flops_of, network_name, on_meta
from stresnet.recipes import load_recipe

CPU = torch.device("cpu")
SIZES = ((5, 224, 224), (25, 256, 341))  # T, H, W: a training clip, a view of dense25
Clip = tuple[Tensor, Tensor]
Network = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="auto: bf16 if native")
    parser.add_argument("--skip", choices=("forward", "video", "start"), nargs="*", default=[])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    model = random_model(options.width)
    name = network_name(model.model.config)
    print(f"{name}, width {options.width:g}; torch {torch.__version__}, {processor()}, {options.threads} threads")
    if "forward" not in options.skip:
        for size in SIZES:
            print_forward(model.model, size, options.precision, options.rounds)
    if "video" not in options.skip:
        print_prediction(model, options.video, options.precision, options.rounds)
    if "start" not in options.skip:
        print_start(model, options.rounds)


def processor() -> str:
    """Return the name of the processor and its widest vectors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({torch.backends.cpu.get_cpu_capability()})"


def random_model(width: float) -> Checkpoint:
    """Return an untrained model as the recipe `ucf101` trains it."""
    recipe = load_recipe("ucf101")
    stage = recipe.stage("st-resnet")
    torch.manual_seed(0)
    network = STResNet(stage.network.with_classes(101).replace(width=width))
    stack = network.config.flow_stack
    return Checkpoint(
        model=calibrated(network, [(torch.randn(2, 3, 5, 112, 112), torch.randn(2, 2 * stack, 5, 112, 112))]),
        classes=tuple(f"class {k}" for k in range(101)),
        preprocessing=Preprocessing(),
        store_spec=StoreSpec(FlowSpec()).to_dict(),
        stage=stage.name,
        recipe=recipe.to_dict(),
    )


def calibrated(network: STResNet, clips: Sequence[Clip]) -> STResNet:
    """Give batch norm the mean moments of some batches; return the network to evaluate."""
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over batches
    with torch.no_grad():
        for rgb, flow in clips:
            network(rgb, flow)
    return network.eval()


# ---------------------------------------------------------------- forward passes


def print_forward(network: STResNet, size: tuple[int, int, int], wanted: Any, rounds: int) -> None:
    """Print a table of the ways to run a network on clips (T, H, W)."""
    torch.manual_seed(1)
    clip = torch.randn(1, 3, *size), torch.randn(1, 2 * network.config.flow_stack, *size)
    gflop = flops_of(on_meta(network.config), *size) / 1e9
    ways: dict[str, tuple[Network, float]] = {}
    for name, make in candidates(network, clip, choose_precision(wanted, CPU)).items():
        start = time.perf_counter()
        way = make()
        way(*clip)
        ways[name] = way, time.perf_counter() - start
    exact, error = ways["eager, fp32"][0](*clip), {}
    seconds: dict[str, list[float]] = {name: [] for name in [*ways, "limit"]}
    for _ in range(rounds):
        for name, (way, _) in ways.items():
            seconds["limit"].append(seconds_of(partial(torch.mm, *(torch.ones(2048, 2048),) * 2)))
            start = time.perf_counter()
            found = way(*clip)
            seconds[name].append(time.perf_counter() - start)
            error[name] = float((found - exact).abs().max() / exact.abs().max())
    limit = 2 * 2048**3 / min(seconds["limit"]) / 1e9
    print(f"\nT = {size[0]}, {size[1]}×{size[2]}: {gflop:.0f} GFLOP; limit of fp32 {limit:.0f} GFLOP/s\n")
    print("| forward | ms | eager / this | share of fp32's limit | rel. error | first call, s |\n" + "|---" * 6 + "|")
    before = min(seconds["eager, fp32"])
    for name, (_, first) in ways.items():
        best = min(seconds[name])
        share = f"{gflop / best / limit:.0%}"
        print(
            f"| {name} | {1000 * best:.0f} | {before / best:.2f} | {share} | {error[name]:.1e} | {first:.1f} |",
            flush=True,
        )


def candidates(network: STResNet, clip: Clip, precision: str) -> dict[str, Callable[[], Network]]:
    """Return a function that makes each way to run a network."""

    def eager(rgb: Tensor, flow: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(rgb, flow).fused

    def engine(precision: Any, compiled: bool) -> Network:
        ready = Engine(network, CPU, precision, compiled=compiled)
        return lambda rgb, flow: ready(rgb, flow).fused

    makers: dict[str, Callable[[], Network]] = {"eager, fp32": lambda: eager}
    for each in dict.fromkeys(("fp32", precision)):
        makers[f"folded, {each}"] = partial(engine, each, False)
        makers[f"folded and compiled, {each}"] = partial(engine, each, True)
    if find_spec("openvino"):
        makers[f"OpenVINO, {precision}"] = partial(openvino, network, clip, precision)
    return makers


def openvino(network: STResNet, clip: Clip, precision: str) -> Network:
    """Return a network that OpenVINO runs."""
    import openvino as ov  # type: ignore[import-not-found, unused-ignore]

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
            logits: StreamLogits = self.network(rgb, flow)
            return logits.fused

    with torch.no_grad():
        graph = ov.convert_model(Fused().eval(), example_input=clip, input=[tuple(x.shape) for x in clip])
    hints = {"INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision)}
    compiled = ov.compile_model(graph, "CPU", hints | {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
    return lambda rgb, flow: torch.from_numpy(np.array(compiled([rgb.numpy(), flow.numpy()])[0]))


# ---------------------------------------------------------------- whole predictions


class Recorder:
    """An engine that keeps what it is given, so that the network can run again alone."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.device = engine, engine.device
        self.calls: list[Any] = []

    def __call__(self, *inputs: Any) -> Any:
        self.calls.append(inputs)
        return self.engine(*inputs)

    def again(self) -> None:
        for inputs in self.calls:
            self.engine(*inputs)


def print_prediction(model: Checkpoint, video: Path, wanted: Any, rounds: int) -> None:
    """Print what predicting a video takes by each protocol, its network alone, and reading the video alone."""
    recognizer = Recognizer(model, device="cpu", precision=wanted)
    spec, engine = recognizer.store_spec, recognizer._scorer.runtime.engine
    frames = [frame.rgb for frame in iter_frames(video, short_side=spec.flow.short_side)]
    decode = best_of(rounds, lambda: drain(iter_frames(video, short_side=spec.flow.short_side)))
    flow = best_of(rounds, lambda: drain(iter_flow(frames, spec.flow)))
    height, width, _ = frames[0].shape
    duration_sec = len(frames) / probe(video).fps
    print(
        f"\n{video.name}: {duration_sec:.1f} s, {len(frames)} frames of {width}×{height}, {engine.precision}. "
        f"Decoding all takes {decode:.2f} s, the flow of all (DIS {spec.flow.preset}) {flow:.2f} s.\n"
    )
    print("| protocol | whole, s | real time / whole | network, s | whole / network | decoding, flow, JPEG, s |")
    print("|---|---|---|---|---|---|")
    for protocol in PROTOCOLS:
        recorder = Recorder(engine)
        recognizer._scorer.runtime.engine = recorder  # type: ignore[assignment]
        recognizer.predict(video, protocol=protocol)
        recognizer._scorer.runtime.engine = engine
        seconds = [
            (
                seconds_of(lambda: recognizer.predict(video, protocol=protocol)),  # noqa: B023
                seconds_of(recorder.again),
                seconds_of(lambda: prepare_for(model, spec, video, protocol)),  # noqa: B023
            )
            for _ in range(rounds)
        ]
        whole, network, reading = (min(column) for column in zip(*seconds, strict=True))
        ratio = statistics.median(turn[0] / turn[1] for turn in seconds)
        cells = f"{whole:.2f} | {duration_sec / whole:.2f} | {network:.2f} | {ratio:.3f} | {reading:.2f}"
        print(f"| `{protocol}` | {cells} |", flush=True)


def drain(items: Iterable[object]) -> None:
    for _ in items:
        pass


# ---------------------------------------------------------------- start-up


def print_start(model: Checkpoint, rounds: int) -> None:
    """Print the processor time of fresh processes that start to predict a file that does not exist."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors")
        save_checkpoint(file, model)
        commands = {
            "import torch": ["-c", "import torch"],
            "import Recognizer": ["-c", "import stresnet.inference.recognizer"],
            "stresnet predict, up to the video": [
                "-m",
                "stresnet",
                "predict",
                str(file),
                str(Path(folder, "none.mp4")),
            ],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                before = children_sec()
                subprocess.run([sys.executable, *command], capture_output=True, check=False)
                seconds[name].append(children_sec() - before)
    print("\n| start | s | beyond torch |\n|---|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {min(times):.2f} | {min(times) - min(seconds['import torch']):.2f} |")


def children_sec() -> float:
    """Return the processor time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds_of(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def best_of(rounds: int, action: Callable[[], object]) -> float:
    return min(seconds_of(action) for _ in range(rounds))


if __name__ == "__main__":
    main()
