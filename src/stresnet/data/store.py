"""Prepared stores: the videos of a source with their frames and flow, and an index of them.

STORE/store.json          how all videos were prepared, the name of the source and its class names
STORE/index.parquet       one row per video of the source, with the reason if it is not usable; written last
STORE/videos/<id>.arrow   the prepared videos, see :mod:`stresnet.data.prepared_video`
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stresnet.atomic import replacing
from stresnet.data.catalog import VideoRecord
from stresnet.data.prepared_video import PreparedVideo as PreparedVideo
from stresnet.data.prepared_video import StoreSpec as StoreSpec
from stresnet.errors import StoreError, StresnetError

FORMAT_VERSION = 3
_RECORD_COLUMNS = ("id", "path", "label", "split", "group")
_INDEX_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _RECORD_COLUMNS]
    + [(name, pa.int64()) for name in ("frames", "height", "width")]
    + [("fps", pa.float64()), ("bytes", pa.int64()), ("reason", pa.string()), ("truncated", pa.bool_())]
    + [("clipped_share", pa.float64())]
)


@dataclass(frozen=True)
class StoreEntry:
    """One row of the index.

    Attributes:
        record: the video.
        frames, height, width, fps: metadata of the prepared video; 0 if the video is not usable.
        bytes: size of the prepared video's file.
        reason: why the video is not usable; ``""`` if it is.
        truncated: whether parts of the video could not be decoded and are missing.
        clipped_share: share of flow vectors beyond the bound, 0 to 1.
    """

    record: VideoRecord
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0
    bytes: int = 0
    reason: str = ""
    truncated: bool = False
    clipped_share: float = 0.0


@dataclass(frozen=True, repr=False)
class Store:
    """A prepared store.

    Attributes:
        root: the folder.
        spec: how the videos were prepared.
        classes: class names; the position is the class index, 0-based.
        name: name of the source.
        entries: one per video of the source, usable or not, sorted by id.
    """

    root: Path
    spec: StoreSpec
    classes: tuple[str, ...]
    name: str
    entries: tuple[StoreEntry, ...]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Open the store in a folder. Only its index is read.

        Raises:
            StoreError: the folder is not a store, is one of another format version, or was not finished.
        """
        root = Path(path)
        header = read_header(root)
        if header is None:
            raise StoreError(f"{root}: expected a prepared store, found no store.json; make one with stresnet prepare")
        spec, classes, name = header
        entries = _read_index(root)
        if unknown := {e.record.label for e in entries} - set(classes):
            raise StoreError(
                f"{root}: the index has classes that store.json lacks, {sorted(unknown)}; run prepare again"
            )
        return cls(root, spec, classes, name, entries)

    def save(self) -> None:
        """Write ``store.json``, then the index, each atomically.

        Raises:
            StoreError: a file cannot be written.
        """
        write_header(self.root, self.spec, self.classes, self.name)
        rows = [_row(entry) for entry in self.entries]
        index = self.root / "index.parquet"
        try:
            with replacing(index) as temporary:
                pq.write_table(pa.Table.from_pylist(rows, schema=_INDEX_SCHEMA), temporary)
        except OSError as error:
            raise write_error(index, error) from error

    def video(self, record_id: str) -> PreparedVideo:
        """Open one prepared video.

        Raises:
            StoreError: the store has no such video, the video is not usable, or its file is damaged.
        """
        entry = self._by_id.get(record_id)
        if entry is None:
            raise StoreError(f"{self.root}: has no video {record_id}; choose one of its index")
        if entry.reason:
            raise StoreError(f"{self.root}: {record_id} could not be prepared ({entry.reason})")
        return PreparedVideo.open(video_path(self.root, record_id))

    def select(self, split: str | None = None) -> tuple[StoreEntry, ...]:
        """Return the usable videos of one split, or of all."""
        return tuple(e for e in self.entries if not e.reason and split in (None, e.record.split))

    def with_test_groups(self, groups: Sequence[str]) -> Store:
        """Return the store with these groups as the test split, and all others as the training split.

        Raises:
            StoreError: no video belongs to one of the groups.
        """
        known = {entry.record.group for entry in self.entries} - {""}
        if not known:
            raise StoreError(f"{self.root}: has no groups to hold out; prepare it from a CSV with a `group` column")
        if unknown := sorted(set(groups) - known):
            listing = ", ".join(sorted(known))
            raise StoreError(f"{self.root} has no group {', '.join(map(repr, unknown))}: its groups are {listing}")
        entries = []
        for entry in self.entries:
            split = "test" if entry.record.group in groups else "train"
            entries.append(replace(entry, record=replace(entry.record, split=split)))
        return replace(self, entries=tuple(entries))

    def __repr__(self) -> str:
        usable = len(self.select())
        return f"Store({str(self.root)!r}, {usable} of {len(self.entries)} videos usable, {len(self.classes)} classes)"

    @cached_property
    def _by_id(self) -> dict[str, StoreEntry]:
        return {entry.record.id: entry for entry in self.entries}


def video_path(root: Path, record_id: str) -> Path:
    """Return the path of a prepared video in a store."""
    return root / "videos" / f"{record_id}.arrow"


def read_header(root: Path) -> tuple[StoreSpec, tuple[str, ...], str] | None:
    """Return spec, classes and name of the store in a folder, or None if there is no ``store.json``.

    Raises:
        StoreError: the file is not valid, or is one of another format version.
    """
    path = root / "store.json"
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        if data["format"] != FORMAT_VERSION:
            raise StoreError(
                f"{root}: expected a store of format {FORMAT_VERSION}, found format {data['format']}; prepare its "
                "videos again, into a new folder"
            )
        return StoreSpec.from_dict(data["spec"]), tuple(data["classes"]), str(data["name"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except StresnetError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: expected the description of a prepared store ({error!r}); prepare it again"
        ) from error


def write_header(root: Path, spec: StoreSpec, classes: Sequence[str], name: str) -> None:
    """Write ``store.json`` atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    data = {"format": FORMAT_VERSION, "name": name, "classes": list(classes), "spec": spec.to_dict()}
    path = root / "store.json"
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: object, error: OSError) -> StoreError:
    """Return the error to raise if a store cannot be written, such as on a full disk."""
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error}); fix this and run the same command again, finished "
        "videos are kept"
    )


def _read_index(root: Path) -> tuple[StoreEntry, ...]:
    index = root / "index.parquet"
    try:
        rows = pq.read_table(index, schema=_INDEX_SCHEMA, partitioning=None).to_pylist()
    except FileNotFoundError as error:
        raise StoreError(f"{root}: preparing was not finished; run the same prepare command again") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{index}: expected the index of a store ({error}); run prepare again") from error
    return tuple(_entry(row) for row in rows)


def _row(entry: StoreEntry) -> dict[str, Any]:
    row = asdict(entry)
    record: dict[str, Any] = row.pop("record")
    return record | row


def _entry(row: dict[str, Any]) -> StoreEntry:
    record = VideoRecord(**{name: row.pop(name) for name in _RECORD_COLUMNS})
    return StoreEntry(record, **row)
