"""One prepared video: its frames and its flow, decoded and estimated once, in an Arrow IPC file or in memory.

One row per frame, memory-mapped: ``time_sec`` float64; ``rgb``, a JPEG; ``flow``, a gray JPEG of quantised levels
with u above v, for the step to the next row (null in the last one). The schema's metadata holds
a :class:`ClipMeta` as JSON. Training, evaluation and prediction all read clips made by :func:`encode_clip`, so that a
number never depends on whether a video was prepared before.

Frames have ``FlowSpec.short_side`` px on their short side: (H,W) below. T is the number of frames.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import NDArray

from stresnet.atomic import replacing
from stresnet.errors import FlowSpecError, StoreError, StresnetError, VideoError
from stresnet.flow.codec import clipped_share, quantize_flow
from stresnet.flow.estimate import iter_flow
from stresnet.flow.spec import FlowSpec
from stresnet.media.video import iter_frames

MIN_FRAMES = 11
"""Frames that the one valid centre of a stack of 10 flow fields needs: t−5 … t+4 → t+5 (released code)."""

_SCHEMA = pa.schema([("time_sec", pa.float64()), ("rgb", pa.large_binary()), ("flow", pa.large_binary())])


@dataclass(frozen=True)
class StoreSpec:
    """How every clip of a store was made. The size is ``flow.short_side``.

    Attributes:
        flow: the optical flow, and the size of frames and flow.
        jpeg_quality: 1 to 100, of frames and flow alike.
    """

    flow: FlowSpec
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if not 1 <= self.jpeg_quality <= 100:
            raise StoreError(f"expected a jpeg_quality of 1 to 100, found {self.jpeg_quality}")

    def to_dict(self) -> dict[str, Any]:
        """Returns the spec as JSON types."""
        return {"flow": self.flow.to_dict(), "flow_digest": self.flow.digest(), "jpeg_quality": self.jpeg_quality}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StoreSpec:
        """Returns the spec that :meth:`to_dict` wrote.

        Raises:
            StoreError, FlowSpecError: a key is missing or unknown, or the flow was computed with other parameters
                than this version uses under that name.
        """
        if set(data) != {"flow", "flow_digest", "jpeg_quality"}:
            raise StoreError(f"expected a store spec with flow, flow_digest and jpeg_quality, found {sorted(data)}")
        flow = FlowSpec.from_dict(data["flow"])
        if flow.digest() != data["flow_digest"]:
            raise FlowSpecError(
                f"flow made with other parameters ({data['flow_digest']}) than {flow} has now; prepare again"
            )
        return cls(flow, data["jpeg_quality"])

    def require_same(self, other: StoreSpec, what: str) -> None:
        """Returns if both specs agree.

        Raises:
            FlowSpecError: the flow differs.
            StoreError: the JPEG quality differs.
        """
        self.flow.require_same(other.flow, what)
        if self.jpeg_quality != other.jpeg_quality:
            found = f"expected jpeg_quality {self.jpeg_quality}, found {other.jpeg_quality}"
            raise StoreError(f"{what}: {found}; prepare with one of them")


@dataclass(frozen=True)
class ClipMeta:
    """What is known of one clip besides its pictures.

    Attributes:
        id: the record's id.
        frames, height, width: T, H and W.
        fps: frames per second that the file claims.
        spec: how the clip was made.
        source_bytes, source_mtime_ns: size and time of change of the video when it was read.
        clipped_share: share of flow vectors beyond the bound, 0 to 1.
        checksum: BLAKE2b of everything else in the clip.
        truncated: parts of the video could not be decoded, such as its end; what could is here.
    """

    id: str
    frames: int
    height: int
    width: int
    fps: float
    spec: StoreSpec
    source_bytes: int
    source_mtime_ns: int
    clipped_share: float
    checksum: str
    truncated: bool

    def to_json(self) -> str:
        """Returns the metadata as one line of JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"spec": self.spec.to_dict()}
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> ClipMeta:
        """Returns the metadata that :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**values | {"spec": StoreSpec.from_dict(values["spec"])})


class Clip:
    """One video, decoded to pictures and flow: in memory as :func:`encode_clip` made it, or mapped from a file.

    Attributes:
        meta: what is known besides the pictures.
        times_sec: (T,) float64, when each frame is shown.
    """

    def __init__(self, meta: ClipMeta, rows: pa.RecordBatch) -> None:
        self.meta = meta
        self._rows = rows
        self.times_sec: NDArray[np.float64] = rows.column("time_sec").to_numpy()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Clip:
        """Returns the clip in a file, memory-mapped: only pictures that are asked for are read.

        Raises:
            StoreError: there is no such file, or it is no clip.
        """
        try:
            reader = pa.ipc.open_file(pa.memory_map(os.fspath(path)))
            meta = ClipMeta.from_json(reader.schema.metadata[b"stresnet"])
            rows = reader.get_batch(0)
            rows.validate(full=True)  # or damaged offsets would end the process; takes 1 µs
            if reader.schema.remove_metadata() != _SCHEMA or rows.num_rows != meta.frames:
                raise ValueError("other columns or another number of frames than it should have")
            return cls(meta, rows)
        except StresnetError:
            raise
        except FileNotFoundError as error:
            raise StoreError(f"{path}: expected a prepared clip, found no file; run prepare again") from error
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise _damaged(path, error) from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the clip so that ``path`` holds all of it or is as it was.

        Raises:
            StoreError: the file cannot be written, such as on a full disk.
        """
        schema = _SCHEMA.with_metadata({"stresnet": self.meta.to_json()})
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(Path(path)) as temporary, temporary.open("wb") as sink:
                with pa.ipc.new_file(sink, schema) as writer:
                    writer.write_batch(self._rows.replace_schema_metadata(schema.metadata))
                # Without this a power cut could leave the new name on an empty file, which would be kept ever after.
                sink.flush()
                os.fsync(sink.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error

    def verify(self) -> None:
        """Returns if the clip is what was written.

        Raises:
            StoreError: the checksum differs.
        """
        try:
            found = _checksum(self.meta, self._rows)
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise _damaged(self.meta.id, error) from error
        if found != self.meta.checksum:
            raise _damaged(self.meta.id, f"its checksum is {found}, not {self.meta.checksum}")

    def rgb(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Returns frames, (n,H,W,3) uint8 RGB.

        Args:
            indices: n frames, 0 … T−1, in any order, repeats allowed; each distinct one is decoded once.

        Raises:
            IndexError: an index is out of range.
            StoreError: a picture is damaged.
        """
        return self._pictures("rgb", indices, self.meta.frames, (self.meta.height, self.meta.width, 3))

    def flow(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Returns flow as quantised levels, (n,2,H,W) uint8, u then v.

        Args:
            indices: n steps, 0 … T−2, in any order, repeats allowed; each distinct one is decoded once. Flow ``i``
                takes frame ``i`` to ``i + 1``.

        Raises:
            IndexError: an index is out of range.
            StoreError: a picture is damaged.
        """
        height, width = self.meta.height, self.meta.width
        stacked = self._pictures("flow", indices, self.meta.frames - 1, (2 * height, width, 1))
        return stacked.reshape(-1, 2, height, width)

    def _pictures(
        self, column: str, indices: Sequence[int] | NDArray[np.integer[Any]], count: int, shape: tuple[int, int, int]
    ) -> NDArray[np.uint8]:
        wanted, where = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        if wanted.size and not 0 <= wanted[0] <= wanted[-1] < count:
            raise IndexError(f"{self.meta.id}: {column} indices 0 to {count - 1}, found {wanted[0]} to {wanted[-1]}")
        pictures = np.empty((len(wanted), *shape), np.uint8)
        colorspace = "RGB" if column == "rgb" else "GRAY"
        values = self._rows.column(column)
        for picture, index in zip(pictures, wanted, strict=True):
            try:
                jpeg = np.frombuffer(values[int(index)].as_buffer(), np.uint8)
                size = simplejpeg.decode_jpeg(jpeg, colorspace, buffer=picture).shape
            except (ValueError, pa.ArrowException) as error:
                raise _damaged(self.meta.id, error) from error
            if size != shape:
                raise _damaged(self.meta.id, f"{column} {index} has size {size}, not {shape}")
        return pictures[where]


def encode_clip(record_id: str, path: str | os.PathLike[str], spec: StoreSpec) -> Clip:
    """Returns a video's frames and flow as a clip in memory.

    Frames are decoded, matched and compressed one at a time: what is held is the JPEGs, about 40 KB a frame.

    Args:
        record_id: becomes the clip's id.
        path: the video.
        spec: flow, size and quality.

    Raises:
        VideoError: the video cannot be read, or has fewer than ``MIN_FRAMES`` frames.
    """
    try:
        source = os.stat(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from error
    times: list[float] = []
    rgb: list[bytes] = []
    flow: list[bytes | None] = []
    clipped = 0.0

    with iter_frames(path, short_side=spec.flow.short_side) as reader:

        def frames() -> Iterator[NDArray[np.uint8]]:
            for frame in reader:
                times.append(frame.time_sec)
                # 4:4:4: for the same bytes it errs less than 4:2:0 at a higher quality (docs/store.md).
                rgb.append(simplejpeg.encode_jpeg(frame.rgb, spec.jpeg_quality, "RGB", "444"))
                yield frame.rgb

        for field in iter_flow(frames(), spec.flow):
            clipped += clipped_share(field, spec.flow.bound_px)
            u_above_v = quantize_flow(field, spec.flow.bound_px).reshape(-1, field.shape[2], 1)
            flow.append(simplejpeg.encode_jpeg(u_above_v, spec.jpeg_quality, "GRAY", "Gray"))
    if len(rgb) < MIN_FRAMES:
        raise VideoError(f"{path}: {len(rgb)} frames decoded; at least {MIN_FRAMES} needed")
    height, width = simplejpeg.decode_jpeg_header(rgb[0])[:2]
    rows = pa.record_batch([times, rgb, [*flow, None]], schema=_SCHEMA)
    meta = ClipMeta(
        id=record_id,
        frames=len(rgb),
        height=height,
        width=width,
        fps=reader.info.fps,
        spec=spec,
        source_bytes=source.st_size,
        source_mtime_ns=source.st_mtime_ns,
        clipped_share=clipped / len(flow),
        checksum="",
        truncated=reader.truncated,
    )
    return Clip(replace(meta, checksum=_checksum(meta, rows)), rows)


def _checksum(meta: ClipMeta, rows: pa.RecordBatch) -> str:
    digest = hashlib.blake2b(replace(meta, checksum="").to_json().encode(), digest_size=16)
    digest.update(rows.column("time_sec").to_numpy().tobytes())
    for name in ("rgb", "flow"):
        for value in rows.column(name):
            payload = value.as_buffer() if value.is_valid else b""
            digest.update(len(payload).to_bytes(8, "little"))
            digest.update(payload)
    return digest.hexdigest()


def _damaged(what: object, why: object) -> StoreError:
    return StoreError(f"{what}: this clip is damaged ({why}); delete its file and run prepare again")


def cannot_write(path: object, error: OSError) -> StoreError:
    """Returns what to raise when a store cannot be written, such as on a full disk."""
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error}); mend that and run the same command again, what is "
        "finished is kept"
    )
