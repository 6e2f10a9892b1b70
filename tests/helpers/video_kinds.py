"""Videos of many containers and codecs, for tests that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.video_files import encode

FRAMES = 60


@dataclass(frozen=True)
class VideoKind:
    """A way to encode a video.

    Attributes:
        file: name of the file; its ending chooses the container.
        codec: name of the encoder.
        starts: number of frames where decoding can start according to the packets; None if they do not tell.
        options: of the encoder.
    """

    file: str
    codec: str
    starts: int | None
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)


_GROUPS = {"g": "12"}
_X264 = _GROUPS | {"bf": "3", "b-adapt": "0", "sc_threshold": "0"}
_MPEG_B = _GROUPS | {"bf": "2", "sc_threshold": "1000000000"}
_X265 = "keyint=12:min-keyint=12:scenecut=0:log-level=none"
_HIDDEN = _GROUPS | {"auto-alt-ref": "1", "lag-in-frames": "10", "b": "200k"}

VIDEO_KINDS = {
    "h264 mp4": VideoKind("a.mp4", "libx264", 5, options=_X264),
    "h264 mov without B": VideoKind("a.mov", "libx264", 5, options=_X264 | {"bf": "0"}),
    "h264 mkv": VideoKind("a.mkv", "libx264", 5, options=_X264),
    "h264 ts": VideoKind("a.ts", "libx264", 5, options=_X264),
    "h264 flv": VideoKind("a.flv", "libx264", 5, options=_X264),
    "h264 avi": VideoKind("a.avi", "libx264", None, options=_X264),
    "h264 stream": VideoKind("a.h264", "libx264", None, options=_X264),
    "h264 one group": VideoKind("a.mp4", "libx264", 1, options=_X264 | {"g": "250"}),
    "h264 open groups": VideoKind("a.mp4", "libx264", 1, options=_X264 | {"x264-params": "open-gop=1"}),
    "h264 open groups ts": VideoKind("a.ts", "libx264", 1, options=_X264 | {"x264-params": "open-gop=1"}),
    "h264 intra refresh": VideoKind("a.mkv", "libx264", 1, options=_GROUPS | {"x264-params": "intra-refresh=1"}),
    "h264 interlaced": VideoKind("a.ts", "libx264", None, options=_X264 | {"flags": "+ildct+ilme"}),
    "hevc mp4 open groups": VideoKind("a.mp4", "libx265", 5, options={"x265-params": _X265}),
    "hevc ts": VideoKind("a.ts", "libx265", 5, options={"x265-params": _X265 + ":open-gop=0"}),
    "mpeg4 avi": VideoKind("a.avi", "mpeg4", 5, options=_GROUPS),
    "mpeg4 avi B": VideoKind("a.avi", "mpeg4", None, options=_MPEG_B),
    "mpeg4 mp4 B": VideoKind("a.mp4", "mpeg4", 6, options=_MPEG_B),
    "mpeg4 mkv B": VideoKind("a.mkv", "mpeg4", 6, options=_MPEG_B),
    "mpeg2 mpg B": VideoKind("a.mpg", "mpeg2video", 6, options=_MPEG_B),
    "mpeg2 ts B": VideoKind("a.ts", "mpeg2video", 6, options=_MPEG_B),
    "mpeg1 mpg B": VideoKind("a.mpg", "mpeg1video", 6, options=_MPEG_B),
    "vp8 webm": VideoKind("a.webm", "libvpx", 5, options=_HIDDEN),
    "vp9 webm": VideoKind("a.webm", "libvpx-vp9", 5, options=_HIDDEN),
    "av1 mkv": VideoKind("a.mkv", "libsvtav1", 5, options=_GROUPS | {"svtav1-params": "keyint=12"}),
    "theora ogv": VideoKind("a.ogv", "libtheora", 5, options=_GROUPS),
    "gif": VideoKind("a.gif", "gif", None, "rgb8"),
    "mjpeg avi": VideoKind("a.avi", "mjpeg", FRAMES, "yuvj420p"),
    "mjpeg stream": VideoKind("a.mjpeg", "mjpeg", FRAMES, "yuvj420p"),
    "png mov": VideoKind("a.mov", "png", FRAMES, "rgb24"),
    "huffyuv avi": VideoKind("a.avi", "huffyuv", FRAMES, "yuv422p"),
    "raw avi": VideoKind("a.avi", "rawvideo", FRAMES),
    "ffv1 mkv": VideoKind("a.mkv", "ffv1", 5, options=_GROUPS),
    "flv": VideoKind("a.flv", "flv", 5, options=_GROUPS),
    "h263 3gp": VideoKind("a.3gp", "h263", 5, options=_GROUPS),
    "msmpeg4 avi": VideoKind("a.avi", "msmpeg4", 5, options=_GROUPS),
    "msmpeg4v2 avi": VideoKind("a.avi", "msmpeg4v2", 5, options=_GROUPS),
    "wmv1 asf": VideoKind("a.asf", "wmv1", 5, options=_GROUPS),
    "wmv2 wmv": VideoKind("a.wmv", "wmv2", 5, options=_GROUPS),
}


def textured(count: int = FRAMES) -> list[NDArray[np.uint8]]:
    """Return pictures, 96 x 128, of a texture that moves by whole pixels, differently at each step."""
    rng = np.random.default_rng(0)
    big = rng.integers(0, 255, (30, 40, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    at = np.cumsum(rng.integers(0, 4, (count, 2)), axis=0) % (100, 150)
    return [np.ascontiguousarray(big[y : y + 96, x : x + 128]) for y, x in at]


def encode_kind(folder: Path, name: str, count: int = FRAMES) -> Path:
    """Write a textured video of a kind and return its path; skip the test if FFmpeg has no such encoder."""
    kind = VIDEO_KINDS[name]
    if kind.codec not in av.codecs_available:
        pytest.skip(f"FFmpeg was built without {kind.codec}")
    return encode(folder / kind.file, textured(count), codec=kind.codec, pix_fmt=kind.pix_fmt, **kind.options)


def write_unreadable(folder: Path) -> dict[str, str]:
    """Write videos that cannot be read, each for another reason; return their names and what their errors must say."""
    encode(folder / "unknown.avi", textured(12), codec="mpeg4")
    (folder / "unknown.avi").write_bytes((folder / "unknown.avi").read_bytes().replace(b"FMP4", b"ZZZZ"))
    key = {"encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    encode(folder / "encrypted.mp4", textured(12), mux={"encryption_scheme": "cenc-aes-ctr"} | key)
    encode(folder / "thin.mov", [np.zeros((1, 65535, 3), np.uint8)] * 12, codec="png", pix_fmt="rgb24")
    (folder / "text.mp4").write_text("not a video at all\n" * 40)
    return {
        "unknown.avi": "no decoder for its codec; convert it",
        "encrypted.mp4": "encrypted; decrypt it",
        "thin.mov": "crop the video",
        "text.mp4": "not a video",
    }
