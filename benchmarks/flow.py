"""Compare TV-L1 flow in PyTorch with OpenCV's: accuracy, speed, the gain of each optimisation. Measure OpenCV's others.

    python benchmarks/flow.py [VIDEO …] [--pairs 16] [--rounds 5] [--threads 2] [--short-side 256] [--quick]

Prints Markdown tables. Endpoint errors are mean distances in px to the true flow of pictures in known motion: sums of
waves, and the first frames of the videos, at 340x256, with noise of one level. Real pairs of frames have no ground
truth. On them the two are compared with each other and by their warping error: the mean absolute difference between the
first frame and the second one warped back. Speeds are measured on the first video, or on moving waves without one, with
all candidates in turn in every round: medians of rounds, and the median ratio within a round. If there is a GPU, its
speed and the share of its bandwidth follow.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stresnet.flow import FlowSpec, iter_flow
from stresnet.flow.methods import METHODS, tvl1_torch
from stresnet.flow.methods.tvl1_torch import TVL1Parameters, tvl1
from stresnet.media.video import iter_frames

H, W = 256, 340
Image = NDArray[Any]
OPENCV = TVL1Parameters.from_preset(METHODS["tvl1"].presets["default"])
SCHEDULES = {  # alternatives to the defaults
    "OpenCV's parameters, in PyTorch": OPENCV,
    "scale step 0.5": TVL1Parameters(scale_step=0.5),
    "scale step 0.7": TVL1Parameters(scale_step=0.7),
    "5 scales": TVL1Parameters(scales=5),
    "2 warps of 20": TVL1Parameters(inner_iterations=20),
    "1 warp of 60": TVL1Parameters(warps=1, inner_iterations=60),
    "early stop at 0.01 px": TVL1Parameters(epsilon=0.01),
    "median filter off": TVL1Parameters(median_filter=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of frames per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--short-side", type=int, default=H)
    parser.add_argument("--quick", action="store_true", help="a minute rather than twenty: few pairs, one round")
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.rounds = min(options.pairs, 4), 1
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(f"torch {torch.__version__}, OpenCV {cv2.__version__}, {options.threads} threads\n")
    print_accuracy(known_motions(options.videos[:12], options.quick), {} if options.quick else SCHEDULES)
    for video in options.videos:
        print_opencvtance(video, options.short_side, 1 if options.quick else 3)
    frames = clip(options.videos, options.short_side, options.pairs + 1)
    print_speed(frames, options)
    if options.videos:
        print_opencv(options.videos[0], options)
    if torch.cuda.is_available():
        print_gpu(frames, options.rounds)


# ---------------------------------------------------------------- known motions


@dataclass(frozen=True)
class Motion:
    """A pair of frames (H, W) uint8 and their flow (2, H, W)."""

    kind: str
    first: Image
    second: Image
    flow: Image


def waves(seed: int) -> Callable[[Image, Image], Image]:
    """Return a function from places (x, y) to gray levels: a sum of 260 waves of 4 to 160 px, longer ones stronger."""
    rng = np.random.default_rng(seed)
    length, angle, phase = np.exp(rng.uniform(np.log(4), np.log(160), 260)), *rng.uniform(0, 2 * np.pi, (2, 260))
    strength = 45 * length**0.7 / np.sqrt((length**1.4).sum() / 2)
    parts = list(zip(2 * np.pi / length * np.exp(1j * angle), phase, strength, strict=True))
    return lambda x, y: np.asarray(127.5 + sum(s * np.cos(k.real * x + k.imag * y + p) for k, p, s in parts))


def matrix(turn_deg: float, zoom: float) -> Image:
    angle = np.deg2rad(turn_deg)
    return np.asarray(zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]))


def moved(kind: str, scene: Callable[[Image, Image], Image], linear: Image, shift: Any) -> Motion:
    """Return a scene, which maps places relative to the centre to levels, in an affine motion about the centre."""
    y, x = np.mgrid[:H, :W] - np.array([(H - 1) / 2, (W - 1) / 2])[:, None, None]
    places = np.stack([x, y], -1)
    before = (places - shift) @ np.linalg.inv(linear).T
    flow = places @ (linear - np.eye(2)).T + shift
    return Motion(kind, scene(x, y), scene(before[..., 0], before[..., 1]), flow.transpose(2, 0, 1))


def square(seed: int, back: tuple[float, float], front: tuple[float, float]) -> Motion:
    """Return a square of 90 px that moves over a moving background."""
    y, x = np.mgrid[:H, :W].astype(float)
    scenes, motions = (waves(seed), waves(seed + 1000)), (back, front)
    images, masks = [], []
    for t in range(2):
        (bx, by), (fx, fy) = ((x - t * u, y - t * v) for u, v in motions)
        masks.append((fx >= 100) & (fx < 190) & (fy >= 75) & (fy < 165))
        images.append(np.where(masks[t], scenes[1](fx, fy), scenes[0](bx, by)))
    true = np.where(masks[0], *(np.array(motion)[:, None, None] for motion in (front, back)))
    return Motion("moving square", *images, true)


def photograph(video: Path) -> Callable[[Image, Image], Image]:
    """Return the first frame of a video as a function from places to levels, smoothed for sampling at 340x256."""
    gray = cv2.cvtColor(next(iter_frames(video)).rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    per_px = min(gray.shape[1] / W, gray.shape[0] / H) / 1.15
    gray = cv2.GaussianBlur(gray, (0, 0), max(0.4 * per_px, 0.1))
    middle = (gray.shape[1] - 1) / 2, (gray.shape[0] - 1) / 2

    def levels(x: Image, y: Image) -> Image:
        at = ((c * per_px + m).astype(np.float32) for c, m in zip((x, y), middle, strict=True))
        return np.asarray(cv2.remap(gray, *at, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT))

    return levels


def known_motions(videos: list[Path], quick: bool) -> list[Motion]:
    """Return translations up to 10 px, rotations, zooms, moving squares, and real frames in combined motion."""
    still, rng = np.eye(2), np.random.default_rng(0)
    shifts = [(0.3, -0.4), (1.7, 0.6), (-3.4, 2.2), (6.3, -4.1), (-9.7, 1.8)]
    motions = [moved("translation", waves(10 + k), still, shift) for k, shift in enumerate(shifts)]
    motions += [moved("rotation", waves(20 + k), matrix(deg, 1), (0.5 * k, 0)) for k, deg in enumerate((1, 3))]
    motions += [moved("zoom", waves(30 + k), matrix(0, zoom), (k, k / 2)) for k, zoom in enumerate((1.02, 0.95))]
    squares = [((0, 0), (2.5, -1.5)), ((-1.2, 0.4), (6, 3)), ((0.5, 0), (-9, 2))]
    motions += [square(40 + k, *both) for k, both in enumerate(squares)]
    for video in videos:
        linear = matrix(rng.normal(0, 0.8), 1 + rng.normal(0, 0.012))
        motions.append(moved("real frame", photograph(video), linear, rng.normal(0, 4, 2)))
    return [with_noise(motion, rng) for motion in (motions[3::2] if quick else motions)]


def with_noise(motion: Motion, rng: np.random.Generator) -> Motion:
    noisy = (image + rng.normal(0, 1, image.shape) for image in (motion.first, motion.second))
    return Motion(motion.kind, *(np.rint(image).clip(0, 255).astype(np.uint8) for image in noisy), motion.flow)


# ---------------------------------------------------------------- accuracy


def opencv(pair: tuple[Image, Image]) -> Image:
    made: Any = cv2.optflow  # type: ignore[attr-defined]  # not in OpenCV's stubs
    return np.asarray(made.DualTVL1OpticalFlow_create().calc(*pair, None)).transpose(2, 0, 1)


def distances(flows: Any, others: Any) -> NDArray[np.float64]:
    """Return the mean endpoint distance of each flow (2, H, W) to its counterpart."""
    return np.array([np.hypot(*(np.asarray(a) - b)).mean() for a, b in zip(flows, others, strict=True)])


def print_accuracy(motions: list[Motion], schedules: dict[str, TVL1Parameters]) -> None:
    first = torch.from_numpy(np.stack([motion.first for motion in motions]))
    second = torch.from_numpy(np.stack([motion.second for motion in motions]))
    true = [motion.flow for motion in motions]
    kinds = sorted({motion.kind for motion in motions}, reverse=True)
    of_kind = {kind: [motion.kind == kind for motion in motions] for kind in kinds} | {"all": [True] * len(motions)}
    reference = distances([opencv((m.first, m.second)) for m in motions], true)
    print("| endpoint error, px | " + " | ".join(f"{k} ({sum(of_kind[k])})" for k in of_kind) + " | worse by > 2 % |")
    print("|---|" + "---|" * (len(of_kind) + 1))
    print("| OpenCV's TV-L1 | " + " | ".join(f"{reference[where].mean():.3f}" for where in of_kind.values()) + " | |")
    for name, params in ({"**ours**": TVL1Parameters()} | schedules).items():
        errors = distances(tvl1(first, second, params), true)
        cells = [f"{errors[w].mean():.3f} ({errors[w].mean() / reference[w].mean():.2f})" for w in of_kind.values()]
        worse = f"{(errors > 1.02 * reference).sum()}, at most {(errors / reference).max():.2f} times"
        print(f"| {name} | " + " | ".join(cells) + f" | {worse} |", flush=True)


def print_opencvtance(video: Path, short_side: int, count: int) -> None:
    """Print the distance between ours and OpenCV's flow, and the warping error of each."""
    frames = [gray(frame.rgb) for frame in iter_frames(video, short_side=short_side)]
    pairs = [(frames[t], frames[t + 1]) for t in np.linspace(0, len(frames) - 2, count + 2, dtype=int)[1:-1]]
    reference = [opencv(pair) for pair in pairs]
    ours = tvl1(*(torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))).numpy()
    left = [np.mean([warping_error(*p, f) for p, f in zip(pairs, flows, strict=True)]) for flows in (reference, ours)]
    speed = np.mean([np.hypot(*flow).mean() for flow in reference])
    print(
        f"{video.name}: {distances(ours, reference).mean():.3f} px apart at a mean speed of {speed:.2f} px; "
        f"warping error: OpenCV {left[0]:.2f}, ours {left[1]:.2f}",
        flush=True,
    )


