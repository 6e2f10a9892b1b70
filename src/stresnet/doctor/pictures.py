"""Small pictures of videos for the contact sheet: a few frames of each, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stresnet.data.catalog import VideoRecord
from stresnet.data.prepared_video import PreparedVideo
from stresnet.data.store import Store, StoreEntry, video_path
from stresnet.data.workers import map_in_processes
from stresnet.errors import StresnetError
from stresnet.media.failures import IndexMismatchError
from stresnet.media.frame_spec import FrameSpec
from stresnet.media.selected import select_frames
from stresnet.progress import Progress

_SHOWN_AT = (0.1, 0.5, 0.9)  # parts of a video
_HEIGHT_PX = 90
_QUALITY = 75


def pictures_of(
    store: Store, prepared: bool, entries: Iterable[StoreEntry], workers: int, progress: Progress | None = None
) -> Mapping[str, bytes]:
    """Return a JPEG by id of each usable video; one that cannot be read has none.

    Args:
        store: the store, or what stands for one that is not prepared yet.
        prepared: whether the store exists.
        entries: the videos.
        workers: number of processes.
        progress: called after every video.
    """
    records = [entry.record for entry in entries if not entry.reason]
    work = partial(_picture, store.root if prepared else None, store.spec.frames)
    pictures: dict[str, bytes] = {}
    with closing(map_in_processes(work, records, workers, _none)) as results:
        for done, (name, jpeg) in enumerate(results, 1):
            if jpeg:
                pictures[name] = jpeg
            if progress is not None:
                progress("making pictures", done, len(records))
    return pictures


def _none(record: VideoRecord) -> tuple[str, bytes]:
    return record.id, b""


def _picture(root: Path | None, spec: FrameSpec, record: VideoRecord) -> tuple[str, bytes]:
    try:
        frames = _frames_of_file(record, spec) if root is None else _frames_of_prepared(root, record)
    except StresnetError:
        return _none(record)
    strip = np.ascontiguousarray(np.concatenate([_reduce(frame) for frame in frames], axis=1))
    return record.id, simplejpeg.encode_jpeg(strip, _QUALITY, "RGB", "420")


def _frames_of_file(record: VideoRecord, spec: FrameSpec) -> list[NDArray[np.uint8]]:
    readers = select_frames(Path(record.path), _HEIGHT_PX, spec)
    while True:
        frames = next(readers)
        with suppress(IndexMismatchError):
            within = np.flatnonzero([record.segment.contains(time) for time in frames.times_sec.tolist()])
            return [frame.rgb for frame in frames.read(within[_shown(len(within))])]


def _frames_of_prepared(root: Path, record: VideoRecord) -> list[NDArray[np.uint8]]:
    video = PreparedVideo.open(video_path(root, record.id))
    return list(video.rgb(_shown(video.meta.frames)))


def _shown(frames: int) -> NDArray[np.int64]:
    return np.unique(np.array([int(part * frames) for part in _SHOWN_AT]))


def _reduce(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = max(1, round(rgb.shape[1] * _HEIGHT_PX / rgb.shape[0]))
    return np.asarray(cv2.resize(rgb, (width, _HEIGHT_PX), interpolation=cv2.INTER_AREA), np.uint8)
