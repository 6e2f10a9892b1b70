"""Writing a clip's file row by row: what is held is one record batch of JPEGs, however long the video is."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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

Refusal = Callable[[OSError], StoreError]
"""What to raise when a clip's file cannot be written: only whoever opened it knows what it is for."""

Encode = Callable[[BinaryIO, Refusal], PreparedVideoMetadata]
"""Writes a whole clip to a file."""


class PreparedVideoWriter:
    """A clip's file in the making.

    Attributes:
        frames: rows so far.
    """

    def __init__(self, sink: BinaryIO, refusal: Refusal, spec: StoreSpec, *, imported: bool = False) -> None:
        """Begin a clip.

        Args:
            sink: where to write.
            refusal: turns a failure to write into what is raised.
            spec: how the clip is made.
            imported: whether its pictures are taken over from elsewhere.
        """
        self.frames = 0
        self._sink = sink
        self._refusal = refusal
        self._schema = schema_of(spec, imported=imported)
        self._rows: list[tuple[float | bytes | None, ...]] = []
        self._checksum = Checksum()
        self._writer: pa.RecordBatchFileWriter | None = None

    def append(self, time_sec: float, *pictures: bytes | None) -> None:
        """Adds a frame: when it is shown, its JPEG, and those of the step to the next one, if flow is stored.

        Raises:
            StoreError: the file cannot be written.
        """
        self._checksum.add(time_sec, pictures)
        self._rows.append((time_sec, *pictures))
        self.frames += 1
        if len(self._rows) == ROWS_PER_BATCH:
            self._write()

    def finish(self, meta: PreparedVideoMetadata) -> PreparedVideoMetadata:
        """Returns what is known of the clip, the checksum filled in, after writing it: the clip is whole then.

        Raises:
            StoreError: the file cannot be written.
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
        try:
            if self._writer is None:
                self._writer = pa.ipc.new_file(self._sink, self._schema)
            if meta is None:
                self._writer.write_batch(batch)
            else:
                self._writer.write_batch(batch, custom_metadata={META_KEY: meta.to_json()})
                self._writer.close()
                self._sink.flush()
        except OSError as error:
            raise self._refusal(error) from error


def write_video_file(path: Path, encode: Encode) -> PreparedVideoMetadata:
    """Returns the metadata of a clip after writing it so that ``path`` holds all of it or is as it was.

    Args:
        path: of the clip's file.
        encode: writes the clip; raises OSError for no other reason than that it cannot.

    Raises:
        StoreError: the file cannot be written, such as on a full disk; caused by the OSError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as sink:
            meta = encode(sink, partial(cannot_write, path))
            # Without this a power cut could leave the new name on an empty file, which would be kept ever after.
            os.fsync(sink.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error
    return meta


def write_temporary(encode: Encode) -> PreparedVideo:
    """Returns a clip that lies in a file of the system's temporary folder and goes when the clip does.

    On POSIX the file has no name, so nothing that ends this process can leave it behind.

    Args:
        encode: writes the clip; raises OSError for no other reason than that it cannot.

    Raises:
        StoreError: there is no room for it.
    """
    try:
        with tempfile.TemporaryFile() as file:
            encode(file, _no_room)
            # Its pages stay, though the file is closed, for as long as the clip refers to them.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _no_room(error) from error
    return PreparedVideo(pa.BufferReader(pa.py_buffer(mapped)), "a temporary file")


def cannot_write(path: object, error: OSError) -> StoreError:
    """Returns what to raise when a store cannot be written, such as on a full disk."""
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error}); mend that and run the same command again, what is "
        "finished is kept"
    )


def _no_room(error: OSError) -> StoreError:
    folder = tempfile.gettempdir()
    return StoreError(
        f"{folder}: cannot hold the decoded video ({error.strerror or error}); make room there, or name another folder "
        "in the environment variable TMPDIR"
    )
