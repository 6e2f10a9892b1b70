"""Data sets: one file and one registry entry for each.

To add a data set, write a file with a function from :class:`~stresnet.data.catalog.Source` to
:class:`~stresnet.data.catalog.Catalog`, and add an entry to ``_ENTRIES``. The command line reads this registry.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.catalog import Catalog, Source
from stresnet.data.datasets.class_folders import read_class_folders
from stresnet.data.datasets.csv_list import read_csv_list
from stresnet.data.datasets.hmdb51 import read_hmdb51
from stresnet.data.datasets.ucf101 import read_ucf101
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
    Dataset("csv", "a CSV file path,label[,split][,group]", read_csv_list),
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
) -> Catalog:
    """Return the catalog of a source.

    Args:
        source: a folder of videos or a CSV file.
        dataset: a name in ``DATASETS``; by default "folders" for a folder and "csv" for a CSV file.
        lists: folder of the official lists, for data sets that need them.
        split: the official split, 1-based.
        jpegs: whether a video is a folder of JPEGs (see :mod:`stresnet.data.jpeg_folders`) rather than a file; the
            source may then be the ROOT of a layout.

    Raises:
        StoreError: there is no such data set, the source or the lists are not what the data set expects, or there
            is no video.
    """
    path = Path(os.path.abspath(source))
    chosen = DATASETS.get(dataset or _detect(path))
    if chosen is None:
        raise StoreError(f"unknown data set {dataset!r}: expected one of {', '.join(DATASETS)}")
    if chosen.needs_lists and lists is None:
        raise StoreError(f"{chosen.name} needs the folder of its official lists, but none was given")
    return chosen.read(Source(path, jpegs, None if lists is None else Path(lists), split))


def _detect(path: Path) -> str:
    if path.is_dir():
        return "folders"
    if path.is_file() and path.suffix.lower() == ".csv":
        return "csv"
    problem = "is neither" if path.exists() else "does not exist"
    raise StoreError(f"{path} {problem}: expected a folder of class folders, or a .csv file")
