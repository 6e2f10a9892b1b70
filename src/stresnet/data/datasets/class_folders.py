"""Class folders: ``root/class/...`` or ``root/{train,test[,val]}/class/...``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stresnet.data.catalog import SPLIT_NAMES, Catalog, Source, VideoRecord, no_split_note, normalized, order_classes
from stresnet.data.jpeg_folders import PICTURE_ENDINGS, frames_root
from stresnet.data.video_files import VideoWalk, video_extensions
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
    walk = VideoWalk(base)
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
        notes.append(no_split_note(len(records), "put test videos in test/CLASS/, or list all in a file"))
    notes += class_notes + _empty_class_notes(base, has_splits, set(class_names))
    return Catalog(source.path.name, class_names, tuple(records), tuple(notes))


def _no_class_folders(base: Path, ids: Sequence[str], walk: VideoWalk, *, jpegs: bool) -> StoreError:
    found = f"{len(ids)} videos outside any folder" if ids else "no video at all"
    if (base / "store.json").is_file():
        found = "a prepared store (give the source first, then the store)"
    elif any(name.lower().endswith(PICTURE_ENDINGS) for name in walk.other_files):
        found += " but pictures (import them with --from-jpegs)"
    if jpegs and ids:
        found += ": name their classes in a list path,label, or give the official lists"
    kind = "folders of JPEGs or PNGs" if jpegs else f"videos ({' '.join(sorted(video_extensions()))})"
    return StoreError(f"{base}: expected class folders with {kind}, found {found}")


def _record(base: Path, video_id: str, has_splits: bool) -> VideoRecord:
    parts = video_id.split("/")
    record = VideoRecord(video_id, os.path.join(base, *parts), label=normalized(parts[0]))
    if has_splits:
        return replace(record, label=normalized(parts[1]), split=SPLIT_NAMES[parts[0].lower()])
    return record


def _empty_class_notes(base: Path, has_splits: bool, classes: set[str]) -> list[str]:
    parents = [p for p in sorted(base.iterdir()) if p.is_dir()] if has_splits else [base]
    folders = [p for parent in parents for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    names = {normalized(folder.name) for folder in folders}
    return [f"folder {name!a} has no video and is not a class" for name in sorted(names - classes)]
