"""From a video to a clip, frame by frame: what is held is a few frames, however long the video is.

Training, evaluation and prediction all read clips made by :func:`encode_video`, so that a number never depends on
whether a video was prepared before.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

import simplejpeg

from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import PreparedVideoWriter, Refusal, write_temporary
from stresnet.errors import VideoError
from stresnet.flow.codec import clipped_share, quantize_flow
from stresnet.flow.estimate import flow_of
from stresnet.media.video import Frame, FrameReader, iter_frames

OnFrame = Callable[[int, int], None]
"""Told how many frames have been read, and how many the video's header promises (0 if it does not say)."""


def encode_video(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    sink: BinaryIO,
    refusal: Refusal,
    on_frame: OnFrame | None = None,
) -> PreparedVideoMetadata:
    """Returns what is known of a video after writing its frames and flow as a clip.

    Args:
        record_id: becomes the clip's id.
        path: the video.
        spec: flow, size and quality.
        sink: the clip's file.
        refusal: turns a failure to write that into what is raised.
        on_frame: told of every frame; reading goes on when it returns.

    Raises:
        VideoError: the video cannot be read, or has fewer than ``MIN_FRAMES`` frames.
        StoreError: the clip cannot be written.
    """
    try:
        source = os.stat(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from error
    writer = PreparedVideoWriter(sink, refusal, spec)
    with_vectors = spec.flow_stored and spec.flow.from_codec
    with iter_frames(path, short_side=spec.flow.short_side, motion_vectors=with_vectors) as reader:
        frames = _Frames(path, reader, spec.jpeg_quality, on_frame)
        clipped = _append_all(writer, frames, spec)
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
    record_id: str, path: str | os.PathLike[str], spec: StoreSpec, on_frame: OnFrame | None = None
) -> PreparedVideo:
    """Returns a video as a clip in a temporary file, which goes when the clip does; arguments as in `encode_video`.

    Raises:
        VideoError: as `encode_video`.
        StoreError: there is no room for the file.
    """
    return write_temporary(partial(encode_video, record_id, path, spec, on_frame=on_frame))


class _Frames(Iterator[Frame]):
    """The frames of a video; what a clip keeps of each waits in ``coded``.

    Attributes:
        coded: time and JPEG of the frames read that were not written yet.
        size: height and width.
    """

    def __init__(
        self, path: str | os.PathLike[str], reader: FrameReader, jpeg_quality: int, on_frame: OnFrame | None
    ) -> None:
        self.coded: deque[tuple[float, bytes]] = deque()
        self.size = (0, 0)
        self._path = path
        self._reader = reader
        self._jpeg_quality = jpeg_quality
        self._on_frame = on_frame
        self._read = 0

    def __next__(self) -> Frame:
        try:
            frame = next(self._reader)
        except OSError as error:  # or it would pass for a failure to write
            raise VideoError(f"{self._path}: cannot be read ({error.strerror or error})") from error
        # 4:4:4: for the same bytes it errs less than 4:2:0 at a higher quality (docs/store.md).
        self.coded.append((frame.time_sec, simplejpeg.encode_jpeg(frame.rgb, self._jpeg_quality, "RGB", "444")))
        self.size = frame.rgb.shape[:2]
        self._read += 1
        if self._on_frame:
            self._on_frame(self._read, self._reader.info.header_frames)
        return frame


def _append_all(writer: PreparedVideoWriter, frames: _Frames, spec: StoreSpec) -> float | None:
    """Writes all rows; returns the share of flow vectors beyond the bound, None without any flow."""
    if not spec.flow_stored:
        for _ in frames:
            writer.append(*frames.coded.popleft())
        return None
    clipped, bound_px = 0.0, spec.flow.bound_px
    for field in flow_of(frames, spec.flow):
        clipped += clipped_share(field, bound_px)
        u_above_v = quantize_flow(field, bound_px).reshape(-1, field.shape[2], 1)
        writer.append(*frames.coded.popleft(), simplejpeg.encode_jpeg(u_above_v, spec.jpeg_quality, "GRAY", "Gray"))
    for coded in frames.coded:  # the last one
        writer.append(*coded, None)
    return clipped / max(1, writer.frames - 1)
