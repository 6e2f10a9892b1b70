"""Read, probe and write videos."""

from stresnet.media.in_memory import video_in_memory
from stresnet.media.limits import Limits
from stresnet.media.motion_vectors import CODECS_WITH_VECTORS, MOTION_VECTOR
from stresnet.media.video import (
    VIDEO_EXTENSIONS,
    Frame,
    FrameReader,
    Video,
    VideoInfo,
    iter_frames,
    probe,
    read_video,
)
from stresnet.media.write import write_video

__all__ = [
    "CODECS_WITH_VECTORS",
    "MOTION_VECTOR",
    "VIDEO_EXTENSIONS",
    "Frame",
    "FrameReader",
    "Limits",
    "Video",
    "VideoInfo",
    "iter_frames",
    "probe",
    "read_video",
    "video_in_memory",
    "write_video",
]
