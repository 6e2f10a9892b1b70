"""Code shared by the data sets with official lists.

Every video that a list names becomes a record, whether or not it is on disk. Missing videos are noted in
the catalog and recorded as failed, by name, when the store is prepared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.catalog import Catalog, Source, VideoRecord, missing_notes
from stresnet.data.jpeg_folders import frames_root
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


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that are not blank, stripped.

    Raises:
        StoreError: the file cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read as a list in UTF-8 ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


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
    base = source.path
    if not base.is_dir():
        raise StoreError(f"{base}: expected the folder of {name}'s videos, found none")
    locate = _folder_locator(frames_root(base)) if source.jpegs else _file_locator(base)
    records = []
    for video in listed:
        path = locate(video.label, video.file)
        records.append(VideoRecord(f"{video.label}/{video.file}", path, video.label, video.split, video.group))
    records.sort(key=lambda record: record.id)
    if not any(os.path.exists(record.path) for record in records):
        first = records[0].path if records else "no video at all"
        raise StoreError(f"{base}: expected the videos of {name}, found none of the {len(records)}, such as {first}")
    return Catalog(name, tuple(classes), tuple(records), tuple(missing_notes(records)))


def _file_locator(base: Path) -> Callable[[str, str], str]:
    """Return a function from (class, file) to a path: ``base/class/file``, or ``base/file`` if only that exists.

    Names are joined verbatim, never used as patterns: HMDB51's contain ``[``, ``#``, ``;`` and ``&``.
    """

    def locate(label: str, file: str) -> str:
        nested, flat = base / label / file, base / file
        return str(flat if not nested.is_file() and flat.is_file() else nested)

    return locate


def _folder_locator(base: Path) -> Callable[[str, str], str]:
    """Return a function from (class, file) to the folder of that video's frames.

    The folder may be in a class folder or not, and may have the file's ending or not. If none exists, the path is
    that of the authors' layout.
    """

    def locate(label: str, file: str) -> str:
        stem = os.path.splitext(file)[0]
        places = (base / stem, base / label / stem, base / file, base / label / file)
        return str(next((place for place in places if place.is_dir()), places[0]))

    return locate
