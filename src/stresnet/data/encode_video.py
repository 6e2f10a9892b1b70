"""Encode video files as prepared videos, frame by frame; memory holds a few frames, however long the video is.

Training, evaluation and prediction all read what :func:`encode_video` writes, so a number never depends on whether a
video was prepared in advance.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import simplejpeg

from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import PreparedVideoWriter, write_temporary
from stresnet.errors import VideoError
from stresnet.flow.codec import clipped_share, quantize_flow
from stresnet.flow.estimate import flow_of
from stresnet.media.video import Frame, FrameReader, iter_frames
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
    with _reading(path):
        source = os.stat(path)
        with_vectors = spec.flow_stored and spec.flow.from_codec
        opened = iter_frames(path, short_side=spec.flow.short_side, motion_vectors=with_vectors)
    writer = PreparedVideoWriter(sink, spec)
    with opened as reader:
        frames = _EncodedFrames(path, reader, spec, progress)
        clipped = _write_rows(writer, frames, spec)
    if writer.frames < MIN_FRAMES:
        raise VideoError(f"{path}: {writer.frames} frames decoded; at least {MIN_FRAMES} needed")
    height, width = frames.size
    return writer.finish(
        PreparedVideoMetadata(
            id=record_id,
            frames=writer.frames,
            height=height,
            width=width,
            fps=reader.info.fps,
            spec=spec,
            source_bytes=source.st_size,
            source_mtime_ns=source.st_mtime_ns,
            clipped_share=clipped,
            checksum="",
            truncated=reader.truncated,
            imported=False,
        )
    )


def temporary_video(
    record_id: str, path: str | os.PathLike[str], spec: StoreSpec, progress: Progress | None = None
) -> PreparedVideo:
    """Prepare a video in a temporary file, which is deleted with the returned object; arguments as `encode_video`.

    Raises:
        VideoError: as `encode_video`.
        StoreError: the temporary folder has no room for the file.
    """
    return write_temporary(partial(encode_video, record_id, path, spec, progress=progress))


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a VideoError for an OSError, which would be mistaken for a failure to write."""
    try:
        yield
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror or error})") from error


class _EncodedFrames(Iterator[Frame]):
    """The frames of a video, for computing flow; each is encoded as a JPEG on the way.

    Attributes:
        encoded: times and JPEGs of frames that have been read but not written yet.
        size: height and width.
    """

    def __init__(
        self, path: str | os.PathLike[str], reader: FrameReader, spec: StoreSpec, progress: Progress | None
    ) -> None:
        self.encoded: deque[tuple[float, bytes]] = deque()
        self.size = (0, 0)
        self._path = path
        self._reader = reader
        self._jpeg_quality = spec.jpeg_quality
        self._progress = progress
        self._activity = "computing flow" if spec.flow_stored else "reading frames"
        self._read = 0

    def __next__(self) -> Frame:
        with _reading(self._path):
            frame = next(self._reader)
        # 4:4:4 has a smaller error than 4:2:0 at a higher quality and the same size (docs/store.md).
        self.encoded.append((frame.time_sec, simplejpeg.encode_jpeg(frame.rgb, self._jpeg_quality, "RGB", "444")))
        self.size = frame.rgb.shape[:2]
        self._read += 1
        if self._progress:
            self._progress(self._activity, self._read, max(self._read, self._reader.info.header_frames))
        return frame


def _write_rows(writer: PreparedVideoWriter, frames: _EncodedFrames, spec: StoreSpec) -> float | None:
    """Write all rows and return the share of flow vectors beyond the bound, or None if no flow is stored."""
    if not spec.flow_stored:
        for _ in frames:
            writer.append(*frames.encoded.popleft())
        return None
    clipped, bound_px = 0.0, spec.flow.bound_px
    for field in flow_of(frames, spec.flow):
        clipped += clipped_share(field, bound_px)
        u_above_v = quantize_flow(field, bound_px).reshape(-1, field.shape[2], 1)
        writer.append(*frames.encoded.popleft(), simplejpeg.encode_jpeg(u_above_v, spec.jpeg_quality, "GRAY", "Gray"))
    for last in frames.encoded:
        writer.append(*last, None)
    return clipped / max(1, writer.frames - 1)
