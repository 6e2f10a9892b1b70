"""Read MATLAB's format 5 (written by save -v6 and -v7) into plain Python values.

    struct 1×1             a dict; any other struct array is a tuple of dicts
    cell                   a list
    characters             a string; several rows are a list of strings
    numbers and logicals   an array of their MATLAB class, a view of the file if it is stored like that
    anything else (objects, function handles, sparse, complex)   `Unreadable`

This follows MathWorks' "MAT-File Format"; every length is checked against its container. SciPy 1.17's reader was
measured instead on 600 copies of a file with one flipped bit each: it died of a segmentation fault on 8 and tried to
allocate 8 GiB on another. This reader maps the file and raises an error for each of them.
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
from stresnet.weights.file_types import explain

_HEADER_BYTES = 128
MOST_BYTES = 1 << 31
"""A few kilobytes can decompress to gigabytes. The weights of two ResNet-152 streams take 0.5 GB."""
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
    """A value of a class that is not supported."""

    kind: str


class Variable(NamedTuple):
    """A variable's MATLAB class, its shape, and the range of bytes that holds it."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int
    compressed: bool


class _DamageError(ValueError):
    pass


class MatFile:
    """The variables of a file; each is read on access.

    Raises:
        CheckpointError: the file is missing, damaged, truncated, or of another format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = _checked_header(path)
        self.order = ">" if header.endswith(b"MI") else "<"
        with path.open("rb") as file:
            self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        try:
            self.variables = self._list()
        except (_DamageError, zlib.error) as error:
            raise self._damaged(error) from None

    def __getitem__(self, name: str) -> Any:
        """Return the value of a variable, see the module's docstring."""
        variable = self.variables[name]
        data = self.data[variable.start : variable.stop]
        try:
            if variable.compressed:
                stream = zlib.decompressobj()
                data = memoryview(stream.decompress(data, MOST_BYTES))
                if len(data) == MOST_BYTES:
                    raise _DamageError(f"a compressed variable of more than {MOST_BYTES >> 20} MB")
                if not stream.eof:
                    raise _DamageError("a compressed variable ends early")
                kind, start, stop, _ = _Elements(data, self.order).at(0, len(data))
                if kind != _MATRIX:
                    raise _DamageError("a compressed variable is not a matrix")
                data = data[start:stop]
            return _Elements(data, self.order).value(0, len(data))
        except (_DamageError, zlib.error) as error:
            raise self._damaged(error) from None

    def _list(self) -> dict[str, Variable]:
        variables: dict[str, Variable] = {}
        at = _HEADER_BYTES
        while at < len(self.data):
            kind, start, stop, at = _Elements(self.data, self.order).at(at, len(self.data), top=True)
            data, compressed = self.data[start:stop], kind == _COMPRESSED
            if compressed:  # enough for the tag, flags, shape and name
                data = memoryview(zlib.decompressobj().decompress(data, 4096))
                kind, data = struct.unpack(f"{self.order}I", data[:4].tobytes().ljust(4, b"\0"))[0], data[8:]
            if kind != _MATRIX:
                raise _DamageError(f"an element of type {kind} instead of a variable")
            name, what, shape = _Elements(data, self.order).head(0, len(data))[:3]
            if name in variables:
                raise _DamageError(f"two variables are called {name}")
            variables[name] = Variable(_CLASSES[what], shape, start, stop, compressed)
        return variables

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.path} is truncated or damaged ({error}): copy the file again")