def warping_error(first: Image, second: Image, flow: Image) -> float:
    y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
    back = cv2.remap(second, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(first.astype(np.float32) - back).mean())


def gray(rgb: Image) -> Image:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def clip(videos: list[Path], short_side: int, count: int) -> Image:
    """Return the first frames of the first video, (count, H, W), or moving waves if there is none."""
    if videos:
        reader = iter_frames(videos[0], short_side=short_side)
        return np.stack([gray(frame.rgb) for frame in itertools.islice(reader, count)])
    scene = waves(1)
    y, x = np.mgrid[:H, :W].astype(float)
    return np.stack([scene(x - 2.3 * t, y + 1.1 * t).clip(0, 255).astype(np.uint8) for t in range(count)])


# ---------------------------------------------------------------- speed


@contextmanager
def changed(table: dict[str, int], value: int) -> Iterator[None]:
    before, table["cpu"] = table["cpu"], value
    try:
        yield
    finally:
        table["cpu"] = before


def print_speed(frames: Image, options: argparse.Namespace) -> None:
    """Print the speed of each way; ratios are to the first."""
    first, second = torch.from_numpy(frames[:-1]), torch.from_numpy(frames[1:])
    pairs = list(itertools.pairwise(frames))
    few = max(2, len(pairs) // 4)

    def each_in_a_thread() -> None:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(options.threads) as pool:
            list(pool.map(opencv, pairs[:few]))
        cv2.setNumThreads(options.threads)

    def operations_shared() -> None:
        with torch.no_grad():
            tvl1_torch._flow_of_pairs(first[:2], second[:2], TVL1Parameters(), None)

    def alone(**how: bool) -> None:
        with changed(tvl1_torch._TOGETHER_PX, 1):
            tvl1(first, second, **how)

    def all_together() -> None:
        with changed(tvl1_torch._TOGETHER_PX, 10**9):
            tvl1(first, second, compiled=True)

    started = time.perf_counter()
    tvl1(first[:1], second[:1], compiled=True)
    print(f"\ncompiled in {time.perf_counter() - started:.1f} s\n")
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "OpenCV's TV-L1, a pair on all threads": (few, lambda: [opencv(pair) for pair in pairs[:few]]),
        "OpenCV's TV-L1, a pair on each thread": (few, each_in_a_thread),
        "ours with OpenCV's parameters": (few, lambda: tvl1(first[:few], second[:few], OPENCV)),
        "**ours**": (len(pairs), lambda: tvl1(first, second)),
        "  each operation on all threads": (2, operations_shared),
        "  each scale of each pair by itself": (len(pairs), lambda: alone()),
        "  scale step 0.5": (len(pairs), lambda: tvl1(first, second, SCHEDULES["scale step 0.5"])),
        "**ours, compiled**": (len(pairs), lambda: tvl1(first, second, compiled=True)),
        "  each scale of each pair by itself, compiled": (len(pairs), lambda: alone(compiled=True)),
        "  each scale of all pairs at once, compiled": (len(pairs), all_together),
    }
    height, width = frames.shape[1:]
    print(f"| {width}x{height}, {len(pairs)} pairs | frames/s | relative to OpenCV |\n|---|---|---|")
    for name, rates in in_turn(ways, options.rounds).items():
        print(f"| {name} | {rates[0]:.2f} | {rates[1]:.1f} |")


