"""MATLAB's format 5 (what -v6 and -v7 write), read into plain Python values.

    struct 1×1                a dict;  any other struct array: a tuple of dicts
    cell                      a list
    characters                a string; of several rows, a list of strings
    numbers and truth values  an array in their MATLAB class, as a view of the file where it is stored so
    all else (objects, function handles, sparse, complex)  `Unreadable`

Element by element after MathWorks' "MAT-File Format". Every length is checked against what holds it, so that no
damage takes the program down; SciPy's reader, else as good, crashes on one damaged byte in sixty.
"""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stresnet.errors import CheckpointError
from stresnet.weights.file_types import advice

_HEADER_BYTES = 128
_HDF5 = b"\x89HDF\r\n\x1a\n"
RESAVE = "save(file,'-struct','net','-v7')"

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NUMBERS = {
    6: ("double", "f8"), 7: ("single", "f4"), 8: ("int8", "i1"), 9: ("uint8", "u1"), 10: ("int16", "i2"),
    11: ("uint16", "u2"), 12: ("int32", "i4"), 13: ("uint32", "u4"), 14: ("int64", "i8"), 15: ("uint64", "u8"),
}  # fmt: skip
_CELL, _STRUCT, _CHAR, _OPAQUE = 1, 2, 4, 17
_CLASSES = {_CELL: "cell", _STRUCT: "struct", 3: "object", _CHAR: "char", 5: "sparse", 16: "function handle",
            _OPAQUE: "object", **{number: name for number, (name, _) in _NUMBERS.items()}}  # fmt: skip
_LOGICAL, _COMPLEX = 0x0200, 0x0800
_DEEPEST = 64


@dataclass(frozen=True)
class Unreadable:
    """A value of a kind that is not read here."""

    kind: str


class Variable(NamedTuple):
    """What a file says of a variable before its value: MATLAB's class, the shape, and where it lies."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int
    compressed: bool


class _DamageError(ValueError):
    pass


class MatFile:
    """A file's variables by name; each is read when asked for.

    Raises:
        CheckpointError: if the file is missing, damaged, cut short, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = _checked_header(path)
        self.order = ">" if header.endswith(b"MI") else "<"
        with path.open("rb") as file:
            self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        try:
            self.variables = self._listed()
        except (_DamageError, zlib.error) as error:
            raise self._damaged(error) from None

    def __getitem__(self, name: str) -> Any:
        """The value of a variable, as the head of this module says."""
        variable = self.variables[name]
        data = self.data[variable.start : variable.stop]
        try:
            if variable.compressed:
                stream = zlib.decompressobj()
                data = memoryview(stream.decompress(data))
                if not stream.eof:
                    raise _DamageError("a compressed variable ends early")
                kind, start, stop, _ = _Elements(data, self.order).at(0, len(data))
                if kind != _MATRIX:
                    raise _DamageError("a compressed variable is no matrix")
                data = data[start:stop]
            return _Elements(data, self.order).value(0, len(data))
        except (_DamageError, zlib.error) as error:
            raise self._damaged(error) from None

    def _listed(self) -> dict[str, Variable]:
        variables: dict[str, Variable] = {}
        at = _HEADER_BYTES
        while at < len(self.data):
            kind, start, stop, at = _Elements(self.data, self.order).at(at, len(self.data), top=True)
            data, compressed = self.data[start:stop], kind == _COMPRESSED
            if compressed:  # enough for the tag, flags, shape and name
                data = memoryview(zlib.decompressobj().decompress(data, 4096))
                kind, data = struct.unpack(f"{self.order}I", data[:4].tobytes().ljust(4, b"\0"))[0], data[8:]
            if kind != _MATRIX:
                raise _DamageError(f"an element of type {kind} where a variable should be")
            name, what, shape = _Elements(data, self.order).head(0, len(data))[:3]
            if name in variables:
                raise _DamageError(f"two variables are called {name}")
            variables[name] = Variable(_CLASSES[what], shape, start, stop, compressed)
        return variables

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.path} is cut short or damaged ({error}): copy the file again")


