"""UCF101 by its official lists ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``."""

from __future__ import annotations

import re
from pathlib import Path

from stresnet.data.catalog import Catalog, Source
from stresnet.data.datasets.official_lists import (
    ListedVideo,
    catalog_of_lists,
    lists_folder,
    other_lists_hint,
)
from stresnet.data.lists import read_lines
from stresnet.errors import StoreError

_FILE_NAME = re.compile(r"v_\w+_(g\d+)_c\d+\.avi")


def read_ucf101(source: Source) -> Catalog:
    """Return UCF101's catalog for one official split.

    Args:
        source: the folder of the videos, ``Class/v_Class_gNN_cNN.avi`` or all videos side by side, and the lists.

    Raises:
        StoreError: the lists are not UCF101's, or none of the listed videos exists.
    """
    folder = lists_folder(source)
    names = ["classInd.txt", f"trainlist0{source.split}.txt", f"testlist0{source.split}.txt"]
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise StoreError(f"{folder}: expected UCF101's lists, found no {missing[0]}{other_lists_hint(folder)}")
    class_list, train_list, test_list = (folder / name for name in names)
    class_numbers = _read_class_numbers(class_list)
    listed = _read_list(train_list, "train", class_numbers) + _read_list(test_list, "test", class_numbers)
    classes = sorted(class_numbers, key=lambda name: int(class_numbers[name]))
    return catalog_of_lists(f"UCF101 split {source.split}", source, classes, listed)


def _read_class_numbers(path: Path) -> dict[str, str]:
    pairs = [line.split() for _, line in read_lines(path)]
    if not pairs or any(len(pair) != 2 or not pair[0].isdigit() for pair in pairs):
        raise StoreError(f"{path}: expected lines of a number and a class name, such as 1 ApplyEyeMakeup")
    return {name: number for number, name in pairs}


def _read_list(path: Path, split: str, class_numbers: dict[str, str]) -> list[ListedVideo]:
    # Copies of the data set spell one class in two ways: HandstandPushups and HandStandPushups.
    spelled = {name.casefold(): name for name in class_numbers}
    listed = []
    for where, line in read_lines(path):
        # Lines of training lists end with the class number, those of test lists do not.
        name, _, number = line.partition(".avi")
        folder, _, file = f"{name}.avi".partition("/")
        label = spelled.get(folder.casefold())
        match = _FILE_NAME.fullmatch(file)
        if match is None or label is None or number.strip() not in ("", class_numbers[label]):
            raise StoreError(f"{where}: expected lines such as Archery/v_Archery_g08_c01.avi 3, found {line!r}")
        listed.append(ListedVideo(label, file, split, match[1]))
    return listed
