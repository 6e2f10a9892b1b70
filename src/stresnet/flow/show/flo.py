"""Optical flow in Middlebury's .flo files, one field each (Baker et al. 2011).

Little-endian throughout: the tag 202021.25 as float32 (the bytes ``PIEH``), width and height as int32, then u and v of
each pixel in turn as float32, row by row from the top. A vector with a component beyond ±1e9 is unknown: NaN here.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresnet.atomic import replacing
from stresnet.errors import FlowFileError

_TAG = struct.pack("<f", 202021.25)
_HEADER_BYTES = 12
_MOST_PX = 99_999  # of a side, as in Middlebury's own reader: more is no size but other bytes
_KNOWN_PX = 1e9
_UNKNOWN_PX = 1e10  # what Middlebury's code writes


def read_flo(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Returns the flow of a .flo file, (2, H, W) float32, pixels per frame, u right, v down.

    Both components are NaN where the file says that the flow is unknown; all others are the file's bits.

    Raises:
        FlowFileError: no such file, no .flo file (or one of a big-endian machine), impossible sizes, or bytes that
            are too few or too many for its size.
    """
    try:
        with open(path, "rb") as file:
            width, height = _read_header(path, file.read(_HEADER_BYTES))
            expected, found = _HEADER_BYTES + 8 * width * height, os.fstat(file.fileno()).st_size
            if found != expected:
                what = "is cut short" if found < expected else "has bytes after its end"
                raise FlowFileError(
                    f"{path}: {what}: {width}x{height} vectors take {expected} bytes, found {found}; make it again"
                )
            pairs = np.fromfile(file, "<f4")
    except OSError as error:
        raise FlowFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    flow = np.ascontiguousarray(pairs.reshape(height, width, 2).transpose(2, 0, 1), np.float32)
    flow[:, ~(np.abs(flow) <= _KNOWN_PX).all(axis=0)] = np.nan
    return flow


def write_flo(path: str | os.PathLike[str], flow: NDArray[np.float32]) -> None:
    """Writes one field as a .flo file, which appears under its name only when it is whole.

    Args:
        path: where to write; the content is .flo whatever the ending.
        flow: (2, H, W) float32, pixels per frame; NaN in either component means that the vector is unknown.

    Raises:
        FlowFileError: a flow of another shape or type, or with components beyond ±1e9 (which mean "unknown" in this
            format), or the file cannot be written.
    """
    if flow.dtype != np.float32 or flow.ndim != 3 or flow.shape[0] != 2 or not 0 < min(flow.shape) <= _MOST_PX:
        raise FlowFileError(f"{path}: a flow (2,H,W) float32 is expected, found {tuple(flow.shape)} {flow.dtype}")
    if (np.abs(flow) > _KNOWN_PX).any():
        raise FlowFileError(
            f"{path}: a .flo file cannot hold flow beyond ±{_KNOWN_PX:g} px; use NaN where it is unknown"
        )
    unknown = np.isnan(flow).any(axis=0)
    pairs = np.where(unknown, np.float32(_UNKNOWN_PX), flow).transpose(1, 2, 0).astype("<f4")
    height, width = flow.shape[1:]
    try:
        with replacing(Path(path)) as unfinished:
            unfinished.write_bytes(_TAG + struct.pack("<ii", width, height) + pairs.tobytes())
    except OSError as error:
        raise FlowFileError(f"{path}: cannot be written ({error.strerror or error})") from error


def _read_header(path: str | os.PathLike[str], header: bytes) -> tuple[int, int]:
    """Returns (width, height)."""
    tag = header[:4]
    if tag == _TAG[::-1]:
        raise FlowFileError(f"{path}: a .flo file of a big-endian machine; write it again in little-endian order")
    if tag != _TAG:
        raise FlowFileError(f"{path}: not a .flo file: it should begin with {_TAG!r}, found {tag!r}")
    if len(header) < _HEADER_BYTES:
        raise FlowFileError(
            f"{path}: is cut short: a header of {_HEADER_BYTES} bytes is expected, found {len(header)}; make it again"
        )
    width, height = struct.unpack_from("<ii", header, 4)
    if not (0 < width <= _MOST_PX and 0 < height <= _MOST_PX):
        raise FlowFileError(f"{path}: sides of 1 to {_MOST_PX} px are expected, found {width}x{height}; make it again")
    return width, height