def _checked_header(path: Path) -> bytes:
    """The first bytes of a file of this format; others are told apart by theirs."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: give the .mat file in it")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            file.seek(512)
            at_512 = file.read(len(_HDF5))
    except FileNotFoundError:
        raise CheckpointError(f"no file at {path}: give a MatConvNet .mat file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    if header.startswith((b"MATLAB 7.3", _HDF5)) or at_512 == _HDF5:
        raise CheckpointError(f"{path} is a MATLAB 7.3 file (HDF5), which is not read here: in MATLAB `{RESAVE}`")
    if header.startswith(b"MATLAB 5.0") and len(header) < _HEADER_BYTES:
        raise CheckpointError(f"{path} is cut short: copy the file again")
    if header[124:] not in (b"\x00\x01IM", b"\x01\x00MI"):
        why = advice(Path(path), f"give a net saved with `{RESAVE}`")
        raise CheckpointError(f"{path} is no MATLAB 5 .mat file: {why}")
    return header


class _Elements:
    """Data elements in a stretch of bytes: a tag with type and length, then the data."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data, self.order = data, order

    def at(self, at: int, end: int, *, top: bool = False) -> tuple[int, int, int, int]:
        """Type, start and stop of the data, and where the next element begins."""
        if at + 8 > end:
            raise _DamageError("it ends where an element should begin")
        kind, length = struct.unpack_from(f"{self.order}II", self.data, at)
        if kind >> 16 and not top:  # up to four bytes, in the tag itself
            kind, length, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if length > 4:
                raise _DamageError("a short element is too long")
        else:
            start = at + 8
            following = min(start + length + (0 if kind == _COMPRESSED else -length % 8), end)
        if start + length > end:
            raise _DamageError("an element is longer than what holds it")
        return kind, start, start + length, following

    def numbers(self, at: int, end: int) -> tuple[np.ndarray[Any, Any], int]:
        """The numbers of an element, as stored, and where the next begins."""
        kind, start, stop, following = self.at(at, end)
        if kind not in _TYPES:
            raise _DamageError(f"an element of type {kind} where numbers should be")
        dtype = np.dtype(self.order + _TYPES[kind])
        if (stop - start) % dtype.itemsize:
            raise _DamageError("an element ends within a number")
        return np.frombuffer(self.data[start:stop], dtype), following

    def head(self, at: int, end: int) -> tuple[str, int, tuple[int, ...], int, int]:
        """Name, class, shape and flags of a matrix, and where its values begin."""
        flags, at = self.numbers(at, end)
        what = int(flags[0]) & 0xFF if flags.size else 0
        if what not in _CLASSES:
            raise _DamageError(f"a matrix of class {what}")
        shape: tuple[int, ...] = ()
        if what != _OPAQUE:
            sizes, at = self.numbers(at, end)
            shape = tuple(int(n) for n in sizes)
            if len(shape) < 2 or min(shape) < 0:
                raise _DamageError(f"a matrix of shape {shape}")
        _, start, stop, at = self.at(at, end)
        return bytes(self.data[start:stop]).decode("latin-1"), what, shape, int(flags[0]), at

    def value(self, at: int, end: int, depth: int = 0) -> Any:
        """A matrix as plain values."""
        if at == end:
            return np.zeros((0, 0))
        if depth > _DEEPEST:
            raise _DamageError("values lie too deep in one another")
        _, what, shape, flags, at = self.head(at, end)
        count = math.prod(shape)
        if what in _NUMBERS and not flags & _COMPLEX:
            numbers, _ = self.numbers(at, end)
            if numbers.size != count:
                raise _DamageError(f"{numbers.size} numbers for a shape of {shape}")
            dtype = np.dtype(bool) if flags & _LOGICAL else np.dtype(_NUMBERS[what][1])
            return numbers.astype(dtype, copy=False).reshape(shape, order="F")
        if what == _CHAR:
            return self._text(at, end, shape)
        if count > end:
            raise _DamageError(f"a shape of {shape} in {end} bytes")
        if what == _CELL:
            return self._matrices(at, end, count, depth)
        if what == _STRUCT:
            return self._struct(at, end, count, depth)
        return Unreadable("complex" if what in _NUMBERS else _CLASSES[what])

    def _matrices(self, at: int, end: int, count: int, depth: int) -> list[Any]:
        values = []
        for _ in range(count):
            kind, start, stop, at = self.at(at, end)
            if kind != _MATRIX:
                raise _DamageError(f"an element of type {kind} where a value should be")
            values.append(self.value(start, stop, depth + 1))
        return values

    def _struct(self, at: int, end: int, count: int, depth: int) -> dict[str, Any] | tuple[dict[str, Any], ...]:
        lengths, at = self.numbers(at, end)
        length = int(lengths[0]) if lengths.size else 0
        _, start, stop, at = self.at(at, end)
        if length < 1 or (stop - start) % length:
            raise _DamageError("the names of a struct's fields cannot be told apart")
        text = bytes(self.data[start:stop])
        names = [text[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(text), length)]
        values = iter(self._matrices(at, end, count * len(names), depth))
        records = [{name: next(values) for name in names} for _ in range(count)]
        return records[0] if count == 1 else tuple(records)

    def _text(self, at: int, end: int, shape: tuple[int, ...]) -> str | list[str]:
        kind, start, stop, _ = self.at(at, end)
        if kind not in _TEXT:
            raise _DamageError(f"an element of type {kind} where characters should be")
        coding = _TEXT[kind] + ({"<": "-le", ">": "-be"}[self.order] if kind in (4, 17, 18) else "")
        try:
            text = bytes(self.data[start:stop]).decode(coding)
        except UnicodeDecodeError:
            raise _DamageError("characters that are none") from None
        rows = shape[0]
        return text if rows <= 1 or len(text) != math.prod(shape) else [text[row::rows] for row in range(rows)]
