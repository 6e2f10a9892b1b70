"""Split the text of a list into rows of named cells: tables with and without a header, and JSON.

A row that cannot be split has the reason in the cell `PROBLEM`; the rows around it are not affected.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stresnet.data.catalog import SPLIT_NAMES
from stresnet.data.video_files import video_extensions
from stresnet.errors import StoreError

_COLUMNS = {
    "path": "path, file_path, filepath, video_path, file, filename, file_name, video, video_name, clip, frame_dir, "
    "youtube_id, video_id, id, name",
    "label": "label, class, class_name, label_name, action, activity, category, class_id, label_id, class_index, "
    "target",
    "split": "split, subset, set, partition",
    "group": "group",
    "start": "start, start_sec, start_s, start_seconds, start_time, time_start, t_start, begin",
    "end": "end, end_sec, end_s, end_seconds, end_time, time_end, t_end, stop",
    "offset": "offset",
}
FIELDS: Mapping[str, tuple[str, ...]] = {field: tuple(names.split(", ")) for field, names in _COLUMNS.items()}
"""The names of columns that each field may have, the preferred one first; case, spaces and hyphens do not matter."""

PROBLEM = ""
"""The name of the cell that says why a row cannot be split."""

NamedRows = tuple[Sequence[str], Iterable[tuple[str, Mapping[str, str]]]]
"""The names of the columns, and the (where, cells by name) of each row."""

_EXPECTED = "a header such as path,label,split,group"
_LINES_PER_ROW = 50  # at most, if a quoted cell contains line breaks
_QUOTING: dict[str, Any] = {"skipinitialspace": True, "strict": True}
_SPACES = " "
_DELIMITERS = ("\t", ";", ",", _SPACES)


def named_rows(path: Path, text: str) -> NamedRows:
    """Return the rows of a list, which are read from its text.

    Raises:
        StoreError: the format is unknown.
    """
    return _of_json(path, text) if text.lstrip()[:1] in ("{", "[") else _of_table(path, text)


def fields_of(names: Iterable[str]) -> dict[str, str]:
    """Return the column of each field that has one."""
    plain = {re.sub(r"\W+", "_", name.strip().lower()): name for name in names}
    found = {field: [plain[alias] for alias in aliases if alias in plain] for field, aliases in FIELDS.items()}
    return {field: columns[0] for field, columns in found.items() if columns}


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, however they end."""
    return io.StringIO(text, newline=None).read().split("\n")  # str.splitlines also splits at form feeds and others


