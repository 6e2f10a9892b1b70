"""Video files made with PyAV directly, so that reading is not tested against our own writer."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def ramp(count: int, height: int = 32, width: int = 48) -> list[NDArray[np.uint8]]:
    """Gray pictures, each brighter than the one before: the order can be read off."""
    return [np.full((height, width, 3), 20 + 200 * i // count, np.uint8) for i in range(count)]


def encode(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    ticks_ms: Sequence[int] | None = None,
    mux: dict[str, str] | None = None,
    format: str | None = None,
    **options: str,
) -> Path:
    """Encodes with PyAV directly, so that reading is not tested against our own writer."""
    with av.open(str(path), "w", format=format, options=mux or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = options
        if ticks_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks_ms is not None:
                frame.pts, frame.time_base = ticks_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


CLOCKWISE = {  # display matrices (a, b, c, d) of a clockwise turn, y down: (x, y) -> (a x + c y, b x + d y)
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix into the track header of an MP4, as telephones do."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value * 65536 for value in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
