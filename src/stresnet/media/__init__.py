"""Decode, describe and write videos."""

from stresnet.media.video import (
    VIDEO_EXTENSIONS,
    Frame,
    FrameReader,
    Video,
    VideoInfo,
    iter_frames,
    probe,
    read_video,
    write_video,
)

__all__ = [
    "VIDEO_EXTENSIONS",
    "Frame",
    "FrameReader",
    "Video",
    "VideoInfo",
    "iter_frames",
    "probe",
    "read_video",
    "write_video",
]
