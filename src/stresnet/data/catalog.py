"""Catalogs: the videos of a source with their class, split and group.

Reading a catalog decodes nothing. A video that is listed but missing stays in the catalog; preparing records it as
failed, by name.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stresnet.data.segment import WHOLE, Segment

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split that each accepted name means."""


@dataclass(frozen=True)
class VideoRecord:
    """One video of a source.

    Attributes:
        id: unique in the catalog; the POSIX path relative to the source, with its extension, and with ``#t=1.5,3`` if
            it is a segment.
        path: absolute path of the video file, or of the folder of its frames.
        label: class name.
        split: ``"train"``, ``"val"`` or ``"test"``.
        group: videos of one group show the same people or scene and must stay in one split; ``""`` if unknown.
        start_sec, end_sec: the segment of the file, see `Segment`.
    """

    id: str
    path: str
    label: str
    split: str = "train"
    group: str = ""
    start_sec: float = WHOLE.start_sec
    end_sec: float = WHOLE.end_sec

    @property
    def segment(self) -> Segment:
        """The segment of the file that is the video."""
        return Segment(self.start_sec, self.end_sec)


@dataclass(frozen=True)
class Catalog:
    """The videos of one source.

    Attributes:
        name: name of the source, for reports.
        classes: class names; the position is the class index, 0-based.
        records: the videos, sorted by id.
        notes: one-line messages for the user.
        rejected: (where, reason) of rows of a list that name no video.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[VideoRecord, ...]
    notes: tuple[str, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """The files that a catalog is read from.

    Attributes:
        path: absolute path of the folder of videos, or of a list.
        jpegs: whether a video is a folder of JPEGs (see :mod:`stresnet.data.jpeg_folders`) rather than a file.
        lists: folder of the official lists, for data sets that have some.
        split: the official split, 1-based.
        split_lists: list by split, if each has its own; the path is then the folder of the videos.
        class_names: file of the names of classes that lists give by number.
    """

    path: Path
    jpegs: bool = False
    lists: Path | None = None
    split: int = 1
    split_lists: Mapping[str, Path] = field(default_factory=dict)
    class_names: Path | None = None


def normalized(name: str) -> str:
    """Return the name of a class or group in Unicode's composed form (NFC), in which equal names are equal texts.

    A Mac decomposes accents in the names of files.
    """
    return unicodedata.normalize("NFC", name)


def order_classes(labels: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the distinct labels in class order, and notes on that order.

    Labels are sorted by name, or by value if all of them are whole numbers.
    """
    names = set(labels)
    if not all(name.isascii() and name.isdigit() for name in names):
        return tuple(sorted(names)), []
    ordered = tuple(sorted(names, key=lambda name: (int(name), name)))
    if all(int(name) == index for index, name in enumerate(ordered)):
        return ordered, []
    note = (
        f"labels are whole numbers ({ordered[0]} to {ordered[-1]}): taken as class names in numerical order, so "
        f'"{ordered[0]}" is class index 0'
    )
    return ordered, [note]


def no_split_note(count: int, advice: str) -> str:
    """Return the note for a source of ``count`` videos without a test split."""
    return f"no test split: all {count} videos are for training; {advice}"


def missing_notes(records: Iterable[VideoRecord]) -> list[str]:
    """Return one note if some of the listed videos do not exist, with the first as an example."""
    listed = list(records)
    missing = [r.path for r in listed if not os.path.exists(r.path)]
    if not missing:
        return []
    return [f"{len(missing)} of {len(listed)} listed videos are missing, the first is {missing[0]}"]
