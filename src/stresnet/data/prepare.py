"""From a catalog of videos to a prepared store: in parallel, resumable, never half a video.

Each clip file appears whole or not at all, and the index is written last. Whatever stops a run, the same call goes on
where it was: a clip is kept if it was made from the same file (size and time of change) in the same way.
No module imported here imports torch: the workers start quickly and stay small.
"""

from __future__ import annotations

import errno
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.encode import encode_video
from stresnet.data.import_jpegs import import_video
from stresnet.data.jpeg_folders import find_pictures
from stresnet.data.prepared_video_writer import cannot_write, write_video_file
from stresnet.data.store import (
    PreparedVideo,
    PreparedVideoMetadata,
    Store,
    StoreEntry,
    StoreSpec,
    read_header,
    video_path,
    write_header,
)
from stresnet.data.workers import map_in_processes
from stresnet.errors import StoreError, StresnetError
from stresnet.flow.estimate import require_method
from stresnet.flow.show.statistics import clipping_note

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; there, nobody guards against two runs at once
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = re.compile(r"\..*\.tmp\.(arrow|json|parquet)")  # names that `atomic.replacing` gives
_MOST_ON_WINDOWS = 61  # processes of one pool; it refuses more there


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: videos finished, kept from before, or failed.
        total: videos in the catalog.
        failed: how many of those done could not be used.
        frames: frames of the usable ones.
        seconds: since the start.
        eta_seconds: expected until the end, by bytes of video; NaN until a video has been worked on.
    """

    done: int
    total: int
    failed: int
    frames: int
    seconds: float
    eta_seconds: float


@dataclass(frozen=True)
class PrepareSummary:
    """What a run did.

    Attributes:
        done: videos prepared in this run.
        kept: videos already there.
        failed: (id, reason) of videos that could not be used.
        empty_classes: classes without any usable video.
        truncated: ids of usable videos, parts of which could not be decoded.
        clipped: a line for each video much of whose flow is beyond the bound.
        unlisted: ids of usable videos that the store listed before and this catalog does not; their clips stay.
        frames: frames of all usable videos.
        seconds: of this run.
        bytes: size of all clip files in the index.
    """

    done: int
    kept: int
    failed: tuple[tuple[str, str], ...]
    empty_classes: tuple[str, ...]
    truncated: tuple[str, ...]
    clipped: tuple[str, ...]
    unlisted: tuple[str, ...]
    frames: int
    seconds: float
    bytes: int


def prepare(
    catalog: Catalog,
    store: str | os.PathLike[str],
    spec: StoreSpec,
    *,
    from_jpegs: bool = False,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> PrepareSummary:
    """Returns what was done to make ``store`` hold every usable video of the catalog.

    A video that cannot be read, is too short, or kills the process that reads it is recorded in the index with its
    reason; the rest goes on. Clips of videos that the catalog does not name stay: another split may want them.
    Worker processes are spawned, so a script must call this below ``if __name__ == "__main__":``.

    Args:
        catalog: the videos.
        store: a folder, new, empty or a store of the same spec.
        spec: how clips are made.
        from_jpegs: whether the videos are folders of JPEGs to be taken over (see :mod:`stresnet.data.jpeg_folders`);
            what the spec says of stored flow is then what the caller knows of it.
        workers: processes; one per usable core by default, but no more than 61 on Windows.
        progress: called in this process once at the start and after every video.

    Raises:
        FlowSpecError: the store was made with another flow, or the method cannot be run here.
        StoreError: the store cannot be written (full disk, no permission), is in use, or is another folder; nothing
            half-written is left, and what is finished is kept.
    """
    root = Path(os.path.abspath(store))
    start = time.monotonic()
    if workers is not None and workers < 1:
        raise StoreError(f"expected at least 1 worker, found {workers}")
    if not (from_jpegs and spec.flow_stored):  # imported flow is there already
        require_method(spec.flow)
    with _only_writer(root):
        _claim(root, catalog, spec)
        listed = _listed(root)
        _remove_unfinished(root)
        kept = [entry for record in catalog.records if (entry := _kept_entry(root, record, spec, from_jpegs))]
        kept_ids = {entry.record.id for entry in kept}
        todo = [record for record in catalog.records if record.id not in kept_ids]
        job = partial(_prepare_one, root, spec=spec, from_jpegs=from_jpegs)
        run = _Run(start, list(kept), todo, progress)
        try:
            with closing(map_in_processes(job, todo, workers or _default_workers(), _died)) as finished:
                for entry in finished:
                    run.add(entry)
        finally:
            _remove_unfinished(root)
        entries = tuple(sorted(run.entries, key=lambda entry: entry.record.id))
        result = Store(root, spec, catalog.classes, catalog.name, entries)
        result.save()
    return _summary(result, len(kept), listed, time.monotonic() - start)


def usable_cores() -> int:
    """Returns how many cores this process may use: containers and clusters often grant fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_workers() -> int:
    return min(usable_cores(), _MOST_ON_WINDOWS) if sys.platform == "win32" else usable_cores()


