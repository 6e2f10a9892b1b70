"""Who and what: the videos of a source, with their class, split and group.

A source is a folder of class folders, a folder ``{train,test[,val]}/class/...`` or a CSV file. Nothing is decoded
here, and a file listed but absent stays in the catalog: preparing records it as failed, by name.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stresnet.data.jpeg_folders import frames_root
from stresnet.errors import StoreError
from stresnet.media.video import VIDEO_EXTENSIONS

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {name: name for name in SPLITS} | {"valid": "val", "validation": "val"}


@dataclass(frozen=True)
class VideoRecord:
    """One video of a source.

    Attributes:
        id: unique in the store; the posix path relative to the source, with its extension.
        path: where the video lies, absolute.
        label: the name of its class.
        split: ``"train"``, ``"val"`` or ``"test"``.
        group: videos of one group show the same people or scene and must not be parted; ``""`` if unknown.
    """

    id: str
    path: str
    label: str
    split: str = "train"
    group: str = ""


@dataclass(frozen=True)
class Catalog:
    """The videos of one source.

    Attributes:
        name: what the source is called, for reports.
        classes: class names; the position is the class index, 0-based.
        records: the videos, sorted by id.
        notes: lines worth telling the user.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[VideoRecord, ...]
    notes: tuple[str, ...] = ()


def read_catalog(src: str | os.PathLike[str], *, jpegs: bool = False) -> Catalog:
    """Returns the catalog of a folder of class folders or of a CSV file, whichever ``src`` is.

    Args:
        src: the folder or the CSV file.
        jpegs: whether a video is a folder of JPEGs (see :mod:`stresnet.data.jpeg_folders`) rather than a file.

    Raises:
        StoreError: ``src`` is neither, or holds no video.
    """
    path = Path(src)
    if path.is_dir():
        return read_class_folders(path, jpegs=jpegs)
    if path.is_file() and path.suffix.lower() == ".csv":
        return read_csv(path)
    found = "a file of another kind" if path.exists() else "nothing at that path"
    raise StoreError(f"{path}: expected a folder of class folders or a .csv file, found {found}")


def read_class_folders(root: str | os.PathLike[str], *, jpegs: bool = False) -> Catalog:
    """Returns the catalog of ``root/class/...`` or ``root/{train,test[,val]}/class/...``.

    Videos are found at any depth below a class folder; hidden files and folders are passed over. The folders are
    splits if every one that holds videos is named as a split and keeps them in folders of its own.

    Args:
        root: the folder.
        jpegs: whether a video is a folder of JPEGs rather than a file; ``root`` may then be the ROOT of a layout.

    Raises:
        StoreError: there is no such folder, or it holds no video inside a class folder.
    """
    source = Path(os.path.abspath(root))
    if not source.is_dir():
        raise StoreError(f"{source}: expected a folder of class folders, found none")
    base = frames_root(source) if jpegs else source
    walk = _Walk()
    ids = sorted(walk.jpeg_folder_ids(base) if jpegs else walk.video_ids(base))
    notes = walk.notes()
    placed = [i for i in ids if "/" in i]
    is_split = bool(placed) and all(i.split("/")[0].lower() in _SPLIT_NAMES and i.count("/") > 1 for i in placed)
    if not placed:
        found = f"{len(ids)} videos outside any folder" if ids else "no video at all"
        if (base / "store.json").is_file():
            found = "a prepared store (give the source first, then the store)"
        elif any(name.lower().endswith((".jpg", ".jpeg")) for name in walk.other):
            found += " but JPEGs (taken over with --from-jpegs)"
        if jpegs and ids:
            found += ": name their classes in a CSV path,label, or give the official lists"
        kind = "folders of JPEGs" if jpegs else f"videos ({_endings()})"
        raise StoreError(f"{base}: expected class folders with {kind}, found {found}")
    if loose := len(ids) - len(placed):
        notes.append(f"{loose} video(s) directly in {base.name}/ belong to no class and are left out")
    records = [_folder_record(base, video_id, is_split) for video_id in placed]
    class_names, class_notes = order_classes(r.label for r in records)
    if not is_split:
        notes.append(no_split_note(len(records)))
    notes += class_notes + _empty_class_notes(base, is_split, set(class_names))
    return Catalog(source.name, class_names, tuple(records), tuple(notes))


def read_csv(path: str | os.PathLike[str]) -> Catalog:
    """Returns the catalog of a CSV file with the header ``path,label[,split][,group]``.

    ``class`` is accepted for ``label``, further columns are passed over, and relative paths start at the folder of
    the CSV file. UTF-8, with or without a byte order mark.

    Raises:
        StoreError: the file cannot be read as such; the message names the line.
    """
    file = Path(os.path.abspath(path))
    numbered = _csv_rows(file)
    label_key = "label" if "label" in numbered[0][1] else "class"
    has_split = "split" in numbered[0][1]
    seen: dict[str, tuple[int, VideoRecord]] = {}
    repeated = 0
    for line, row in numbered:
        record = _csv_record(file, line, row, label_key, has_split)
        first_line, first = seen.setdefault(record.id, (line, record))
        if first != record:
            raise StoreError(
                f"{file}: lines {first_line} and {line} both list {record.id} but disagree on its label, split or "
                "group; keep one"
            )
        repeated += first_line != line
    records = sorted((record for _, record in seen.values()), key=lambda r: r.id)
    class_names, notes = order_classes(r.label for r in records)
    if repeated:
        notes.append(f"{repeated} line(s) repeat a video already listed and are left out")
    if not has_split:
        notes.append(no_split_note(len(records)))
    notes += missing_notes(records)
    return Catalog(file.stem, class_names, tuple(records), tuple(notes))


