"""The sound of a video file, encoded for another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import OutputContainer

from stresnet.media.failures import reading
from stresnet.media.limits import DEFAULT_LIMITS
from stresnet.media.opening import open_video

_BITS_PER_SEC = 160_000


class Sound:
    """The sound of a video, added to a file along with its pictures."""

    def __init__(self, source: Path, from_sec: float, container: OutputContainer) -> None:
        """Add a stream of sound to a file that is being written, unless the source has none.

        Args:
            source: the video file.
            from_sec: time in it, since its first picture, that is time 0 of the file.
            container: the file.

        Raises:
            VideoError: the source cannot be read.
        """
        self._container = container
        with reading(source):
            self._source, video = open_video(source, DEFAULT_LIMITS)
            self._start_sec = from_sec + float((video.start_time or 0) * (video.time_base or 0))
        streams = self._source.streams.audio
        self._frames: Iterator[AudioFrame] = iter(())
        if streams:
            self._stream = container.add_stream("aac", rate=streams[0].rate)
            self._stream.bit_rate = _BITS_PER_SEC
            self._frames = self._decoded()
        self._next: AudioFrame | None = next(self._frames, None)

    def add_until(self, time_sec: float) -> None:
        """Add what is heard before a time, in seconds."""
        while self._next is not None and self._time_sec(self._next) < time_sec:
            self._container.mux(self._stream.encode(self._next))
            self._next = next(self._frames, None)

    def end(self) -> None:
        """Complete the stream, and close the source."""
        if self._source.streams.audio:
            self._container.mux(self._stream.encode(None))
        self._source.close()

    def _decoded(self) -> Iterator[AudioFrame]:
        """Yield frames in the format of the encoder, with times in the file; damaged ones are left out."""
        stream = self._source.streams.audio[0]
        resampler = AudioResampler(format="fltp", layout="stereo", rate=stream.rate)
        for packet in self._source.demux(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                for converted in resampler.resample(frame):
                    if converted.pts is not None and converted.time_base is not None:
                        converted.pts -= round(self._start_sec / converted.time_base)
                        if converted.pts >= 0:
                            yield converted

    @staticmethod
    def _time_sec(frame: AudioFrame) -> float:
        return float((frame.pts or 0) * (frame.time_base or 0))