class _Run:
    """The entries so far, and the progress they make."""

    def __init__(
        self,
        start: float,
        entries: list[StoreEntry],
        todo: Iterable[VideoRecord],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.entries = entries
        # Bytes, not videos, foretell the time: videos differ in length by far more than in bytes per frame.
        self._bytes = {record.id: _source_bytes(record) for record in todo}
        self._all_bytes = sum(self._bytes.values())
        self._bytes_left = self._all_bytes
        self._total = len(entries) + len(self._bytes)
        self._failed = 0
        self._frames = sum(entry.frames for entry in entries)
        self._start = start
        self._work_start = time.monotonic()
        self._on_progress = progress
        self._report()

    def add(self, entry: StoreEntry) -> None:
        self.entries.append(entry)
        self._failed += bool(entry.reason)
        self._frames += entry.frames
        self._bytes_left -= self._bytes[entry.record.id]
        self._report()

    def _report(self) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        finished = self._all_bytes - self._bytes_left
        if len(self.entries) == self._total:
            eta = 0.0
        else:
            eta = (now - self._work_start) * self._bytes_left / finished if finished else math.nan
        self._on_progress(Progress(len(self.entries), self._total, self._failed, self._frames, now - self._start, eta))


@contextmanager
def _only_writer(root: Path) -> Iterator[None]:
    """Holds the store's lock. The system lets go of it however this process ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except FileExistsError as error:
        raise StoreError(f"{root}: expected a folder for the store, found a file") from error
    except OSError as error:
        raise cannot_write(root, error) from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"{root}: another prepare is at work on this store; wait for it or stop it") from error
            except OSError:
                pass  # some network file systems know no locks
        yield


def _claim(root: Path, catalog: Catalog, spec: StoreSpec) -> None:
    """Makes a new folder a store, or checks that the store there is of this spec."""
    header = read_header(root)
    if header is not None:
        header[0].require_same(spec, f"the store {root} and this run")
        if header[0].flow_stored != spec.flow_stored:
            wanted, found = ("with flow in it" if s.flow_stored else "with frames only" for s in (spec, header[0]))
            raise StoreError(f"{root}: expected a store {wanted}, found one {found}; prepare into another folder")
        return
    if strangers := sorted(p.name for p in root.iterdir() if not p.name.startswith(".")):
        raise StoreError(f"{root}: expected a new or empty folder or a store, found a folder with {strangers[0]} in it")
    write_header(root, spec, catalog.classes, catalog.name)


def _remove_unfinished(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            if _UNFINISHED.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _kept_entry(root: Path, record: VideoRecord, spec: StoreSpec, from_jpegs: bool) -> StoreEntry | None:
    """Returns the entry of a clip that need not be made again, or None."""
    path = video_path(root, record.id)
    try:
        meta = PreparedVideo.open(path).meta
        size = path.stat().st_size
        if meta.spec != spec or meta.imported != from_jpegs:
            return None
        # Where the source is gone, the clip is not: videos may be deleted once they are prepared.
        same = not os.path.exists(record.path) or (meta.source_bytes, meta.source_mtime_ns) == _stamp(record, meta)
    except (StresnetError, OSError):
        return None
    return _entry(record, meta, size) if same else None


def _stamp(record: VideoRecord, meta: PreparedVideoMetadata) -> tuple[int, int]:
    """Returns size and time of change of what the clip was made from."""
    if meta.imported:
        return find_pictures(record.path, flow=meta.spec.flow_stored).stamp()
    source = os.stat(record.path)
    return source.st_size, source.st_mtime_ns


def _entry(record: VideoRecord, meta: PreparedVideoMetadata, size: int) -> StoreEntry:
    return StoreEntry(
        record,
        meta.frames,
        meta.height,
        meta.width,
        meta.fps,
        size,
        truncated=meta.truncated,
        clipped_share=meta.clipped_share or 0.0,  # None where no flow is stored
    )


def _source_bytes(record: VideoRecord) -> int:
    """Returns what a video's share of the time goes by: its bytes, or of a folder the number of its files."""
    try:
        return len(os.listdir(record.path)) if os.path.isdir(record.path) else os.stat(record.path).st_size
    except OSError:
        return 0


def _listed(root: Path) -> set[str]:
    """Returns the ids of the usable videos in the index that is there, if there is one."""
    try:
        return {entry.record.id for entry in Store.open(root).select()}
    except StoreError:
        return set()


def _clipped(entry: StoreEntry, spec: StoreSpec) -> str | None:
    return clipping_note(entry.record.id, entry.clipped_share, spec.flow.bound_px)


def _summary(store: Store, kept: int, listed: set[str], seconds: float) -> PrepareSummary:
    usable = store.select()
    classes = {entry.record.label for entry in usable}
    return PrepareSummary(
        done=len(usable) - kept,
        kept=kept,
        failed=tuple((entry.record.id, entry.reason) for entry in store.entries if entry.reason),
        empty_classes=tuple(name for name in store.classes if name not in classes),
        truncated=tuple(entry.record.id for entry in usable if entry.truncated),
        clipped=tuple(note for entry in usable if (note := _clipped(entry, store.spec))),
        unlisted=tuple(sorted(listed - {entry.record.id for entry in store.entries})),
        frames=sum(entry.frames for entry in usable),
        seconds=seconds,
        bytes=sum(entry.bytes for entry in usable),
    )


def _died(record: VideoRecord) -> StoreEntry:
    return StoreEntry(
        record,
        reason="the process reading it died, twice: the file crashes the decoder or needs more memory than there is",
    )


def _prepare_one(root: Path, record: VideoRecord, spec: StoreSpec, from_jpegs: bool) -> StoreEntry:
    """Returns the entry of one video after writing its clip; runs in a worker.

    Raises:
        StoreError: the clip cannot be written, nor could any other.
    """
    path = video_path(root, record.id)
    try:
        encode = import_video if from_jpegs else encode_video
        meta = write_video_file(path, partial(encode, record.id, record.path, spec))
    except StoreError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG:
            return StoreEntry(record, reason="the name is too long for this file system")
        raise
    except StresnetError as error:
        return StoreEntry(record, reason=str(error).removeprefix(f"{record.path}: "))
    except Exception as error:  # whatever one bad file brings about, ten thousand good ones go on
        return StoreEntry(record, reason=" ".join(f"{type(error).__name__}: {error}".split()))
    return _entry(record, meta, path.stat().st_size)
