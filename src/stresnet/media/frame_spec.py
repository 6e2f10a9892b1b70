"""Which frames of a video file are read, and what is done to those that were not made for a computer's screen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stresnet.errors import VideoError

_MAX_FPS = 1000.0


@dataclass(frozen=True)
class FrameSpec:
    """How the frames of a video file become those that are read.

    Attributes:
        stream: which video stream of the file, from 0 on; None for the one that players show.
        fps: frames per second, above 0 and at most 1000: at each multiple of 1/fps seconds since the first frame, the
            nearest one is read. None for all frames as they are.
        deinterlace: whether frames that are marked as interlaced, two half pictures taken one after the other, become
            whole pictures of the time of the first.
        tone_map: whether frames of high dynamic range (PQ, HLG) become those that an ordinary screen shows.
    """

    stream: int | None = None
    fps: float | None = None
    deinterlace: bool = True
    tone_map: bool = True

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= _MAX_FPS:
            raise VideoError(f"expected frames per second above 0 and at most {_MAX_FPS:g}, found {self.fps}")
        if self.stream is not None and self.stream < 0:
            raise VideoError(f"expected the number of a video stream, from 0 on, found {self.stream}")

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the default, as JSON types."""
        return {name: value for name, value in asdict(self).items() if value != getattr(AS_SHOWN, name)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FrameSpec:
        """Return the spec that :meth:`to_dict` wrote.

        Raises:
            VideoError: a key is unknown, or a value is not valid.
        """
        types: dict[str, tuple[type, ...]] = {"stream": (int,), "fps": (int, float)}
        types |= {"deinterlace": (bool,), "tone_map": (bool,)}
        for name, value in data.items():
            if type(value) not in types.get(name, ()):
                raise VideoError(f"expected frames by {', '.join(types)}, found {name}={value!r}")
        return cls(**data)


AS_SHOWN = FrameSpec()
"""The frames of the stream that players show, each once."""
