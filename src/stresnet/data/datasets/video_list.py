"""Lists of videos with their classes, in the formats of :mod:`stresnet.data.lists`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from stresnet.data.catalog import (
    SPLIT_NAMES,
    Catalog,
    Source,
    VideoRecord,
    missing_notes,
    no_split_note,
    normalized,
    order_classes,
)
from stresnet.data.jpeg_folders import frames_root
from stresnet.data.lists import Row, read_class_numbers, read_list
from stresnet.data.segment import WHOLE, Segment, parse_segment
from stresnet.data.video_files import VideoFinder, video_extensions
from stresnet.errors import StoreError


def read_video_list(source: Source) -> Catalog:
    """Return the catalog of one list, or of one for each split.

    Relative paths start at the folder of the list, or at the folder of videos if there is a list for each split. In a
    list without labels, the class of a video is the folder it is in.

    Raises:
        StoreError: a list cannot be read, no row of it can be used, or rows contradict each other.
    """
    lists = dict(source.split_lists) or {"": source.path}
    base = source.path if source.split_lists else source.path.parent
    if not base.is_dir():
        raise StoreError(f"{base}: expected the folder of the listed videos, found none")
    records = _Records(frames_root(base) if source.jpegs and source.split_lists else base, source)
    for split, path in lists.items():
        records.read(path, split)
    return records.catalog(source.path.name if source.split_lists else source.path.stem)


class _Records:
    """The records of lists."""

    def __init__(self, base: Path, source: Source) -> None:
        numbers = read_class_numbers(source.class_names) if source.class_names else {}
        self._names = {number: normalized(name) for number, name in sorted(numbers.items())}
        self._known = frozenset(self._names.values())
        self._base = base
        self._jpegs = source.jpegs
        self._finder = VideoFinder(base, jpegs=source.jpegs)
        self._seen: dict[str, tuple[str, VideoRecord]] = {}
        self._rejected: list[tuple[str, str]] = []
        self._notes: list[str] = []
        self._repeated = 0
        self._has_split = False

    def read(self, path: Path, split: str) -> None:
        """Add the videos of a list.

        Args:
            path: the list.
            split: the split of all its videos; an empty text if the list says it.

        Raises:
            StoreError: the list cannot be read, none of its rows can be used, or one contradicts an earlier one.
        """
        found = read_list(path)
        self._rejected += found.rejected
        self._has_split |= bool(split) or any("split" in row.fields for row in found.rows)
        self._require_numbering(path, found.rows)
        has_labels = any("label" in row.fields for row in found.rows)
        before = len(self._rejected)
        for row in found.rows:
            try:
                self._add(row.where, self._record(row, split, has_labels))
            except _RejectedError as error:
                self._rejected.append((row.where, str(error)))
        if len(self._rejected) - before == len(found.rows):
            where, reason = self._rejected[before]
            raise StoreError(f"{where}: {reason}")
        if found.passed_over:
            self._notes.append(f"{path.name}: columns that are not used: {', '.join(found.passed_over)}")

    def catalog(self, name: str) -> Catalog:
        """Return the catalog of all lists."""
        records = sorted((record for _, record in self._seen.values()), key=lambda r: r.id)
        classes, notes = order_classes(r.label for r in records)
        if self._names:
            classes, notes = tuple(self._names.values()), []
        if self._repeated:
            notes.append(f"{self._repeated} row(s) repeat a video already listed and are left out")
        if not self._has_split:
            notes.append(no_split_note(len(records), "hold out groups when training, or add a split column"))
        if cut := [record for record in records if record.segment != WHOLE]:
            files = len({record.path for record in cut})
            notes.append(
                f"{len(cut)} of {len(records)} videos are segments of {files} file(s), from start to end in seconds"
            )
        notes += self._finder.notes() + missing_notes(records)
        return Catalog(name, classes, tuple(records), (*self._notes, *notes), tuple(self._rejected))

    def _add(self, where: str, record: VideoRecord) -> None:
        first_where, first = self._seen.setdefault(record.id, (where, record))
        if first != record:
            raise StoreError(
                f"{first_where}, and {where}: both list {record.id} but disagree on its label, split or group; keep one"
            )
        self._repeated += first_where != where

    def _record(self, row: Row, split: str, has_labels: bool) -> VideoRecord:
        """Return the video of a row; ``split`` is that of its list, if it has one."""
        listed = row.fields.get("split", split or "train")
        its_split = SPLIT_NAMES.get(listed.lower())
        if its_split is None:
            raise _RejectedError(f"expected a split of train, val or test, found {listed!r}")
        if split and its_split != split:
            raise _RejectedError(f"it says split {listed!r} in the list of split {split!r}")
        path, segment = self._file(row)
        inside = Path(path).is_relative_to(self._base)
        # Videos outside the base folder have their whole path as id: unique, and never above the store's folder.
        video_id = Path(path).relative_to(self._base if inside else Path(path).anchor).as_posix()
        folder = Path(row.fields["path"]).parent.name or Path(video_id).parent.name
        label = self._class(row.fields.get("label", "") if has_labels else folder)
        group = normalized(row.fields.get("group", ""))
        return VideoRecord(video_id + segment.fragment, path, label, its_split, group, *segment)

    def _file(self, row: Row) -> tuple[str, Segment]:
        """Return the path of a row's file, and the segment to cut from it."""
        name, start, end = (row.fields.get(field, "") for field in ("path", "start", "end"))
        try:
            segment = parse_segment(start, end)
        except ValueError as error:
            raise _RejectedError(str(error)) from error
        if segment == WHOLE:
            return self._finder.find(name) or os.path.abspath(self._base / name), WHOLE
        if self._jpegs:
            raise _RejectedError("segments are cut from video files, not from folders of frames")
        if Path(name).suffix.lower() not in video_extensions():  # an id: Kinetics' files have it, and are cut already
            cut = f"{name}_{segment.start_sec:06.0f}_{segment.end_sec:06.0f}"
            if found := self._finder.find(cut):
                return found, WHOLE
        return self._finder.find(name) or os.path.abspath(self._base / name), segment

    def _class(self, label: str) -> str:
        name = normalized(label)
        if not name:
            raise _RejectedError("the label is empty")
        if not self._names or name in self._known:
            return name
        if not label.isdigit() or int(label) not in self._names:
            raise _RejectedError(f"label {label!r} is not among the {len(self._names)} class names")
        return self._names[int(label)]

    def _require_numbering(self, path: Path, rows: Iterable[Row]) -> None:
        """Raise if labels count from 1 where names count from 0: all but one would then be taken for another."""
        labels = {row.fields.get("label", "") for row in rows}
        if not self._names or min(self._names) != 0 or not all(label.isdigit() for label in labels):
            return
        numbers = set(map(int, labels))
        if 0 not in numbers and len(self._names) in numbers:
            raise StoreError(
                f"{path}: labels count up to {len(self._names)}, but the class names count from 0 to "
                f"{len(self._names) - 1}; write the number before each class name"
            )


class _RejectedError(Exception):
    """A row of a list names no video; the message says why."""
