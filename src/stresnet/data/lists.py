"""Read lists of videos: rows with named fields, whatever the format.

    path,label,split,group         a header, and values separated by commas, semicolons or tabs
    Archery/v_1.avi 3              no header: a path and a label, or a path alone, separated by anything
    folder/v_1 120 3               a folder of frames, their number and a label, as mmaction2 writes it
    {"v_1": {"subset": "training", "annotations": {"label": "archery"}}}    JSON, as that of Kinetics and ActivityNet

Text is UTF-8, with or without a byte order mark, or UTF-16 with one. A row that cannot be used is rejected with the
reason; the others are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stresnet.data.list_formats import PROBLEM, fields_of, lines_of, named_rows
from stresnet.errors import StoreError

_LONGEST = {"path": 4096}
_LONGEST_TEXT = 255
_NOT_UTF8 = "expected UTF-8, found other bytes; save the list as UTF-8"
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


@dataclass(frozen=True)
class Row:
    """A row of a list.

    Attributes:
        where: its list and line, for messages.
        fields: texts that are not empty, by the names of `stresnet.data.list_formats.FIELDS`; a path is always there.
    """

    where: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class VideoList:
    """The rows of a list.

    Attributes:
        rows: the rows that can be used, at least one.
        rejected: (where, reason) of the others.
        passed_over: names of columns that are not used.
    """

    rows: tuple[Row, ...]
    rejected: tuple[tuple[str, str], ...]
    passed_over: tuple[str, ...]


def read_list(path: Path) -> VideoList:
    """Return the rows of a list.

    Raises:
        StoreError: the file cannot be read, its format is unknown, or it has no row that can be used.
    """
    names, found = named_rows(path, read_text(path))
    fields = fields_of(names)
    rows, rejected = [], []
    for where, cells in found:
        values = {field: cells.get(name, "").strip() for field, name in fields.items()}
        if reason := cells.get(PROBLEM) or _problem(values):
            rejected.append((where, reason))
        else:
            rows.append(Row(where, {field: value for field, value in values.items() if value}))
    if not rows:
        where, reason = rejected[0] if rejected else (str(path), "expected one row per video, found none")
        raise StoreError(f"{where}: {reason}")
    used = {*fields.values(), PROBLEM}
    return VideoList(tuple(rows), tuple(rejected), tuple(name for name in names if name not in used))


def read_text(path: Path) -> str:
    """Return the text of a file without its byte order mark; bytes that are not UTF-8 become lone surrogates.

    Raises:
        StoreError: the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding, "replace" if encoding == "utf-16" else "surrogateescape")


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Return (where, line) of the lines of a file that are not blank, stripped.

    Raises:
        StoreError: the file cannot be read, or is not UTF-8.
    """
    lines = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(lines_of(read_text(path)), 1)]
    if wrong := [where for where, line in lines if not _is_utf8(line)]:
        raise StoreError(f"{wrong[0]}: {_NOT_UTF8}")
    return [(where, line) for where, line in lines if line]


def read_class_numbers(path: Path) -> dict[int, str]:
    """Return the class names in a file by number: `3 Archery` on each line, or `Archery`, which counts from 0.

    Raises:
        StoreError: the file cannot be read, or its names or numbers are not unique.
    """
    lines = [line for _, line in read_lines(path)]
    numbered = [match for line in lines if (match := re.fullmatch(r"(\d{1,9})[\s,;]+(\S.*)", line))]
    names = {int(match[1]): match[2] for match in numbered} if numbered else dict(enumerate(lines))
    if not lines or len(names) != len(lines) or len(set(names.values())) != len(lines):
        raise StoreError(
            f"{path}: expected a class name on each line, each once, with a number before every name or before none"
        )
    return names


def _problem(values: Mapping[str, str]) -> str:
    """Return why a row cannot be used, or an empty text."""
    if not values.get("path"):
        return "the path is empty"
    for field, value in values.items():
        if not _is_utf8(value):
            return _NOT_UTF8
        if any(character < " " or character == "\x7f" for character in value):
            return f"the {field} has control characters"
        if len(value) > (longest := _LONGEST.get(field, _LONGEST_TEXT)):
            return f"the {field} has {len(value)} characters, more than {longest}"
    if values.get("offset", "") not in ("", "0"):
        return f"frames from an offset of {values['offset']} are not supported; give each video its own folder"
    return ""


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
