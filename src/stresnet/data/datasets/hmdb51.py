"""HMDB51 by its official lists ``<class>_test_split<N>.txt``."""

from __future__ import annotations

import re

from stresnet.data.catalog import Catalog, Source
from stresnet.data.datasets.official_lists import (
    ListedVideo,
    catalog_of_lists,
    lists_folder,
    other_lists_hint,
)
from stresnet.data.lists import read_lines
from stresnet.errors import StoreError

_LIST_NAME = re.compile(r"(.+)_test_split([123])\.txt")
_SPLITS = {"0": None, "1": "train", "2": "test"}  # 0: the video is not used in this split


def read_hmdb51(source: Source) -> Catalog:
    """Return HMDB51's catalog for one official split.

    Args:
        source: the folder of the videos, ``class/name.avi`` or all videos side by side, and the lists.

    Raises:
        StoreError: the lists are not HMDB51's, or none of the listed videos exists.
    """
    folder = lists_folder(source)
    matches = [(path, _LIST_NAME.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    lists = {match[1]: path for path, match in matches if match and int(match[2]) == source.split}
    if not lists:
        expected = f"<class>_test_split{source.split}.txt"
        raise StoreError(f"{folder}: expected HMDB51's lists, found no {expected}{other_lists_hint(folder)}")
    listed = []
    for label, path in lists.items():
        for where, line in read_lines(path):
            file, _, code = line.rpartition(" ")
            if not file or code not in _SPLITS:
                raise StoreError(f"{where}: expected a file name and 0, 1 or 2, found {line!r}")
            if split := _SPLITS[code]:
                listed.append(ListedVideo(label, file.strip(), split))
    return catalog_of_lists(f"HMDB51 split {source.split}", source, sorted(lists), listed)
