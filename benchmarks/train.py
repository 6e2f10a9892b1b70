"""Measure training: the share of the machine's limit it reaches, and what reading clips from a store costs.

    python benchmarks/train.py STORE [--networks small "ucf101 network.width=0.5" ucf101] [--stage st-resnet]
        [--precision 32-true] [--against CHECKOUT] [--with NAME=VALUE …] [--rounds 5] [--steps 4] [--processor-time]

Each network is a recipe and changes to it. `stresnet.train` trains its stage from random weights, an optimiser step per
sub-batch: with a clip that is in memory, and with the loader. Each runs in a process of its own, in turn: all others
wait, and the clips that a loader read while it waited are skipped. A round also measures the limit, by multiplying
matrices of 2048 × 2048. With --against, another checkout is measured too; with --with, this one in another environment.
Prints a Markdown table: times are medians of rounds, shares and ratios the medians of those within a round.

STORE is a prepared store. OMP_NUM_THREADS sets the threads. On a machine that is busy with other work, set it to 1 and
give --processor-time (Linux): the time of the process and its loader processes, as if all shared one core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import torch
from torch.utils.flop_counter import FlopCounterMode

import stresnet.training.fit as fit
import stresnet.training.trainer as trainer
from stresnet.data.training_clips import Sample, TrainingClips
from stresnet.model.profile import on_meta
from stresnet.recipes import Stage, load_recipe

SKIPPED_STEPS = 3
"""Steps not measured after a wait: a loader process reads two batches ahead."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--networks", nargs="+", default=["small", "ucf101 network.width=0.5", "ucf101"])
    parser.add_argument("--stage", default="st-resnet")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--with", nargs="+", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--train", nargs=2, metavar=("NETWORK", "DATA"), help="for internal use")
    options = parser.parse_args()
    if options.train:
        train(*options.train, options)
        return
    sides: dict[str, dict[str, str]] = {"this checkout": {}}
    if options.against:
        sides[str(options.against)] = {"PYTHONPATH": str(options.against / "src")}
    if options.settings:
        sides[" ".join(options.settings)] = dict(setting.split("=", 1) for setting in options.settings)
    print("| network | | GFLOP a step | ms a step in memory | share of limit | ratio | with loader | share of speed |")
    print("|---|---|---|---|---|---|---|---|")
    for network in options.networks:
        compare(network, sides, options)


def compare(network: str, sides: dict[str, dict[str, str]], options: argparse.Namespace) -> None:
    """Print a row for each side."""
    gflop = gflop_of(stage_of(network, options))
    limits: list[float] = []
    seconds: dict[tuple[str, str], list[float]] = {(side, data): [] for side in sides for data in ("memory", "loader")}
    with ExitStack() as stack:
        children = {key: stack.enter_context(child(key[1], network, sides[key[0]], options)) for key in seconds}
        for _ in range(options.rounds):
            limits.append(limit_gflops(options))
            for key, process in children.items():
                assert process.stdin
                assert process.stdout
                print("go", file=process.stdin, flush=True)
                seconds[key].append(float(process.stdout.readline()))
        for process in children.values():
            process.communicate()  # ends it
    baseline = seconds[next(iter(sides)), "memory"]
    for side in sides:
        memory, loader = seconds[side, "memory"], seconds[side, "loader"]
        share = median(gflop / s / limit for s, limit in zip(memory, limits, strict=True))
        ratio = median(a / b for a, b in zip(memory, baseline, strict=True))
        speed = median(a / b for a, b in zip(memory, loader, strict=True))
        cells = [network, side, f"{gflop:.0f}", f"{1000 * median(memory):.0f}", f"{share:.0%}", f"{ratio:.2f}"]
        print(f"| {' | '.join(cells)} | {1000 * median(loader):.0f} | {speed:.0%} |", flush=True)
    print(f"<!-- {network}: limit {median(limits):.0f} GFLOP/s, {torch.get_num_threads()} threads -->", flush=True)


def child(data: str, network: str, settings: dict[str, str], options: argparse.Namespace) -> subprocess.Popen[str]:
    """Start a process that trains, and waits for its turns."""
    command = [sys.executable, __file__, options.store, "--train", network, data, "--steps", str(options.steps)]
    command += ["--stage", options.stage, "--precision", options.precision]
    command += ["--processor-time"] * options.processor_time
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | settings
    )


def stage_of(network: str, options: argparse.Namespace) -> Stage:
    recipe, *changes = network.split()
    return load_recipe(recipe, changes).stage(options.stage)


def gflop_of(stage: Stage) -> float:
    """Return the arithmetic of a step, counted from shapes: two FLOPs for every multiply-add, forward and backward."""
    net, clips = on_meta(stage.network.with_classes(2)), stage.optimisation.sub_batch_videos
    shape = (stage.clips.steps, stage.clips.crop_px, stage.clips.crop_px)
    rgb = torch.empty(clips, 3, *shape, device="meta")
    flow = torch.empty(clips, 2 * stage.network.flow_stack, *shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        net(rgb, flow).fused.sum().backward()
    return counter.get_total_flops() / 1e9


def limit_gflops(options: argparse.Namespace, size: int = 2048, count: int = 8) -> float:
    """Return the speed of matrix multiplications."""
    a = torch.rand(size, size, dtype=torch.float32 if options.precision == "32-true" else torch.bfloat16)
    a @ a
    start = seconds_now(options)
    for _ in range(count):
        a @ a
    return 2e-9 * size**3 * count / (seconds_now(options) - start)


def seconds_now(options: argparse.Namespace) -> float:
    """Return the time, or the processor time of this process and its children."""
    if not options.processor_time:
        return time.perf_counter()
    pids = [os.getpid(), *(process.pid or 0 for process in multiprocessing.active_children())]
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)  # Linux: CPU clock of a process, man clock_getres


class Turns:
    """A `Progress` that prints the mean seconds of the last steps, then waits for its next turn."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.left, self.started = 0, 0.0

    def __call__(self, activity: str, done: int, total: int, detail: str = "") -> None:
        self.left -= 1
        if self.left == self.options.steps:
            self.started = seconds_now(self.options)
        if self.left > 0:
            return
        if done:
            print((seconds_now(self.options) - self.started) / self.options.steps, flush=True)
        if not sys.stdin.readline():
            raise KeyboardInterrupt  # the parent process has measured enough
        self.left = self.options.steps + SKIPPED_STEPS


def train(network: str, data: str, options: argparse.Namespace) -> None:
    """Train until the standard input ends."""
    stage = options.stage
    sub_batch = stage_of(network, options).optimisation.sub_batch_videos
    recipe, *changes = network.split()
    changes += [f"{stage}.starts_from=[]", f"*.optimisation.precision={options.precision}"]
    changes += [
        f"{stage}.optimisation.batch_videos={sub_batch}",
        "*.optimisation.schedule=[{lr: 1e-6, epochs: 100000}]",
    ]
    trainer.SECONDS_BETWEEN_REPORTS = 0
    if data == "memory":
        fit.TrainingClips = ClipsInMemory  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        fit.train(
            options.store,
            folder,
            load_recipe(recipe, changes),
            only=stage,
            workers=0 if data == "memory" else None,
            progress=Turns(options),
        )


class ClipsInMemory(TrainingClips):
    """Training clips that are all the first one."""

    @cached_property
    def first(self) -> Sample:
        return super().__getitem__(0)

    def __getitem__(self, index: int) -> Sample:
        return self.first


if __name__ == "__main__":
    main()
