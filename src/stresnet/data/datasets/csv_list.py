"""CSV files ``path,label[,split][,group]``."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from stresnet.data.catalog import (
    SPLIT_NAMES,
    Catalog,
    Source,
    VideoRecord,
    missing_notes,
    no_split_note,
    order_classes,
)
from stresnet.errors import StoreError


def read_csv_list(source: Source) -> Catalog:
    """Return the catalog of a CSV file with the header ``path,label[,split][,group]``.

    ``class`` is accepted for ``label``, and further columns are ignored. Relative paths start at the folder of the
    CSV file. The encoding is UTF-8, with or without a byte order mark.

    Raises:
        StoreError: the file cannot be read, or a line is not valid; the message names the line.
    """
    file = source.path
    rows = _read_rows(file)
    seen: dict[str, tuple[int, VideoRecord]] = {}
    repeated = 0
    for line, row in rows:
        record = _record(file, line, row)
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
    if "split" not in rows[0][1]:
        notes.append(no_split_note(len(records), "hold out groups when training, or add a split column"))
    notes += missing_notes(records)
    return Catalog(file.stem, class_names, tuple(records), tuple(notes))


def _read_rows(file: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Return (line number, row) for every row that is not blank; keys are lower case, ``class`` becomes ``label``."""
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
    if "label" not in header:
        header[header.index("class")] = "label"
    if not rows:
        raise StoreError(f"{file}: expected one line per video after the header, found none")
    for line, cells in rows:
        if len(cells) != len(header):
            raise StoreError(f"{file}, line {line}: expected {len(header)} columns, found {len(cells)}")
    return [(line, dict(zip(header, (c.strip() for c in cells), strict=True))) for line, cells in rows]


def _record(file: Path, line: int, row: Mapping[str, str]) -> VideoRecord:
    where = f"{file}, line {line}"
    for key in ("path", "label"):
        if not row[key]:
            raise StoreError(f"{where}: the {key} is empty")
    split = SPLIT_NAMES.get(row.get("split", "train").lower())
    if split is None:
        raise StoreError(f"{where}: expected a split of train, val or test, found {row['split']!r}")
    absolute = Path(os.path.abspath(file.parent / row["path"]))
    inside = absolute.is_relative_to(file.parent)
    # Videos outside the folder of the CSV have their whole path as id: unique, and never above the store's folder.
    relative = absolute.relative_to(file.parent if inside else absolute.anchor)
    return VideoRecord(relative.as_posix(), str(absolute), row["label"], split, row.get("group", ""))
