"""Open a video file: the only door to FFmpeg's readers, and the choice of the stream.

FFmpeg reads far more than videos. A playlist or script named ``x.mp4`` makes it read other files, or addresses in a
network; a name with ``%d`` makes it read the files so numbered. Here it may open one file, as one of the formats below.
None of them reads other files. Of streams it may open those by RTSP, a camera's device, and what Python reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from stresnet.errors import VideoError
from stresnet.media.encryption import DECRYPT, is_encrypted
from stresnet.media.failures import CONVERT, reason
from stresnet.media.limits import Limits
from stresnet.media.matroska import attachment_bytes

_VIDEO_FORMATS = (
    *("3gp", "apng", "asf", "av1", "avi", "cavsvideo", "dirac", "dnxhd", "dv", "flic", "flv", "gif", "gxf", "h261"),
    *("h263", "h264", "hevc", "ivf", "kux", "live_flv", "m4v", "matroska", "mjpeg", "mov", "mpeg", "mpegts"),
    *("mpegvideo", "mpjpeg", "mxf", "nsv", "nut", "nuv", "obu", "ogg", "rm", "smjpeg", "swf", "vc1", "vc1test"),
    *("vvc", "wtv", "yuv4mpegpipe"),
)
_SOUND_FORMATS = ("aac", "aiff", "ape", "caf", "flac", "mp3", "wav", "wv")  # to say what they are

_ONE_FILE = {
    "format_whitelist": ",".join(_VIDEO_FORMATS + _SOUND_FORMATS),
    "protocol_whitelist": "file",
    "enable_drefs": "0",  # QuickTime's references to other files
}

_STREAMS = {
    "v4l2": {"protocol_whitelist": "file"},
    "rtsp": {"protocol_whitelist": "rtsp,rtp,tcp,tls", "rtsp_transport": "tcp", "allowed_media_types": "video"},
    "mpjpeg": {"protocol_whitelist": "none"},
}
"""FFmpeg's options for formats of streams: what each may open beside itself."""

# PyAV 19 always escapes metadata that is not UTF-8. PyAV 18 raises an error unless asked to replace it.
_READING: dict[str, Any] = {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def open_video(path: Path, limits: Limits, stream_number: int | None = None) -> tuple[InputContainer, VideoStream]:
    """Return an open file and its video stream: one by its number, or the one that players show, see `_choose`.

    Raises:
        VideoError: the file does not exist, is empty, encrypted or no video, has no video stream that can be decoded,
            or not the one that is asked for, or exceeds a limit.
        Exception: see `failures.reading`.
    """
    if not path.exists():
        raise VideoError(f"{path}: no such file; check its name")
    if not path.is_file():
        raise VideoError(f"{path}: expected a video file, found a folder or a device; name a file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes); copy or download it again")
    if is_encrypted(path):
        raise VideoError(f"{path}: {DECRYPT}")
    if (attached := attachment_bytes(path)) > limits.attachment_bytes:
        raise VideoError(
            f"{path}: {attached >> 20} MiB are attached to it, more than {limits.attachment_bytes >> 20}; remove them, "
            "such as with mkvpropedit --delete-attachment"
        )
    pixels = {"max_pixels": str(limits.frame_pixels)}
    try:
        # Without "file:", FFmpeg would take a name with a colon for a URL.
        container = av.open(
            f"file:{path}",
            container_options=_ONE_FILE | {"max_streams": str(limits.streams)},
            options=pixels,  # of the decoders, which look at the first frames
            **_READING,
        )
    except (av.error.InvalidDataError, EOFError) as error:
        raise VideoError(
            f"{path}: not a video, or its end is missing ({reason(error)}); copy or download it again"
        ) from error
    except av.error.ArgumentError as error:  # what FFmpeg raises for a format that is not listed
        raise VideoError(
            f"{path}: expected a video, found a picture, a playlist, another format or a damaged header; "
            f"name a video, or {CONVERT}"
        ) from error
    stream = _choose(container) if stream_number is None else _numbered(container, stream_number, path)
    if stream is not None and stream.codec_context is not None:
        # One thread is as fast at these sizes, and worker processes already use all cores.
        stream.thread_count = 1
        stream.options = {**pixels}  # a size may change midway
        if stream.width * stream.height > limits.frame_pixels:
            container.close()
            raise VideoError(
                f"{path}: frames of {stream.width}×{stream.height} px; expected at most {limits.frame_pixels} px; "
                "scale the video down"
            )
        return container, stream
    found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    container.close()
    if stream is not None:
        raise VideoError(f"{path}: this build of FFmpeg has no decoder for its codec; {CONVERT}")
    raise VideoError(f"{path}: no video stream (found: {found}); choose a video file")


def _numbered(container: InputContainer, number: int, path: Path) -> VideoStream:
    count = len(container.streams.video)
    if number >= count:
        container.close()
        found = f"streams 0 to {count - 1}" if count > 1 else f"{count or 'no'} video stream"
        raise VideoError(f"{path}: expected video stream {number}, found {found}; choose one of them")
    return container.streams.video[number]


def open_stream(
    source: str | Any, format: str | None, name: str, limits: Limits, timeout_sec: float
) -> tuple[InputContainer, VideoStream]:
    """Return an open stream that is no file, and its video stream, see `_choose`.

    Args:
        source: a camera's device, an RTSP URL, or an object with a method ``read``.
        format: ``v4l2``, ``rtsp`` or another of FFmpeg's formats; by default one of those of files, as the data say.
        name: names the source in error messages.
        limits: how much it may ask for.
        timeout_sec: how long a device or URL may send nothing.

    Raises:
        VideoError: it has no video stream that can be decoded.
        Exception: whatever PyAV raises if it cannot be opened.
    """
    options = _STREAMS.get(format or "", {"format_whitelist": ",".join(_VIDEO_FORMATS), "protocol_whitelist": "none"})
    pixels = {"max_pixels": str(limits.frame_pixels)}
    container = av.open(
        source,
        format=format,
        container_options=options | {"max_streams": str(limits.streams), "analyzeduration": "1000000"},
        options=pixels,
        timeout=timeout_sec if isinstance(source, str) else None,
        buffer_size=4096,  # of a source that is read here: more would be waited for
        **_READING,
    )
    stream = _choose(container)
    if stream is None or stream.codec_context is None:
        container.close()
        raise VideoError(f"{name}: no video stream that can be decoded")
    stream.thread_count = 1
    stream.options = {**pixels}
    return container, stream


def _choose(container: InputContainer) -> VideoStream | None:
    """Return the video stream that players show, or None if there is none.

    It is the one that FFmpeg takes for the best, by default marks and the number of pictures. Cover pictures and
    thumbnails are passed over, as is what has a single picture or no decoder if there is something better.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
    best = container.streams.best("video")
    return max(
        streams,
        key=lambda stream: (
            stream.codec_context is not None,
            stream.frames != 1,
            stream is best,
            bool(stream.disposition & Disposition.default),
        ),
        default=None,
    )
