"""Class folders: ``root/class/...`` or ``root/{train,test[,val]}/class/...``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from stresnet.data.catalog import SPLIT_NAMES, Catalog, Source, VideoRecord, no_split_note, order_classes
from stresnet.data.jpeg_folders import frames_root
from stresnet.errors import StoreError


def read_class_folders(source: Source) -> Catalog:
    """Return the catalog of a folder of class folders.

    Videos are found at any depth below a class folder; hidden files and folders are ignored. The top folders are
    splits if every one that contains videos has the name of a split and keeps its videos in subfolders.

    Raises:
        StoreError: there is no such folder, or it has no video inside a class folder.
    """
    if not source.path.is_dir():
        raise StoreError(f"{source.path}: expected a folder of class folders, found none")
    base = frames_root(source.path) if source.jpegs else source.path
    walk = _Walk(base)
    ids = sorted(walk.jpeg_folder_ids() if source.jpegs else walk.video_ids())
    in_folders = [i for i in ids if "/" in i]
    if not in_folders:
        raise _no_class_folders(base, ids, walk, jpegs=source.jpegs)
    has_splits = all(i.split("/")[0].lower() in SPLIT_NAMES and i.count("/") > 1 for i in in_folders)
    records = [_record(base, video_id, has_splits) for video_id in in_folders]
    class_names, class_notes = order_classes(r.label for r in records)
    notes = walk.notes()
    if loose := len(ids) - len(in_folders):
        notes.append(f"{loose} video(s) directly in {base.name}/ belong to no class and are left out")
    if not has_splits:
        notes.append(no_split_note(len(records), "put test videos in test/CLASS/, or list all in a CSV file"))
    notes += class_notes + _empty_class_notes(base, has_splits, set(class_names))
    return Catalog(source.path.name, class_names, tuple(records), tuple(notes))


class _Walk:
    """Search a folder for videos, and remember what was ignored."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.other_files: list[str] = []
        self.not_utf8: list[str] = []

    def video_ids(self) -> Iterator[str]:
        """Yield the POSIX paths of videos relative to the folder."""
        extensions = _video_extensions()
        for folder, _, files in self._folders():
            inside = self._relative(folder)
            for name in files:
                video_id = f"{inside}/{name}" if inside != "." else name
                if name.startswith("."):
                    continue
                if os.path.splitext(name)[1].lower() in extensions:
                    yield from self._if_utf8(video_id)
                else:
                    self.other_files.append(video_id)

    def jpeg_folder_ids(self) -> Iterator[str]:
        """Yield the POSIX paths, relative to the folder, of folders that contain JPEGs."""
        for folder, folders, files in self._folders():
            if any(name.lower().endswith((".jpg", ".jpeg")) for name in files):
                folders.clear()
                yield from self._if_utf8(self._relative(folder))

    def _relative(self, folder: str) -> str:
        return Path(os.path.relpath(folder, self._base)).as_posix()

    def _folders(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walk the folder as os.walk does; links are followed, and each folder is entered once."""
        entered = {os.path.realpath(self._base)}
        for folder, folders, files in os.walk(self._base, followlinks=True, onerror=_raise_unreadable):
            real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
            folders[:] = sorted(n for n in folders if not n.startswith(".") and real[n] not in entered)
            entered.update(real[name] for name in folders)
            yield folder, folders, files

    def _if_utf8(self, video_id: str) -> Iterator[str]:
        try:
            video_id.encode()
        except UnicodeEncodeError:
            self.not_utf8.append(video_id)
        else:
            yield video_id

    def notes(self) -> list[str]:
        """Return a note for each kind of file that was left out."""
        notes = []
        if self.other_files:
            example = self.other_files[0]
            notes.append(f"{len(self.other_files)} file(s) that are not videos are left out, such as {example!a}")
        if self.not_utf8:
            example = ascii(self.not_utf8[0])
            notes.append(f"{len(self.not_utf8)} video(s) with names that are not UTF-8 are left out: rename {example}")
        return notes


def _raise_unreadable(error: OSError) -> None:
    raise StoreError(f"{error.filename}: this folder cannot be listed ({error.strerror})") from error


def _no_class_folders(base: Path, ids: Sequence[str], walk: _Walk, *, jpegs: bool) -> StoreError:
    found = f"{len(ids)} videos outside any folder" if ids else "no video at all"
    if (base / "store.json").is_file():
        found = "a prepared store (give the source first, then the store)"
    elif any(name.lower().endswith((".jpg", ".jpeg")) for name in walk.other_files):
        found += " but JPEGs (import them with --from-jpegs)"
    if jpegs and ids:
        found += ": name their classes in a CSV path,label, or give the official lists"
    kind = "folders of JPEGs" if jpegs else f"videos ({' '.join(sorted(_video_extensions()))})"
    return StoreError(f"{base}: expected class folders with {kind}, found {found}")


def _record(base: Path, video_id: str, has_splits: bool) -> VideoRecord:
    parts = video_id.split("/")
    record = VideoRecord(video_id, os.path.join(base, *parts), label=parts[0])
    if has_splits:
        return replace(record, label=parts[1], split=SPLIT_NAMES[parts[0].lower()])
    return record


def _empty_class_notes(base: Path, has_splits: bool, classes: set[str]) -> list[str]:
    parents = [p for p in sorted(base.iterdir()) if p.is_dir()] if has_splits else [base]
    names = {p.name for parent in parents for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")}
    return [f"folder {name!a} has no video and is not a class" for name in sorted(names - classes)]


def _video_extensions() -> frozenset[str]:
    from stresnet.media.video import VIDEO_EXTENSIONS  # loads PyAV, which the command line's help can do without

    return VIDEO_EXTENSIONS
