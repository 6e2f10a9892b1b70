"""Examine one file of a source, or one prepared video; runs in worker processes.

A file is read once as a whole, for the hash of its content, and once more for its packets. Of a video with fewer than
1,000 frames all are decoded, of a longer one those around four places; flow is computed at these places only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from stresnet.data.catalog import VideoRecord
from stresnet.data.encode_rows import too_few_frames
from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideo, StoreSpec
from stresnet.data.source_files import SourceFile
from stresnet.data.store import StoreEntry, video_path
from stresnet.errors import StoreError, StresnetError
from stresnet.flow import clipped_share, iter_flow, quantize_flow
from stresnet.media.failures import IndexMismatchError
from stresnet.media.selected import SelectedFrames, select_frames
from stresnet.media.video import Frame

Examined = tuple[StoreEntry, bool]
"""The row of a video, and whether nothing moves in it."""

_CRASHED = "its worker process died twice: the file crashes the decoder, or needs more memory than is available"

_PLACES = 4
_FRAMES_AT_PLACE = 3  # two fields of flow, so that one repeated frame does not make a place still

_ZERO_LEVEL = 128
_STILL_SHARE = 1e-3
"""Nothing moves if at most this share of the flow differs from zero by more than one level, as it is stored …"""
_STILL_LEVELS = 2.0
"""… and if the frames at all places differ by at most this mean, of 255."""
_SMALL = (32, 24)  # width and height at which frames are compared


def crashed(records: Sequence[VideoRecord]) -> list[Examined]:
    """Return what is known of the videos of a file that killed its worker."""
    return [(StoreEntry(record, reason=_CRASHED), False) for record in records]


def crashed_prepared(item: tuple[str, int]) -> tuple[str, bool, str]:
    """Return what is known of a prepared video that killed its worker."""
    return item[0], False, _CRASHED


def examine_file(spec: StoreSpec, records: Sequence[VideoRecord]) -> list[Examined]:
    """Examine the videos of one file; a video that cannot be read has a row that says why.

    Args:
        spec: size and flow at which to look for motion.
        records: the videos.
    """
    path = records[0].path
    try:
        content = int(SourceFile.of(path).content_hash, 16)
        readers = select_frames(Path(path), spec.flow.short_side, spec.frames)
        while True:
            frames = next(readers)
            with suppress(IndexMismatchError):
                return list(_examine_videos(records, frames, content, spec))
    except StresnetError as error:
        reason = str(error).removeprefix(f"{path}: ")
    except Exception as error:  # one bad video must not stop the survey
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    return [(StoreEntry(record, reason=reason), False) for record in records]


def examine_prepared(root: Path, verify: bool, item: tuple[str, int]) -> tuple[str, bool, str]:
    """Examine a prepared video.

    Args:
        root: the store.
        verify: whether to read all of it and compare it with its checksum.
        item: its id, and the size of its file in bytes when it was prepared.

    Returns:
        Its id, whether nothing moves in it, and why it is damaged, or an empty text.
    """
    name, expected_bytes = item
    path = video_path(root, name)
    try:
        video = PreparedVideo.open(path)
        if (size := path.stat().st_size) != expected_bytes:
            return name, False, f"its file has {size} bytes, but had {expected_bytes} when it was prepared"
        if verify:
            video.verify()
        places = _places(video.meta.frames)
        levels = video.flow(places[:, :-1].ravel())
        small = [_reduce(frame) for frame in video.rgb(places[:, 0])]
    except StoreError as error:
        return name, False, str(error).removeprefix(f"{name}: ").removeprefix(f"{path}: ")
    return name, _is_still([_moving_share(field) for field in levels], small), ""


def _examine_videos(
    records: Sequence[VideoRecord], frames: SelectedFrames, content: int, spec: StoreSpec
) -> Iterator[Examined]:
    times_sec = frames.times_sec.tolist()
    within = [np.flatnonzero([record.segment.contains(time) for time in times_sec]) for record in records]
    places = [_places(len(inside)) + inside[0] for inside in within if len(inside) >= MIN_FRAMES]
    steps = _read_steps(frames, places, spec) if places else {}
    following = iter(places)
    for record, inside in zip(records, within, strict=True):
        if len(inside) < MIN_FRAMES:
            reason = str(too_few_frames(record.path, len(inside), record.segment))
            yield StoreEntry(record, reason=reason.removeprefix(f"{record.path}: "), content=content), False
            continue
        place = next(following)
        fields = [steps[index] for index in place[:, :-1].ravel().tolist()]
        entry = StoreEntry(
            record,
            frames=len(inside),
            height=frames.info.height,
            width=frames.info.width,
            fps=frames.info.fps,
            truncated=frames.truncated,
            clipped_share=float(np.median([step.clipped for step in fields])),  # not the mean: one may be at a cut
            content=content,
        )
        yield entry, _is_still([step.moving for step in fields], [steps[k].small for k in place[:, 0].tolist()])


class _Step(NamedTuple):
    """A frame that was looked at, and the flow to the next one.

    Attributes:
        small: the frame, reduced and gray.
        moving: share of the flow that is not zero as it is stored.
        clipped: share of the flow beyond the bound.
    """

    small: NDArray[np.uint8]
    moving: float = 0.0
    clipped: float = 0.0


def _places(frames: int) -> NDArray[np.int64]:
    """Return the frames to look at in a video, (places, frames at each)."""
    starts = np.unique(np.linspace(0, frames - _FRAMES_AT_PLACE, _PLACES).round().astype(np.int64))
    return np.asarray(starts[:, None] + np.arange(_FRAMES_AT_PLACE))


def _read_steps(frames: SelectedFrames, places: Sequence[NDArray[np.int64]], spec: StoreSpec) -> Mapping[int, _Step]:
    """Read the frames at some places and compute the flow between neighbours. Memory holds little of each frame.

    Raises:
        IndexMismatchError: the frames turn out to be others.
    """
    wanted = np.unique(np.concatenate([place.ravel() for place in places]))
    pictures = frames.read(wanted)
    steps: dict[int, _Step] = {}
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1):
        fields = iter_flow(_noted(pictures, run, steps), spec.flow)
        for index, field in zip(run[:-1].tolist(), fields, strict=True):
            levels = quantize_flow(field, spec.flow.bound_px)
            clipped = clipped_share(field, spec.flow.bound_px)
            steps[index] = steps[index]._replace(moving=_moving_share(levels), clipped=clipped)
    assert next(pictures, None) is None  # reads to the end, to notice other frames than expected
    return steps


def _noted(
    pictures: Iterator[Frame], indices: NDArray[np.int64], steps: dict[int, _Step]
) -> Iterator[NDArray[np.uint8]]:
    for index in indices.tolist():
        rgb = next(pictures).rgb
        steps[index] = _Step(_reduce(rgb))
        yield rgb


def _reduce(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, _SMALL, interpolation=cv2.INTER_AREA), np.uint8)


def _moving_share(levels: NDArray[np.uint8]) -> float:
    """Return the share of flow levels that differ from zero flow by more than one level, 0 to 1."""
    return float((np.abs(levels.astype(np.int16) - _ZERO_LEVEL) > 1).mean())


def _is_still(moving: Sequence[float], small: Sequence[NDArray[np.uint8]]) -> bool:
    differences = np.abs(np.stack(small).astype(np.float32) - small[0]).mean(axis=(1, 2))
    return max(moving) <= _STILL_SHARE and float(differences.max()) <= _STILL_LEVELS
