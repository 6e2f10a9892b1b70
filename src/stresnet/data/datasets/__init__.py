"""Data sets: one file and one registry entry for each.

To add a data set, write a file with a function from :class:`~stresnet.data.catalog.Source` to
:class:`~stresnet.data.catalog.Catalog`, and add an entry to ``_ENTRIES``. The command line reads this registry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.catalog import Catalog, Source
from stresnet.data.datasets.class_folders import read_class_folders
from stresnet.data.datasets.hmdb51 import read_hmdb51
from stresnet.data.datasets.ucf101 import read_ucf101
from stresnet.data.datasets.video_list import read_video_list
from stresnet.data.video_files import video_extensions
from stresnet.errors import StoreError


@dataclass(frozen=True)
class Dataset:
    """A data set, or a way of arranging videos.

    Attributes:
        name: the name on the command line.
        description: what it is, in a few words.
        read: reads its catalog; raises StoreError if the source is not what it should be.
        needs_lists: whether its official lists are required, besides the videos.
    """

    name: str
    description: str
    read: Callable[[Source], Catalog]
    needs_lists: bool = False


_ENTRIES = (
    Dataset("folders", "class folders or {train,test}/class folders", read_class_folders),
    Dataset("list", "a list of path, label and more, or one for each split", read_video_list),
    Dataset("ucf101", "UCF101 by its official lists", read_ucf101, needs_lists=True),
    Dataset("hmdb51", "HMDB51 by its official lists", read_hmdb51, needs_lists=True),
)
DATASETS = {entry.name: entry for entry in _ENTRIES}
"""All data sets by name."""


def read_catalog(
    source: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    lists: str | os.PathLike[str] | None = None,
    split: int = 1,
    jpegs: bool = False,
    split_lists: Mapping[str, str | os.PathLike[str]] | None = None,
    class_names: str | os.PathLike[str] | None = None,
) -> Catalog:
    """Return the catalog of a source.

    Args:
        source: a folder of videos, or a list of them (see :mod:`stresnet.data.lists`).
        dataset: a name in ``DATASETS``; by default "list" for a list or with ``split_lists``, else "folders".
        lists: folder of the official lists, for data sets that need them.
        split: the official split, 1-based.
        jpegs: whether a video is a folder of JPEGs (see :mod:`stresnet.data.jpeg_folders`) rather than a file; the
            source may then be the ROOT of a layout.
        split_lists: a list for ``"train"``, ``"val"`` or ``"test"`` each; the source is then the folder of the videos.
        class_names: file of the names of classes that lists give by number, ``3 Archery`` or ``Archery`` on each line;
            without numbers, the first is 0.

    Raises:
        StoreError: there is no such data set, the source or the lists are not what the data set expects, or there
            is no video.
    """
    path = Path(os.path.abspath(source))
    of_splits = {name: Path(file) for name, file in (split_lists or {}).items()}
    chosen = DATASETS.get(dataset or ("list" if of_splits else _detect(path)))
    if chosen is None:
        raise StoreError(f"unknown data set {dataset!r}: expected one of {', '.join(DATASETS)}")
    if chosen.needs_lists and lists is None:
        raise StoreError(f"{chosen.name} needs the folder of its official lists, but none was given")
    if (of_splits or class_names) and chosen.name != "list":
        raise StoreError(f"lists of each split, and class names, are only for lists of videos, not for {chosen.name}")
    official, names = (None if file is None else Path(file) for file in (lists, class_names))
    return chosen.read(Source(path, jpegs, official, split, of_splits, names))


def _detect(path: Path) -> str:
    if path.is_dir():
        return "folders"
    if path.is_file() and path.suffix.lower() not in video_extensions():
        return "list"
    problem = "is a video" if path.exists() else "does not exist"
    raise StoreError(f"{path} {problem}: expected a folder of class folders, or a list of videos such as a CSV file")
