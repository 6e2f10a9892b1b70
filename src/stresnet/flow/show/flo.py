"""Read and write optical flow as Middlebury .flo files, one field each (Baker et al. 2011).

Little-endian throughout: the tag 202021.25 as float32 (the bytes ``PIEH``), width and height as int32, then u and v of
each pixel as float32, row by row from the top. A vector with a component beyond ±1e9 is unknown; here it is NaN.
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
_MAX_SIDE_PX = 99_999  # as in Middlebury's reader: larger values are not a size
_KNOWN_PX = 1e9
_UNKNOWN_PX = 1e10  # what Middlebury's code writes


def read_flo(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Return the flow of a .flo file, (2, H, W) float32, pixels per frame, u right, v down.

    Both components are NaN where the file marks the flow as unknown; all others are the bits in the file.

    Raises:
        FlowFileError: the file does not exist, is not a .flo file or is big-endian, has an impossible size, or has too
            few or too many bytes for its size.
    """
    try:
        with open(path, "rb") as file:
            width, height = _read_header(path, file.read(_HEADER_BYTES))
            expected, found = _HEADER_BYTES + 8 * width * height, os.fstat(file.fileno()).st_size
            if found != expected:
                what = "is truncated" if found < expected else "has bytes after its end"
                raise FlowFileError(
                    f"{path}: {what}: {width}x{height} vectors take {expected} bytes, found {found}; create it again"
                )
            pairs = np.fromfile(file, "<f4")
    except OSError as error:
        raise FlowFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    flow = np.ascontiguousarray(pairs.reshape(height, width, 2).transpose(2, 0, 1), np.float32)
    flow[:, ~(np.abs(flow) <= _KNOWN_PX).all(axis=0)] = np.nan
    return flow


def write_flo(path: str | os.PathLike[str], flow: NDArray[np.float32]) -> None:
    """Write one field as a .flo file, which appears under its name only when it is complete.

    Args:
        path: the file; the format is .flo whatever the ending.
        flow: (2, H, W) float32, pixels per frame; NaN in either component marks the vector as unknown.

    Raises:
        FlowFileError: the flow has another shape or type, or components beyond ±1e9 (which mean "unknown" in this
            format), or the file cannot be written.
    """
    if flow.dtype != np.float32 or flow.ndim != 3 or flow.shape[0] != 2 or not 0 < min(flow.shape) <= _MAX_SIDE_PX:
        raise FlowFileError(f"{path}: expected a flow (2,H,W) float32, found {tuple(flow.shape)} {flow.dtype}")
    if (np.abs(flow) > _KNOWN_PX).any():
        raise FlowFileError(f"{path}: a .flo file cannot hold flow beyond ±{_KNOWN_PX:g} px; use NaN for unknown flow")
    unknown = np.isnan(flow).any(axis=0)
    pairs = np.where(unknown, np.float32(_UNKNOWN_PX), flow).transpose(1, 2, 0).astype("<f4")
    height, width = flow.shape[1:]
    try:
        with replacing(Path(path)) as unfinished:
            unfinished.write_bytes(_TAG + struct.pack("<ii", width, height) + pairs.tobytes())
    except OSError as error:
        raise FlowFileError(f"{path}: cannot be written ({error.strerror or error})") from error


def _read_header(path: str | os.PathLike[str], header: bytes) -> tuple[int, int]:
    """Return (width, height)."""
    tag = header[:4]
    if tag == _TAG[::-1]:
        raise FlowFileError(f"{path}: a big-endian .flo file; write it in little-endian order")
    if tag != _TAG:
        raise FlowFileError(f"{path}: not a .flo file: expected {_TAG!r} at its start, found {tag!r}")
    if len(header) < _HEADER_BYTES:
        raise FlowFileError(
            f"{path}: is truncated: expected a header of {_HEADER_BYTES} bytes, found {len(header)}; create it again"
        )
    width, height = struct.unpack_from("<ii", header, 4)
    if not (0 < width <= _MAX_SIDE_PX and 0 < height <= _MAX_SIDE_PX):
        raise FlowFileError(
            f"{path}: expected sides of 1 to {_MAX_SIDE_PX} px, found {width}x{height}; create it again"
        )
    return width, height
