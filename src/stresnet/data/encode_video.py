"""Encode video files as prepared videos, frame by frame; memory holds a few frames, however long the video is.

Training, evaluation and prediction all read what is written here, so a number never depends on whether a video was
prepared in advance: :func:`encode_video` writes all of a video, :func:`video_around` what a network looks at, with the
same bits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg

from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import PreparedVideoWriter, write_temporary
from stresnet.data.sampling import Indices, stack_around
from stresnet.errors import VideoError
from stresnet.flow.codec import clipped_share, quantize_flow
from stresnet.flow.estimate import flow_of
from stresnet.media.failures import IndexMismatchError, reading
from stresnet.media.selected import SelectedFrames, select_frames
from stresnet.media.video import Frame, VideoInfo, iter_frames
from stresnet.progress import Progress


def encode_video(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    sink: BinaryIO,
    progress: Progress | None = None,
) -> PreparedVideoMetadata:
    """Decode a video, compute its flow and write both as a prepared video.

    Args:
        record_id: id of the prepared video.
        path: the video file.
        spec: flow, size and quality.
        sink: the file to write to.
        progress: called after every frame; the total is the number of frames that the header states, if it does.

    Returns:
        The metadata of the prepared video.

    Raises:
        VideoError: the video cannot be read, or has fewer than ``MIN_FRAMES`` frames.
        OSError: ``sink`` cannot be written.
    """
    with reading(path):
        source = os.stat(path)
    with_vectors = spec.flow_stored and spec.flow.from_codec
    rows = _Rows(sink, path, spec, progress)
    with iter_frames(path, short_side=spec.flow.short_side, motion_vectors=with_vectors) as reader:
        rows.write(reader, reader.info.header_frames, repeat(True))
    return rows.finish(record_id, source, reader.info, truncated=reader.truncated)


def temporary_video(
    record_id: str, path: str | os.PathLike[str], spec: StoreSpec, progress: Progress | None = None
) -> PreparedVideo:
    """Prepare a video in a temporary file, which is deleted with the returned object; arguments as `encode_video`.

    Raises:
        VideoError: as `encode_video`.
        StoreError: the temporary folder has no room for the file.
    """
    return write_temporary(partial(encode_video, record_id, path, spec, progress=progress))


def video_around(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    centers_of: Callable[[int], Indices],
    flow_stack: int,
    progress: Progress | None = None,
) -> PreparedVideo:
    """Prepare the frames of some steps, and the flow stacks around them, in a temporary file, as `temporary_video`.

    The result is the prepared video of the whole file, except that all other frames and fields are missing: reading
    those raises a StoreError. What lies between is not decoded where the file's packets tell how many frames it has and
    where decoding can start; damage there goes unnoticed.

    Args:
        record_id: id of the prepared video.
        path: the video file.
        spec: flow, size and quality.
        centers_of: from the number of frames to the indices of the steps.
        flow_stack: L, the flow fields around a step; 0 if no flow is needed.
        progress: called after every frame that is read for its pixels.

    Raises:
        VideoError: as `encode_video`.
        StoreError: the temporary folder has no room for the file.
    """
    if spec.flow_stored and spec.flow.from_codec:
        return temporary_video(record_id, path, spec, progress)  # vectors are assigned to steps by the pictures around
    with reading(path):
        source = os.stat(path)
    readers = select_frames(Path(path), spec.flow.short_side)
    while True:
        frames = next(readers)
        with suppress(IndexMismatchError):
            return write_temporary(
                partial(_encode_around, record_id, path, source, spec, frames, centers_of, flow_stack, progress)
            )


def _encode_around(
    record_id: str,
    path: str | os.PathLike[str],
    source: os.stat_result,
    spec: StoreSpec,
    frames: SelectedFrames,
    centers_of: Callable[[int], Indices],
    flow_stack: int,
    progress: Progress | None,
    sink: BinaryIO,
) -> PreparedVideoMetadata:
    """Write what a network looks at; arguments as `video_around`. ``source`` describes the file.

    Raises:
        VideoError, OSError: as `encode_video`.
        IndexMismatchError: the frames, or their number, turn out to be others.
    """
    times_sec = frames.times_sec.tolist()
    _require_frames(path, len(times_sec))
    centers = np.unique(centers_of(len(times_sec)))
    fields = np.unique(stack_around(centers, flow_stack))
    wanted = np.unique(np.concatenate([centers, fields, fields + 1]))
    joined = np.isin(wanted[:-1], fields) & spec.flow_stored  # to the next one, by flow that is stored
    rows = _Rows(sink, path, spec, progress)
    pictures, done = frames.read(wanted), 0
    for run in np.split(wanted, np.flatnonzero(~joined) + 1):
        rows.skip(times_sec[done : run[0]])
        shown = [bool(index in centers) or not spec.flow_stored for index in run]
        rows.write(islice(pictures, len(run)), len(wanted), shown)
        done = int(run[-1]) + 1
    rows.skip(times_sec[done:])
    assert next(pictures, None) is None  # reads to the end, to notice more frames than expected
    return rows.finish(record_id, source, frames.info, truncated=frames.truncated)


def _require_frames(path: str | os.PathLike[str], frames: int) -> None:
    if frames < MIN_FRAMES:
        raise VideoError(f"{path}: {frames} frames decoded; at least {MIN_FRAMES} needed")


class _Rows:
    """Writes the rows of a prepared video: consecutive frames and the flow between them, with gaps."""

    def __init__(
        self, sink: BinaryIO, path: str | os.PathLike[str], spec: StoreSpec, progress: Progress | None
    ) -> None:
        self._writer = PreparedVideoWriter(sink, spec)
        self._path = path
        self._spec = spec
        self._progress = progress
        self._read = 0
        self._size = (0, 0)
        self._fields = 0
        self._clipped = 0.0

    def skip(self, times_sec: Iterable[float]) -> None:
        """Write rows without frame and flow."""
        nothing = (None, None) if self._spec.flow_stored else (None,)
        for time_sec in times_sec:
            self._writer.append(time_sec, *nothing)

    def write(self, frames: Iterator[Frame], total: int, shown: Iterable[bool]) -> None:
        """Write consecutive frames, and the flow between them if it is stored.

        Args:
            frames: the frames.
            total: number of frames in all, for the progress; 0 if unknown.
            shown: for each frame, whether its pixels are needed, or only the flow.
        """
        encoded = _EncodedFrames(frames, self._spec, shown, partial(self._report, total))
        if self._spec.flow_stored:
            bound_px, quality = self._spec.flow.bound_px, self._spec.jpeg_quality
            for field in flow_of(encoded, self._spec.flow):
                self._clipped += clipped_share(field, bound_px)
                self._fields += 1
                u_above_v = quantize_flow(field, bound_px).reshape(-1, field.shape[2], 1)
                jpeg = simplejpeg.encode_jpeg(u_above_v, quality, "GRAY", "Gray")
                self._writer.append(*encoded.waiting.popleft(), jpeg)
            for last in encoded.waiting:
                self._writer.append(*last, None)
        else:
            for _ in encoded:
                self._writer.append(*encoded.waiting.popleft())
        self._size = encoded.size

    def finish(
        self, record_id: str, source: os.stat_result, info: VideoInfo, *, truncated: bool
    ) -> PreparedVideoMetadata:
        """Write the metadata and return it.

        Raises:
            VideoError: there are fewer than ``MIN_FRAMES`` rows.
        """
        _require_frames(self._path, self._writer.frames)
        height, width = self._size
        return self._writer.finish(
            PreparedVideoMetadata(
                id=record_id,
                frames=self._writer.frames,
                height=height,
                width=width,
                fps=info.fps,
                spec=self._spec,
                source_bytes=source.st_size,
                source_mtime_ns=source.st_mtime_ns,
                clipped_share=self._clipped / max(1, self._fields) if self._spec.flow_stored else None,
                checksum="",
                truncated=truncated,
                imported=False,
            )
        )

    def _report(self, total: int) -> None:
        self._read += 1
        if self._progress:
            activity = "computing flow" if self._spec.flow_stored else "reading frames"
            self._progress(activity, self._read, max(self._read, total))


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
            # 4:4:4 has a smaller error than 4:2:0 at a higher quality and the same size (docs/store.md).
            jpeg = simplejpeg.encode_jpeg(frame.rgb, self._jpeg_quality, "RGB", "444")
        self.waiting.append((frame.time_sec, jpeg))
        self.size = frame.rgb.shape[:2]
        self._report()
        return frame
