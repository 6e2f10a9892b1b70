"""Write prepared videos row by row; memory holds one record batch of JPEGs, however long the video is."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from stresnet.atomic import replacing
from stresnet.data.prepared_video import (
    META_KEY,
    ROWS_PER_BATCH,
    Checksum,
    PreparedVideo,
    PreparedVideoMetadata,
    StoreSpec,
    schema_of,
)
from stresnet.errors import StoreError

Encode = Callable[[BinaryIO], PreparedVideoMetadata]
"""Write a whole prepared video to a file. An OSError means that the file cannot be written: failures to read the
source are VideoErrors."""


class PreparedVideoWriter:
    """Write a prepared video. An OSError of the file is not caught.

    Attributes:
        frames: rows appended so far.
    """

    def __init__(self, sink: BinaryIO, spec: StoreSpec, *, imported: bool = False) -> None:
        """Start a prepared video.

        Args:
            sink: the file to write to.
            spec: how the video is prepared.
            imported: whether frames and flow are imported JPEGs.
        """
        self.frames = 0
        self._sink = sink
        self._schema = schema_of(spec, imported=imported)
        self._rows: list[tuple[float | bytes | None, ...]] = []
        self._checksum = Checksum()
        self._writer: pa.RecordBatchFileWriter | None = None

    def append(self, time_sec: float, *pictures: bytes | None) -> None:
        """Add a frame.

        Args:
            time_sec: its presentation time, seconds since the first frame.
            pictures: its JPEG, and the JPEGs of the flow to the next frame if flow is stored.
        """
        self._checksum.add(time_sec, pictures)
        self._rows.append((time_sec, *pictures))
        self.frames += 1
        if len(self._rows) == ROWS_PER_BATCH:
            self._write()

    def finish(self, meta: PreparedVideoMetadata) -> PreparedVideoMetadata:
        """Write the metadata, which completes the file.

        Args:
            meta: the metadata without its checksum.

        Returns:
            The metadata with its checksum.
        """
        if self._rows:
            self._write()
        meta = replace(meta, checksum=self._checksum.of(meta))
        self._write(meta)
        return meta

    def _write(self, meta: PreparedVideoMetadata | None = None) -> None:
        columns = list(zip(*self._rows, strict=True)) or [()] * len(self._schema)
        batch = pa.record_batch([list(column) for column in columns], schema=self._schema)
        self._rows.clear()
        if self._writer is None:
            self._writer = pa.ipc.new_file(self._sink, self._schema)
        if meta is None:
            self._writer.write_batch(batch)
        else:
            self._writer.write_batch(batch, custom_metadata={META_KEY: meta.to_json()})
            self._writer.close()
            self._sink.flush()


@contextmanager
def prepared_file(path: Path) -> Iterator[BinaryIO]:
    """Yield the file to write a prepared video to, which becomes ``path``; an exception leaves ``path`` unchanged.

    Missing parent folders are created.

    Raises:
        OSError: the file cannot be written, such as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as sink:
        yield sink
        # Without this a power cut could leave an empty file under the final name, which later runs would keep.
        os.fsync(sink.fileno())


def write_prepared_video(path: Path, encode: Encode) -> PreparedVideoMetadata:
    """Write a prepared video to ``path``, see `prepared_file`, and return its metadata."""
    with prepared_file(path) as sink:
        return encode(sink)


def write_temporary(encode: Encode) -> PreparedVideo:
    """Encode a prepared video into a temporary file, which is deleted with the returned object.

    On POSIX the file has no name, so it does not outlive the process, however that ends.

    Args:
        encode: writes the prepared video.

    Raises:
        StoreError: the temporary folder has no room for it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            encode(file)
            return read_temporary(file)
    except OSError as error:
        raise StoreError(
            f"{tempfile.gettempdir()}: cannot hold the decoded video ({error.strerror or error}); make room there, or "
            "name another folder in the environment variable TMPDIR"
        ) from error


def read_temporary(file: BinaryIO) -> PreparedVideo:
    """Return the prepared video in a temporary file, which may then be closed: the mapping keeps its pages.

    Raises:
        StoreError: it is not a prepared video.
        OSError: the file cannot be mapped.
    """
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return PreparedVideo(pa.BufferReader(pa.py_buffer(mapped)), "a temporary file")
