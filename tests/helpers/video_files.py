"""Video files encoded with PyAV directly, so that reading does not depend on `write_video`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
from av.video.frame import PictureType
from numpy.typing import NDArray

from stresnet.errors import VideoError
from stresnet.media.decode import VideoFile
from stresnet.media.frame_spec import AS_SHOWN
from stresnet.media.limits import DEFAULT_LIMITS, Limits
from stresnet.media.selected import CountedFrames


def ramp(count: int, height: int = 32, width: int = 48) -> list[NDArray[np.uint8]]:
    """Return gray pictures of increasing brightness, which shows their order."""
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
    """Encode pictures to a file and return its path. Further options go to the codec."""
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


# Display matrices (a, b, c, d) by clockwise degrees, y down: (x, y) -> (a x + c y, b x + d y).
CLOCKWISE = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the track header of an MP4, as phones do."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value * 65536 for value in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def with_exif(path: Path, picture: NDArray[np.uint8], orientation: int, count: int = 12) -> Path:
    """Write a video of JPEGs with EXIF, as some cameras do, which says how the picture must be turned."""
    entry = struct.pack(">HHIHH", 0x112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry + bytes(4)
    jpeg = simplejpeg.encode_jpeg(picture, 95, "RGB", "420")
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuvj420p"
        for index in range(count):
            packet = av.Packet(jpeg)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            packet.pts = packet.dts = index
            container.mux(packet)
    return path


def counted_frames(path: Path, short_side: int | None = None, limits: Limits = DEFAULT_LIMITS) -> CountedFrames:
    """Return the reader that decodes a whole video first."""
    return CountedFrames(path, partial(VideoFile, path, AS_SHOWN, limits), short_side)


def picture_types(path: Path) -> str:
    """Return the types of a video's pictures in display order, such as IBBP."""
    with av.open(str(path)) as container:
        return "".join(PictureType(frame.pict_type).name for frame in container.decode(video=0))


def one_line(error: pytest.ExceptionInfo[VideoError], path: Path) -> str:
    """Return the message of an error, which must be one line and name the file."""
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message
