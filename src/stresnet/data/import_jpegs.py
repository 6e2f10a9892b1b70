"""Import frames and flow that were extracted elsewhere; the bytes of JPEG files are stored unchanged.

PNG files are encoded as JPEGs of the store's quality, as frames and flow computed here are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import simplejpeg

from stresnet.data.jpeg_folders import Pictures, find_pictures, name_of
from stresnet.data.prepared_video import MIN_FRAMES, PreparedVideoMetadata, StoreSpec
from stresnet.data.prepared_video_writer import PreparedVideoWriter
from stresnet.data.source_files import SourceFile
from stresnet.errors import VideoError
from stresnet.media.decode import FALLBACK_FPS


def short_side_of(folders: Iterable[str]) -> int:
    """Return the short side, in px, of the first video whose first frame can be read.

    Args:
        folders: folders of frames, one per video.

    Raises:
        VideoError: no first frame can be read; the message is about the first video.
    """
    first_error = VideoError("expected folders of pictures, found none")
    for count, folder in enumerate(folders):
        reader = _PictureReader(folder, None)
        try:
            reader.read(find_pictures(folder, flow=False).frames[0], gray=False)
        except VideoError as error:
            first_error = first_error if count else error
        else:
            return min(reader.size)
    raise first_error


def import_jpegs(
    record_id: str, folder: str | os.PathLike[str], spec: StoreSpec, sink: BinaryIO
) -> PreparedVideoMetadata:
    """Write the pictures of a video as a prepared video.

    Args:
        record_id: id of the prepared video.
        folder: folder of its frames. If flow is stored, its pictures are found by the layout of the folders.
        spec: size of the pictures, and what the user states about their flow.
        sink: the file to write to.

    Returns:
        The metadata of the prepared video.

    Raises:
        VideoError: a picture is missing, damaged, or of another size or kind than expected.
        OSError: ``sink`` cannot be written.
    """
    pictures = find_pictures(folder, flow=spec.flow_stored)
    count = len(pictures.frames)
    if count < MIN_FRAMES:
        raise VideoError(f"{folder}: {count} frames found; at least {MIN_FRAMES} needed")
    source = SourceFile.of(folder, pictures.files())
    writer = PreparedVideoWriter(sink, spec, imported=True)
    height, width = _write_rows(writer, pictures, spec)
    return writer.finish(
        PreparedVideoMetadata(
            id=record_id,
            frames=count,
            height=height,
            width=width,
            fps=FALLBACK_FPS,
            spec=spec,
            source_bytes=source.stamp.size_bytes,
            source_mtime_ns=source.stamp.mtime_ns,
            clipped_share=None,
            checksum="",
            truncated=False,
            imported=True,
            source_ctime_ns=source.stamp.ctime_ns,
            content_hash=source.content_hash,
        )
    )


def _write_rows(writer: PreparedVideoWriter, pictures: Pictures, spec: StoreSpec) -> tuple[int, int]:
    """Write all rows and return the (height, width) of the pictures."""
    reader = _PictureReader(pictures.folder, spec)
    for index, path in enumerate(pictures.frames):
        row: list[bytes | None] = [reader.read(path, gray=False)]
        if spec.flow_stored:
            step = [paths[index] for paths in (pictures.u, pictures.v)] if index < len(pictures.frames) - 1 else []
            row += [reader.read(field, gray=True) for field in step] or [None, None]
        writer.append(index / FALLBACK_FPS, *row)
    return reader.size


class _PictureReader:
    """Read the pictures of a video as JPEGs, and check that each can be decoded and has the expected size and kind.

    Attributes:
        size: height and width of the pictures; (0, 0) before the first.
    """

    def __init__(self, folder: str | os.PathLike[str], spec: StoreSpec | None) -> None:
        self.size = (0, 0)
        self._folder = folder
        self._spec = spec

    def read(self, path: str, *, gray: bool) -> bytes:
        """Return a picture as a JPEG: the bytes of a JPEG file, or those of a PNG encoded as one.

        Raises:
            VideoError: the file cannot be read or decoded, or its size or kind is not as expected.
        """
        where, name = self._folder, name_of(path, self._folder)
        try:
            content = Path(path).read_bytes()
            is_png = path.lower().endswith(".png")
            jpeg = _encode_png(content, self._spec.jpeg_quality if self._spec else 95) if is_png else content
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(jpeg)
            simplejpeg.decode_jpeg(jpeg, "GRAY" if gray else "RGB")
        except OSError as error:
            raise VideoError(f"{where}: {name} cannot be read ({error.strerror or error})") from error
        except ValueError as error:
            kind = "PNG of 8 bits" if is_png else "JPEG"
            raise VideoError(f"{where}: {name} is damaged or not a {kind} ({error}); extract it again") from error
        if gray and colorspace != "Gray":
            raise VideoError(f"{where}: {name} is in colour; flow must be gray levels, not a colour picture of it")
        if self.size == (0, 0):
            self._require_short_side(height, width)
            self.size = height, width
        if self.size != (height, width):
            first = f"the first frame {self.size[1]}x{self.size[0]}"
            raise VideoError(f"{where}: {name} is {width}x{height}, {first}; all pictures must have one size")
        return jpeg

    def _require_short_side(self, height: int, width: int) -> None:
        if self._spec and self._spec.flow.short_side != min(height, width):
            raise VideoError(
                f"{self._folder}: its pictures are {width}x{height}, but the store's short side is "
                f"{self._spec.flow.short_side} px; import them into a store of {min(height, width)} px"
            )


def _encode_png(content: bytes, quality: int) -> bytes:
    """Return a PNG as a JPEG, in gray levels if it has only those; transparency is dropped.

    Raises:
        ValueError: it cannot be decoded, or has more than 8 bits a channel.
    """
    png = np.frombuffer(content, np.uint8)
    picture = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if png.size else None
    if picture is None or picture.dtype != np.uint8:
        raise ValueError("no picture" if picture is None else f"{8 * picture.dtype.itemsize} bits")
    if picture.ndim == 2:
        return bytes(simplejpeg.encode_jpeg(picture[..., None], quality, "GRAY", "Gray"))
    bgr = np.ascontiguousarray(picture[..., :3])
    return bytes(simplejpeg.encode_jpeg(bgr, quality, "BGR", "444"))
