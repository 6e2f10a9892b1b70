"""Make whole pictures of interlaced ones, whose even and odd rows were taken at different times.

Moving edges of such pictures are combs, which optical flow takes for motion. FFmpeg's filter `bwdif` replaces the rows
of the later time by what it makes of those of the earlier one and of the pictures before and after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from av.filter import Graph
from av.video.frame import VideoFrame


def deinterlaced(coded: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield a whole picture for each coded one, with the same times and side data.

    Pictures that are not marked as interlaced stay as they are, bit for bit. From the first one on that is marked, one
    is held back.

    Args:
        coded: pictures in display order.
    """
    filter: _Filter | None = None
    for picture in coded:
        if filter is not None and not filter.takes(picture):
            yield from filter.finish()
            filter = None
        if filter is None:
            if not picture.interlaced_frame:
                yield picture
                continue
            filter = _Filter(picture)
        yield from filter.add(picture)
    if filter is not None:
        yield from filter.finish()


class _Filter:
    """The filter for pictures of one size and format; each gives one, in the same order."""

    def __init__(self, first: VideoFrame) -> None:
        self._kind = _kind(first)
        self._waiting: deque[VideoFrame] = deque()
        self._graph = Graph()
        self._graph.threads = 1  # worker processes already use all cores
        source = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base
        )
        self._graph.link_nodes(
            source,
            self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
            self._graph.add("buffersink"),
        ).configure()

    def takes(self, picture: VideoFrame) -> bool:
        """Return whether a picture has the size and format of the first one."""
        return _kind(picture) == self._kind

    def add(self, picture: VideoFrame) -> Iterator[VideoFrame]:
        """Filter a picture, and yield those that are ready."""
        self._waiting.append(picture)
        self._graph.vpush(picture)
        yield from self._ready()

    def finish(self) -> Iterator[VideoFrame]:
        """Yield the pictures that were held back."""
        self._graph.vpush(None)
        yield from self._ready()

    def _ready(self) -> Iterator[VideoFrame]:
        while self._waiting:
            try:
                whole = self._graph.vpull()
            except (BlockingIOError, EOFError):  # it needs the next picture
                return
            coded = self._waiting.popleft()
            if not coded.interlaced_frame:
                whole = coded
            whole.pts, whole.dts, whole.time_base = coded.pts, coded.dts, coded.time_base
            yield whole


def _kind(picture: VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name
