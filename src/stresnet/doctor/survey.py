"""Survey a set of videos, a source or a prepared store: one row each, as in the index of a store."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.prepared_video import StoreSpec
from stresnet.data.store import Entries, Store, StoreEntry
from stresnet.data.workers import map_in_processes
from stresnet.doctor.examine import crashed, crashed_prepared, examine_file, examine_prepared
from stresnet.progress import Progress


@dataclass(frozen=True, repr=False)
class Survey:
    """What is known of a set of videos.

    Attributes:
        store: the store. For a source, what preparing it would list, except that sizes are those of the files, the
            clipped shares are estimates, and nothing is on disk.
        still: ids of usable videos in which nothing moves.
        prepared: whether the store exists, rather than a source.
        notes: what reading the source had to say.
        rejected: (where, reason) of rows of a list that name no video.
        damaged: (id, reason) of videos whose prepared file is missing or damaged.
    """

    store: Store
    still: frozenset[str]
    prepared: bool
    notes: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()


def survey_source(
    catalog: Catalog, root: Path, spec: StoreSpec, workers: int, progress: Progress | None = None
) -> Survey:
    """Examine the videos of a source; `examine_file` says what is read.

    Args:
        catalog: the videos.
        root: the source.
        spec: size and flow at which to look for motion.
        workers: number of processes.
        progress: called after every file.
    """
    files: dict[str, list[VideoRecord]] = {}
    for record in catalog.records:
        files.setdefault(record.path, []).append(record)
    entries: list[StoreEntry] = []
    still: set[str] = set()
    with closing(map_in_processes(partial(examine_file, spec), files.values(), workers, crashed)) as results:
        for done, seen in enumerate(results, 1):
            entries += (entry for entry, _ in seen)
            still |= {entry.record.id for entry, is_still in seen if is_still}
            if progress is not None:
                progress("examining files", done, len(files))
    store = Store(root, spec, catalog.classes, catalog.name, Entries.of(entries))
    return Survey(store, frozenset(still), False, catalog.notes, catalog.rejected)


def survey_store(store: Store, workers: int, progress: Progress | None = None, *, verify: bool = False) -> Survey:
    """Examine the videos of a prepared store: its index, and some pictures of each usable video.

    Args:
        store: the store.
        workers: number of processes.
        progress: called after every video.
        verify: whether to read every prepared video as a whole and compare it with its checksum.
    """
    usable = store.select()
    sizes = zip(usable.column("id").to_pylist(), usable.column("bytes").to_pylist(), strict=True)
    still: set[str] = set()
    damaged: list[tuple[str, str]] = []
    work = partial(examine_prepared, store.root, verify)
    with closing(map_in_processes(work, sizes, workers, crashed_prepared)) as results:
        for done, (name, is_still, reason) in enumerate(results, 1):
            if is_still:
                still.add(name)
            if reason:
                damaged.append((name, reason))
            if progress is not None:
                progress("verifying videos" if verify else "examining videos", done, len(usable))
    return Survey(store, frozenset(still), True, damaged=tuple(sorted(damaged)))
