"""Prepare a store from a catalog of videos, in parallel and resumably.

Each prepared video is written atomically, and the index last. After an interruption, the same call resumes: a prepared
video is kept if it was made from the same content in the same way. No module imported here
imports torch, so workers start quickly and stay small.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, fields
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.compute as pc

from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.class_notes import class_notes
from stresnet.data.copies import copy_notes
from stresnet.data.datasets import read_catalog
from stresnet.data.encode_video import encode_segments
from stresnet.data.finding import messages
from stresnet.data.import_jpegs import import_jpegs
from stresnet.data.jpeg_folders import find_pictures
from stresnet.data.prepared_video import PreparedVideo, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import prepared_file
from stresnet.data.source_files import content_hash, stamp_of
from stresnet.data.store import Entries, Store, StoreEntry, read_header, video_path, write_error, write_header
from stresnet.data.workers import default_workers, map_in_processes
from stresnet.errors import StoreError, StresnetError
from stresnet.flow.estimate import require_available
from stresnet.flow.show.statistics import clipping_note
from stresnet.flow.spec import FlowSpec
from stresnet.media.frame_spec import AS_SHOWN
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.progress import Progress

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; two runs at once are not detected there
    fcntl = None  # type: ignore[assignment]

_CRASHED = "its worker process died twice: the file crashes the decoder, or needs more memory than is available"
_UNFINISHED = re.compile(r"\..*\.tmp\.(arrow|json|parquet)")  # names that `atomic.replacing` gives


@dataclass(frozen=True, repr=False)
class PrepareSummary:
    """The result of preparing a store.

    Attributes:
        done: videos prepared in this run.
        kept: videos kept from earlier runs.
        failed: (id, reason) of videos that are not usable.
        rejected: (where, reason) of rows of the source's lists that name no video.
        empty_classes: classes without any usable video.
        truncated: ids of usable videos with parts that could not be decoded.
        converted: what was done to frames, such as "deinterlaced", and the ids of the usable videos.
        clipped: one line for each video with much of its flow beyond the bound.
        notes: on the classes and on copies, see `stresnet.data.class_notes` and `stresnet.data.copies`.
        no_longer_listed: ids of usable videos that the index listed before and this catalog lacks; their files stay.
        frames: frames of all usable videos.
        seconds: duration of this run.
        bytes: total size of all usable prepared videos.
    """

    done: int
    kept: int
    failed: tuple[tuple[str, str], ...]
    rejected: tuple[tuple[str, str], ...]
    empty_classes: tuple[str, ...]
    truncated: tuple[str, ...]
    converted: tuple[tuple[str, tuple[str, ...]], ...]
    clipped: tuple[str, ...]
    notes: tuple[str, ...]
    no_longer_listed: tuple[str, ...]
    frames: int
    seconds: float
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON types; ``failed`` and ``rejected`` are mappings to the
        reasons, ``converted`` is one to lists of ids."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return values | {
            "failed": dict(self.failed),
            "rejected": dict(self.rejected),
            "converted": dict(self.converted),
        }

    def __repr__(self) -> str:
        counts = f"done={self.done}, kept={self.kept}, failed={len(self.failed)}, frames={self.frames}"
        return f"PrepareSummary({counts}, seconds={self.seconds:.0f})"


def prepare(
    source: Catalog | str | os.PathLike[str],
    store: str | os.PathLike[str],
    spec: StoreSpec | FlowSpec | None = None,
    *,
    from_jpegs: bool = False,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> PrepareSummary:
    """Decode videos, compute their flow, and keep both in a store.

    A video that cannot be read, is too short, or crashes its worker is recorded in the index with the reason, and the
    run continues. Prepared videos that the catalog does not list stay in the folder for use by other splits. Workers
    are spawned, so a script must call this below ``if __name__ == "__main__":``.

    Args:
        source: a catalog, a folder of class folders or a list (see :func:`stresnet.data.datasets.read_catalog`).
        store: a folder that is new, empty, or a store of the same spec.
        spec: how videos are prepared, or only their flow; by default DIS flow at a short side of 256 px.
        from_jpegs: whether videos are folders of JPEGs to import (see :mod:`stresnet.data.jpeg_folders`). The spec
            then states what their flow is, and must be given.
        workers: number of processes; by default one per usable core, but at most 61 on Windows.
        limits: how much a video may ask for; one that exceeds a limit is recorded as failed.
        progress: called at the start and after every video.

    Raises:
        FlowSpecError: the store has different flow, or the flow method is not available here.
        StoreError: the source is not valid; or the store cannot be written (full disk, no permission), is in use, or
            is not a store. Nothing half-written is left, and finished videos are kept.
    """
    start = time.monotonic()
    if workers is not None and workers < 1:
        raise StoreError(f"workers must be at least 1, not {workers}")
    if spec is None and from_jpegs:
        raise StoreError("importing JPEGs needs a spec: the files do not show the method and bound of their flow")
    if not isinstance(spec, StoreSpec):
        spec = StoreSpec(spec or FlowSpec())
    if from_jpegs and spec.frames != AS_SHOWN:
        raise StoreError("JPEGs have no streams, clock or interlacing: import them as they are")
    catalog = source if isinstance(source, Catalog) else read_catalog(source, jpegs=from_jpegs)
    if not (from_jpegs and spec.flow_stored):  # imported flow need not be computed
        require_available(spec.flow)
    root = Path(os.path.abspath(store))
    with _locked(root):
        _create_or_check(root, catalog, spec)
        listed_before = _usable_ids(root)
        _remove_unfinished(root)
        kept = [entry for record in catalog.records if (entry := _reusable_entry(root, record, spec, from_jpegs))]
        try:
            make = partial(_prepare_file, root, spec=spec, from_jpegs=from_jpegs, limits=limits)
            on_crash = partial(_unfinished, root, spec=spec, from_jpegs=from_jpegs)
            entries = _prepare_rest(catalog, kept, make, on_crash, workers or default_workers(), progress)
        finally:
            _remove_unfinished(root)
        result = Store(root, spec, catalog.classes, catalog.name, Entries.of(entries))
        result.save()
    return _summarize(result, catalog, len(kept), listed_before, time.monotonic() - start)


def _prepare_rest(
    catalog: Catalog,
    kept: list[StoreEntry],
    make: Callable[[Sequence[VideoRecord]], list[StoreEntry]],
    on_crash: Callable[[Sequence[VideoRecord]], list[StoreEntry]],
    workers: int,
    progress: Progress | None,
) -> list[StoreEntry]:
    """Prepare the videos that are not kept, and return the entries of all."""
    kept_ids = {entry.record.id for entry in kept}
    files: dict[str, list[VideoRecord]] = {}  # the videos that are left, by their file
    for record in catalog.records:
        if record.id not in kept_ids:
            files.setdefault(record.path, []).append(record)
    entries = list(kept)
    report = _Report(progress, len(kept), len(catalog.records))
    with closing(map_in_processes(make, files.values(), workers, on_crash)) as results:
        for found in results:
            entries += found
            for entry in found:
                report.add(entry)
    return entries


class _Report:
    """Report the progress of a run, with its speed and the number of failures."""

    def __init__(self, progress: Progress | None, kept: int, total: int) -> None:
        self._progress = progress
        self._done = kept
        self._total = total
        self._failed = 0
        self._frames = 0
        self._start = time.monotonic()
        self._send()

    def add(self, entry: StoreEntry) -> None:
        """Count a video and report it."""
        self._done += 1
        self._failed += bool(entry.reason)
        self._frames += entry.frames
        self._send()

    def _send(self) -> None:
        if self._progress is None:
            return
        seconds = time.monotonic() - self._start
        details = [f"{self._frames / seconds:.0f} frames/s"] if seconds > 1 else []
        details += [f"{self._failed} failed"] if self._failed else []
        self._progress("preparing videos", self._done, self._total, ", ".join(details))


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the lock of a store, which is created if needed. The system releases it however this process ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except FileExistsError as error:
        raise StoreError(f"{root}: expected a folder for the store, found a file") from error
    except OSError as error:
        raise write_error(root, error) from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"{root}: another run is preparing this store; wait for it or stop it") from error
            except OSError:
                pass  # some network file systems have no locks
        yield


def _create_or_check(root: Path, catalog: Catalog, spec: StoreSpec) -> None:
    """Make an empty folder a store, or raise unless it is a store of this spec."""
    header = read_header(root)
    if header is None:
        if others := sorted(p.name for p in root.iterdir() if not p.name.startswith(".")):
            raise StoreError(f"{root} must be a new or empty folder, or an existing store, but contains {others[0]}")
        write_header(root, spec, catalog.classes, catalog.name)
        return
    found_spec = header[0]
    found_spec.require_same(spec, f"the store {root} and this run")
    if found_spec.flow_stored != spec.flow_stored:
        wanted, found = ("with flow in it" if s.flow_stored else "with frames only" for s in (spec, found_spec))
        raise StoreError(f"{root}: expected a store {wanted}, found one {found}; prepare into another folder")


def _remove_unfinished(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            if _UNFINISHED.fullmatch(name):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def _usable_ids(root: Path) -> set[str]:
    """Return the ids of the usable videos in the index, if there is one."""
    try:
        return set(Store.open(root).select().column("id").to_pylist())
    except StoreError:
        return set()


def _reusable_entry(root: Path, record: VideoRecord, spec: StoreSpec, from_jpegs: bool) -> StoreEntry | None:
    """Return the entry of a video that is already prepared from the same source in the same way, or None."""
    path = video_path(root, record.id)
    try:
        meta = PreparedVideo.open(path).meta
        size = path.stat().st_size
        if (meta.spec, meta.imported, meta.start_sec, meta.end_sec) != (spec, from_jpegs, *record.segment):
            return None
        # A source that is gone does not invalidate the prepared video: sources may be deleted once prepared.
        same = not os.path.exists(record.path) or _is_same_source(record, meta)
    except (StresnetError, OSError):
        return None
    return _entry(record, meta, size) if same else None


def _is_same_source(record: VideoRecord, meta: PreparedVideoMetadata) -> bool:
    """Return whether the source of a prepared video still has the same content."""
    files = [record.path]
    if meta.imported:
        files = [*find_pictures(record.path, flow=meta.spec.flow_stored).files()]
    stamp = stamp_of(files)
    if stamp == (meta.source_bytes, meta.source_mtime_ns, meta.source_ctime_ns):
        return True
    return stamp.size_bytes == meta.source_bytes and content_hash(files) == meta.content_hash


def _prepare_file(
    root: Path, records: Sequence[VideoRecord], spec: StoreSpec, from_jpegs: bool, limits: Limits
) -> list[StoreEntry]:
    """Prepare the videos of one file, or the one of a folder, and return their entries; runs in a worker.

    Raises:
        StoreError: the store cannot be written.
    """
    path = records[0].path
    open_sink = partial(_open_sink, root)
    made: Mapping[str, PreparedVideoMetadata | StresnetError] = {}
    reason = ""
    try:
        if from_jpegs:
            with open_sink(records[0].id) as sink:
                meta = import_jpegs(records[0].id, path, spec, sink)
            made = {records[0].id: meta}
        else:
            segments = {record.id: record.segment for record in records}
            made = encode_segments(path, spec, segments, open_sink, limits)
    except OSError as error:  # of writing; a source that cannot be read is a VideoError
        if error.errno != errno.ENAMETOOLONG:
            raise write_error(video_path(root, records[0].id), error) from error
        reason = "the name is too long for this file system"
    except StresnetError as error:
        reason = _reason(error, path)
    except Exception as error:  # one bad video must not stop the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    entries = []
    for record in records:
        found = made.get(record.id)
        if isinstance(found, PreparedVideoMetadata):
            entries.append(_entry(record, found, video_path(root, record.id).stat().st_size))
        elif found is not None:
            entries.append(StoreEntry(record, reason=_reason(found, path)))
    return entries + _unfinished(root, [r for r in records if r.id not in made], spec, from_jpegs, reason)


def _open_sink(root: Path, record_id: str) -> AbstractContextManager[BinaryIO]:
    return prepared_file(video_path(root, record_id))


def _reason(error: StresnetError, path: str) -> str:
    return str(error).removeprefix(f"{path}: ")


def _unfinished(
    root: Path, records: Sequence[VideoRecord], spec: StoreSpec, from_jpegs: bool, reason: str = _CRASHED
) -> list[StoreEntry]:
    """Return the entries of videos of one file that failed with a reason, or were finished before it did."""
    return [_reusable_entry(root, record, spec, from_jpegs) or StoreEntry(record, reason=reason) for record in records]


def _entry(record: VideoRecord, meta: PreparedVideoMetadata, size: int) -> StoreEntry:
    return StoreEntry(
        record,
        meta.frames,
        meta.height,
        meta.width,
        meta.fps,
        size,
        truncated=meta.truncated,
        conversions=meta.conversions,
        clipped_share=meta.clipped_share or 0.0,  # None if no flow was computed
        content=int(meta.content_hash or "0", 16),
    )


def _summarize(store: Store, catalog: Catalog, kept: int, listed_before: set[str], seconds: float) -> PrepareSummary:
    usable = store.select()
    ids, failed = usable.column("id"), store.entries.where("reason", store.entries.distinct("reason") - {""})
    classes = usable.distinct("label")
    bound_px = store.spec.flow.bound_px
    notes = map(clipping_note, ids.to_pylist(), usable.column("clipped_share").to_pylist(), repeat(bound_px))
    return PrepareSummary(
        done=len(usable) - kept,
        kept=kept,
        failed=tuple(zip(failed.column("id").to_pylist(), failed.column("reason").to_pylist(), strict=True)),
        rejected=catalog.rejected,
        empty_classes=tuple(name for name in store.classes if name not in classes),
        truncated=tuple(ids.filter(usable.column("truncated")).to_pylist()),
        converted=_converted(usable),
        clipped=tuple(note for note in notes if note),
        notes=tuple(messages([*class_notes(store), *copy_notes(store)])),
        no_longer_listed=tuple(sorted(listed_before.difference(store.entries.column("id").to_pylist()))),
        frames=pc.sum(usable.column("frames"), min_count=0).as_py(),
        seconds=seconds,
        bytes=pc.sum(usable.column("bytes"), min_count=0).as_py(),
    )


def _converted(usable: Entries) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each conversion of frames, with the ids of its videos."""
    videos: dict[str, list[str]] = {}
    converted = usable.where("conversions", usable.distinct("conversions") - {""})
    for name, all_of_it in zip(*(converted.column(c).to_pylist() for c in ("id", "conversions")), strict=True):
        for conversion in all_of_it.split("; "):
            videos.setdefault(conversion, []).append(name)
    return tuple((conversion, tuple(names)) for conversion, names in sorted(videos.items()))
