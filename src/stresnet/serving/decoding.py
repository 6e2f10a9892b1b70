"""Have uploads decoded in processes of their own, and end those that take too long."""

from __future__ import annotations

import json
import multiprocessing
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import send_handle
from typing import Any, BinaryIO

from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideo
from stresnet.data.prepared_video_writer import read_temporary
from stresnet.data.sampling import Indices
from stresnet.errors import VideoError
from stresnet.progress import Progress
from stresnet.serving.decoder import MAX_MESSAGE_BYTES, Order, decode
from stresnet.serving.problems import ProblemError

_LOOK_EVERY_SEC = 0.1
"""How often a waiting thread looks whether the job was cancelled."""


_PRELOADED = ["stresnet.serving.decoder", "stresnet.cli", "numpy.ma", "av.subtitles.stream"]
"""What each decoder would import: what decoding needs, partly on first use, and the main module, that of the command
line, which a process that is forked imports again."""

CANCELLED = ProblemError("cancelled", "the job was cancelled")


class Interruption:
    """Whether a job must end: it was cancelled, or has used up its time."""

    def __init__(self, seconds: float) -> None:
        """Allow a job some seconds of work."""
        self.seconds = seconds
        self._left = seconds
        self._began: float | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End the job at its next step."""
        self._cancelled.set()

    @property
    def left(self) -> float:
        """Seconds of work that are left."""
        return self._left - (0 if self._began is None else time.monotonic() - self._began)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time of the block."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._left, self._began = self.left, None

    def check(self) -> None:
        """Raise if the job must end.

        Raises:
            ProblemError: it must.
        """
        if self._cancelled.is_set():
            raise CANCELLED
        if self.left <= 0:
            limit = f"{self.seconds:g} s"
            raise ProblemError("limit-exceeded", f"the video takes longer than {limit}; cut it, or scale it down")


class Decoders:
    """Starts a process for each upload."""

    def __init__(self) -> None:
        """Start the process that the others are forked from."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._lock = threading.Lock()  # multiprocessing reads the end of each process in any thread that starts one

    def prepare(
        self,
        upload: BinaryIO,
        order: Order,
        steps_of: Callable[[int], Indices],
        progress: Progress,
        interruption: Interruption,
    ) -> PreparedVideo:
        """Return an upload as a prepared video.

        Args:
            upload: the uploaded file.
            order: how to decode it.
            steps_of: from the number of frames to the steps that are needed.
            progress: called now and then.
            interruption: ends the process.

        Raises:
            ProblemError: the video takes too long or too much memory, the job was cancelled, or the process ended.
            VideoError: the video cannot be used.
            OSError: there is no room for a temporary file.
        """
        with tempfile.TemporaryFile() as sink:
            with self._started(order) as (process, pipe):
                assert process.pid is not None
                with suppress(BrokenPipeError):  # it has ended since, which the conversation finds
                    for file in (upload, sink):
                        send_handle(pipe, file.fileno(), process.pid)
                upload.flush()  # what asking for its number has moved from memory to the disk
                # Also ends one that stops in the middle of a message.
                timer = threading.Timer(interruption.left, process.kill)
                timer.start()
                try:
                    _converse(process, pipe, order, steps_of, progress, interruption)
                finally:
                    timer.cancel()
                    timer.join()
            return read_temporary(sink)  # the process that wrote it has ended

    @contextmanager
    def _started(self, order: Order) -> Iterator[tuple[ForkServerProcess, Connection]]:
        here, there = self._context.Pipe()
        process = self._context.Process(target=decode, args=(there, order), name="decoder", daemon=True)
        with self._lock:
            process.start()
        there.close()
        try:
            yield process, here
        finally:
            here.close()
            with self._lock:
                process.kill()
                process.join()
                process.close()


def _converse(
    process: ForkServerProcess,
    pipe: Connection,
    order: Order,
    steps_of: Callable[[int], Indices],
    progress: Progress,
    interruption: Interruption,
) -> None:
    """Answer a decoder until it is done."""
    while True:
        interruption.check()
        try:
            if not pipe.poll(min(_LOOK_EVERY_SEC, max(interruption.left, 0))):
                continue
            message: dict[str, Any] = json.loads(pipe.recv_bytes(MAX_MESSAGE_BYTES))
        except (EOFError, OSError, ValueError) as error:
            interruption.check()
            raise _ended(process) from error
        match message:
            case {"frames": int(frames)}:
                steps = steps_of(_checked(frames, order)).tolist()
                with suppress(OSError):  # it has ended since
                    pipe.send_bytes(json.dumps(steps).encode())
            case {"progress": [str(activity), int(done), int(total)]}:
                progress(activity, done, total)
            case {"done": True}:
                return
            case {"unusable": str(sentence)}:
                raise VideoError(sentence)
            case {"memory": str(sentence)}:
                raise ProblemError("limit-exceeded", sentence)
            case _:
                raise RuntimeError(f"a decoder failed: {message}")


def _checked(frames: int, order: Order) -> int:
    if not MIN_FRAMES <= frames <= order.limits.frames:
        raise VideoError(
            f"{order.name}: {frames} frames; expected {MIN_FRAMES} to {order.limits.frames}; cut the video"
        )
    return frames


def _ended(process: ForkServerProcess) -> ProblemError:
    """Return what a client is told of a decoder that ended without an answer."""
    process.join(1)
    code = process.exitcode
    if code == -signal.SIGXCPU:
        return ProblemError("limit-exceeded", "the video takes longer to decode than allowed; cut it, or scale it down")
    reason = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return ProblemError("decoder-ended", f"decoding ended unexpectedly ({reason}); try again, or convert the video")
