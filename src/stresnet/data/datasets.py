"""UCF101 and HMDB51 with their official lists.

The lists decide: every video they name becomes a record, whether or not it is on disk. Missing ones are noted here
and recorded as failed, by name, when the store is prepared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.catalog import Catalog, VideoRecord, missing_notes
from stresnet.data.jpeg_folders import frames_root
from stresnet.errors import StoreError

_UCF101_NAME = re.compile(r"v_\w+_(g\d+)_c\d+\.avi")
_HMDB51_LIST = re.compile(r"(.+)_test_split([123])\.txt")
_HMDB51_SPLITS = {"0": None, "1": "train", "2": "test"}  # 0: the video takes no part in this split


@dataclass(frozen=True)
class _Listed:
    """One line of an official list: class folder, file name, split."""

    label: str
    file: str
    split: str
    group: str = ""


def read_ucf101(
    videos_dir: str | os.PathLike[str], splits_dir: str | os.PathLike[str], split: int, *, jpegs: bool = False
) -> Catalog:
    """Returns UCF101's catalog for one official split.

    Args:
        videos_dir: holds ``Class/v_Class_gNN_cNN.avi``, or all videos side by side.
        splits_dir: the folder of ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``.
        split: 1, 2 or 3.
        jpegs: whether a video is a folder of JPEGs, named like the file or without its ending, rather than a file;
            ``videos_dir`` may then be the ROOT of a layout of :mod:`stresnet.data.jpeg_folders`.

    Raises:
        StoreError: the lists are not UCF101's, or none of the videos they name is there.
    """
    folder = _split_folder(splits_dir, split)
    paths = [folder / "classInd.txt", folder / f"trainlist0{split}.txt", folder / f"testlist0{split}.txt"]
    if not all(path.is_file() for path in paths):
        missing = next(path.name for path in paths if not path.is_file())
        raise StoreError(f"{folder}: expected UCF101's lists, found no {missing}{_looks_like(folder)}")
    class_index = {name: number for number, name in _ucf101_pairs(paths[0])}
    listed = []
    for path, part in zip(paths[1:], ("train", "test"), strict=True):
        for line in _lines(path):
            # Training lists end each line with the class number, test lists do not.
            name, _, number = line.partition(".avi")
            label, _, file = f"{name}.avi".partition("/")
            match = _UCF101_NAME.fullmatch(file)
            if match is None or label not in class_index or number.strip() not in ("", class_index[label]):
                raise StoreError(f"{path}: expected lines such as Archery/v_Archery_g08_c01.avi 3, found {line!r}")
            listed.append(_Listed(label, file, part, match[1]))
    ordered = sorted(class_index, key=lambda name: int(class_index[name]))
    return _catalog(f"UCF101 split {split}", videos_dir, ordered, listed, jpegs)


def read_hmdb51(
    videos_dir: str | os.PathLike[str], splits_dir: str | os.PathLike[str], split: int, *, jpegs: bool = False
) -> Catalog:
    """Returns HMDB51's catalog for one official split.

    Args:
        videos_dir: holds ``class/name.avi``, or all videos side by side.
        splits_dir: the folder of ``<class>_test_split<N>.txt``.
        split: 1, 2 or 3.
        jpegs: whether a video is a folder of JPEGs, named like the file or without its ending, rather than a file;
            ``videos_dir`` may then be the ROOT of a layout of :mod:`stresnet.data.jpeg_folders`.

    Raises:
        StoreError: the lists are not HMDB51's, or none of the videos they name is there.
    """
    folder = _split_folder(splits_dir, split)
    matches = [(path, _HMDB51_LIST.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    lists = {match[1]: path for path, match in matches if match and int(match[2]) == split}
    if not lists:
        raise StoreError(
            f"{folder}: expected HMDB51's lists, found no <class>_test_split{split}.txt{_looks_like(folder)}"
        )
    listed = []
    for label, path in lists.items():
        for line in _lines(path):
            file, _, code = line.rpartition(" ")
            if not file or code not in _HMDB51_SPLITS:
                raise StoreError(f"{path}: expected lines of a file name and 0, 1 or 2, found {line!r}")
            if part := _HMDB51_SPLITS[code]:
                listed.append(_Listed(label, file.strip(), part))
    return _catalog(f"HMDB51 split {split}", videos_dir, sorted(lists), listed, jpegs)


def _split_folder(splits_dir: str | os.PathLike[str], split: int) -> Path:
    if split not in (1, 2, 3):
        raise StoreError(f"expected split 1, 2 or 3, found {split}")
    folder = Path(splits_dir)
    if not folder.is_dir():
        raise StoreError(f"{folder}: expected the folder of the official lists, found none")
    return folder


def _looks_like(folder: Path) -> str:
    if (folder / "classInd.txt").is_file():
        return "; these look like UCF101's lists"
    if any(_HMDB51_LIST.fullmatch(path.name) for path in folder.iterdir()):
        return "; these look like HMDB51's lists"
    return ""


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: cannot be read as a list in UTF-8 ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ucf101_pairs(path: Path) -> list[tuple[str, str]]:
    pairs = [tuple(line.split()) for line in _lines(path)]
    if not pairs or any(len(pair) != 2 or not pair[0].isdigit() for pair in pairs):
        raise StoreError(f"{path}: expected lines of a number and a class name, such as 1 ApplyEyeMakeup")
    return [(pair[0], pair[1]) for pair in pairs]


def _catalog(
    name: str,
    videos_dir: str | os.PathLike[str],
    classes: Iterable[str],
    listed: Iterable[_Listed],
    jpegs: bool,
) -> Catalog:
    base = Path(os.path.abspath(videos_dir))
    if not base.is_dir():
        raise StoreError(f"{base}: expected the folder of {name}'s videos, found none")
    locate = _folder_locator(frames_root(base)) if jpegs else _locator(base)
    records = []
    for item in listed:
        path = locate(item.label, item.file)
        records.append(VideoRecord(f"{item.label}/{item.file}", path, item.label, item.split, item.group))
    records.sort(key=lambda record: record.id)
    if not any(os.path.exists(record.path) for record in records):
        first = records[0].path if records else "no video at all"
        raise StoreError(f"{base}: expected the videos of {name}, found none of the {len(records)}, such as {first}")
    return Catalog(name, tuple(classes), tuple(records), tuple(missing_notes(records)))


def _locator(base: Path) -> Callable[[str, str], str]:
    """Returns a function from (class, file) to a path: ``base/class/file``, else ``base/file`` if that exists.

    Names are joined as they are, never treated as patterns: HMDB51's hold ``[``, ``#``, ``;`` and ``&``.
    """

    def locate(label: str, file: str) -> str:
        nested, flat = base / label / file, base / file
        return str(flat if not nested.is_file() and flat.is_file() else nested)

    return locate


def _folder_locator(base: Path) -> Callable[[str, str], str]:
    """Returns a function from (class, file) to the folder of that video: by itself or by class, with or without ending.

    Where there is none, it is where the authors' layout would have it.
    """

    def locate(label: str, file: str) -> str:
        stem = os.path.splitext(file)[0]
        places = (base / stem, base / label / stem, base / file, base / label / file)
        return str(next((place for place in places if place.is_dir()), places[0]))

    return locate
