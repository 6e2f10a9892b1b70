"""A script that prepares a store with a fault injected: ``MODE SOURCE STORE LOG KIND``.

Workers import the main script when they start, so a function replaced here is replaced in the workers, too.

MODE is ``slow``; ``crash``, where videos with a 2 in their name kill their worker; or ``full``, where the disk is full
after three videos. KIND is ``videos``, ``frames only`` or ``jpegs``. LOG gets a line "PID, whether torch is imported"
per video. The number of finished videos is printed after each one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import stresnet.data.prepare
from stresnet.data.datasets import read_catalog
from stresnet.data.prepared_video import StoreSpec
from stresnet.errors import StresnetError
from stresnet.flow.spec import FlowSpec

mode, source, store, log, kind = sys.argv[1:]
jpegs = kind == "jpegs"
original = stresnet.data.prepare.import_jpegs if jpegs else stresnet.data.prepare.encode_segments
sync = os.fsync


def encode_or_crash(path: str, *arguments: Any) -> Any:
    with open(log, "a") as stream:
        stream.write(f"{os.getpid()} {'torch' in sys.modules}\n")
    if mode == "crash" and "2" in Path(path).name:
        os.kill(os.getpid(), signal.SIGSEGV)
    return original(path, *arguments)  # type: ignore[operator]


def slow_sync(descriptor: int) -> None:
    time.sleep(0.15)  # most of the time is spent here, while a file is half-written
    if mode == "full" and len(list(Path(store).rglob("*.arrow"))) > 2:
        raise OSError(28, "No space left on device")
    sync(descriptor)


def print_done(activity: str, done: int, total: int, detail: str = "") -> None:
    print(done, flush=True)


stresnet.data.prepare.encode_segments = stresnet.data.prepare.import_jpegs = encode_or_crash
os.fsync = slow_sync


def main() -> None:
    flow = FlowSpec(preset="ultrafast", short_side=48 if jpegs else 32)
    spec = StoreSpec(flow, flow_stored=kind != "frames only")
    catalog = read_catalog(source, jpegs=jpegs)
    try:
        stresnet.data.prepare.prepare(catalog, store, spec, from_jpegs=jpegs, workers=2, progress=print_done)
    except StresnetError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
