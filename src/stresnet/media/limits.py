"""How much a video may ask for, so that a small file cannot use up memory or time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stresnet.errors import VideoError


@dataclass(frozen=True)
class Limits:
    """The most that a video may have; one that has more is not read. The defaults are far above what videos need.

    Attributes:
        frame_pixels: pixels of a frame, as coded and as scaled; by default 8192 × 8192, twice those of an 8K video.
            Decoding takes up to about 12 bytes a pixel.
        frames: frames of a video; by default almost four days at 30 frames per second.
        seconds: length of a video, by the number and the mean rate of its frames; by default four days. If it is
            resampled, by the time of its last frame too, which a damaged file may give at random.
        decoded_bytes: bytes of all frames of a video that are decoded, before they are scaled; by default those of two
            days of Full HD. Such bytes cost processor time, not memory: few frames are held at a time.
        streams: streams in a file, of all kinds. From Matroska files, more are ignored instead.
        attachment_bytes: bytes attached to a Matroska file, such as fonts. FFmpeg and PyAV hold them four times.
        held_bytes: bytes of all frames of a video that is read into memory at once, by `read_video`.
    """

    frame_pixels: int = 1 << 26
    frames: int = 10_000_000
    seconds: float = 345_600.0
    decoded_bytes: int = 16 << 40
    streams: int = 128
    attachment_bytes: int = 128 << 20
    held_bytes: int = 16 << 30

    def require_seconds(self, path: Path, seconds: float) -> None:
        """Raise unless a video may be as long.

        Raises:
            VideoError: it is too long.
        """
        if seconds > self.seconds:
            raise VideoError(f"{path}: longer than {self.seconds:g} s; split the video")


DEFAULT_LIMITS = Limits()
