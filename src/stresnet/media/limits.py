"""How much a video may ask for, so that a small file cannot use up memory or time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The most that a video may have; one that has more is not read. The defaults are far above what videos need.

    Attributes:
        frame_pixels: pixels of a frame, as coded and as scaled; by default 8192 × 8192, twice those of an 8K video.
            Decoding takes up to about 12 bytes a pixel.
        frames: frames of a video; by default almost four days at 30 frames per second.
        streams: streams in a file, of all kinds. From Matroska files, more are ignored instead.
        attachment_bytes: bytes attached to a Matroska file, such as fonts. FFmpeg and PyAV hold them four times.
        held_bytes: bytes of all frames of a video that is read into memory at once, by `read_video`.
    """

    frame_pixels: int = 1 << 26
    frames: int = 10_000_000
    streams: int = 128
    attachment_bytes: int = 128 << 20
    held_bytes: int = 16 << 30


DEFAULT_LIMITS = Limits()
