"""Encode consecutive frames of a video, and the flow between them, as the rows of prepared videos."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import PreparedVideoWriter
from stresnet.data.segment import WHOLE, Segment
from stresnet.data.source_files import SourceFile
from stresnet.errors import VideoError
from stresnet.flow.codec import clipped_share, quantize_flow
from stresnet.flow.estimate import flow_of
from stresnet.media.selected import SelectedFrames
from stresnet.media.video import Frame, FrameReader


class Row(NamedTuple):
    """A frame, and the step to the next one.

    Attributes:
        time_sec: time of the frame.
        size: its height and width; None for one that was not read.
        rgb: its JPEG; None if its pixels are not needed.
        flow: the JPEG of the flow to the next frame; None without one, or if flow is not stored.
        clipped_share: share of the vectors of that flow beyond the bound, 0 to 1.
        next_sec: time of the next frame; None without one.
    """

    time_sec: float
    size: tuple[int, int] | None = None
    rgb: bytes | None = None
    flow: bytes | None = None
    clipped_share: float = 0.0
    next_sec: float | None = None


def encode_rows(
    frames: Iterator[Frame], spec: StoreSpec, shown: Iterable[bool], report: Callable[[], None]
) -> Iterator[Row]:
    """Yield the rows of consecutive frames, with the flow between them if it is stored.

    Args:
        frames: the frames.
        spec: flow, size and quality.
        shown: for each frame, whether its pixels are needed, or only the flow.
        report: called after every frame that is read.
    """
    encoded = _EncodedFrames(frames, spec, shown, report)
    for field in flow_of(encoded, spec.flow) if spec.flow_stored else _no_flow(encoded):
        time_sec, rgb = encoded.waiting.popleft()
        next_sec = encoded.waiting[0][0]
        if field is None:
            yield Row(time_sec, encoded.size, rgb, next_sec=next_sec)
        else:
            clipped = clipped_share(field, spec.flow.bound_px)
            yield Row(time_sec, encoded.size, rgb, flow_jpeg(field, spec), clipped, next_sec)
    for time_sec, rgb in encoded.waiting:
        yield Row(time_sec, encoded.size, rgb)


def frame_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """Return the JPEG of a frame, (H,W,3) uint8."""
    # 4:4:4 has a smaller error than 4:2:0 at a higher quality and the same size (docs/store.md).
    return cast(bytes, simplejpeg.encode_jpeg(rgb, quality, "RGB", "444"))


def flow_jpeg(field: NDArray[np.float32], spec: StoreSpec) -> bytes:
    """Return the JPEG of a flow field (2,H,W): quantised, u above v."""
    u_above_v = quantize_flow(field, spec.flow.bound_px).reshape(-1, field.shape[2], 1)
    return cast(bytes, simplejpeg.encode_jpeg(u_above_v, spec.jpeg_quality, "GRAY", "Gray"))


class RowWriter:
    """Writes the rows of a prepared video, with gaps: those that belong to its segment."""

    def __init__(self, sink: BinaryIO, source: SourceFile, spec: StoreSpec, segment: Segment = WHOLE) -> None:
        """Start a prepared video.

        Args:
            sink: the file to write to.
            source: the file.
            spec: flow, size and quality.
            segment: the segment of the source.
        """
        self._writer = PreparedVideoWriter(sink, spec)
        self._source = source
        self._spec = spec
        self._segment = segment
        self._start_sec: float | None = None
        self._size = (0, 0)
        self._fields = 0
        self._clipped = 0.0

    def skip(self, times_sec: Iterable[float]) -> None:
        """Write rows without frame and flow."""
        for time_sec in times_sec:
            self.add(Row(time_sec))

    def add(self, row: Row) -> None:
        """Write a row; a segment has no flow to a frame beyond its end."""
        if not self._segment.contains(row.time_sec):
            return
        self._start_sec = row.time_sec if self._start_sec is None else self._start_sec
        self._size = row.size or self._size
        flow = row.flow if row.next_sec is not None and self._segment.contains(row.next_sec) else None
        if flow is not None:
            self._fields += 1
            self._clipped += row.clipped_share
        self._writer.append(row.time_sec - self._start_sec, row.rgb, *([flow] if self._spec.flow_stored else []))

    def finish(self, record_id: str, video: FrameReader | SelectedFrames) -> PreparedVideoMetadata:
        """Write the metadata and return it.

        Args:
            record_id: id of the prepared video.
            video: the source, as far as it was read.

        Raises:
            VideoError: there are fewer than ``MIN_FRAMES`` rows.
        """
        if self._writer.frames < MIN_FRAMES:
            raise too_few_frames(self._source.path, self._writer.frames, self._segment)
        height, width = self._size
        return self._writer.finish(
            PreparedVideoMetadata(
                id=record_id,
                frames=self._writer.frames,
                height=height,
                width=width,
                fps=video.info.fps,
                spec=self._spec,
                source_bytes=self._source.stamp.size_bytes,
                source_mtime_ns=self._source.stamp.mtime_ns,
                clipped_share=self._clipped / max(1, self._fields) if self._spec.flow_stored else None,
                checksum="",
                truncated=video.truncated,
                imported=False,
                source_ctime_ns=self._source.stamp.ctime_ns,
                content_hash=self._source.content_hash,
                start_sec=self._segment.start_sec,
                end_sec=self._segment.end_sec,
                conversions=video.conversions,
            )
        )


def too_few_frames(path: str | os.PathLike[str], frames: int, segment: Segment = WHOLE) -> VideoError:
    """Return the error of a video with fewer than ``MIN_FRAMES`` frames."""
    needed = f"at least {MIN_FRAMES} needed"
    if segment == WHOLE:
        return VideoError(f"{path}: {frames} frames decoded; {needed}")
    advice = "" if frames else "; if the file is cut already, list it without start and end"
    return VideoError(
        f"{path}: {frames} frames from {segment.start_sec:g} s to {segment.end_sec:g} s; {needed}{advice}"
    )


def _no_flow(frames: Iterator[Frame]) -> Iterator[None]:
    """Yield None for each step from a frame to the next."""
    next(frames, None)
    for _ in frames:
        yield None


class _EncodedFrames(Iterator[Frame]):
    """Consecutive frames, for computing flow; each is encoded as a JPEG on the way.

    Attributes:
        waiting: times and JPEGs of frames that have been read but not written yet.
        size: height and width.
    """

    def __init__(
        self,
        frames: Iterator[Frame],
        spec: StoreSpec,
        shown: Iterable[bool],
        report: Callable[[], None],
    ) -> None:
        self.waiting: deque[tuple[float, bytes | None]] = deque()
        self.size = (0, 0)
        self._frames = frames
        self._jpeg_quality = spec.jpeg_quality
        self._shown = iter(shown)
        self._report = report

    def __next__(self) -> Frame:
        frame = next(self._frames)
        jpeg = None
        if next(self._shown):
            jpeg = frame_jpeg(frame.rgb, self._jpeg_quality)
        self.waiting.append((frame.time_sec, jpeg))
        self.size = frame.rgb.shape[0], frame.rgb.shape[1]
        self._report()
        return frame
