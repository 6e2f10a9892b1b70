"""Code shared by the data sets with official lists.

Every video that a list names becomes a record, whether or not it is on disk. Missing videos are noted in
the catalog and recorded as failed, by name, when the store is prepared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.catalog import Catalog, Source, VideoRecord, missing_notes
from stresnet.data.jpeg_folders import frames_root
from stresnet.data.video_files import VideoFinder
from stresnet.errors import StoreError


@dataclass(frozen=True)
class ListedVideo:
    """One line of an official list: class folder, file name, split and group."""

    label: str
    file: str
    split: str
    group: str = ""


def lists_folder(source: Source) -> Path:
    """Return the folder of the official lists.

    Raises:
        StoreError: the split is not 1, 2 or 3, or there is no such folder.
    """
    if source.split not in (1, 2, 3):
        raise StoreError(f"expected split 1, 2 or 3, found {source.split}")
    if source.lists is None or not source.lists.is_dir():
        raise StoreError(f"{source.lists}: expected the folder of the official lists, found none")
    return source.lists


def other_lists_hint(folder: Path) -> str:
    """Return the end of an error message that names the data set whose lists are in a folder, or ``""``."""
    if (folder / "classInd.txt").is_file():
        return "; these look like UCF101's lists"
    if any(folder.glob("*_test_split?.txt")):
        return "; these look like HMDB51's lists"
    return ""


def catalog_of_lists(name: str, source: Source, classes: Iterable[str], listed: Iterable[ListedVideo]) -> Catalog:
    """Return the catalog of the listed videos.

    Args:
        name: the data set and its split.
        source: the folder of the videos: ``class/file``, or all files side by side. A video of JPEGs is a folder named
            like the file, with or without its ending.
        classes: class names in class order.
        listed: the lines of the lists.

    Raises:
        StoreError: there is no such folder, or none of the listed videos is in it.
    """
    if not source.path.is_dir():
        raise StoreError(f"{source.path}: expected the folder of {name}'s videos, found none")
    base = frames_root(source.path) if source.jpegs else source.path
    finder = VideoFinder(base, jpegs=source.jpegs)
    records = []
    for video in listed:
        names = _names(video, jpegs=source.jpegs)
        path = finder.find(*names) or str(base / names[0])
        records.append(VideoRecord(f"{video.label}/{video.file}", path, video.label, video.split, video.group))
    records.sort(key=lambda record: record.id)
    if not any(os.path.exists(record.path) for record in records):
        first = records[0].path if records else "no video at all"
        raise StoreError(f"{base}: expected the videos of {name}, found none of the {len(records)}, such as {first}")
    return Catalog(name, tuple(classes), tuple(records), (*finder.notes(), *missing_notes(records)))


def _names(video: ListedVideo, *, jpegs: bool) -> tuple[str, ...]:
    """Return the paths that a video may have, relative to the folder of all; the first is the official one.

    Names are joined verbatim, never used as patterns: HMDB51's contain ``[``, ``#``, ``;`` and ``&``.
    """
    if not jpegs:
        return f"{video.label}/{video.file}", video.file
    stem = os.path.splitext(video.file)[0]
    return stem, f"{video.label}/{stem}", video.file, f"{video.label}/{video.file}"
