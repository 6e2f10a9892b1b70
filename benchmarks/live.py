"""Measure whether a stream is recognised as fast as it comes, and what a step costs.

    python benchmarks/live.py [--minutes 10] [--width 1.0] [--stride 8] [--mode immediate] [--threads 2] [--rounds 5]

The network is an ST-ResNet-50 with random filters and batch-norm moments of a random clip. First a step of the stream
takes turns with what gives a result at every step without its memory, a window of T = 5 steps, and with a product of
matrices, the limit of the machine; times are minima over the rounds. Then a server on the loopback interface sends
320×240 px at 25 frames/s as an MPEG transport stream by HTTP, and `stresnet live` reads it, computes the flow (DIS
medium, at a short side of 256) and recognises. Prints two Markdown tables; a row of the second covers a minute, and
load is the number of runnable processes, this one included.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

import av
import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from stresnet.data.prepared_video import StoreSpec
from stresnet.flow import FlowSpec
from stresnet.inference.live_session import Pace, recognized
from stresnet.inference.recognizer import Recognizer
from stresnet.media.feed import Feed
from stresnet.model import Checkpoint, Preprocessing, STResNet
from stresnet.recipes import load_recipe

HEIGHT, WIDTH, FPS, LOOP_FRAMES, SIDE, WINDOW = 240, 320, 25, 250, 224, 5
Clip = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--mode", choices=("exact", "immediate"), default="immediate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    recognizer = Recognizer(random_checkpoint(options.width))
    print_costs(recognizer, options.rounds)
    print_stream(recognizer, options)


def random_checkpoint(width: float) -> Checkpoint:
    """Return an ST-ResNet-50 whose activations stay of order one."""
    recipe = load_recipe("ucf101", [f"*.network.width={width}"])
    torch.manual_seed(0)
    model = STResNet(recipe.stage("st-resnet").network.with_classes(101))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(*clip(2, 64))
    return Checkpoint(
        model=model.eval(),
        classes=tuple(f"action {k}" for k in range(101)),
        preprocessing=Preprocessing(),
        store_spec=StoreSpec(FlowSpec()).to_dict(),
        stage="st-resnet",
        recipe=recipe.to_dict(),
    )


def clip(steps: int, side: int) -> Clip:
    return torch.randn(1, 3, steps, side, side), torch.randn(1, 20, steps, side, side)


def print_costs(recognizer: Recognizer, rounds: int) -> None:
    """Compare a step with a window by counted FLOPs and by time."""
    engine = recognizer.engine
    window, matrices = clip(WINDOW, SIDE), torch.randn(2, 1536, 1536)
    step = window[0][:, :, :1], window[1][:, :, :1]
    runs = {f"a window of {WINDOW} steps": lambda: engine(*window)}
    for mode in ("exact", "immediate"):
        net = engine.incremental(immediate=mode == "immediate")
        for _ in range(2 * net.delay_steps + 1):  # until every layer is at work
            net.push(*step)
        runs[f"a step, {mode}"] = lambda net=net: net.push(*step)
    flops, best = {}, dict.fromkeys([*runs, "matrices"], float("inf"))
    for name, run in runs.items():
        with FlopCounterMode(display=False) as counter:
            run()
        flops[name] = counter.get_total_flops()
    runs["matrices"], flops["matrices"] = lambda: matrices[0] @ matrices[1], 2 * 1536**3
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - began)
    limit, whole = flops["matrices"] / best["matrices"], f"a window of {WINDOW} steps"
    print(f"{engine.precision}, {torch.get_num_threads()} threads, limit {limit / 1e9:.0f} GFLOP/s\n")
    print("| at every step | GFLOP | fewer | ms | faster | share of the limit |\n|---|---|---|---|---|---|")
    for name in runs:
        if name != "matrices":
            fewer, faster, share = (
                flops[whole] / flops[name],
                best[whole] / best[name],
                flops[name] / best[name] / limit,
            )
            cells = f"{flops[name] / 1e9:.1f} | {fewer:.1f}× | {1000 * best[name]:.0f} | {faster:.1f}× | {share:.0%}"
            print(f"| {name} | {cells} |", flush=True)
    print()


def print_stream(recognizer: Recognizer, options: argparse.Namespace) -> None:
    """Recognise a stream in real time, and print a row for each minute."""
    live, pace = recognizer.live(options.mode, stride_frames=options.stride), Pace()
    short_side = recognizer.store_spec.flow.short_side
    print(f"{WIDTH}×{HEIGHT} px, {FPS} frames/s, mode {options.mode}, a step every {options.stride} frames\n")
    print("| minutes | frames/s | dropped | results | latency p50 | p95 | RSS MB | load |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with server() as url, Feed(url, short_side=short_side, note=lambda text: print(text, file=sys.stderr)) as feed:
        due, last = min(60.0, options.minutes * 60), (0.0, 0, 0, 0)
        for _ in recognized(live, feed, pace):
            elapsed = pace.elapsed_sec()
            if elapsed < due:
                continue
            seconds, frames, dropped, results = last
            last = (elapsed, pace.frames, feed.dropped, pace.results)
            cells = [
                f"{elapsed / 60:.1f}",
                f"{(pace.frames - frames) / (elapsed - seconds):.1f}",
                f"{feed.dropped - dropped}",
                f"{pace.results - results}",
                f"{pace.latency_sec(50):.2f} s",
                f"{pace.latency_sec(95):.2f} s",
                f"{resident_mb():.0f}",
                f"{os.getloadavg()[0]:.1f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
            due += 60
            pace.latencies_sec.clear()
            if elapsed >= options.minutes * 60:
                break
    print(f"\npeak RSS {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def transport_stream() -> list[bytes]:
    """Return a wandering texture as an MPEG transport stream, in the pieces that each frame adds."""
    texture = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    texture = cv2.GaussianBlur(texture, (0, 0), 3)
    sink, pieces = io.BytesIO(), []
    with av.open(sink, "w", format="mpegts", options={"mpegts_flags": "resend_headers", "flush_packets": "1"}) as ts:
        stream = ts.add_stream("libx264", rate=FPS, options={"tune": "zerolatency", "g": str(FPS)})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for t in range(LOOP_FRAMES):
            turn = 2 * np.pi * t / LOOP_FRAMES  # the last picture leads on to the first
            top, left = int(180 + 150 * np.sin(3 * turn)), int(200 + 180 * np.cos(2 * turn))
            frame = av.VideoFrame.from_ndarray(texture[top : top + HEIGHT, left : left + WIDTH].copy(), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, FPS)
            ts.mux(stream.encode(frame))
            pieces.append(sink.getvalue())
            sink.seek(0)
            sink.truncate()
    return pieces


@contextmanager
def server() -> Iterator[str]:
    """Send the stream over and over, in real time."""
    pieces = transport_stream()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            began = time.monotonic()
            try:
                for number in count():
                    time.sleep(max(0.0, began + number / FPS - time.monotonic()))
                    self.wfile.write(pieces[number % LOOP_FRAMES])
            except OSError:  # the stream was closed
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


if __name__ == "__main__":
    main()
