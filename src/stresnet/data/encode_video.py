"""Encode video files as prepared videos, frame by frame; memory holds a few frames, however long the video is.

Training, evaluation and prediction all read what is written here, so a number never depends on whether a video was
prepared in advance: :func:`encode_video` writes all of a video, :func:`encode_segments` segments of one, and
:func:`video_around` what a network looks at, with the same bits.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stresnet.data.encode_rows import Row, RowWriter, encode_rows, too_few_frames
from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import write_temporary
from stresnet.data.sampling import Indices, stack_around
from stresnet.data.segment import WHOLE, Segment, merged
from stresnet.data.source_files import SourceFile, Stamp
from stresnet.errors import StresnetError, VideoError
from stresnet.media.failures import IndexMismatchError
from stresnet.media.in_memory import FramesInMemory
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.media.selected import ResampledFrames, SelectedFrames, select_frames
from stresnet.media.video import Frame, FrameReader, Video, iter_frames
from stresnet.progress import Progress

OpenSink = Callable[[str], AbstractContextManager[BinaryIO]]
"""From the id of a video to a context of the file to write it to. The file counts only if the context is left without
an exception."""


def encode_video(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    sink: BinaryIO,
    progress: Progress | None = None,
    segment: Segment = WHOLE,
    limits: Limits = DEFAULT_LIMITS,
) -> PreparedVideoMetadata:
    """Decode a video, compute its flow and write both as a prepared video.

    Args:
        record_id: id of the prepared video.
        path: the video file.
        spec: flow, size and quality.
        sink: the file to write to.
        progress: called after every frame; the total is the number of frames that the header states, if it does.
        segment: the segment of the file.
        limits: how much the video may ask for.

    Returns:
        The metadata of the prepared video.

    Raises:
        VideoError: the video cannot be read, or has fewer than ``MIN_FRAMES`` frames.
        OSError: ``sink`` cannot be written.
    """
    writer = RowWriter(sink, SourceFile.of(path), spec, segment)
    with _open(path, spec, limits) as reader:
        total = reader.info.header_frames if segment == WHOLE else 0
        for row in _rows_within(reader, spec, [segment], _reporter(spec, total, progress)):
            writer.add(row)
    return writer.finish(record_id, reader)


def encode_segments(
    path: str | os.PathLike[str],
    spec: StoreSpec,
    segments: Mapping[str, Segment],
    open_sink: OpenSink,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, PreparedVideoMetadata | StresnetError]:
    """Write segments of a video as prepared videos of their own, and decode the file once, until the last one ends.

    A segment has the rows that the prepared video of the whole file would have, without the flow beyond its end. Flow
    is computed once where segments overlap.

    Args:
        path: the video file.
        spec: flow, size and quality.
        segments: the segments by id.
        open_sink: opens the files to write to; only overlapping segments are open at the same time.
        limits: how much the video may ask for.

    Returns:
        For each id the metadata of its prepared video, or why the segment is not usable.

    Raises:
        OSError: a file cannot be written.
    """
    results: dict[str, PreparedVideoMetadata | StresnetError] = {}
    writing: dict[str, _Output] = {}
    waiting = deque(sorted(segments.items(), key=lambda item: item[1]))
    try:
        source = SourceFile.of(path)
        with _open(path, spec, limits) as reader:
            for row in _rows_within(reader, spec, merged(segments.values()), _reporter(spec)):
                while waiting and waiting[0][1].begins_by(row.time_sec):
                    record_id, segment = waiting.popleft()
                    writing[record_id] = _Output(open_sink(record_id), source, spec, segment)
                for record_id in [name for name in writing if segments[name].ends_by(row.time_sec)]:
                    results[record_id] = writing.pop(record_id).finish(record_id, reader)
                for output in writing.values():
                    output.writer.add(row)
        while writing:
            record_id, output = writing.popitem()
            results[record_id] = output.finish(record_id, reader)
    except BaseException as error:
        for output in writing.values():
            output.discard(error)
        if not isinstance(error, StresnetError):
            raise
        return dict.fromkeys(segments, error) | results
    return {name: too_few_frames(path, 0, segment) for name, segment in waiting} | results


class _Output:
    """A segment that is being written."""

    def __init__(
        self, opened: AbstractContextManager[BinaryIO], source: SourceFile, spec: StoreSpec, segment: Segment
    ) -> None:
        self._context = ExitStack()
        self.writer = RowWriter(self._context.enter_context(opened), source, spec, segment)

    def finish(self, record_id: str, reader: FrameReader) -> PreparedVideoMetadata | VideoError:
        """Complete the file and return its metadata, or why it is not usable."""
        try:
            with self._context:
                return self.writer.finish(record_id, reader)
        except VideoError as error:
            return error

    def discard(self, error: BaseException) -> None:
        """Close the file because of an error."""
        self._context.__exit__(type(error), error, error.__traceback__)


def _rows_within(
    frames: Iterator[Frame], spec: StoreSpec, parts: Sequence[Segment], report: Callable[[], None]
) -> Iterator[Row]:
    """Yield the rows of the frames in some parts of a video, which are in order and do not overlap."""
    ahead = next(frames, None)

    def within(part: Segment) -> Iterator[Frame]:
        nonlocal ahead
        while ahead is not None and not part.ends_by(ahead.time_sec):
            frame, ahead = ahead, next(frames, None)
            if part.begins_by(frame.time_sec):
                yield frame

    for part in parts:
        yield from encode_rows(within(part), spec, repeat(True), report)


def _open(path: str | os.PathLike[str], spec: StoreSpec, limits: Limits) -> FrameReader:
    with_vectors = spec.flow_stored and spec.flow.from_codec
    return iter_frames(
        path, short_side=spec.flow.short_side, motion_vectors=with_vectors, spec=spec.frames, limits=limits
    )


def _reporter(spec: StoreSpec, total: int = 0, progress: Progress | None = None) -> Callable[[], None]:
    """Return a function that reports one more frame; the total is 0 if it is not known."""
    activity = "computing flow" if spec.flow_stored else "reading frames"
    read = count(1)

    def report() -> None:
        done = next(read)
        if progress:
            progress(activity, done, max(done, total))

    return report


def temporary_video(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    progress: Progress | None = None,
    segment: Segment = WHOLE,
    limits: Limits = DEFAULT_LIMITS,
) -> PreparedVideo:
    """Prepare a video in a temporary file, which is deleted with the returned object; arguments as `encode_video`.

    Raises:
        VideoError: as `encode_video`.
        StoreError: the temporary folder has no room for the file.
    """
    return write_temporary(
        partial(encode_video, record_id, path, spec, progress=progress, segment=segment, limits=limits)
    )


def video_around(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    centers_of: Callable[[int], Indices],
    flow_stack: int,
    progress: Progress | None = None,
    segment: Segment = WHOLE,
    limits: Limits = DEFAULT_LIMITS,
) -> PreparedVideo:
    """Prepare the frames of some steps, and the flow stacks around them, in a temporary file, as `temporary_video`.

    The result is the prepared video of the whole segment, except that all other frames and fields are missing: reading
    those raises a StoreError. What lies between is not decoded where the file's packets tell how many frames it has and
    where decoding can start; damage there goes unnoticed.

    Args:
        record_id: id of the prepared video.
        path: the video file.
        spec: flow, size and quality.
        centers_of: from the number of frames to the indices of the steps.
        flow_stack: L, the flow fields around a step; 0 if no flow is needed.
        progress: called after every frame that is read for its pixels.
        segment: the segment of the file.
        limits: how much the video may ask for.

    Raises:
        VideoError: as `encode_video`.
        StoreError: the temporary folder has no room for the file.
    """
    return write_temporary(
        partial(
            encode_around,
            record_id,
            path,
            spec,
            centers_of,
            flow_stack,
            progress=progress,
            segment=segment,
            limits=limits,
        )
    )


def encode_around(
    record_id: str,
    path: str | os.PathLike[str],
    spec: StoreSpec,
    centers_of: Callable[[int], Indices],
    flow_stack: int,
    sink: BinaryIO,
    progress: Progress | None = None,
    segment: Segment = WHOLE,
    limits: Limits = DEFAULT_LIMITS,
) -> PreparedVideoMetadata:
    """Write what `video_around` prepares to a file, and return its metadata.

    Raises:
        VideoError, OSError: as `encode_video`.
    """
    if spec.flow_stored and spec.flow.from_codec:  # vectors are assigned to steps by the pictures around
        return encode_video(record_id, path, spec, sink, progress, segment, limits)
    source = SourceFile.of(path, hashed=False)
    readers = select_frames(Path(path), spec.flow.short_side, spec.frames, limits)
    while True:
        frames = next(readers)
        with suppress(IndexMismatchError):
            return _encode_around(record_id, source, spec, segment, frames, centers_of, flow_stack, progress, sink)
        sink.seek(0)
        sink.truncate()


def frames_around(
    record_id: str,
    video: Video,
    spec: StoreSpec,
    centers_of: Callable[[int], Indices],
    flow_stack: int,
    progress: Progress | None = None,
) -> PreparedVideo:
    """Prepare what a network looks at in a video in memory; arguments and result as those of `video_around`.

    Raises:
        VideoError: there are fewer than ``MIN_FRAMES`` frames, or the flow is that of a codec.
        StoreError: the temporary folder has no room for the file.
    """
    if spec.flow_stored and spec.flow.from_codec:
        raise VideoError(f"{record_id}: flow by {spec.flow.name} is read from the coded video: give the file itself")
    source = SourceFile(record_id, Stamp(video.frames.nbytes, 0, 0), "")
    frames: SelectedFrames = FramesInMemory(video, spec.flow.short_side)
    if spec.frames.fps:
        frames = ResampledFrames(frames, spec.frames.fps)
    return write_temporary(
        partial(_encode_around, record_id, source, spec, WHOLE, frames, centers_of, flow_stack, progress)
    )


def _encode_around(
    record_id: str,
    source: SourceFile,
    spec: StoreSpec,
    segment: Segment,
    frames: SelectedFrames,
    centers_of: Callable[[int], Indices],
    flow_stack: int,
    progress: Progress | None,
    sink: BinaryIO,
) -> PreparedVideoMetadata:
    """Write what a network looks at; arguments as `video_around`.

    Raises:
        VideoError, OSError: as `encode_video`.
        IndexMismatchError: the frames, or their number, turn out to be others.
    """
    within = [index for index, time_sec in enumerate(frames.times_sec) if segment.contains(time_sec)]
    if len(within) < MIN_FRAMES:
        raise too_few_frames(source.path, len(within), segment)
    times_sec = frames.times_sec[within].tolist()
    centers = np.unique(centers_of(len(within)))
    fields = np.unique(stack_around(centers, flow_stack))
    wanted = np.unique(np.concatenate([centers, fields, fields + 1]))
    joined = np.isin(wanted[:-1], fields) & spec.flow_stored  # to the next one, by flow that is stored
    writer, report = RowWriter(sink, source, spec, segment), _reporter(spec, len(wanted), progress)
    pictures, done = frames.read(wanted + within[0]), 0
    for run in np.split(wanted, np.flatnonzero(~joined) + 1):
        writer.skip(times_sec[done : run[0]])
        shown = [bool(index in centers) or not spec.flow_stored for index in run]
        for row in encode_rows(islice(pictures, len(run)), spec, shown, report):
            writer.add(row)
        done = int(run[-1]) + 1
    writer.skip(times_sec[done:])
    assert next(pictures, None) is None  # reads to the end, to notice more frames than expected
    return writer.finish(record_id, frames)
