"""Turn whatever PyAV and FFmpeg raise while a video is read into the failure of that video, with fitting advice.

PyAV raises not only its own errors: a frame with side data that it cannot name is a ValueError, a stream that appears
midway an IndexError, a stream without decoder an AttributeError. So everything counts.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.codec.codec import UnknownCodecError

from stresnet.errors import StresnetError, VideoError

CONVERT = "convert it, such as to MP4 with H.264"
"""Advice for a file that is sound but not supported."""

_UNSUPPORTED = (
    av.error.DecoderNotFoundError,
    av.error.DemuxerNotFoundError,
    av.error.PatchWelcomeError,
    av.error.ExperimentalError,
    av.error.NotImplementedError,
    UnknownCodecError,
)

_ADVICE = {
    errno.EMFILE: "raise the limit of open files, such as with ulimit -n 4096",
    errno.ENFILE: "close other programs: the system has too many open files",
    errno.EACCES: "check its permissions",
}


class IndexMismatchError(Exception):
    """Decoding gave something else than the index of packets announced."""


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise a VideoError that names the file for any exception of the block, except for those of this package."""
    try:
        yield
    except (StresnetError, IndexMismatchError):
        raise
    except Exception as error:
        raise VideoError(f"{os.fspath(path)}: {explain(error)}") from error


def explain(error: Exception) -> str:
    """Return what is wrong with a file that raised an error, and what to do."""
    if isinstance(error, _UNSUPPORTED):
        return f"it needs what this build of FFmpeg does not support ({reason(error)}); {CONVERT}"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is, or has more streams than allowed; convert it to a smaller file"
    if isinstance(error, FileNotFoundError):
        return "no such file; check its name"
    if isinstance(error, OSError) and (error.errno in _ADVICE or not isinstance(error, av.FFmpegError)):
        # FFmpeg raises others for damaged files, too.
        advice = _ADVICE.get(error.errno or 0, "check its permissions and its disk")
        return f"cannot be read ({reason(error)}); {advice}"
    return f"damaged ({reason(error)}); copy or download it again"


def reason(error: BaseException) -> str:
    """Return the message of an error as one line; errors of other libraries than FFmpeg begin with their class."""
    text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return " ".join(text.split())
