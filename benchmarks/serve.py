"""Load a service with real clips: latencies, throughput against `predict`, memory, leaks, killed decoders, damage.

    python benchmarks/serve.py MODEL VIDEOS --requests 1000 --clients 32

Each round asks the service about some videos from all clients at once, then gives the same videos to `Recognizer` in
another process, so both see the machine in the same state. The clients run on the same cores as the service.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PREDICT = """
import sys, time
from stresnet.inference.recognizer import Recognizer
recognizer = Recognizer(sys.argv[1], device="cpu")
for line in sys.stdin:
    videos = line.split("\\t")
    began = time.perf_counter()
    failed = sum(isinstance(one, Exception) for one in recognizer.predict_all(
        [video.strip() for video in videos], protocol=sys.argv[2]))
    print(time.perf_counter() - began, failed, flush=True)
"""


@dataclass
class Service:
    """A service in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    protocol: str
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def ask(self, data: bytes) -> tuple[int, dict[str, Any], int]:
        """Upload a video, and return the status, the values and the seconds to wait."""
        boundary = secrets.token_hex(8)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="video"; filename="x"\r\n\r\n'
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=300)
        try:
            kind = f"multipart/form-data; boundary={boundary}"
            connection.request("POST", f"/v1/predict?protocol={self.protocol}", body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), int(answer.headers.get("Retry-After", "0"))
        finally:
            connection.close()

    def insist(self, data: bytes) -> None:
        """Upload a video, again as long as the service is busy, and note the answer."""
        while True:
            began = time.perf_counter()
            try:
                status, values, wait = self.ask(data)
            except OSError as error:
                self.statuses[f"no answer ({type(error).__name__})"] += 1
                return
            self.statuses[f"{status} {values.get('type', '')}".strip()] += 1
            if status != 429:
                if status == 200:
                    self.seconds.append(time.perf_counter() - began)
                return
            time.sleep(wait * random.uniform(0.5, 1))

    def state(self) -> dict[str, float]:
        """Return memory, open files and processes of the service."""
        pid = self.process.pid
        (rss,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
        return {
            "MiB": int(rss) / 1024,
            "files": len(os.listdir(f"/proc/{pid}/fd")),
            "processes": len(descendants(pid)),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
        }


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process, of those below it, and of those below that have ended."""
    ticks = 0
    for one in [pid, *descendants(pid)]:
        ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """Return the processes below one, those that were started last coming last."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = [], [pid]
    while new:
        new = sorted(child for child, parent in parents.items() if parent in new)
        found += new
    return found


def start(model: str, protocol: str, log: Any, temporary: str) -> Service:
    """Start a service, and return it when it is ready."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "stresnet", "serve", model, "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=log, env={**os.environ, "TMPDIR": temporary})
    while True:
        assert process.poll() is None, "the service ended; see its log"
        try:
            with socket.create_connection((HOST, port), 1):
                return Service(process, port, protocol)
        except OSError:
            time.sleep(0.2)


def rounds(service: Service, model: str, videos: list[Path], arguments: argparse.Namespace) -> None:
    """Ask the service and `predict` in turn, and print both."""
    ratios, costs, states = [], [], []
    predict = subprocess.Popen(
        [sys.executable, "-c", PREDICT, model, arguments.protocol],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )
    assert predict.stdin is not None
    assert predict.stdout is not None
    each = arguments.requests // arguments.rounds
    with ThreadPoolExecutor(arguments.clients) as clients:
        for number in range(arguments.rounds):
            chosen = [videos[(number * each + k) % len(videos)] for k in range(each)]
            pids = service.process.pid, predict.pid
            used = [processor_seconds(pid) for pid in pids]
            began = time.perf_counter()
            list(clients.map(lambda video: service.insist(video.read_bytes()), chosen))
            served = each / (time.perf_counter() - began)
            states.append(service.state())
            print("\t".join(map(str, chosen)), file=predict.stdin, flush=True)
            seconds, failed = predict.stdout.readline().split()
            assert failed == "0", "predict failed"
            used = [processor_seconds(pid) - before for pid, before in zip(pids, used, strict=True)]
            costs.append(used[0] / used[1])
            ratios.append(served * float(seconds) / each)
            shown = "  ".join(f"{name} {value:.0f}" for name, value in states[-1].items())
            print(
                f"round {number}: {served:.2f} videos/s, {ratios[-1]:.2f} × predict, "
                f"processor time {costs[-1]:.2f} ×; {shown}",
                flush=True,
            )
    predict.stdin.close()
    predict.wait()
    quantiles = statistics.quantiles(service.seconds, n=100)
    print(f"answers: {dict(service.statuses)}")
    print(f"latency of those with 200: p50 {quantiles[49]:.2f} s, p95 {quantiles[94]:.2f} s, p99 {quantiles[98]:.2f} s")
    print(f"throughput against predict: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    print(
        f"processor time against predict: median {statistics.median(costs):.2f}, {min(costs):.2f} to {max(costs):.2f}"
    )
    print(f"memory: {states[0]['MiB']:.0f} MiB after the first round, {states[-1]['MiB']:.0f} after the last one")


def kill_decoders(service: Service, videos: list[Path], kills: int) -> None:
    """Kill decoders while all clients are at work."""
    service.statuses.clear()
    done = threading.Event()

    def kill() -> None:
        left = kills
        while left and not done.is_set():
            time.sleep(random.uniform(0.05, 0.5))
            if decoders := descendants(service.process.pid)[2:]:  # the first two fork and watch the others
                try:
                    os.kill(decoders[-1], signal.SIGKILL)
                    left -= 1
                except ProcessLookupError:
                    continue

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(16) as clients:
        list(clients.map(lambda video: service.insist(video.read_bytes()), videos))
    done.set()
    killer.join()
    print(f"with up to {kills} decoders killed: {dict(service.statuses)}")


def damaged(video: bytes, chance: random.Random) -> bytes:
    """Return a video with bytes changed, a part cut out, or other content."""
    data = bytearray(video)
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(len(data))
    if kind == 1:
        return bytes(data[: chance.randrange(len(data))])
    if kind == 2:
        at = chance.randrange(len(data))
        return bytes(data[:at] + data[at + chance.randrange(1 << 14) :])
    head = len(data) if kind == 3 else min(len(data), 4096)
    for _ in range(chance.randrange(1, 200)):
        data[chance.randrange(head)] = chance.randrange(256)
    return bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("videos", type=Path, help="folder of clips")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--protocol", default="center")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--damaged", type=int, default=200)
    arguments = parser.parse_args()
    videos = sorted(path for path in arguments.videos.rglob("*.*") if path.suffix in (".avi", ".mp4", ".mov", ".webm"))
    random.Random(0).shuffle(videos)
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as log:
        service = start(arguments.model, arguments.protocol, log, temporary)
        try:
            before = service.state()
            rounds(service, arguments.model, videos, arguments)
            kill_decoders(service, videos[:60], arguments.kills)
            service.statuses.clear()
            chance = random.Random(0)
            with ThreadPoolExecutor(8) as clients:
                uploads = [damaged(chance.choice(videos).read_bytes(), chance) for _ in range(arguments.damaged)]
                list(clients.map(service.insist, uploads))
            print(f"damaged uploads: {dict(service.statuses)}")
            print(f"before: {before}\nafter:  {service.state()}")
            print(f"files in its temporary folder: {[path.name for path in Path(temporary).rglob('*')]}")
        finally:
            service.process.terminate()
            service.process.wait(60)
            log.seek(0)
            print(f"errors in its log: {sum(b' ERROR ' in line for line in log)}")


if __name__ == "__main__":
    main()
