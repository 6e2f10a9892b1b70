"""Prepared stores: the videos of a source with their frames and flow, and an index of them.

STORE/store.json          how all videos were prepared, the name of the source and its class names
STORE/index.parquet       one row per video of the source, with the reason if it is not usable; written last
STORE/videos/<id>.arrow   the prepared videos, see :mod:`stresnet.data.prepared_video`
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stresnet.atomic import replacing
from stresnet.data.folds import split_groups
from stresnet.data.index import Entries as Entries
from stresnet.data.index import StoreEntry as StoreEntry
from stresnet.data.prepared_video import PreparedVideo as PreparedVideo
from stresnet.data.prepared_video import StoreSpec as StoreSpec
from stresnet.errors import StoreError, StresnetError

FORMAT_VERSION = 3


@dataclass(frozen=True, repr=False)
class Store:
    """A prepared store.

    Attributes:
        root: the folder.
        spec: how the videos were prepared.
        classes: class names; the position is the class index, 0-based.
        name: name of the source.
        entries: one per video of the source, usable or not, sorted by id; see :mod:`stresnet.data.index`.
    """

    root: Path
    spec: StoreSpec
    classes: tuple[str, ...]
    name: str
    entries: Entries

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
        if unknown := entries.distinct("label") - set(classes):
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
        index = self.root / "index.parquet"
        try:
            with replacing(index) as temporary:
                self.entries.write(temporary)
        except OSError as error:
            raise write_error(index, error) from error

    def video(self, record_id: str) -> PreparedVideo:
        """Open one prepared video.

        Raises:
            StoreError: the store has no such video, the video is not usable, or its file is damaged.
        """
        entry = self.entries.find(record_id)
        if entry is None:
            raise StoreError(f"{self.root}: has no video {record_id}; choose one of its index")
        if entry.reason:
            raise StoreError(f"{self.root}: {record_id} could not be prepared ({entry.reason})")
        return PreparedVideo.open(video_path(self.root, record_id))

    def select(self, split: str | None = None) -> Entries:
        """Return the usable videos of one split, or of all."""
        usable = self.entries.where("reason", [""])
        return usable if split is None else usable.where("split", [split])

    def with_test_groups(self, groups: Sequence[str]) -> Store:
        """Return the store with these groups as the test split, and all others as the training split.

        Raises:
            StoreError: no video belongs to one of the groups.
        """
        known = self.entries.distinct("group") - {""}
        if not known:
            raise StoreError(f"{self.root}: has no groups to hold out; prepare it from a CSV with a `group` column")
        if unknown := sorted(set(groups) - known):
            listing = ", ".join(sorted(known))
            raise StoreError(f"{self.root} has no group {', '.join(map(repr, unknown))}: its groups are {listing}")
        return replace(self, entries=self.entries.with_test_groups(groups))

    def with_validation(self, fraction: float) -> Store:
        """Return the store with about this part of its training videos as the split `val`, chosen alike each time.

        Groups stay whole, and each class gives about the same part. A video without a group stands for itself.

        Raises:
            StoreError: the fraction is not between 0 and 1, validation videos exist already, or none would be chosen.
        """
        share = Fraction(fraction).limit_denominator(20) if 0 < fraction < 1 else Fraction(0)
        if not 0 < share < 1:
            raise StoreError(f"expected a validation fraction from 0.05 to 0.95, not {fraction:g}")
        if len(self.select("val")):
            raise StoreError(f"{self.root} has validation videos already: leave out the validation fraction")
        training = self.select("train")
        ids, labels, groups = (training.column(name).to_pylist() for name in ("id", "label", "group"))
        units = [f"group {group}" if group else f"video {name}" for group, name in zip(groups, ids, strict=True)]
        folds = split_groups(list(zip(labels, units, strict=True)), share.denominator)
        chosen = {unit for fold in folds[: share.numerator] for unit in fold}
        mask = np.array([unit in chosen for unit in units], dtype=bool)
        if not mask.any() or mask.all():
            raise StoreError(f"{self.root} has too few groups of training videos to set {fraction:g} of them aside")
        return replace(self, entries=self.entries.with_split(training, mask, "val"))

    def __repr__(self) -> str:
        usable = len(self.select())
        return f"Store({str(self.root)!r}, {usable} of {len(self.entries)} videos usable, {len(self.classes)} classes)"


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


def _read_index(root: Path) -> Entries:
    index = root / "index.parquet"
    try:
        return Entries.read(index)
    except FileNotFoundError as error:
        raise StoreError(f"{root}: preparing was not finished; run the same prepare command again") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(f"{index}: expected the index of a store ({error}); run prepare again") from error
