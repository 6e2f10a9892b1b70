"""The index of a store: one row per video, kept in columns, so that a million videos take a hundred megabytes.

On disk it is a Parquet file with the columns of ``FILE_SCHEMA``. In memory, columns with few
distinct texts are dictionary-encoded, and a path is kept as what precedes the id in it: mostly one folder for all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stresnet.data.catalog import VideoRecord
from stresnet.data.segment import WHOLE

_RECORD_COLUMNS = ("id", "path", "label", "split", "group", "start_sec", "end_sec")
_TEXTS = ("label", "split", "group", "reason", "conversions")  # columns with few distinct texts
_NUMBERS = {
    "frames": np.int32,
    "height": np.int32,
    "width": np.int32,
    "fps": np.float64,
    "bytes": np.int64,
    "truncated": np.bool_,
    "clipped_share": np.float64,
    "start_sec": np.float64,
    "end_sec": np.float64,
    "content": np.uint64,
}
FILE_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _RECORD_COLUMNS[:5]]
    + [(name, pa.int64()) for name in ("frames", "height", "width")]
    + [("fps", pa.float64()), ("bytes", pa.int64()), ("reason", pa.string()), ("truncated", pa.bool_())]
    + [("clipped_share", pa.float64()), ("start_sec", pa.float64()), ("end_sec", pa.float64())]
    + [("content", pa.uint64()), ("conversions", pa.string())]
)
_DEFAULTS = {"start_sec": WHOLE.start_sec, "end_sec": WHOLE.end_sec, "content": 0, "conversions": ""}
"""Values of columns that indexes lacked before there were segments, content hashes and conversions."""

_CODED = pa.dictionary(pa.int32(), pa.string())
_READ_SCHEMA = pa.schema([(f.name, _CODED if f.name in _TEXTS else f.type) for f in FILE_SCHEMA])
_ROWS_READ, _ROWS_WRITTEN = 8_192, 65_536  # at a time
_BUFFER_BYTES = 65_536


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
        content: the content hash of the source as a number; 0 if it is not known.
        conversions: what was done to frames, separated by semicolons.
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
    content: int = 0
    conversions: str = ""


class Entries(Sequence[StoreEntry]):
    """Rows of an index, sorted by id. A `StoreEntry` is made only of a row that is asked for."""

    def __init__(self, columns: Mapping[str, pa.Array], rows: range | NDArray[np.int64] | None = None) -> None:
        """Select rows of an index; use `of` or `read` to make one.

        Args:
            columns: arrays of equal length by name: those of the file with "folder" and "below" for "path", which is
                ``folder + id`` if below, else ``folder``.
            rows: the selected rows, ascending; by default all.
        """
        self._columns = columns
        self._rows = range(len(columns["id"])) if rows is None else rows

    @classmethod
    def of(cls, entries: Iterable[StoreEntry]) -> Entries:
        """Return the index of some entries, which are sorted by id."""
        rows = sorted(entries, key=lambda entry: entry.record.id)
        values = {name: [getattr(row.record, name) for row in rows] for name in _RECORD_COLUMNS}
        values |= {name: [getattr(row, name) for row in rows] for name in FILE_SCHEMA.names if name not in values}
        batch = pa.record_batch([pa.array(values[f.name], f.type) for f in _READ_SCHEMA], schema=_READ_SCHEMA)
        builder = _Builder(len(rows), batch.column("id").nbytes)
        builder.fill(0, batch)
        return cls(builder.columns())

    @classmethod
    def read(cls, path: Path) -> Entries:
        """Read the index in a file.

        Raises:
            OSError, ValueError, pyarrow.ArrowException: it is missing, or is not an index.
        """
        texts = [name for name in _TEXTS if name in pq.read_schema(path).names]
        with pq.ParquetFile(path, read_dictionary=texts, buffer_size=_BUFFER_BYTES) as file:
            found = {field.name: field.type for field in file.schema_arrow}
            absent = _DEFAULTS.keys() - found.keys()
            if wrong := [f.name for f in _READ_SCHEMA if f.name not in absent and found.get(f.name) != f.type]:
                raise ValueError(f"columns {', '.join(wrong)} are missing or of another type")
            meta, ids = file.metadata, file.schema_arrow.names.index("id")
            groups = [meta.row_group(g).column(ids) for g in range(meta.num_row_groups)]
            builder = _Builder(meta.num_rows, sum(group.total_uncompressed_size for group in groups))
            # One thread, few columns and few rows at a time: reading takes hardly more memory than what is kept.
            for names in (["id", "path"], *([name] for name in (*_TEXTS, *_NUMBERS) if name not in absent)):
                start = 0
                for batch in file.iter_batches(_ROWS_READ, columns=names, use_threads=False):
                    builder.fill(start, batch)
                    start += batch.num_rows
                pa.default_memory_pool().release_unused()
        columns = builder.columns()
        if not pc.all(pc.less(columns["id"][:-1], columns["id"][1:]), min_count=0).as_py():
            raise ValueError("its ids are repeated or not sorted")
        return cls(columns)

    def write(self, path: Path) -> None:
        """Write the index to a file.

        Raises:
            OSError: the file cannot be written.
        """
        with pq.ParquetWriter(path, FILE_SCHEMA, use_dictionary=list(_TEXTS)) as writer:
            for start in range(0, len(self), _ROWS_WRITTEN):
                part = self[start : start + _ROWS_WRITTEN]
                columns = [part.column(field.name).cast(field.type) for field in FILE_SCHEMA]
                writer.write_batch(pa.record_batch(columns, schema=FILE_SCHEMA))

    def column(self, name: str) -> pa.Array:
        """Return a column of the file for the selected rows; some columns of texts are dictionary-encoded."""
        if name == "path":
            names = pc.if_else(self.column("below"), self.column("id"), "")
            return pc.binary_join_element_wise(self.column("folder").cast(pa.string()), names, "")
        if isinstance(self._rows, range):
            return self._columns[name].slice(self._rows.start, len(self._rows))
        return self._columns[name].take(pa.array(self._rows))

    def distinct(self, name: str) -> set[str]:
        """Return the distinct texts of a column: label, split, group, reason or conversions."""
        return set(self.column(name).unique().to_pylist())

    def where(self, name: str, texts: Iterable[str]) -> Entries:
        """Return the rows whose label, split, group, reason or conversions is one of ``texts``."""
        rows = np.arange(self._rows.start, self._rows.stop) if isinstance(self._rows, range) else self._rows
        return Entries(self._columns, rows[self._is_in(name, texts)[rows]])

    def with_test_groups(self, groups: Iterable[str]) -> Entries:
        """Return the rows with the split "test" for videos of these groups, and "train" for all others."""
        splits = _coded(self._is_in("group", groups), ["train", "test"])
        return Entries({**self._columns, "split": splits}, self._rows)

    def with_split(self, some: Entries, chosen: NDArray[np.bool_], split: str) -> Entries:
        """Return the rows, with this split for those that are chosen among some rows of the same index.

        Args:
            some: rows of the same index.
            chosen: (len(some),), which of them get the split.
            split: the split.
        """
        column = self._columns["split"]
        codes, texts = column.indices.to_numpy().copy(), [*column.dictionary.to_pylist(), split]
        codes[np.asarray(some._rows)[chosen]] = len(texts) - 1
        return Entries({**self._columns, "split": _coded(codes, texts)}, self._rows)

    def find(self, record_id: str) -> StoreEntry | None:
        """Return the row of a video, or None if there is none."""
        ids = self._columns["id"]
        rows: Any = self._rows
        position = bisect_left(rows, record_id, key=lambda row: ids[row].as_py())
        entry = self[position] if position < len(self) else None
        return entry if entry is not None and entry.record.id == record_id else None

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> StoreEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Entries: ...
    def __getitem__(self, index: int | slice) -> StoreEntry | Entries:
        if isinstance(index, slice):
            assert index.step in (None, 1)
            return Entries(self._columns, self._rows[index])
        row = int(self._rows[index])
        values = {name: _value(column, row) for name, column in self._columns.items()}
        path = values.pop("folder") + (values["id"] if values.pop("below") else "")
        record = VideoRecord(path=path, **{name: values.pop(name) for name in _RECORD_COLUMNS if name != "path"})
        return StoreEntry(record, **values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entries) and all(
            self.column(field.name).cast(field.type).equals(other.column(field.name).cast(field.type))
            for field in FILE_SCHEMA
        )

    def __repr__(self) -> str:
        return f"Entries({len(self)} videos)"

    def _is_in(self, name: str, texts: Iterable[str]) -> NDArray[np.bool_]:
        """Return whether a text is one of ``texts``, for every row of the index, selected or not."""
        column, wanted = self._columns[name], set(texts)
        found = np.array([text in wanted for text in column.dictionary.to_pylist()], bool)
        chosen: NDArray[np.bool_] = found[column.indices.to_numpy()]
        return chosen


class _Builder:
    """Columns of an index that are filled in parts."""

    def __init__(self, rows: int, id_bytes: int) -> None:
        """Reserve memory, which counts only once it is filled.

        Args:
            rows: number of rows.
            id_bytes: at least the bytes of all ids.
        """
        self._id_ends = np.zeros(rows + 1, np.int32)
        self._id_text = np.empty(id_bytes, np.uint8)
        self._numbers: dict[str, NDArray[Any]] = {
            name: np.empty(rows, dtype) for name, dtype in {**_NUMBERS, "below": np.bool_}.items()
        }
        self._codes = {name: np.empty(rows, np.int32) for name in (*_TEXTS, "folder")}
        self._texts: dict[str, dict[str, int]] = {name: {} for name in self._codes}
        for name, value in _DEFAULTS.items():
            if isinstance(value, str):
                self._codes[name].fill(self._coded(name, [value])[0])
            else:
                self._numbers[name].fill(value)

    def fill(self, start: int, batch: pa.RecordBatch) -> None:
        """Fill in rows of some columns of `_READ_SCHEMA`; those of ids must follow each other, and have their paths.

        Args:
            start: the first row.
            batch: the columns.

        Raises:
            ValueError: a value is missing.
        """
        rows = slice(start, start + batch.num_rows)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                raise ValueError(f"values of {name} are missing")
            if name == "id":
                self._fill_ids(rows, column)
            elif name == "path":
                self._fill_paths(rows, batch.column("id"), column)
            elif name in _TEXTS:
                codes = self._coded(name, column.dictionary.to_pylist())
                self._codes[name][rows] = codes[column.indices.to_numpy()]
            else:
                self._numbers[name][rows] = column.to_numpy(zero_copy_only=False)

    def columns(self) -> dict[str, pa.Array]:
        """Return the columns, see `Entries`."""
        buffers = [None, pa.py_buffer(self._id_ends), pa.py_buffer(self._id_text)]
        columns = {"id": pa.Array.from_buffers(pa.string(), len(self._id_ends) - 1, buffers)}
        columns |= {name: pa.array(values) for name, values in self._numbers.items()}
        return columns | {name: _coded(codes, list(self._texts[name])) for name, codes in self._codes.items()}

    def _fill_ids(self, rows: slice, ids: pa.Array) -> None:
        _, offsets, text = ids.buffers()
        ends = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
        here = self._id_ends[rows.start : rows.stop + 1]
        here[1:] = ends[1:] - ends[0] + here[0]
        self._id_text[here[0] : here[-1]] = np.frombuffer(text, np.uint8)[ends[0] : ends[-1]]

    def _fill_paths(self, rows: slice, ids: pa.Array, paths: pa.Array) -> None:
        folder = paths[0].as_py().removesuffix(ids[0].as_py()) if len(ids) else ""
        if pc.all(pc.equal(pc.binary_join_element_wise(folder, ids, ""), paths)).as_py():  # mostly
            folders, below = [folder], [True]
        else:
            pairs = list(zip(ids.to_pylist(), paths.to_pylist(), strict=True))
            folders, below = [p.removesuffix(i) for i, p in pairs], [p.endswith(i) for i, p in pairs]
        self._codes["folder"][rows] = self._coded("folder", folders)
        self._numbers["below"][rows] = below

    def _coded(self, name: str, texts: Iterable[str]) -> NDArray[np.int32]:
        known = self._texts[name]
        return np.array([known.setdefault(text, len(known)) for text in texts], np.int32)


def _value(column: pa.Array, row: int) -> Any:
    if pa.types.is_dictionary(column.type):  # its scalars take five times as long
        return column.dictionary[column.indices[row].as_py()].as_py()
    return column[row].as_py()


def _coded(codes: NDArray[Any], texts: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(texts, pa.string()))
