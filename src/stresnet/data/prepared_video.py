"""Prepared videos: frames and flow of a video, decoded and estimated once, in an Arrow IPC file.

There is one row per frame, in record batches of ``ROWS_PER_BATCH``, so frame ``i`` is in batch ``i // ROWS_PER_BATCH``.
A last, empty batch carries the :class:`PreparedVideoMetadata` as JSON: a video is written while it is decoded, and
some of its metadata is known only at the end. The columns are ``time_sec``, ``rgb`` (a JPEG), and for the step to the
next row (null in the last one)

- ``flow``, a gray JPEG of quantised levels with u above v, or
- ``u`` and ``v``, two gray JPEGs imported from elsewhere, or
- neither, if flow is computed from the frames when it is read.

The short side of frames and flow is ``FlowSpec.short_side`` px. T is the number of frames, (H,W) their size.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from stresnet.data.segment import WHOLE
from stresnet.errors import FlowSpecError, StoreError, StresnetError
from stresnet.flow.codec import quantize_flow
from stresnet.flow.methods import METHODS
from stresnet.flow.spec import FlowSpec
from stresnet.media.frame_spec import AS_SHOWN, FrameSpec

MIN_FRAMES = 11
"""Frames needed for one valid centre of a stack of 10 flow fields: t−5 … t+4 → t+5 (released code)."""

ROWS_PER_BATCH = 32
"""Frames in a record batch: about 1 MB at a short side of 256, which bounds the memory of writing."""

META_KEY = b"stresnet"
_SAME_FRAMES = ("fps", "deinterlace", "tone_map")
_Indices = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class StoreSpec:
    """How the videos of a store are prepared.

    Attributes:
        flow: the optical flow, and the size of frames and flow (``flow.short_side``).
        jpeg_quality: quality of frames and flow, 1 to 100.
        flow_stored: whether flow is stored; otherwise it is computed from the stored frames when it is read.
        frames: which frames of a file are read, and how they are converted.
    """

    flow: FlowSpec
    jpeg_quality: int = 95
    flow_stored: bool = True
    frames: FrameSpec = AS_SHOWN

    def __post_init__(self) -> None:
        if not 1 <= self.jpeg_quality <= 100:
            raise StoreError(f"expected a jpeg_quality of 1 to 100, found {self.jpeg_quality}")
        if not self.flow_stored and not METHODS[self.flow.method].on_the_fly:
            names = ", ".join(method.name for method in METHODS.values() if method.on_the_fly)
            found = f"{self.flow.method}, which loader processes cannot compute: store it"
            raise StoreError(f"expected flow on the fly by {names}, found {found}")
        if self.frames.fps and self.flow.from_codec:
            found = f"{self.flow.method}, whose vectors are those between coded frames"
            raise StoreError(f"expected another flow method to resample videos, found {found}")

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON types."""
        return {
            "flow": self.flow.to_dict(),
            "flow_digest": self.flow.digest(),
            "jpeg_quality": self.jpeg_quality,
            "flow_stored": self.flow_stored,
            **({"frames": frames} if (frames := self.frames.to_dict()) else {}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StoreSpec:
        """Return the spec that :meth:`to_dict` wrote.

        Raises:
            StoreError, FlowSpecError, VideoError: a key is missing or unknown, or the flow was computed with other
                parameters than this version uses under that name.
        """
        if set(data) - {"frames"} != {"flow", "flow_digest", "jpeg_quality", "flow_stored"}:
            raise StoreError(
                f"expected a store spec with flow, flow_digest, jpeg_quality and flow_stored, found {sorted(data)}"
            )
        flow = FlowSpec.from_dict(data["flow"])
        if flow.digest() != data["flow_digest"]:
            raise FlowSpecError(
                f"flow made with other parameters ({data['flow_digest']}) than {flow} has now; prepare again"
            )
        return cls(flow, data["jpeg_quality"], data["flow_stored"], FrameSpec.from_dict(data.get("frames", {})))

    def require_same(self, other: StoreSpec, what: str) -> None:
        """Raise unless a network trained on videos of one spec can be used on videos of the other.

        Specs may differ in the number of the stream, which is one of files, and in whether flow is stored. Flow
        computed when it is read differs from stored flow only by the JPEG coding, of the stored flow or of the frames
        it is computed from (docs/store.md has figures).

        Args:
            other: the other spec.
            what: names both in the message, such as "the model and the store".

        Raises:
            FlowSpecError: the flow differs.
            StoreError: the JPEG quality, or how frames are read, differs.
        """
        self.flow.require_same(other.flow, what)
        values = (("jpeg_quality", self.jpeg_quality, other.jpeg_quality),)
        frames = ((name, getattr(self.frames, name), getattr(other.frames, name)) for name in _SAME_FRAMES)
        for name, expected, found in (*values, *frames):
            if expected != found:
                raise StoreError(f"{what}: expected {name} {expected}, found {found}; prepare with one of them")


@dataclass(frozen=True)
class PreparedVideoMetadata:
    """The metadata of a prepared video.

    Attributes:
        id: id of the video's record.
        frames, height, width: T, H and W.
        fps: frames per second after resampling, else according to the video file; 25 for imported JPEGs, which have no
            clock.
        spec: how the video was prepared.
        source_bytes, source_mtime_ns, source_ctime_ns: the stamp of the source when it was read, see
            `stresnet.data.source_files`.
        content_hash: hash of the source's content; empty if it was not computed, as for predictions.
        clipped_share: share of flow vectors beyond the bound, 0 to 1; None if no flow was computed.
        checksum: BLAKE2b of the pictures, the times and all other metadata.
        truncated: whether parts of the source, such as its end, could not be decoded and are missing.
        conversions: what was done to frames, see `stresnet.media.video.FrameReader`.
        imported: whether frames and flow are imported JPEGs. Method and bound of their flow are what the user stated.
        start_sec, end_sec: the segment of the source, see `stresnet.data.segment`.
    """

    id: str
    frames: int
    height: int
    width: int
    fps: float
    spec: StoreSpec
    source_bytes: int
    source_mtime_ns: int
    clipped_share: float | None
    checksum: str
    truncated: bool
    imported: bool
    source_ctime_ns: int = 0
    content_hash: str = ""
    start_sec: float = WHOLE.start_sec
    end_sec: float = WHOLE.end_sec
    conversions: str = ""

    def to_json(self) -> str:
        """Return the metadata as one line of JSON; values that are the default are left out."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return json.dumps(values | {"spec": self.spec.to_dict()}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> PreparedVideoMetadata:
        """Return the metadata that :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {"spec": _spec(json.dumps(values["spec"]))})


@lru_cache
def _spec(text: str) -> StoreSpec:
    """Return a spec given as JSON; the videos of a store share one, which takes longer to check than to read."""
    return StoreSpec.from_dict(json.loads(text))


class PreparedVideo:
    """A prepared video. Its file is memory-mapped; only pictures that are asked for are read.

    Attributes:
        meta: the metadata.
    """

    def __init__(self, source: pa.NativeFile, name: object) -> None:
        """Open a prepared video.

        Args:
            source: the Arrow IPC file, open for random access.
            name: names the file in error messages.

        Raises:
            StoreError: the file is not a prepared video, or is damaged.
        """
        try:
            self._file = pa.ipc.open_file(source)
            batches = self._file.num_record_batches
            last = self._file.get_batch_with_custom_metadata(batches - 1)
            self.meta = PreparedVideoMetadata.from_json(last.custom_metadata[META_KEY])
            if self._file.schema != schema_of(self.meta.spec, imported=self.meta.imported):
                raise ValueError("the columns are not those of its spec")
            if batches - 1 != -(-self.meta.frames // ROWS_PER_BATCH):
                raise ValueError("the number of frames differs from its metadata")
        except StresnetError:
            raise
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise _damaged(name, error) from error
        self._batch: tuple[int, pa.RecordBatch] = (-1, last.batch)
        self._computed: tuple[bytes, NDArray[np.uint8]] | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PreparedVideo:
        """Open the prepared video in a file.

        Raises:
            StoreError: there is no such file, it is not a prepared video, or it is damaged.
        """
        try:
            source = pa.memory_map(os.fspath(path))
        except FileNotFoundError as error:
            raise StoreError(f"{path}: expected a prepared video, found no file; run prepare again") from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _damaged(path, error) from error
        return cls(source, path)

    @cached_property
    def times_sec(self) -> NDArray[np.float64]:
        """Presentation time of each frame, (T,) float64, seconds since the first."""
        try:
            times: NDArray[np.float64] = np.concatenate([rows.column("time_sec").to_numpy() for rows in self._rows()])
        except (ValueError, pa.ArrowException) as error:
            raise _damaged(self.meta.id, error) from error
        return times

    def verify(self) -> None:
        """Raise unless the checksum matches.

        Raises:
            StoreError: the file is damaged.
        """
        checksum = Checksum()
        try:
            for rows in self._rows():
                for values in zip(*rows.columns, strict=True):
                    time, *pictures = values
                    checksum.add(time.as_py(), [p.as_buffer() if p.is_valid else None for p in pictures])
        except (ValueError, OverflowError, TypeError, pa.ArrowException) as error:
            raise _damaged(self.meta.id, error) from error
        if (found := checksum.of(self.meta)) != self.meta.checksum:
            raise _damaged(self.meta.id, f"its checksum is {found}, not {self.meta.checksum}")

    def rgb(self, indices: _Indices) -> NDArray[np.uint8]:
        """Return frames, (n,H,W,3) uint8 RGB.

        Args:
            indices: n frames, 0 … T−1, in any order. A frame that is repeated is decoded once.

        Raises:
            IndexError: an index is out of range.
            StoreError: a picture is damaged.
        """
        wanted, where = self._distinct(indices, self.meta.frames, "rgb")
        pictures = np.empty((len(wanted), self.meta.height, self.meta.width, 3), np.uint8)
        for picture, index in zip(pictures, wanted, strict=True):
            self._decode("rgb", int(index), picture)
        return pictures[where]

    def flow(self, indices: _Indices) -> NDArray[np.uint8]:
        """Return flow as quantised levels, (n,2,H,W) uint8, u then v.

        Args:
            indices: n fields, 0 … T−2, in any order; field ``i`` takes frame ``i`` to ``i + 1``. A field that is
                repeated is decoded, or computed, once.

        Raises:
            IndexError: an index is out of range.
            StoreError: a picture is damaged.
        """
        wanted, where = self._distinct(indices, self.meta.frames - 1, "flow")
        return (self._stored_flow(wanted) if self.meta.spec.flow_stored else self._computed_flow(wanted))[where]

    def _stored_flow(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        height, width = self.meta.height, self.meta.width
        fields = np.empty((len(wanted), 2, height, width), np.uint8)
        for field, index in zip(fields, wanted, strict=True):
            if self.meta.imported:
                self._decode("u", int(index), field[0, ..., None])
                self._decode("v", int(index), field[1, ..., None])
            else:
                self._decode("flow", int(index), field.reshape(2 * height, width, 1))
        return fields

    def _computed_flow(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the levels of distinct, ascending fields; few frames are held, and each is decoded once."""
        from stresnet.flow.estimate import iter_flow  # loads OpenCV, which a store with flow does not need

        if self._computed is not None and self._computed[0] == wanted.tobytes():
            return self._computed[1]  # the ten-crop protocol asks for the same fields five times
        shape, spec = (self.meta.height, self.meta.width), self.meta.spec.flow

        def frame(index: int) -> NDArray[np.uint8]:
            return self._decode("rgb", index, np.empty((*shape, 3), np.uint8))

        levels = np.empty((len(wanted), 2, *shape), np.uint8)
        gaps = np.flatnonzero(np.diff(wanted) > 1) + 1
        for part, run in zip(np.split(levels, gaps), np.split(wanted, gaps), strict=True):
            if run.size:
                frames = map(frame, range(int(run[0]), int(run[-1]) + 2))
                for level, field in zip(part, iter_flow(frames, spec), strict=True):
                    level[:] = quantize_flow(field, spec.bound_px)
        self._computed = wanted.tobytes(), levels
        return levels

    def _distinct(self, indices: _Indices, count: int, what: str) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        wanted, where = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        if wanted.size and not 0 <= wanted[0] <= wanted[-1] < count:
            raise IndexError(f"{self.meta.id}: {what} indices 0 to {count - 1}, found {wanted[0]} to {wanted[-1]}")
        return wanted, where

    def _decode(self, column: str, index: int, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Decode the JPEG of one cell into ``picture``, (h,w,c), and return it."""
        number, row = divmod(index, ROWS_PER_BATCH)
        try:
            if self._batch[0] != number:
                self._batch = number, self._read(number)
            jpeg = np.frombuffer(self._batch[1].column(column)[row].as_buffer(), np.uint8)
            colorspace = "RGB" if picture.shape[2] == 3 else "GRAY"
            size = simplejpeg.decode_jpeg(jpeg, colorspace, buffer=picture).shape
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise _damaged(self.meta.id, error) from error
        if size != picture.shape:
            raise _damaged(self.meta.id, f"{column} {index} has size {size}, not {picture.shape}")
        return picture

    def _rows(self) -> Iterator[pa.RecordBatch]:
        for number in range(self._file.num_record_batches - 1):
            yield self._read(number)

    def _read(self, number: int) -> pa.RecordBatch:
        rows = self._file.get_batch(number)
        rows.validate(full=True)  # damaged offsets would crash the process; takes 10 µs
        if rows.num_rows != min(ROWS_PER_BATCH, self.meta.frames - number * ROWS_PER_BATCH):
            raise ValueError("the number of frames differs from its metadata")
        return rows


class Checksum:
    """BLAKE2b of the rows and the metadata of a prepared video, computed row by row."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, time_sec: float, pictures: Sequence[bytes | pa.Buffer | None]) -> None:
        """Add one row."""
        self._digest.update(np.float64(time_sec).tobytes())
        for picture in pictures:
            self._digest.update((0 if picture is None else len(picture)).to_bytes(8, "little"))
            self._digest.update(picture or b"")

    def of(self, meta: PreparedVideoMetadata) -> str:
        """Return the checksum of all rows and of ``meta`` without its checksum."""
        digest = self._digest.copy()
        digest.update(replace(meta, checksum="").to_json().encode())
        return digest.hexdigest()


def schema_of(spec: StoreSpec, *, imported: bool) -> pa.Schema:
    """Return the columns of a prepared video."""
    flow = [] if not spec.flow_stored else ["u", "v"] if imported else ["flow"]
    return pa.schema([("time_sec", pa.float64()), *((name, pa.large_binary()) for name in ("rgb", *flow))])


def _damaged(what: object, why: object) -> StoreError:
    return StoreError(f"{what}: this prepared video is damaged ({why}); delete its file and run prepare again")