def _of_table(path: Path, text: str) -> NamedRows:
    lines = lines_of(text)
    start = next((number for number, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise StoreError(f"{path}: expected one row per video, found an empty file")
    for delimiter in _DELIMITERS:
        header = [name.strip() for name in _split(lines[start], delimiter)]
        fields = fields_of(header)
        if "path" in fields and (len(fields) > 1 or len(header) == 1):
            if repeated := [name for name, times in Counter(header).items() if times > 1]:
                raise StoreError(f"{path}: expected each column once, found {repeated[0]!r} twice")
            return header, _rows(path, lines, start + 1, header, delimiter)
        if len(fields) > 1:
            raise StoreError(f"{path}: expected {_EXPECTED}, found {lines[start][:80]!r}, which names no path")
    names, delimiter = _guess_columns(path, [line for line in lines if line.strip()])
    return names, _rows(path, lines, start, names, delimiter)


def _rows(
    path: Path, lines: Sequence[str], start: int, names: Sequence[str], delimiter: str
) -> Iterator[tuple[str, Mapping[str, str]]]:
    number = start
    while number < len(lines):
        cells, used = _cells(lines, number, delimiter, len(names))
        if isinstance(cells, str):
            yield f"{path}, line {number + 1}", {PROBLEM: cells}
        elif cells:
            yield f"{path}, line {number + 1}", dict(zip(names, cells, strict=True))
        number += used


def _cells(lines: Sequence[str], number: int, delimiter: str, columns: int) -> tuple[list[str] | str, int]:
    """Return the cells of the row that begins in a line, or why it has none, and the number of lines it takes."""
    used = 1
    if delimiter == _SPACES:
        cells = lines[number].rsplit(None, columns - 1)
    else:
        reader = csv.reader(lines[number : number + _LINES_PER_ROW], delimiter=delimiter, **_QUOTING)
        try:
            cells = next(reader)
        except csv.Error as error:  # such as a quote that is never closed; it must not swallow the rows below
            return f"expected values separated by {delimiter!r} ({error})", 1
        if len(cells) == columns:
            used = reader.line_num
    if not any(cell.strip() for cell in cells):
        return [], used
    return (cells, used) if len(cells) == columns else (f"expected {columns} columns, found {len(cells)}", 1)


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == _SPACES:
        return line.split()
    try:
        return next(csv.reader([line], delimiter=delimiter, **_QUOTING), [])
    except csv.Error:
        return [line]


def _guess_columns(path: Path, lines: Sequence[str]) -> tuple[Sequence[str], str]:
    """Return the names of the columns of a list without a header, and what separates them."""
    for delimiter in _DELIMITERS:
        split = [_split_at_spaces(line) if delimiter == _SPACES else _split(line, delimiter) for line in lines]
        columns = Counter(map(len, split)).most_common(1)[0][0]
        if columns > 1:
            break
    rows = [[cell.strip() for cell in cells] for cells in split if len(cells) == columns]
    expected = f"{path}: expected {_EXPECTED}, found {lines[0][:80]!r}"
    if len(rows) > 1 and "." not in rows[0][0] and all("." in cells[0] for cells in rows[1:]):
        raise StoreError(expected)
    if columns <= 2:
        return ("path", "label")[:columns], delimiter
    if columns == 3 and all(cells[2].lower() in SPLIT_NAMES for cells in rows):
        return ("path", "label", "split"), delimiter
    if columns > 4 or not all(cell.isdigit() for cells in rows for cell in cells[1:]):
        raise StoreError(f"{expected}, {columns} columns without names")
    if any(_is_video(cells[0]) for cells in rows):
        raise StoreError(f"{expected}; several labels for a video are not supported")
    return ("path", "frames", "label") if columns == 3 else ("path", "offset", "frames", "label"), delimiter


def _split_at_spaces(line: str) -> list[str]:
    """Return a path, which may contain spaces, and the label or the numbers after it."""
    words = line.split()
    if _is_video(words[-1]):
        return [line]
    numbers = 0
    while numbers < len(words) - 1 and words[-1 - numbers].isdigit():
        numbers += 1
    return line.rsplit(None, max(1, numbers))


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in video_extensions()


def _of_json(path: Path, text: str) -> NamedRows:
    """Return one row for each object, or for each of its annotations; what names an object is its path."""
    try:
        data: Any = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: expected a list in JSON, found something else ({error})") from error
    if isinstance(data, dict):
        database = data.get("database", data)
        entries = database.items() if isinstance(database, dict) else [("", database)]
    else:
        entries = [("", entry) for entry in data]
    rows = [
        (f"{path}, entry {number}", cells)
        for number, (name, entry) in enumerate(entries, 1)
        for cells in _cells_of_entry(name, entry)
    ]
    return list(dict.fromkeys(name for _, cells in rows for name in cells)), rows


def _cells_of_entry(name: str, entry: object) -> list[Mapping[str, str]]:
    if not isinstance(entry, dict):
        return [{PROBLEM: f"expected an object with a path and a label, found {str(entry)[:80]!r}"}]
    values: dict[str, Any] = ({"path": name} if name else {}) | entry
    annotations = values.pop("annotations", {})
    several = annotations if isinstance(annotations, list) else [annotations]
    if not several or not all(isinstance(annotation, dict) for annotation in several):
        return [{PROBLEM: f"{name}: expected annotations with a label, found {str(annotations)[:80]}"}]
    return [_texts(values | annotation) for annotation in several]


def _texts(values: dict[str, Any]) -> Mapping[str, str]:
    """Return the values of an object as texts; a segment becomes a start and an end."""
    segment = values.pop("segment", None)
    if segment is not None:
        if not isinstance(segment, list) or len(segment) != 2:
            return {PROBLEM: f"expected a segment of a start and an end, found {str(segment)[:80]}"}
        values |= {"start": segment[0], "end": segment[1]}
    several = [name for name in fields_of(values).values() if isinstance(values[name], list | dict)]
    if several:
        return {PROBLEM: f"expected one value for {several[0]}, found {str(values[several[0]])[:80]}"}
    return {name: str(value) for name, value in values.items() if value is not None and name != PROBLEM}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; `json` would silently keep the last of several values of one name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{repeated!r} is there twice")
    return values
