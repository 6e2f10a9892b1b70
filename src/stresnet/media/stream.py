"""Read streams, whose frames come as time passes: cameras, RTSP, HTTP, and standard input."""

from __future__ import annotations

import errno
import math
import re
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.error import HTTPError, URLError

import av
from av.video.frame import VideoFrame

from stresnet.errors import VideoError
from stresnet.media.decode import Clock, Converter, VideoFile
from stresnet.media.deinterlacing import deinterlaced
from stresnet.media.failures import CONVERT, reason
from stresnet.media.frame_spec import AS_SHOWN, FrameSpec
from stresnet.media.http_stream import HttpStream, without_password
from stresnet.media.limits import Limits
from stresnet.media.opening import open_stream
from stresnet.media.resampling import resampled
from stresnet.media.video import Frame, require_short_side

STDIN = "-"
"""The source that stands for standard input."""

SILENCE_SEC = 10.0
"""How long a stream may send nothing."""

NO_PICTURE_SEC = 30.0
"""How long a stream may send no picture that can be decoded: until the next key frame, many seconds may pass."""

_UNLIMITED = Limits(frames=1 << 62)


def is_camera(source: str) -> bool:
    """Return whether a source is a camera: its number, or its device."""
    return source.isdecimal() or source.startswith("/dev/")


def is_stream(source: str) -> bool:
    """Return whether a source goes on in real time: a camera or a URL, rather than a file or standard input."""
    return is_camera(source) or re.match("(rtsps?|https?)://", source, re.IGNORECASE) is not None


class StreamReader(Iterator[Frame]):
    """Iterator over the frames of a stream from now on, upright, scaled as `iter_frames` does.

    Its times are those of the stream; of MJPEG by HTTP, which has none, those of arrival.

    Attributes:
        name: the source, without a password.
        fps: frames per second that are read, as far as the stream states it; 25 if it does not.
        ends: whether the end of the stream is its regular end, rather than an interruption.
        size: (width, height) in px of the newest frame before scaling; it may change.
    """

    def __init__(
        self,
        source: str,
        *,
        short_side: int | None = None,
        spec: FrameSpec = AS_SHOWN,
        silence_sec: float = SILENCE_SEC,
        no_picture_sec: float = NO_PICTURE_SEC,
    ) -> None:
        """Open a stream and wait for its first picture.

        Args:
            source: the number of a camera, its device such as ``/dev/video0``, a URL that begins with ``rtsp://`` or
                ``http://``, or ``-`` for standard input.
            short_side, spec: as in `iter_frames`.
            silence_sec, no_picture_sec: see `SILENCE_SEC` and `NO_PICTURE_SEC`.

        Raises:
            VideoError: there is no such stream, it is no video, or sends nothing.
        """
        require_short_side(short_side)
        self.name = _shown(source)
        self._short_side, self._spec = short_side, spec
        self._silence_sec, self._no_picture_sec = silence_sec, no_picture_sec
        self._waiting_since = time.monotonic()
        self._closing = ExitStack()
        with ExitStack() as on_error:
            on_error.callback(self.close)
            try:
                self._file = self._open(source)
                coded = deinterlaced(self._decoded()) if spec.deinterlace else self._decoded()
                first = next(coded, None)
            except Exception as error:
                raise self._failure(error) from error
            if first is None:
                raise VideoError(f"{self.name}: it ends before the first picture; check the source")
            self._fit(first)
            on_error.pop_all()
        self.fps = spec.fps or self._file.fps
        self._clock = _arrivals() if self._file.format == "mpjpeg" else Clock(self._file)
        self._frames = self._read(chain([first], coded))

    def __next__(self) -> Frame:
        """Return the next frame.

        Raises:
            VideoError: the stream is interrupted.
        """
        try:
            return next(self._frames)
        except StopIteration:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the stream."""
        self._closing.close()

    def __enter__(self) -> StreamReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, source: str) -> _StreamFile:
        self.ends = False
        body: HttpStream | _Pipe | None = None
        address, format = source, None
        if source == STDIN:
            body, self.ends = _Pipe(sys.stdin.buffer), True
            self._silence_sec = self._no_picture_sec = math.inf  # whoever fills the pipe may take time
        elif is_camera(source):
            address, format = (f"/dev/video{source}" if source.isdecimal() else source), "v4l2"
        elif source.lower().startswith("rtsp"):
            format = "rtsp"
        else:
            body = HttpStream(source, self._silence_sec)
            self._closing.callback(body.close)
            self.ends = body.ends
            format = "mpjpeg" if body.content_type == "multipart/x-mixed-replace" else None
        opened = open_stream(body or address, format, self.name, _UNLIMITED, self._silence_sec)
        self._closing.callback(opened[0].close)
        return _StreamFile(self.name, self._spec, *opened)

    def _decoded(self) -> Generator[VideoFrame]:
        """Yield the coded pictures. Skip what cannot be decoded, such as all that precedes the first key frame."""
        for packet in self._file.demux():
            try:
                pictures = packet.decode()
            except av.FFmpegError:
                pictures = []
            for picture in pictures:
                yield picture
                self._waiting_since = time.monotonic()
            if time.monotonic() - self._waiting_since > self._no_picture_sec:
                raise VideoError(f"{self.name}: no picture can be decoded for {self._no_picture_sec:g} s; check it")

    def _read(self, coded: Iterator[VideoFrame]) -> Iterator[Frame]:
        timed = ((picture, self._clock(picture)) for picture in coded)
        for picture, times_sec in resampled(timed, self._spec.fps):
            if times_sec:
                if (picture.width, picture.height) != self._coded_size:
                    self._fit(picture)
                rgb = self._converter.rgb(picture)
                yield from (Frame(rgb, time_sec) for time_sec in times_sec)

    def _fit(self, picture: VideoFrame) -> None:
        """Scale pictures of this size from now on."""
        self._converter = Converter(self._file, picture, self._short_side)
        self._coded_size = picture.width, picture.height
        self.size = self._converter.width, self._converter.height

    def _failure(self, error: Exception) -> VideoError:
        """Return the failure of the stream that an exception stands for."""
        if isinstance(error, VideoError):
            return error
        if isinstance(error, URLError) and isinstance(error.reason, Exception) and not isinstance(error, HTTPError):
            error = error.reason
        silent = isinstance(error, TimeoutError | av.error.ExitError | av.error.TimeoutError)
        if silent or time.monotonic() - self._waiting_since >= self._silence_sec:
            return VideoError(f"{self.name}: nothing came for {self._silence_sec:g} s; check that it is on")
        return VideoError(f"{self.name}: {_explain(error, self.name)}")


class _StreamFile(VideoFile):
    """A stream in place of a file."""

    def __init__(self, name: str, spec: FrameSpec, container: Any, stream: Any) -> None:
        self.path, self.spec = Path(name), spec
        self.limits = _UNLIMITED
        self.truncated = False
        self._container, self.stream = container, stream

    def demux(self) -> Iterator[Any]:
        """Return an iterator over the packets of the stream."""
        return cast(Iterator[Any], self._container.demux(self.stream))


def _arrivals() -> Callable[[VideoFrame], float]:
    """Return a clock by which pictures are shown when they come: FFmpeg gives those of MJPEG 25 a second."""
    began_sec = time.monotonic()
    return lambda _: time.monotonic() - began_sec


class _Pipe:
    """A pipe, as a file for PyAV that cannot seek and returns what has come."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = cast(Any, pipe)

    def read(self, count: int) -> bytes:
        """Return what has come, up to `count` bytes; empty at the end."""
        return cast(bytes, self._pipe.read1(count))


