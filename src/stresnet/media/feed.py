"""Frames of a stream as they come: read in a thread that never waits for whoever uses them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import NamedTuple

from stresnet.errors import VideoError
from stresnet.media.frame_spec import AS_SHOWN, FrameSpec
from stresnet.media.stream import StreamReader
from stresnet.media.video import Frame

CAPACITY_FRAMES = 32
"""Frames that may wait: over a second of a camera, longer than a network takes for a step."""

PAUSES_SEC = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long to wait before each attempt to connect again; the last one is repeated."""


_CLOSING_SEC = 0.5


class Arrival(NamedTuple):
    """A frame that has come.

    Attributes:
        frame: the frame; its time is in seconds since the first one, over all connections.
        arrived_sec: when it came, by `time.monotonic`.
        begins: whether it is the first one of a connection.
    """

    frame: Frame
    arrived_sec: float
    begins: bool


class Feed(Iterator[Arrival]):
    """Iterator over the newest frames of a stream, which ends with it.

    Frames that are not taken in time are dropped, the oldest first. A stream that is interrupted is opened again.

    Attributes:
        name: the source, without a password.
        fps: frames per second that the stream states.
        read: number of frames that have come.
        dropped: number of frames that were dropped.
    """

    def __init__(
        self,
        source: str,
        *,
        short_side: int | None,
        spec: FrameSpec = AS_SHOWN,
        note: Callable[[str], None],
        reconnect: bool = True,
        capacity: int = CAPACITY_FRAMES,
        pauses_sec: tuple[float, ...] = PAUSES_SEC,
    ) -> None:
        """Open a stream and begin to read.

        Args:
            source, short_side, spec: see `StreamReader`.
            note: is told, from the thread that reads, of interruptions and changes, a line each.
            reconnect: whether to open the stream again when it is interrupted; otherwise that raises a VideoError.
            capacity: number of frames that may wait.
            pauses_sec: see `PAUSES_SEC`.

        Raises:
            VideoError: see `StreamReader`.
        """
        self._open = partial(StreamReader, source, short_side=short_side, spec=spec)
        reader = self._open()
        self.name, self.fps = reader.name, reader.fps
        self.read = self.dropped = 0
        self._note, self._reconnect, self._pauses_sec = note, reconnect, pauses_sec
        self._began_sec, self._newest_sec = time.monotonic(), -math.inf
        self._waiting: deque[Arrival] = deque(maxlen=capacity)
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._end: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(reader,), name="feed", daemon=True)
        self._thread.start()

    def __next__(self) -> Arrival:
        """Return the oldest frame that waits, or the next one that comes.

        Raises:
            VideoError: the stream is interrupted, and is not to be opened again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._end)
            if self._waiting:
                return self._waiting.popleft()
            assert self._end is not None
            raise self._end

    def close(self) -> None:
        """Stop reading; the thread ends with its next frame, for which this waits a little."""
        self._closed.set()
        self._thread.join(_CLOSING_SEC)

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, reader: StreamReader | None) -> None:
        try:
            while reader:
                with reader:
                    interruption = self._read_all(reader)
                if self._closed.is_set() or not interruption:
                    break
                if not self._reconnect:
                    raise interruption
                self._note(f"{interruption}; connecting again")
                reader = self._opened_again(interruption)
            self._finish(StopIteration())
        except Exception as error:
            self._finish(error)

    def _finish(self, end: Exception) -> None:
        with self._changed:
            self._end = end
            self._changed.notify()

    def _read_all(self, reader: StreamReader) -> VideoError | None:
        """Take frames until the stream ends, and return how it was interrupted, if it was."""
        size, begins = reader.size, True
        # A stream may have run ahead of the time that has passed.
        offset_sec = max(time.monotonic() - self._began_sec, self._newest_sec + 1 / reader.fps)
        try:
            for frame in reader:
                if self._closed.is_set():
                    return None
                if reader.size != size:
                    size = reader.size
                    self._note(f"{self.name}: the picture is {size[0]}×{size[1]} px from now on")
                self._newest_sec = offset_sec + frame.time_sec
                self._put(Arrival(Frame(frame.rgb, self._newest_sec), time.monotonic(), begins))
                begins = False
        except VideoError as error:
            return error
        return None if reader.ends else VideoError(f"{self.name}: the stream ended")

    def _put(self, arrival: Arrival) -> None:
        with self._changed:
            self.read += 1
            self.dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(arrival)
            self._changed.notify()

    def _opened_again(self, interruption: VideoError) -> StreamReader | None:
        """Return the stream once it can be opened again; None if this feed is closed before."""
        told = str(interruption)
        for pause_sec in chain(self._pauses_sec, repeat(self._pauses_sec[-1])):
            if self._closed.wait(pause_sec):
                return None
            try:
                reader = self._open()
            except VideoError as error:
                if str(error) != told:
                    told = str(error)
                    self._note(told)
                continue
            self._note(f"{self.name}: connected again")
            return reader
        raise AssertionError