def in_turn(ways: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the median rate of each way, in items per second, and the median of its ratio to the first way."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (items, way) in ways.items():
            started = time.perf_counter()
            way()
            rates[name].append(items / (time.perf_counter() - started))
    first = next(iter(rates.values()))
    return {
        name: (statistics.median(of), statistics.median(a / b for a, b in zip(of, first, strict=True)))
        for name, of in rates.items()
    }


def print_opencv(video: Path, options: argparse.Namespace) -> None:
    """Print the speed of OpenCV's methods on a whole video, decoding included: a pair on all threads, or on each."""
    side = options.short_side
    specs = [FlowSpec("dis", preset) for preset in ("ultrafast", "fast", "medium")] + [FlowSpec("farneback")]
    count = sum(1 for _ in iter_frames(video, short_side=side)) - 1

    def pair_on_all_threads(spec: FlowSpec) -> None:
        load = METHODS[spec.method].from_pictures
        assert load is not None
        estimator = load(spec.preset, spec.parameters)
        for pair in itertools.pairwise(gray(frame.rgb) for frame in iter_frames(video, short_side=side)):
            estimator.compute(pair)

    def pair_on_each_thread(spec: FlowSpec) -> None:
        for _ in iter_flow((frame.rgb for frame in iter_frames(video, short_side=side)), spec):
            pass

    print("\n| decoding included | a pair on all threads, frames/s | on each thread | ratio |\n|---|---|---|---|")
    for spec in specs:
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "all": (count, lambda spec=spec: pair_on_all_threads(spec)),
            "each": (count, lambda spec=spec: pair_on_each_thread(spec)),
        }
        rates = in_turn(ways, options.rounds)
        print(
            f"| {spec.method} {spec.preset} | {rates['all'][0]:.0f} | {rates['each'][0]:.0f} | {rates['each'][1]:.2f} |"
        )


