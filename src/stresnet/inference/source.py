"""What `Recognizer` takes for a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stresnet.data.prepared_video import PreparedVideo
from stresnet.media import Video, video_in_memory

if TYPE_CHECKING:
    import torch

Source: TypeAlias = (
    "str | os.PathLike[str] | Video | PreparedVideo | NDArray[np.uint8] | torch.Tensor | Sequence[NDArray[np.uint8]]"
)
"""A video: a file or URL; a segment of one, in seconds, such as ``match.mp4#t=10,20``; a `Video` in memory, such as
`stresnet.media.read_video` returns; its frames, (T,H,W,3) uint8, RGB; or a prepared video, see `Recognizer.wanted`."""


def opened(video: Source, fps: float) -> str | Path | Video | PreparedVideo:
    """Return a path, or a video in memory or prepared.

    Raises:
        VideoError: it is neither a path nor frames.
    """
    if isinstance(video, Video | PreparedVideo | str):
        return video
    return Path(video) if isinstance(video, os.PathLike) else video_in_memory(video, fps)
