"""Read class names from files: one name a line, UCF101's numbered list, or the folder of HMDB51's lists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from stresnet.errors import CheckpointError

MAX_CLASSES = 100_000
MAX_BYTES = 10**7
"""Larger files are not files of class names."""

# The released code numbers HMDB51's classes in alphabetical order except for these (cnn_setup_data.m).
_HMDB51_BEFORE = {"kick_ball": "kick", "sword_exercise": "sword"}
_NUMBERED = re.compile(r"([0-9]{1,9})\s+(\S.*)")
_TABLE_ROW = re.compile(r"[0-9]+\s*[,;]")


def class_count(classes: str) -> int | None:
    """Return the number of classes if `classes` is a number rather than the name of a file.

    Raises:
        CheckpointError: the number is out of range.
    """
    if not (classes.isascii() and classes.isdigit()):
        return None
    if not 2 <= (count := int(classes[:9])) <= MAX_CLASSES:
        raise CheckpointError(f"expected 2 to {MAX_CLASSES} classes, found --classes {classes}")
    return count


def numbered_names(count: int) -> tuple[str, ...]:
    """Return placeholder names: class 1, class 2, …"""
    return tuple(f"class {k + 1}" for k in range(count))


def read_class_names(source: str, expected: int = 0) -> tuple[str, ...]:
    """Return the class names in a file of one per line (`Archery` or `3 Archery`), or in the folder of HMDB51's lists.

    Args:
        source: the file or folder.
        expected: number of classes; 0 if unknown.

    Raises:
        CheckpointError: the file cannot be read, or its names are not unique or not `expected` in number.
    """
    path = Path(source)
    if class_count(source) is not None:
        raise CheckpointError(f"--classes {source}: the network already has its classes: give a file of their names")
    names = _from_hmdb51(path) if path.is_dir() else _from_file(path)
    if not names:
        raise CheckpointError(f"{path}: expected a class name on each line, found an empty file")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise CheckpointError(f"{path}: expected each class name once, found {repeated[0]!r} twice")
    if expected and len(names) != expected:
        raise CheckpointError(f"{path} has {len(names)} class names, but the network has {expected} classes")
    return tuple(names)


def _from_hmdb51(folder: Path) -> list[str]:
    names = [p.name.removesuffix("_test_split1.txt") for p in folder.glob("*_test_split1.txt")]
    if not names:
        raise CheckpointError(f"{folder} has no <class>_test_split1.txt of HMDB51: for UCF101, give classInd.txt")
    return sorted(names, key=lambda name: (_HMDB51_BEFORE.get(name, name), name not in _HMDB51_BEFORE))


def _from_file(path: Path) -> list[str]:
    lines = _lines(path)
    numbered = {number: found for number, line in lines.items() if (found := _NUMBERED.fullmatch(line))}
    if not numbered:
        return list(lines.values())
    if bare := [number for number in lines if number not in numbered]:
        other = next(iter(numbered))
        raise CheckpointError(
            f"{path}: expected a number before every class name or before none, found {lines[bare[0]]!r} in line "
            f"{bare[0]} and {lines[other]!r} in line {other}"
        )
    order = sorted((int(found[1]), found[2]) for found in numbered.values())
    for expected, (number, _) in enumerate(order, 1):
        if number != expected:
            raise CheckpointError(
                f"{path}: expected classes numbered 1 to {len(order)}, each once; found {number} in place of {expected}"
            )
    return [name for _, name in order]


def _lines(path: Path) -> dict[int, str]:
    """Return the lines that are not blank, by line number."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise CheckpointError(f"{path}: expected a file of class names, found more than {MAX_BYTES} bytes")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise CheckpointError(f"class names {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"class names {path} are not UTF-8 text: give a file of one name per line") from None
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    for number, line in lines.items():
        if any(c < " " for c in line.replace("\t", " ")):
            raise CheckpointError(
                f"{path}: expected a class name on each line, found control characters in line {number}"
            )
    rows = [number for number, line in lines.items() if _TABLE_ROW.match(line)]
    if rows and len(rows) >= len(lines) - 1:  # a table, perhaps with a header
        raise CheckpointError(
            f"{path}: expected `3 Archery` or `Archery` on each line, found {lines[rows[0]]!r} in line {rows[0]}: "
            "number from 1, with a space after the number and without a header, or omit the numbers"
        )
    return lines
