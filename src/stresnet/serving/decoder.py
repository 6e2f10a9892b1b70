"""The process that decodes one upload, with limits that the system enforces. It imports neither torch nor the network.

It is forked for one video from a process that has loaded the libraries, and ends with it, so nothing that a video does
to it lasts. What it says to the serving process is JSON: a decoder that a video has taken over can lie about that
video, but not make the serving process run anything.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from stresnet.data.encode_video import encode_around
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.sampling import Indices
from stresnet.data.segment import Segment
from stresnet.errors import VideoError
from stresnet.media import Limits

MAX_MESSAGE_BYTES = 64 << 20
_OPEN_FILES = 64
_STEPS_BETWEEN_REPORTS = 8


class Order(NamedTuple):
    """How to decode an upload.

    Attributes:
        name: what the upload is called in error messages.
        spec: how the video is prepared.
        flow_stack: see `encode_around`.
        segment: the part of the video that is used.
        limits: how much the video may ask for.
        memory_bytes: memory beyond that of the libraries.
        file_bytes: bytes of the prepared video.
        seconds: processor time.
    """

    name: str
    spec: StoreSpec
    flow_stack: int
    segment: Segment
    limits: Limits
    memory_bytes: int
    file_bytes: int
    seconds: float


def decode(pipe: Connection, order: Order) -> None:
    """Decode the file that is received through a pipe into another one that is received.

    Sends messages of one key: ``frames``, the number of frames, to which the answer is the list of steps;
    ``progress``; and at the end ``done``, or ``unusable``, ``memory``, ``failed`` with a sentence.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the serving process, which ends in its own time
    _end_with_parent()
    upload, sink = recv_handle(pipe), recv_handle(pipe)
    _limit(order)
    cv2.setNumThreads(1)
    path = Path(f"/proc/self/fd/{upload}")  # the upload has no name
    try:
        with open(sink, "w+b") as file:
            encode_around(
                "the upload",
                path,
                order.spec,
                _asking(pipe),
                order.flow_stack,
                file,
                progress=_Reporter(pipe),
                segment=order.segment,
                limits=order.limits,
            )
        answer: dict[str, Any] = {"done": True}
    except VideoError as error:
        answer = {"unusable": str(error).replace(str(path), order.name)}
    except MemoryError:
        answer = {"memory": "the video needs more memory than a decoder may take; convert it to a smaller file"}
    except Exception as error:
        answer = {"failed": f"{type(error).__name__}: {error}"}
    _send(pipe, answer)


def _limit(order: Order) -> None:
    """Let the system end or refuse what goes beyond the limits; the parent watches the time that passes."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    seconds = math.ceil(order.seconds)
    for name, most in (
        (resource.RLIMIT_AS, used_bytes + order.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, order.file_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(name)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(name, (most, most))
    Path("/proc/self/oom_score_adj").write_text("1000")  # rather this process than the serving one


def _end_with_parent() -> None:
    """End this process when the serving process does, however that ends."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _asking(pipe: Connection) -> Callable[[int], Indices]:
    def steps_of(frames: int) -> Indices:
        _send(pipe, {"frames": frames})
        return np.array(json.loads(pipe.recv_bytes()), np.int64)

    return steps_of


class _Reporter:
    """Sends progress now and then."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._calls = 0

    def __call__(self, activity: str, done: int, total: int, detail: str = "") -> None:
        self._calls += 1
        if self._calls % _STEPS_BETWEEN_REPORTS == 0:
            _send(self._pipe, {"progress": [activity, done, total]})


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())