def order_classes(labels: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
    """Returns the distinct labels in class order, and the notes on that order.

    Labels that are all whole numbers are names like any other, but sorted by value.
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


def no_split_note(count: int) -> str:
    """Returns the note for a source that does not say what is for testing."""
    return f"no split is given: all {count} videos are for training; choose test groups or give a split column"


def missing_notes(records: Iterable[VideoRecord]) -> list[str]:
    """Returns one note if some of the listed files do not exist, with the first as an example."""
    listed = list(records)
    missing = [r.path for r in listed if not os.path.exists(r.path)]
    if not missing:
        return []
    return [f"{len(missing)} of {len(listed)} listed videos are missing, the first is {missing[0]}"]


class _Walk:
    """One walk over a folder, remembering what was passed over."""

    def __init__(self) -> None:
        self.other: list[str] = []
        self.unnameable: list[str] = []

    def video_ids(self, base: Path) -> Iterator[str]:
        """Yields posix paths of videos relative to ``base``; links are followed, each folder is entered once."""
        for folder, _, files in self._folders(base):
            for name in files:
                video_id = Path(os.path.relpath(os.path.join(folder, name), base)).as_posix()
                if name.startswith("."):
                    continue
                if os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS:
                    yield from self._nameable(video_id)
                else:
                    self.other.append(video_id)

    def jpeg_folder_ids(self, base: Path) -> Iterator[str]:
        """Yields posix paths, relative to ``base``, of folders with JPEGs in them."""
        for folder, folders, files in self._folders(base):
            if any(name.lower().endswith((".jpg", ".jpeg")) for name in files):
                folders.clear()
                yield from self._nameable(Path(os.path.relpath(folder, base)).as_posix())

    def _folders(self, base: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        entered = {os.path.realpath(base)}
        for folder, folders, files in os.walk(base, followlinks=True, onerror=_unreadable):
            real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
            folders[:] = sorted(n for n in folders if not n.startswith(".") and real[n] not in entered)
            entered.update(real[name] for name in folders)
            yield folder, folders, files

    def _nameable(self, video_id: str) -> Iterator[str]:
        if _is_utf8(video_id):
            yield video_id
        else:
            self.unnameable.append(video_id)

    def notes(self) -> list[str]:
        notes = []
        if self.other:
            notes.append(f"{len(self.other)} file(s) that are no videos are left out, such as {self.other[0]!a}")
        if self.unnameable:
            example = ascii(self.unnameable[0])
            notes.append(
                f"{len(self.unnameable)} video(s) with names that are not UTF-8 are left out: rename {example}"
            )
        return notes


def _unreadable(error: OSError) -> None:
    raise StoreError(f"{error.filename}: cannot look into this folder ({error.strerror})") from error


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _endings() -> str:
    return " ".join(sorted(VIDEO_EXTENSIONS))


def _folder_record(base: Path, video_id: str, is_split: bool) -> VideoRecord:
    parts = video_id.split("/")
    record = VideoRecord(video_id, str(base / video_id), label=parts[0])
    if is_split:
        return replace(record, label=parts[1], split=_SPLIT_NAMES[parts[0].lower()])
    return record


def _empty_class_notes(base: Path, is_split: bool, classes: set[str]) -> list[str]:
    parents = [p for p in sorted(base.iterdir()) if p.is_dir()] if is_split else [base]
    names = {p.name for parent in parents for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")}
    return [f"folder {name!a} holds no video and is no class" for name in sorted(names - classes)]


def _csv_rows(file: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Returns (line number, row) for every row that is not blank; keys are lower case."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, skipinitialspace=True)
            header = [name.strip().lower() for name in next(reader, [])]
            rows = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{file}: expected a CSV file in UTF-8, found something else ({error})") from error
    if "path" not in header or not {"label", "class"} & set(header):
        found = ",".join(header) or "an empty file"
        raise StoreError(f"{file}: expected the header path,label[,split][,group], found {found[:80]!r}")
    if not rows:
        raise StoreError(f"{file}: expected one line per video after the header, found none")
    for line, cells in rows:
        if len(cells) != len(header):
            raise StoreError(f"{file}, line {line}: expected {len(header)} columns, found {len(cells)}")
    return [(line, dict(zip(header, (c.strip() for c in cells), strict=True))) for line, cells in rows]


def _csv_record(file: Path, line: int, row: Mapping[str, str], label_key: str, has_split: bool) -> VideoRecord:
    where = f"{file}, line {line}"
    for key in ("path", label_key):
        if not row[key]:
            raise StoreError(f"{where}: the {key} is empty")
    split = _SPLIT_NAMES.get(row["split"].lower()) if has_split else "train"
    if split is None:
        raise StoreError(f"{where}: expected a split of train, val or test, found {row['split']!r}")
    absolute = Path(os.path.abspath(file.parent / row["path"]))
    inside = absolute.is_relative_to(file.parent)
    # Files outside the folder of the CSV keep their whole path as id: unique, and never above the store's folder.
    relative = absolute.relative_to(file.parent if inside else absolute.anchor)
    return VideoRecord(relative.as_posix(), str(absolute), row[label_key], split, row.get("group", ""))