def _checked_header(path: Path) -> bytes:
    """Return the header of a file; raise if the file is of another format."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: expected a .mat file")
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            file.seek(512)
            at_512 = file.read(len(_HDF5))
    except FileNotFoundError:
        raise CheckpointError(f"no file at {path}: expected a MatConvNet .mat file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    if header.startswith((b"MATLAB 7.3", _HDF5)) or at_512 == _HDF5:
        raise CheckpointError(f"{path} is a MATLAB 7.3 file (HDF5), which is not supported: in MATLAB, `{RESAVE}`")
    if header.startswith(b"MATLAB 5.0") and len(header) < _HEADER_BYTES:
        raise CheckpointError(f"{path} is truncated: copy the file again")
    if header[124:] not in (b"\x00\x01IM", b"\x01\x00MI"):
        why = explain(path, f"expected a net saved with `{RESAVE}`")
        raise CheckpointError(f"{path} is not a MATLAB 5 .mat file: {why}")
    return header


class _Elements:
    """Data elements in a range of bytes: a tag with type and length, then the data."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data, self.order = data, order

    def at(self, at: int, end: int, *, top: bool = False) -> tuple[int, int, int, int]:
        """Return the type, start and stop of the element at `at`, and where the next one begins."""
        if at + 8 > end:
            raise _DamageError("it ends where an element was expected")
        kind, length = struct.unpack_from(f"{self.order}II", self.data, at)
        if kind >> 16 and not top:  # up to four bytes are stored in the tag
            kind, length, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
            if length > 4:
                raise _DamageError("a short element is too long")
        else:
            start = at + 8
            following = min(start + length + (0 if kind == _COMPRESSED else -length % 8), end)
        if start + length > end:
            raise _DamageError("an element is longer than its container")
        return kind, start, start + length, following

    def numbers(self, at: int, end: int) -> tuple[np.ndarray[Any, Any], int]:
        """Return the numbers of an element in their stored type, and where the next element begins."""
        kind, start, stop, following = self.at(at, end)
        if kind not in _TYPES:
            raise _DamageError(f"an element of type {kind} instead of numbers")
        dtype = np.dtype(self.order + _TYPES[kind])
        if (stop - start) % dtype.itemsize:
            raise _DamageError("an element ends within a number")
        return np.frombuffer(self.data[start:stop], dtype), following

    def head(self, at: int, end: int) -> tuple[str, int, tuple[int, ...], int, int]:
        """Return the name, class, shape and flags of a matrix, and where its values begin."""
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
        """Return a matrix as plain values."""
        if at == end:
            return np.zeros((0, 0))
        if depth > _DEEPEST:
            raise _DamageError("values are nested too deeply")
        _, what, shape, flags, at = self.head(at, end)
        count = math.prod(shape)
        if what in _NUMBERS and not flags & _COMPLEX:
            numbers, _ = self.numbers(at, end)
            if numbers.size != count:
                raise _DamageError(f"{numbers.size} numbers for shape {shape}")
            dtype = np.dtype(bool) if flags & _LOGICAL else np.dtype(_NUMBERS[what][1])
            return numbers.astype(dtype, copy=False).reshape(shape, order="F")
        if what == _CHAR:
            return self._text(at, end, shape)
        if count > end:
            raise _DamageError(f"shape {shape} in {end} bytes")
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
                raise _DamageError(f"an element of type {kind} instead of a value")
            values.append(self.value(start, stop, depth + 1))
        return values

    def _struct(self, at: int, end: int, count: int, depth: int) -> dict[str, Any] | tuple[dict[str, Any], ...]:
        lengths, at = self.numbers(at, end)
        length = int(lengths[0]) if lengths.size else 0
        _, start, stop, at = self.at(at, end)
        if length < 1 or (stop - start) % length:
            raise _DamageError("the field names of a struct are invalid")
        text = bytes(self.data[start:stop])
        names = [text[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(text), length)]
        values = iter(self._matrices(at, end, count * len(names), depth))
        records = [{name: next(values) for name in names} for _ in range(count)]
        return records[0] if count == 1 else tuple(records)

    def _text(self, at: int, end: int, shape: tuple[int, ...]) -> str | list[str]:
        kind, start, stop, _ = self.at(at, end)
        if kind not in _TEXT:
            raise _DamageError(f"an element of type {kind} instead of characters")
        coding = _TEXT[kind] + ({"<": "-le", ">": "-be"}[self.order] if kind in (4, 17, 18) else "")
        try:
            text = bytes(self.data[start:stop]).decode(coding)
        except UnicodeDecodeError:
            raise _DamageError("invalid characters") from None
        rows = shape[0]
        return text if rows <= 1 or len(text) != math.prod(shape) else [text[row::rows] for row in range(rows)]
