"""Kill prepare, train and evaluate at random moments, resume them, and compare what they leave with undisturbed runs.

    python benchmarks/kills.py [--prepare 60] [--train 40] [--evaluate 20] [--seed 0]

Works on a few small generated videos, with the networks of the recipe `demo` at width 1/16, and one thread. A command
gets SIGKILL at a random moment of its usual duration, and is given again, until it ends by itself. Then all its files
must be those of the undisturbed run: the same names, none of them temporary, and the same content, bit for bit, but for
times and logs; and no process of it may be left. It then starts from nothing, until it was killed often enough. Prints
a Markdown table, and exits with code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.ipc as ipc
from safetensors.numpy import load_file

from stresnet.data.synthetic import SyntheticSpec, write_dataset

VIDEOS = SyntheticSpec(width=48, height=32, frames=26, window_px=16, train_per_class=3, test_per_class=2)
SMALL = [f"*.optimisation.schedule={[{'lr': 0.01, 'epochs': 6}]}", "*.network.width=0.0625", "*.clips.crop_px=32"]
NOT_COMPARED = {"logs", "tensorboard", "report.html", "report.json", ".lock", "cache"}
"""Names of files and folders that hold times, or need not be the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=int, default=60)
    parser.add_argument("--train", type=int, default=40)
    parser.add_argument("--evaluate", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        videos, store, run = write_dataset(root / "videos", VIDEOS, seed=0), root / "store", root / "run"
        changes = [word for change in SMALL for word in ("--set", change)]
        prepare = ["prepare", str(videos), "STORE", "--short-side", "32", "--preset", "ultrafast", "--workers", "2"]
        train = ["train", str(store), "RUN", "--recipe", "demo", "--workers", "0", *changes]
        evaluate = ["evaluate", str(run), str(store), "--protocol", "center", "--out", "OUT"]
        print("| command | kills | finished runs | alike | left behind |\n|---|---|---|---|---|", flush=True)
        wrong = 0
        for command, kept, kills in (
            (prepare, store, options.prepare),
            (train, run, options.train),
            (evaluate, root / "scores", options.evaluate),
        ):
            wrong += survives(command, kept, kills, rng)
    sys.exit(min(1, wrong))


def survives(command: list[str], undisturbed: Path, kills: int, rng: random.Random) -> int:
    """Run a command once, then kill it this often; print a row and return the number of faults."""
    start = time.monotonic()
    assert call(command, undisturbed, None) == 0
    seconds, expected = time.monotonic() - start, content(undisturbed)
    folder = undisturbed.with_name("killed")
    done = finished = alike = 0
    faults: list[str] = []
    while done < kills:
        shutil.rmtree(folder, ignore_errors=True)
        while (code := call(command, folder, rng.uniform(0, seconds))) == -signal.SIGKILL:
            done += 1
        finished += 1
        assert code == 0, code
        found = content(folder)
        alike += found == expected
        faults += sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    shutil.rmtree(folder, ignore_errors=True)
    print(
        f"| {command[0]} | {done} | {finished} | {alike} | {', '.join(sorted(set(faults))) or 'nothing'} |", flush=True
    )
    return len(faults)


def call(command: list[str], folder: Path, kill_after_sec: float | None) -> int:
    """Run a command that writes to a folder, killed after some time unless it has ended; return its exit code."""
    words = [str(folder) if word in ("STORE", "RUN", "OUT") else word for word in command]
    resume = ["--resume"] if command[0] == "train" and folder.exists() else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stresnet", *words, *resume],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=kill_after_sec)
    except subprocess.TimeoutExpired:
        process.kill()  # not its workers: they must end by themselves
        process.wait()
        await_end_of(process.pid)
        return process.returncode
    if process.returncode:
        print(said, file=sys.stderr)
    return process.returncode


def await_end_of(session: int) -> None:
    """Wait until no process of a killed command is left.

    Raises:
        RuntimeError: one is left after half a minute.
    """
    for _ in range(300):
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise RuntimeError(f"processes of the killed session {session} go on")


def content(folder: Path) -> dict[str, object]:
    """Return the content of each file below a folder by its name; weights and tables without what says when."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_dir() or NOT_COMPARED & set(inside.parts):
            continue
        if path.suffix == ".safetensors":
            values: object = {name: value.tobytes() for name, value in load_file(path).items()}
        elif path.suffix == ".arrow" and "scores" in path.name:
            values = ipc.open_file(path).read_all().to_pydict()
        else:
            values = hashlib.sha256(path.read_bytes()).hexdigest()
        found[inside.as_posix()] = values
    return found


if __name__ == "__main__":
    main()