def print_gpu(frames: Image, rounds: int) -> None:
    """Print frames/s for 256 pairs, and the iterations' memory traffic relative to the bandwidth of a copy."""
    pair = [torch.from_numpy(frames[at]).cuda() for at in (slice(0, -1), slice(1, None))]
    pair = [side.repeat(-(-256 // len(side)), 1, 1)[:256] for side in pair]
    params = TVL1Parameters()
    scales = tvl1_torch._scales(torch.zeros(2, 1, *frames.shape[1:]), params)
    pixels = sum(scale[0, 0].numel() for scale in scales)
    # A step reads u, p and the data term (10 floats a pixel), writes u; reads u and p, writes p.
    moved_bytes = pixels * params.warps * params.inner_iterations * 4 * (10 + 2 + 6 + 4)
    source = torch.empty(2**28, device="cuda")

    def timed(work: Callable[[], object]) -> float:
        work()
        seconds = []
        for _ in range(rounds):
            torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds)

    copy = 2 * source.nbytes / timed(source.clone)
    print(f"\n{torch.cuda.get_device_name()}: a copy {copy / 1e9:.0f} GB/s; {moved_bytes / 1e6:.0f} MB a pair")
    print("\n| | frames/s | share of the copy's bandwidth |\n|---|---|---|")
    rate = 256 / timed(lambda: tvl1(*pair, params))
    print(f"| PyTorch | {rate:.0f} | {100 * rate * moved_bytes / copy:.0f} % |")


if __name__ == "__main__":
    main()