def _shown(source: str) -> str:
    """Return the name of a source, without a password.

    Raises:
        VideoError: it is an invalid URL.
    """
    try:
        return without_password(source) if "://" in source else source
    except ValueError as error:
        raise VideoError(f"the URL is invalid ({error}); check it") from None


def _explain(error: Exception, name: str) -> str:
    """Return why a stream cannot be read, and what to do."""
    status = error.code if isinstance(error, HTTPError) else 0
    if status in (401, 403) or isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return "it asks for another user name and password; give them before the host, as in NAME:PASSWORD@host"
    if status == 404 or isinstance(error, av.error.HTTPNotFoundError):
        return "the server has no such stream; check the URL"
    if status:
        return f"the server answers {status} ({reason(error)})"
    if is_camera(name):
        return _explain_camera(error)
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; check host and port"
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError | EOFError):
        return f"not a video that can be read as it comes ({reason(error)}); {CONVERT}"
    if isinstance(error, OSError):
        return f"cannot be reached, or was interrupted ({reason(error)}); check the address and the network"
    return f"cannot be read ({reason(error)})"


def _explain_camera(error: Exception) -> str:
    """Return why a camera cannot be read, and what to do."""
    code = getattr(error, "errno", None)
    if code == errno.ENOENT:
        cameras = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        return f"no such camera; found: {cameras}"
    if code == errno.EBUSY:
        return "another program uses this camera; close it"
    if code in (errno.EACCES, errno.EPERM):
        return "this camera may not be read; add yourself to the group video"
    if code in (errno.ENODEV, errno.EIO):
        return "the camera was unplugged"
    if isinstance(error, av.error.DemuxerNotFoundError | ValueError):
        return "cameras can be read on Linux only; give the URL of one that sends RTSP or HTTP"
    return f"not a camera that can be read ({reason(error)})"
